//! Packets of a capture: pcap and pcapng, in any pieces.

use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use pcap_parser::{
    Block, Linktype, PcapHeader, nom::Err as Incomplete, parse_block_be, parse_block_le, parse_pcap_frame,
    parse_pcap_frame_be, parse_pcap_header, traits::PcapNGPacketBlock as _,
};

/// The longest packet, or block of pcapng, in bytes. libpcap captures up to 256 KiB of a packet.
const BLOCK_MAX: usize = 1 << 20;

/// Interfaces of a section of pcapng.
const INTERFACES: usize = 1_024;

/// What a file is by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Pcap,
    Pcapng,
}

impl Kind {
    /// By the first four bytes.
    pub(super) const fn of(magic: [u8; 4]) -> Option<Self> {
        match u32::from_le_bytes(magic) {
            0xa1b2_c3d4 | 0xa1b2_3c4d | 0xd4c3_b2a1 | 0x4d3c_b2a1 => Some(Self::Pcap),
            0x0a0d_0d0a => Some(Self::Pcapng),
            _ => None,
        }
    }
}

/// A captured packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Packet<'a> {
    /// Since 1970.
    pub(super) time: Duration,
    /// The type of its link layer header.
    pub(super) link: i32,
    pub(super) data: &'a [u8],
    /// Less was captured than the packet had.
    pub(super) is_cut: bool,
}

/// Takes a capture apart.
#[derive(Debug)]
pub(super) struct Capture {
    kind: Kind,
    buffer: BytesMut,
    /// Bytes before those of the buffer.
    offset: u64,
    header: Option<PcapHeader>,
    big_endian: bool,
    interfaces: Vec<Interface>,
}

#[derive(Clone, Copy, Debug)]
struct Interface {
    link: i32,
    /// Units of time stamps in a second.
    resolution: u64,
    /// Seconds that are added to time stamps.
    offset: i64,
}

