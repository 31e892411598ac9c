//! TCP segments of packets.

use std::net::{IpAddr, SocketAddr};

use etherparse::{EtherType, LaxNetSlice, LaxSlicedPacket, TransportSlice};

/// A TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // The flags of TCP.
pub(crate) struct Segment<'a> {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) sequence: u32,
    /// The acknowledgment number, if it is one.
    pub(crate) ack: Option<u32>,
    pub(crate) syn: bool,
    pub(crate) fin: bool,
    pub(crate) rst: bool,
    pub(crate) payload: &'a [u8],
    /// Bytes of the payload that were not captured.
    pub(crate) cut: u32,
}

/// Why a packet has no segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoSegment {
    /// It is of another protocol, or too short.
    Other,
    /// It is a fragment of an IP packet.
    Fragment,
    /// The link type is not decoded.
    Link,
}

impl<'a> Segment<'a> {
    /// The segment in a packet of this link type.
    pub(crate) fn find(link: i32, data: &'a [u8]) -> Result<Self, NoSegment> {
        let ip = |header: usize| LaxSlicedPacket::from_ip(data.get(header..)?).ok();
        let cooked = |protocol: usize, header: usize| {
            let protocol = EtherType(u16::from_be_bytes(*data.get(protocol..)?.first_chunk()?));
            Some(LaxSlicedPacket::from_ether_type(protocol, data.get(header..)?))
        };
        let packet = match link {
            // NULL and LOOP: the address family, in some byte order.
            0 | 108 => ip(4),
            // ETHERNET.
            1 => LaxSlicedPacket::from_ethernet(data).ok(),
            // RAW, by its numbers on several systems, IPV4 and IPV6.
            12 | 14 | 101 | 228 | 229 => ip(0),
            // LINUX_SLL and LINUX_SLL2.
            113 => cooked(14, 16),
            276 => cooked(0, 20),
            _ => return Err(NoSegment::Link),
        };
        let packet = packet.ok_or(NoSegment::Other)?;
        // The packet has `len` bytes, its header included, and others were captured.
        let cut = |len: usize, captured: usize| u32::try_from(len.saturating_sub(captured)).unwrap_or(0);
        let (from, to, cut): (IpAddr, IpAddr, u32) = match &packet.net {
            Some(LaxNetSlice::Ipv4(ip)) => {
                let header = ip.header();
                let captured = header.slice().len() + ip.payload().payload.len();
                let cut = cut(header.total_len().into(), captured);
                (header.source_addr().into(), header.destination_addr().into(), cut)
            }
            Some(LaxNetSlice::Ipv6(ip)) => {
                let header = ip.header();
                let cut = cut(header.payload_length().into(), ip.payload().payload.len());
                (header.source_addr().into(), header.destination_addr().into(), cut)
            }
            _ => return Err(NoSegment::Other),
        };
        if packet.net.as_ref().and_then(LaxNetSlice::ip_payload_ref).is_some_and(|ip| ip.fragmented) {
            return Err(NoSegment::Fragment);
        }
        let Some(TransportSlice::Tcp(tcp)) = packet.transport else { return Err(NoSegment::Other) };
        Ok(Self {
            from: (from, tcp.source_port()).into(),
            to: (to, tcp.destination_port()).into(),
            sequence: tcp.sequence_number(),
            ack: tcp.ack().then(|| tcp.acknowledgment_number()),
            syn: tcp.syn(),
            fin: tcp.fin(),
            rst: tcp.rst(),
            payload: tcp.payload(),
            cut,
        })
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    fn ip(v6: bool) -> Vec<u8> {
        let builder = if v6 {
            PacketBuilder::ipv6([1; 16], [2; 16], 9)
        } else {
            PacketBuilder::ipv4([1; 4], [2; 4], 9)
        };
        let mut packet = Vec::new();
        builder.tcp(5, 6, 7, 8).syn().ack(9).write(&mut packet, b"abc").unwrap();
        packet
    }

    #[test]
    fn segments_are_found_behind_every_link_layer() {
        for v6 in [false, true] {
            let protocol = if v6 { [0x86, 0xdd] } else { [0x08, 0x00] };
            let mut ethernet = [&[0; 12][..], &protocol, &ip(v6)].concat();
            let vlan = [&[0; 12][..], &[0x81, 0, 0, 1], &protocol, &ip(v6)].concat();
            // Padding of short frames.
            ethernet.extend([0; 9]);
            let sll = [&[0; 14][..], &protocol, &ip(v6)].concat();
            let sll2 = [&protocol[..], &[0; 18], &ip(v6)].concat();
            let null = [&[2, 0, 0, 0][..], &ip(v6)].concat();
            for (link, packet) in [
                (1, ethernet),
                (1, vlan),
                (113, sll),
                (276, sll2),
                (0, null.clone()),
                (108, null),
                (101, ip(v6)),
            ] {
                let segment = Segment::find(link, &packet).unwrap();
                assert_eq!((segment.from.port(), segment.to.port(), segment.sequence), (5, 6, 7), "{link}");
                assert_eq!((segment.from.is_ipv6(), segment.syn, segment.fin), (v6, true, false));
                assert_eq!((segment.ack, segment.payload), (Some(9), &b"abc"[..]), "{link}");
                assert_eq!(segment.cut, 0);
                for len in 0..packet.len() {
                    let Ok(part) = Segment::find(link, &packet[..len]) else { continue };
                    assert_eq!(part.payload.len() + part.cut as usize, 3, "{link} {len}");
                }
            }
        }
        assert_eq!(Segment::find(147, &ip(false)), Err(NoSegment::Link));
        assert_eq!(Segment::find(101, b""), Err(NoSegment::Other));
    }

    #[test]
    fn fragments_of_ip_are_told_from_segments() {
        let mut packet = ip(false);
        packet[6] = 0x20;
        assert_eq!(Segment::find(101, &packet), Err(NoSegment::Fragment));
    }

    #[test]
    fn nothing_panics_whatever_the_packet_holds() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..50_000 {
            let mut packet = [&[0; 12][..], &[0x08, 0], &ip(false)].concat();
            for _ in 0..3 {
                let at = random.usize(..packet.len());
                packet[at] = random.u8(..);
            }
            let link = *random.choice(&[0, 1, 101, 113, 276]).unwrap();
            let _ = Segment::find(link, &packet[..random.usize(..=packet.len())]);
        }
    }
}
