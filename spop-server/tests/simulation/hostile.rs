//! Malicious peers: they flood, hoard, and do not read.

use std::collections::BTreeMap;

use spop_core::{ConnectionId, Timestamp, notation};

use crate::{
    rng::Rng,
    wire::{ENGINE, Wire},
};

/// The engine of their connections: none.
pub const HOSTILE: usize = usize::MAX;

#[derive(Clone, Copy, Debug)]
enum Attack {
    /// The same request again and again: each supersedes the one before, which its handler keeps.
    Hoard,
    /// Long requests.
    Bulk,
    /// Short requests, each of which the handler takes and drops.
    Copy,
    /// Short frames of an unknown type.
    Short,
    /// Long ones.
    Long,
    /// A long frame that does not end.
    Half,
    /// Long answers, which it does not read.
    Greedy,
}

pub struct Hostile {
    pub wire: (usize, ConnectionId),
    bytes: Vec<u8>,
    sent: usize,
    reads: bool,
    begin: Timestamp,
    end: Timestamp,
}

impl Hostile {
    pub fn new(
        rng: &mut Rng,
        wire: (usize, ConnectionId),
        proxy: bool,
        begin: Timestamp,
        end: Timestamp,
    ) -> Self {
        use Attack::{Bulk, Copy, Greedy, Half, Hoard, Long, Short};
        let attack = rng.pick(&[Hoard, Bulk, Copy, Short, Long, Half, Greedy]);
        let size = if matches!(attack, Half) { 1 << 20 } else { 16_380 };
        let mut bytes = if proxy { b"PROXY UNKNOWN\r\n".to_vec() } else { Vec::new() };
        bytes.extend(sentence(&format!(
            "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:{size} capabilities=string:pipelining"
        )));
        let (frame, times) = match attack {
            Hoard => (sentence("NOTIFY fin 1 1 hoard"), 400),
            Copy => (sentence("NOTIFY fin 1 1 copy"), 400),
            Bulk => (sentence(&format!("NOTIFY fin 1 1 hoard body=string:{}", "x".repeat(12_000))), 20),
            Short => (unknown(1), 4_000),
            Long => (unknown(16_000), 30),
            Half => {
                let mut frame = sentence(&format!("NOTIFY fin 1 1 m body=string:{}", "x".repeat(900_000)));
                frame.truncate(600_000);
                (frame, 1)
            }
            Greedy => (sentence("NOTIFY fin 1 1 large"), 100),
        };
        bytes.extend(frame.repeat(times));
        tell!("{begin} {attack:?} on {wire:?} until {end}");
        Self { wire, bytes, sent: 0, reads: !matches!(attack, Greedy), begin, end }
    }

    pub fn next_event(&self, now: Timestamp) -> Timestamp {
        if self.begin > now { self.begin } else { self.end }
    }

    /// Writes, reads and at last closes. `None` when it has, otherwise whether something happened.
    pub fn drive(
        &mut self,
        now: Timestamp,
        wires: &mut BTreeMap<(usize, ConnectionId), Wire>,
        rng: &mut Rng,
    ) -> Option<bool> {
        let wire = wires.get_mut(&self.wire)?;
        if now >= self.end || wire.reset || wire.is_closed(crate::wire::AGENT) {
            wire.close(ENGINE, now);
            return None;
        }
        let (readable, writable) = wire.take_ready(ENGINE);
        let mut any = false;
        let mut space = vec![0; 65_536];
        while self.reads && readable && wire.read(ENGINE, rng, &mut space).is_ok_and(|n| n > 0) {
            any = true;
        }
        while (writable || self.sent == 0) && now >= self.begin && self.sent < self.bytes.len() {
            let Ok(n) = wire.write(ENGINE, now, rng, &self.bytes[self.sent..]) else { break };
            self.sent += n;
            any = true;
        }
        Some(any)
    }
}

fn sentence(line: &str) -> Vec<u8> {
    notation::parse_bytes(line).unwrap()
}

/// A frame of an unknown type with so many bytes of payload.
fn unknown(payload: usize) -> Vec<u8> {
    let mut frame = (7 + payload as u32).to_be_bytes().to_vec();
    frame.extend([200, 0, 0, 0, 1, 1, 1]);
    frame.resize(frame.len() + payload, 0);
    frame
}