impl Capture {
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            kind,
            buffer: BytesMut::new(),
            offset: 0,
            header: None,
            big_endian: false,
            interfaces: Vec::new(),
        }
    }

    /// Adds bytes of the file, and calls `each` with the packets that are complete.
    ///
    /// # Errors
    /// The capture is malformed: where, and that.
    pub(super) fn push(&mut self, bytes: &[u8], mut each: impl FnMut(Packet<'_>)) -> Result<(), String> {
        self.buffer.extend_from_slice(bytes);
        let whole = self.buffer.split();
        let mut rest = &whole[..];
        let result = loop {
            match self.step(rest, &mut each) {
                Ok(Some(next)) => {
                    self.offset += (rest.len() - next.len()) as u64;
                    rest = next;
                }
                Ok(None) if rest.len() > BLOCK_MAX => {
                    break Err(self.malformed(&format!("longer than {BLOCK_MAX} bytes")));
                }
                Ok(None) => break Ok(()),
                Err(what) => break Err(self.malformed(&what)),
            }
        };
        let used = whole.len() - rest.len();
        self.buffer = whole;
        self.buffer.advance(used);
        result
    }

    /// The end of the file.
    ///
    /// # Errors
    /// It is in the middle of a packet.
    pub(super) fn finish(&self) -> Result<(), String> {
        match self.buffer.len() {
            0 if self.header.is_some() || self.kind == Kind::Pcapng => Ok(()),
            len => Err(format!("it is truncated: {len} bytes of a packet or header at its end")),
        }
    }

    fn malformed(&self, what: &str) -> String {
        format!("byte {}: the capture is malformed there: {what}", self.offset)
    }

    /// One packet or block; `None` if it is not complete.
    fn step<'a>(
        &mut self,
        input: &'a [u8],
        each: &mut impl FnMut(Packet<'_>),
    ) -> Result<Option<&'a [u8]>, String> {
        let parsed = match (self.kind, &self.header) {
            (Kind::Pcap, None) => parse_pcap_header(input).map(|(rest, header)| {
                self.header = Some(header);
                rest
            }),
            (Kind::Pcap, Some(header)) => {
                let parse = if header.is_bigendian() { parse_pcap_frame_be } else { parse_pcap_frame };
                let fraction = if header.is_nanosecond_precision() { 1 } else { 1_000 };
                // The upper bits say how long a frame check sequence is.
                let link = header.network.0 & 0x03ff_ffff;
                parse(input).map(|(rest, packet)| {
                    let nanos = u64::from(packet.ts_usec) * fraction;
                    each(Packet {
                        time: Duration::from_secs(packet.ts_sec.into()) + Duration::from_nanos(nanos),
                        link,
                        data: packet.data,
                        is_cut: packet.caplen < packet.origlen,
                    });
                    rest
                })
            }
            (Kind::Pcapng, _) => {
                if announced(input, self.big_endian).is_some_and(|len| len > BLOCK_MAX) {
                    return Err(format!("a block longer than {BLOCK_MAX} bytes"));
                }
                let parse = if self.big_endian { parse_block_be } else { parse_block_le };
                match parse(input) {
                    Ok((rest, block)) => {
                        self.block(&block, each)?;
                        Ok(rest)
                    }
                    Err(error) => Err(error),
                }
            }
        };
        match parsed {
            // A block of no length would be parsed for ever.
            Ok(rest) if rest.len() == input.len() => Err("a block without a length".into()),
            Ok(rest) => Ok(Some(rest)),
            Err(Incomplete::Incomplete(_)) => Ok(None),
            Err(_) => Err("no packet or block begins there".into()),
        }
    }

    fn block(&mut self, block: &Block<'_>, each: &mut impl FnMut(Packet<'_>)) -> Result<(), String> {
        match block {
            Block::SectionHeader(section) => {
                self.big_endian = section.big_endian();
                self.interfaces.clear();
            }
            Block::InterfaceDescription(interface) => {
                if self.interfaces.len() >= INTERFACES {
                    return Err(format!("more than {INTERFACES} interfaces"));
                }
                let resolution = interface.ts_resolution().filter(|units| *units > 0);
                self.interfaces.push(Interface {
                    link: interface.linktype.0,
                    resolution: resolution.ok_or("the resolution of its times is impossible")?,
                    offset: interface.ts_offset(),
                });
            }
            Block::EnhancedPacket(packet) => {
                let interface = self.interfaces.get(packet.if_id as usize);
                let interface = *interface.ok_or("a packet of an interface that is not described")?;
                let units = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                each(Packet {
                    time: interface.time(units),
                    link: interface.link,
                    data: packet.packet_data(),
                    is_cut: packet.caplen < packet.origlen,
                });
            }
            Block::SimplePacket(packet) => {
                let interface = self.interfaces.first();
                let interface = interface.ok_or("a packet of an interface that is not described")?;
                let data = packet.packet_data();
                // It has no time.
                each(Packet {
                    time: Duration::ZERO,
                    link: interface.link,
                    data,
                    is_cut: data.len() < packet.origlen as usize,
                });
            }
            _ => {}
        }
        Ok(())
    }
}

impl Interface {
    fn time(self, units: u64) -> Duration {
        let (seconds, part) = (units / self.resolution, units % self.resolution);
        let nanos = u128::from(part) * 1_000_000_000 / u128::from(self.resolution);
        let seconds = seconds.saturating_add_signed(self.offset);
        Duration::new(seconds, u32::try_from(nanos).unwrap_or_default())
    }
}

/// The length of a block of pcapng.
fn announced(input: &[u8], big_endian: bool) -> Option<usize> {
    let (kind, rest) = input.split_first_chunk::<4>()?;
    let len = *rest.first_chunk::<4>()?;
    let (big, little) = (u32::from_be_bytes(len), u32::from_le_bytes(len));
    let len = match kind {
        // The byte order of a section is behind its length.
        [0x0a, 0x0d, 0x0d, 0x0a] => big.min(little),
        _ if big_endian => big,
        _ => little,
    };
    Some(len as usize)
}

