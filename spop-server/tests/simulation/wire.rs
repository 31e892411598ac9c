//! A connection between an engine and an agent: two streams of bytes with latency, cuts and limited buffers.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    time::Duration,
};

use spop_core::Timestamp;
use spop_server::Stream;

use crate::rng::Rng;

pub const AGENT: usize = 0;
pub const ENGINE: usize = 1;

/// One direction.
#[derive(Debug, Default)]
struct Pipe {
    transit: VecDeque<(Timestamp, Vec<u8>)>,
    /// Arrived, and not read.
    arrived: VecDeque<u8>,
    /// Its writer has shut it.
    shut: bool,
    /// When the end of the stream arrives.
    fin: Option<Timestamp>,
    /// It has.
    ended: bool,
    /// Nothing arrives before what was sent earlier.
    last: Timestamp,
    queued: usize,
}

#[derive(Debug)]
pub struct Wire {
    /// What each side reads.
    pipes: [Pipe; 2],
    /// How many bytes a direction takes before its writer blocks.
    capacity: usize,
    latency: Duration,
    /// Whether the bytes to a side may be cut anywhere.
    cuts: [bool; 2],
    /// Nothing arrives until then.
    frozen: Timestamp,
    /// A side does not read until then.
    pub stalled: [Timestamp; 2],
    pub reset: bool,
    /// Requests on it may be lost.
    pub faulty: bool,
    closed: [bool; 2],
    /// Readiness that was not taken yet: of reading, of writing.
    ready: [(bool, bool); 2],
}

impl Wire {
    pub fn new(rng: &mut Rng, cuts_to_engine: bool) -> Self {
        let sizes: &[usize] = if cuts_to_engine { &[300, 4_096, 65_536] } else { &[65_536] };
        Self {
            pipes: Default::default(),
            capacity: rng.pick(sizes),
            latency: rng.up_to(Duration::from_millis(3)),
            cuts: [true, cuts_to_engine],
            frozen: Timestamp::ZERO,
            stalled: [Timestamp::ZERO; 2],
            reset: false,
            faulty: false,
            closed: [false; 2],
            ready: [(true, true); 2],
        }
    }

    /// When something happens next by itself.
    pub fn next_event(&self) -> Option<Timestamp> {
        let arrivals = self.pipes.iter().flat_map(|pipe| {
            let fin = pipe.fin.filter(|_| pipe.transit.is_empty());
            pipe.transit.front().map(|(at, _)| *at).into_iter().chain(fin)
        });
        let ends = self.stalled.into_iter().filter(|at| *at > Timestamp::ZERO);
        arrivals.map(|at| at.max(self.frozen)).chain(ends).min()
    }

    /// Time has passed.
    pub fn advance(&mut self, now: Timestamp) {
        for side in [AGENT, ENGINE] {
            if self.stalled[side] > Timestamp::ZERO && self.stalled[side] <= now {
                self.stalled[side] = Timestamp::ZERO;
                self.ready[side].0 = true;
            }
            if now < self.frozen {
                continue;
            }
            let pipe = &mut self.pipes[side];
            while pipe.transit.front().is_some_and(|(at, _)| *at <= now) {
                let (_, bytes) = pipe.transit.pop_front().unwrap();
                pipe.arrived.extend(bytes);
                self.ready[side].0 = true;
            }
            if pipe.transit.is_empty() && pipe.fin.is_some_and(|at| at <= now) {
                // It is seen once everything before it was read.
                pipe.fin = None;
                pipe.ended = true;
                self.ready[side].0 = true;
            }
        }
    }

    /// What the side may try now; each is told once.
    pub fn take_ready(&mut self, side: usize) -> (bool, bool) {
        if self.stalled[side] > Timestamp::ZERO {
            return (false, std::mem::take(&mut self.ready[side].1));
        }
        std::mem::take(&mut self.ready[side])
    }

    pub fn read(&mut self, side: usize, rng: &mut Rng, to: &mut [u8]) -> io::Result<usize> {
        if self.reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let cuts = self.cuts[side];
        let pipe = &mut self.pipes[side];
        if self.stalled[side] > Timestamp::ZERO || pipe.arrived.is_empty() && !pipe.ended {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut n = pipe.arrived.len().min(to.len());
        if cuts && n > 1 && rng.permille(200) {
            n = 1 + rng.below(n);
        }
        for (slot, byte) in to.iter_mut().zip(pipe.arrived.drain(..n)) {
            *slot = byte;
        }
        let was_full = pipe.queued >= self.capacity;
        pipe.queued -= n;
        self.ready[1 - side].1 |= was_full && pipe.queued < self.capacity;
        Ok(n)
    }

    pub fn write(&mut self, side: usize, now: Timestamp, rng: &mut Rng, bytes: &[u8]) -> io::Result<usize> {
        if self.reset || self.closed[1 - side] {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if self.pipes[1 - side].shut {
            // Shut by a fault, and its writer does not know.
            return Ok(bytes.len());
        }
        let pipe = &mut self.pipes[1 - side];
        let free = self.capacity.saturating_sub(pipe.queued);
        if free == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut n = free.min(bytes.len());
        let cuts = self.cuts[1 - side];
        if cuts && n > 1 && rng.permille(100) {
            n = 1 + rng.below(n);
        }
        pipe.queued += n;
        let mut rest = &bytes[..n];
        while !rest.is_empty() {
            let len = if cuts && rng.permille(150) { 1 + rng.below(rest.len()) } else { rest.len() };
            let (piece, after) = rest.split_at(len);
            pipe.last = pipe.last.max(now + self.latency / 2 + rng.up_to(self.latency / 2));
            pipe.transit.push_back((pipe.last, piece.to_vec()));
            rest = after;
        }
        Ok(n)
    }

    /// A side shuts its write side.
    pub fn shut(&mut self, side: usize, now: Timestamp) {
        let latency = self.latency;
        let pipe = &mut self.pipes[1 - side];
        if !pipe.shut {
            pipe.shut = true;
            pipe.fin = Some(pipe.last.max(now + latency));
        }
    }

    /// A side closes its socket. Unread input resets the connection, as TCP does.
    pub fn close(&mut self, side: usize, now: Timestamp) {
        self.closed[side] = true;
        if !self.pipes[side].arrived.is_empty() {
            return self.reset();
        }
        self.shut(side, now);
        self.ready[1 - side].1 = true;
    }

    /// Whether nothing is left to be seen by a side.
    pub fn is_closed(&self, side: usize) -> bool {
        self.closed[side]
    }

    pub fn reset(&mut self) {
        self.reset = true;
        self.ready = [(true, true); 2];
        self.stalled = [Timestamp::ZERO; 2];
    }

    pub fn freeze(&mut self, until: Timestamp) {
        self.frozen = self.frozen.max(until);
    }

    pub fn stall(&mut self, side: usize, until: Timestamp) {
        self.stalled[side] = self.stalled[side].max(until);
    }
}

/// The agent's end, as its driver sees it.
pub struct End<'a> {
    pub wire: &'a mut Wire,
    pub rng: &'a mut Rng,
    pub now: Timestamp,
}

impl Read for End<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.wire.read(AGENT, self.rng, to)
    }
}

impl Write for End<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.wire.write(AGENT, self.now, self.rng, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for End<'_> {
    fn shut_write(&mut self) -> io::Result<()> {
        self.wire.shut(AGENT, self.now);
        Ok(())
    }
}
