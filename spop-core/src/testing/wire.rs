//! One direction of a connection in virtual time.

use alloc::{collections::VecDeque, vec::Vec};
use core::time::Duration;

use super::Inbox;
use crate::Timestamp;

/// The conditions of a connection, in one direction or in both.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Conditions {
    /// The time from a write to the read. Default zero.
    pub latency: Duration,
    /// The bandwidth in bytes per second. Default unlimited.
    pub bandwidth: Option<u64>,
    /// How the bytes are cut into reads. Default whole.
    pub cuts: Cuts,
    /// The connection breaks after a random number of bytes, up to this one. Default never.
    pub lost_within: Option<u64>,
    /// The send buffer: the bytes in transit at which a write blocks. Default 64 KiB.
    pub buffer: usize,
    /// The seed of all random choices. Default 0.
    pub seed: u64,
    /// Records all bytes that were sent. Default false.
    pub record: bool,
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            latency: Duration::ZERO,
            bandwidth: None,
            cuts: Cuts::Whole,
            lost_within: None,
            buffer: 1 << 16,
            seed: 0,
            record: false,
        }
    }
}

/// How bytes are cut into reads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cuts {
    /// A read returns all bytes that have arrived.
    Whole,
    /// A read returns one byte.
    Each,
    /// A read returns a random number of bytes.
    Random,
    /// Reads return these lengths, in a cycle, or less if less has arrived.
    Lengths(Vec<usize>),
}

/// A reproducible random number generator.
#[derive(Clone, Debug, Default)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number from 1 to `most`.
    fn up_to(&mut self, most: usize) -> usize {
        1 + (self.next() % most.max(1) as u64) as usize
    }
}

/// The result of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The read would block.
    Nothing,
    /// Bytes were added to the inbox.
    Bytes,
    /// The end of the input.
    Eof,
}

/// Bytes in transit in one direction. Private: for the pairs of adapters.
#[derive(Debug, Default)]
pub struct Wire {
    conditions: Conditions,
    random: Random,
    /// The number of reads so far.
    pieces: usize,
    bytes: Vec<u8>,
    head: usize,
    /// The times at which bytes arrive, and their number.
    segments: VecDeque<(Timestamp, usize)>,
    /// When the sender has sent the last byte, at the given bandwidth.
    left: Timestamp,
    /// When the end arrives.
    end: Option<Timestamp>,
    sent: u64,
    lose_at: Option<u64>,
    lost: bool,
    record: Vec<u8>,
}

impl Wire {
    /// One direction with these conditions. `direction` gives the two directions different random numbers.
    pub fn new(conditions: Conditions, direction: u64) -> Self {
        let mut random = Random(conditions.seed ^ direction << 63);
        let lose_at = conditions.lost_within.map(|most| random.next() % most.max(1));
        Self { conditions, random, lose_at, ..Self::default() }
    }

    /// Accepts as many bytes as the send buffer can hold, and returns their number.
    pub fn send(&mut self, now: Timestamp, bytes: &[u8]) -> usize {
        if self.end.is_some() || self.lost {
            // The connection is closed or lost: the bytes are discarded.
            return bytes.len();
        }
        let room = self.conditions.buffer.max(1).saturating_sub(self.bytes.len() - self.head);
        self.put(now, bytes.get(..room).unwrap_or(bytes))
    }

    /// Accepts all bytes up to the break of the connection, whatever the buffer, and returns their number.
    pub fn put(&mut self, now: Timestamp, bytes: &[u8]) -> usize {
        let mut taken = if self.end.is_some() || self.lost { &[] } else { bytes };
        if let Some(lose_at) = self.lose_at {
            let left = usize::try_from(lose_at.saturating_sub(self.sent)).unwrap_or(usize::MAX);
            taken = taken.get(..left).unwrap_or(taken);
            self.lost = self.sent + taken.len() as u64 >= lose_at;
        }
        if taken.is_empty() {
            return 0;
        }
        if self.conditions.record {
            self.record.extend_from_slice(taken);
        }
        if self.head == self.bytes.len() {
            self.bytes.clear();
            self.head = 0;
        } else if self.head > self.bytes.len() / 2 {
            self.bytes.drain(..self.head);
            self.head = 0;
        }
        self.sent += taken.len() as u64;
        self.bytes.extend_from_slice(taken);
        let duration = self.conditions.bandwidth.map_or(Duration::ZERO, |bandwidth| {
            Duration::from_nanos((taken.len() as u64).saturating_mul(1_000_000_000) / bandwidth.max(1))
        });
        self.left = self.left.max(now) + duration;
        let arrives = self.left + self.conditions.latency;
        match self.segments.back_mut() {
            Some((at, len)) if *at == arrives => *len += taken.len(),
            _ => self.segments.push_back((arrives, taken.len())),
        }
        taken.len()
    }

    /// Takes all bytes in transit, whenever they would arrive.
    pub fn take(&mut self) -> Vec<u8> {
        self.segments.clear();
        let bytes = self.bytes.split_off(self.head);
        self.bytes.clear();
        self.head = 0;
        bytes
    }

    /// Whether no byte is in transit.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Whether the sender has shut its write side.
    pub const fn is_shut(&self) -> bool {
        self.end.is_some()
    }

    /// The sender shuts its write side.
    pub fn shut(&mut self, now: Timestamp) {
        let last = self.segments.back().map_or(now, |(at, _)| *at);
        self.end.get_or_insert(last.max(now));
    }

    pub fn lose(&mut self) {
        self.lost = true;
    }

    pub fn break_after(&mut self, bytes: u64) {
        self.lose_at = Some(bytes);
        self.lost |= self.sent >= bytes;
    }

    pub fn is_lost(&self) -> bool {
        self.lost
    }

    pub fn recorded(&self) -> &[u8] {
        &self.record
    }

    /// The time of the next arrival.
    pub fn next_arrival(&self) -> Option<Timestamp> {
        self.segments.front().map(|(at, _)| *at).or(self.end)
    }

    /// Reads bytes that have arrived, cut by the conditions.
    pub fn receive(&mut self, now: Timestamp, inbox: &mut Inbox) -> Arrival {
        let there: usize = self.segments.iter().take_while(|(at, _)| *at <= now).map(|(_, len)| *len).sum();
        if there == 0 {
            let ended = self.segments.is_empty() && self.end.is_some_and(|end| end <= now);
            return if ended { Arrival::Eof } else { Arrival::Nothing };
        }
        let piece = match &self.conditions.cuts {
            Cuts::Whole => there,
            Cuts::Each => 1,
            Cuts::Random => self.random.up_to(there),
            Cuts::Lengths(lengths) => {
                let length = lengths.get(self.pieces % lengths.len().max(1)).copied();
                length.unwrap_or(there).clamp(1, there)
            }
        };
        self.pieces = self.pieces.wrapping_add(1);
        inbox.extend_from_slice(self.bytes.get(self.head..self.head + piece).unwrap_or_default());
        self.head += piece;
        let mut rest = piece;
        while let Some((_, len)) = self.segments.front_mut()
            && rest > 0
        {
            let part = rest.min(*len);
            *len -= part;
            rest -= part;
            if *len == 0 {
                self.segments.pop_front();
            }
        }
        Arrival::Bytes
    }
}
