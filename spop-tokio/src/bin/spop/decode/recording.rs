//! A recording, whatever its format: a capture of packets, or the bytes of one direction.

use std::time::Duration;

use bytes::Bytes;
use spop_core::{excerpt::Escaped, frame::FrameType, link::Side};

use super::capture::{Capture, Kind, Packet, link_name};
use crate::{
    exit,
    watch::{BEGIN, Connections, Counts, Event, Happened, NoSegment, Segment, Session, frame_type},
};

/// Takes a recording apart.
#[derive(Debug)]
pub(super) struct Recording {
    format: Format,
    ports: Vec<u16>,
    /// Bytes so far.
    len: u64,
}

#[derive(Debug)]
enum Format {
    /// Its first bytes.
    Unknown(Vec<u8>),
    Packets(Box<Packets>),
    Raw(Side, Box<Session>),
}

#[derive(Debug)]
struct Packets {
    capture: Capture,
    connections: Connections,
    counts: PacketCounts,
}

#[derive(Debug, Default)]
struct PacketCounts {
    segments: u64,
    others: u64,
    fragments: u64,
    cut: u64,
    /// The first link type that is not decoded.
    link: Option<i32>,
}

impl Recording {
    pub(super) const fn new(ports: Vec<u16>) -> Self {
        Self { format: Format::Unknown(Vec::new()), ports, len: 0 }
    }

    /// Whether it is the bytes of one direction, without times.
    pub(super) const fn is_raw(&self) -> bool {
        matches!(self.format, Format::Raw(..))
    }

    /// The connections of a capture.
    pub(super) fn counts(&self) -> Option<Counts> {
        match &self.format {
            Format::Packets(packets) => Some(packets.connections.counts),
            _ => None,
        }
    }

    /// The next bytes of the file.
    ///
    /// # Errors
    /// It is malformed, or of another kind.
    pub(super) fn push(&mut self, bytes: &Bytes, events: &mut Vec<Event>) -> Result<(), String> {
        self.len += bytes.len() as u64;
        let Format::Unknown(first) = &mut self.format else { return self.format.push(bytes, events) };
        first.extend_from_slice(bytes);
        let Some(magic) = first.first_chunk() else { return Ok(()) };
        let first = match Kind::of(*magic) {
            Some(kind) => {
                let packets = Packets::new(kind, std::mem::take(&mut self.ports));
                let first = std::mem::take(first);
                self.format = Format::Packets(Box::new(packets));
                first
            }
            None if first.len() < BEGIN => return Ok(()),
            None => {
                let side = side(first).ok_or_else(|| foreign(first))?;
                let first = std::mem::take(first);
                self.format = Format::Raw(side, Box::new(Session::of_one_side(side)));
                first
            }
        };
        self.format.push(&first, events)
    }

    /// The file ends: one of the connections that are left. False if none is left.
    pub(super) fn finish_one(&mut self, events: &mut Vec<Event>) -> bool {
        match &mut self.format {
            Format::Packets(packets) => packets.connections.finish_one(events),
            _ => false,
        }
    }

    /// The file has ended.
    ///
    /// # Errors
    /// It is truncated, or nothing in it is SPOP.
    pub(super) fn finish(&mut self, events: &mut Vec<Event>) -> Result<(), String> {
        match &mut self.format {
            Format::Unknown(_) if self.len == 0 => Err("it is empty".into()),
            Format::Unknown(first) => Err(foreign(first)),
            Format::Packets(packets) => packets.finish(),
            Format::Raw(side, session) => {
                let mut happened = Vec::new();
                session.end(*side, true, &mut happened);
                raw_events(happened, events);
                Ok(())
            }
        }
    }
}

impl Format {
    fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), String> {
        match self {
            Self::Unknown(_) => Ok(()),
            Self::Packets(packets) => packets.push(bytes, events),
            Self::Raw(side, session) => {
                let mut happened = Vec::new();
                session.data(*side, Duration::ZERO, bytes, &mut happened);
                raw_events(happened, events);
                Ok(())
            }
        }
    }
}

fn raw_events(happened: Happened, events: &mut Vec<Event>) {
    let event = |(what, about)| Event { connection: 1, time: Duration::ZERO, what, about };
    events.extend(happened.into_iter().map(event));
}

/// The side whose frames a file has.
fn side(first: &[u8]) -> Option<Side> {
    match frame_type(first)? {
        FrameType::HaproxyHello | FrameType::HaproxyDisconnect | FrameType::Notify | FrameType::Unset => {
            Some(Side::Engine)
        }
        FrameType::AgentHello | FrameType::AgentDisconnect | FrameType::Ack => Some(Side::Agent),
        FrameType::Unknown(_) => None,
    }
}

/// What a file is that is no recording.
fn foreign(first: &[u8]) -> String {
    let is = match first {
        [0x1f, 0x8b, ..] => "it is compressed by gzip".to_owned(),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "it is compressed by zstd".to_owned(),
        _ => format!("it begins with \"{}\"", Escaped(first.get(..16).unwrap_or(first))),
    };
    format!("neither a capture (pcap, pcapng) nor frames of SPOP: {is}")
}

impl Packets {
    fn new(kind: Kind, ports: Vec<u16>) -> Self {
        Self {
            capture: Capture::new(kind),
            connections: Connections::new(ports),
            counts: PacketCounts::default(),
        }
    }

    fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), String> {
        let Self { capture, connections, counts } = self;
        capture.push(bytes, |packet| counts.packet(&packet, connections, events))
    }

    fn finish(&self) -> Result<(), String> {
        self.counts.warn();
        self.capture.finish()?;
        if self.connections.counts.spop > 0 {
            return Ok(());
        }
        let Counts { others, tls, .. } = self.connections.counts;
        let PacketCounts { segments, others: packets, .. } = self.counts;
        Err(format!(
            "no connection in it begins with a HAPROXY-HELLO: {others} others ({tls} with TLS), {segments} packets of TCP, \
             {packets} of other protocols; --port PORT decodes connections whose begin is missing"
        ))
    }
}

impl PacketCounts {
    fn packet(&mut self, packet: &Packet<'_>, connections: &mut Connections, events: &mut Vec<Event>) {
        match Segment::find(packet.link, packet.data) {
            Ok(segment) => {
                self.segments += 1;
                self.cut += u64::from(packet.is_cut || segment.cut > 0);
                connections.segment(packet.time, &segment, events);
            }
            Err(reason) => {
                self.others += 1;
                self.fragments += u64::from(reason == NoSegment::Fragment);
                if reason == NoSegment::Link {
                    self.link.get_or_insert(packet.link);
                }
            }
        }
    }

    /// Warns of what the capture does not have, or this program does not decode.
    fn warn(&self) {
        if self.cut > 0 {
            let cut = self.cut;
            exit::warn(format_args!(
                "warning: {cut} packets were captured in part: capture with -s 0 for the whole"
            ));
        }
        if self.fragments > 0 {
            let fragments = self.fragments;
            exit::warn(format_args!("warning: {fragments} fragments of IP packets are not decoded"));
        }
        if let Some(link) = self.link {
            exit::warn(format_args!(
                "warning: packets of link type {} are not decoded: Ethernet, Linux cooked, loopback and raw IP are",
                link_name(link)
            ));
        }
    }
}
