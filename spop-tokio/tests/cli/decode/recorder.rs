//! Captures that the tests write.

use etherparse::PacketBuilder;
use spop_core::notation;

pub(crate) const AGENT: u16 = 12_345;

/// Who sends a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Haproxy,
    Agent,
}
pub(crate) use By::{Agent, Haproxy};

/// A TCP connection whose packets are recorded, a millisecond after each other.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    port: u16,
    /// The next sequence number of each side.
    next: [u32; 2],
    pub(crate) packets: Vec<Vec<u8>>,
}

impl Connection {
    /// A connection from this port of HAProxy, with its handshake.
    pub(crate) fn open(port: u16) -> Self {
        // The numbers wrap.
        let mut connection = Self { port, next: [u32::MAX - 20, 7], packets: Vec::new() };
        connection.packet(Haproxy, b"", |tcp| tcp.syn = true);
        connection.packet(Agent, b"", |tcp| (tcp.syn, tcp.ack) = (true, true));
        connection
    }

    fn packet(&mut self, by: By, payload: &[u8], flags: impl Fn(&mut etherparse::TcpHeader)) {
        let mut ends = [([10, 0, 0, 1], self.port), ([10, 0, 0, 2], AGENT)];
        if by == Agent {
            ends.reverse();
        }
        let [(from, from_port), (to, to_port)] = ends;
        let (own, other) = if by == Haproxy { (0, 1) } else { (1, 0) };
        let mut header = etherparse::TcpHeader::new(from_port, to_port, self.next[own], 65_535);
        header.acknowledgment_number = self.next[other];
        flags(&mut header);
        self.next[own] = self.next[own]
            .wrapping_add(payload.len() as u32)
            .wrapping_add(u32::from(header.syn) + u32::from(header.fin));
        let mut packet = Vec::new();
        let builder = PacketBuilder::ethernet2([1; 6], [2; 6]).ipv4(from, to, 64);
        builder.tcp_header(header).write(&mut packet, payload).unwrap();
        self.packets.push(packet);
    }

    /// Bytes in a packet.
    pub(crate) fn send(&mut self, by: By, bytes: &[u8]) -> &mut Self {
        self.packet(by, bytes, |tcp| tcp.ack = true);
        self
    }

    /// A frame in a packet.
    pub(crate) fn frame(&mut self, by: By, line: &str) -> &mut Self {
        let bytes = notation::parse_bytes(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        self.send(by, &bytes)
    }

    /// The lines of a transcript, `>` and `<`, a packet each.
    pub(crate) fn frames(&mut self, lines: &[&str]) -> &mut Self {
        for line in lines {
            let (direction, frame) = line.split_at(2);
            self.frame(if direction == "> " { Haproxy } else { Agent }, frame);
        }
        self
    }

    /// Only an acknowledgment.
    pub(crate) fn ack(&mut self, by: By) -> &mut Self {
        self.send(by, b"")
    }

    /// Closes a direction.
    pub(crate) fn fin(&mut self, by: By) -> &mut Self {
        self.packet(by, b"", |tcp| (tcp.fin, tcp.ack) = (true, true));
        self
    }

    pub(crate) fn reset(&mut self, by: By) -> &mut Self {
        self.packet(by, b"", |tcp| tcp.rst = true);
        self
    }

    /// Closes both directions.
    pub(crate) fn close(&mut self) -> &mut Self {
        self.fin(Haproxy).fin(Agent).ack(Haproxy)
    }
}

/// A pcap file, a packet each millisecond.
pub(crate) fn pcap(packets: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 262_144, 1] {
        file.extend(word.to_le_bytes());
    }
    for (index, packet) in (0_u32..).zip(packets) {
        let len = packet.len() as u32;
        let (seconds, micros) = (1_700_000_000 + index / 1_000, index % 1_000 * 1_000);
        for word in [seconds, micros, len, len] {
            file.extend(word.to_le_bytes());
        }
        file.extend(packet);
    }
    file
}

/// Whether a packet is sent by this side.
pub(crate) fn is_by(by: By, packet: &[u8]) -> bool {
    // The last byte of the source address.
    packet[29] == if by == Haproxy { 1 } else { 2 }
}