/// The name of a link type that is not decoded.
pub(super) fn link_name(link: i32) -> String {
    Linktype(link).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    type Packets = Vec<(Duration, Vec<u8>)>;

    fn packets(file: &[u8], cut: usize) -> (Packets, Result<(), String>) {
        let mut capture = Capture::new(Kind::of(file[..4].try_into().unwrap()).unwrap());
        let mut found = Vec::new();
        let (first, second) = file.split_at(cut.min(file.len()));
        let result = [first, second].into_iter().try_for_each(|part| {
            capture.push(part, |packet| found.push((packet.time, packet.data.to_vec())))
        });
        (found, result.and_then(|()| capture.finish()))
    }

    fn pcap(big: bool) -> Vec<u8> {
        let number = |number: u32| if big { number.to_be_bytes() } else { number.to_le_bytes() };
        let mut file = Vec::new();
        file.extend(number(0xa1b2_c3d4));
        file.extend(if big { [0, 2, 0, 4] } else { [2, 0, 4, 0] });
        for value in [0, 0, 65_535, 1] {
            file.extend(number(value));
        }
        for (seconds, data) in [(7, &b"one"[..]), (8, b"")] {
            let len = data.len() as u32;
            for value in [seconds, 5, len, len] {
                file.extend(number(value));
            }
            file.extend(data);
        }
        file
    }

    fn pcapng(big: bool) -> Vec<u8> {
        let number = |number: u32| if big { number.to_be_bytes() } else { number.to_le_bytes() };
        let half = |number: u16| if big { number.to_be_bytes() } else { number.to_le_bytes() };
        let mut file = Vec::new();
        let mut block = |kind: u32, body: &[u8]| {
            let len = number(body.len() as u32 + 12);
            file.extend([&number(kind)[..], &len, body, &len].concat());
        };
        block(0x0a0d_0d0a, &[&number(0x1a2b_3c4d)[..], &half(1), &half(0), &[0xff; 8]].concat());
        // Nanoseconds.
        block(1, &[&half(1)[..], &half(0), &number(0), &half(9), &half(1), &[9, 0, 0, 0], &[0; 4]].concat());
        let units = 7_000_005_000_u64;
        let time = [number((units >> 32) as u32), number(units as u32)].concat();
        block(6, &[&number(0)[..], &time, &number(3), &number(3), b"one\0"].concat());
        // A block of unknown type.
        block(0x0bad, b"1234");
        file
    }

    #[test]
    fn packets_are_found_wherever_the_file_is_cut() {
        let one = (Duration::from_micros(7_000_005), b"one".to_vec());
        for big in [false, true] {
            let (pcap, pcapng) = (pcap(big), pcapng(big));
            for cut in 0..=pcap.len() {
                let (found, result) = packets(&pcap, cut);
                assert_eq!((found.first(), found.len(), result), (Some(&one), 2, Ok(())), "{cut}");
            }
            for cut in 0..=pcapng.len() {
                assert_eq!(packets(&pcapng, cut), (vec![one.clone()], Ok(())), "{cut}");
            }
        }
    }

    #[test]
    fn truncated_captures_are_said_to_be() {
        let file = pcap(false);
        for len in (5..24).chain(25..file.len()) {
            let complete = len == 24 + 16 + 3;
            assert_eq!(packets(&file[..len], 0).1.is_ok(), complete, "{len}");
        }
    }

    #[test]
    fn long_blocks_are_refused_before_they_are_buffered() {
        let mut file = pcap(false);
        file[32..36].copy_from_slice(&u32::MAX.to_le_bytes());
        file.extend(vec![0; BLOCK_MAX]);
        assert!(packets(&file, 0).1.unwrap_err().starts_with("byte 24: "));
        let mut file = pcapng(true);
        let at = file.len() - 12;
        file[at..at + 4].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(packets(&file, 0).1.is_err());
    }

    #[test]
    fn nothing_panics_whatever_the_file_holds() {
        let mut random = fastrand::Rng::with_seed(7);
        for round in 0..20_000 {
            let mut file = if round % 2 == 0 { pcap(round % 4 == 0) } else { pcapng(round % 3 == 0) };
            for _ in 0..random.usize(1..4) {
                let at = random.usize(4..file.len());
                file[at] =
                    if random.bool() { random.u8(..) } else { *random.choice(&[0, 0x7f, 0xff]).unwrap() };
            }
            let _ = packets(&file, random.usize(..file.len()));
        }
    }
}
