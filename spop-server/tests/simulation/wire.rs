//! A connection between an engine and an agent: two streams of bytes with latency, cuts and limited buffers.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
    time::Duration,
};

use spop_core::Timestamp;
use spop_server::Stream;

use crate::{frames::Frames, rng::Rng};

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
#[allow(clippy::struct_excessive_bools)] // Independent facts, not states.
pub struct Wire {
    /// What each side reads.
    pipes: [Pipe; 2],
    /// How many bytes of what each side reads are taken before their writer blocks.
    capacity: [usize; 2],
    latency: Duration,
    /// Whether the bytes to a side may be cut anywhere.
    cuts: [bool; 2],
    /// Nothing arrives until then.
    frozen: Timestamp,
    /// It has been partitioned.
    pub partitioned: bool,
    /// What is sent to the agent arrives whole.
    pub is_wide: bool,
    /// A side does not read until then.
    pub stalled: [Timestamp; 2],
    pub reset: bool,
    /// Requests on it may be lost.
    pub faulty: bool,
    closed: [bool; 2],
    /// Readiness that was not taken yet: of reading, of writing.
    ready: [(bool, bool); 2],
    /// What the agent has read, in bytes, and how often it has written.
    pub agent_read: usize,
    pub agent_writes: usize,
    /// What the agent has written.
    pub frames: Frames,
    /// While the engine does not read, nothing can be written to it.
    blocked: bool,
}

impl Wire {
    pub fn new(rng: &mut Rng, cuts_to_engine: bool) -> Self {
        let sizes: &[usize] = if cuts_to_engine { &[100, 300, 4_096, 65_536] } else { &[65_536] };
        Self {
            pipes: Default::default(),
            capacity: [rng.pick(sizes); 2],
            latency: rng.up_to(Duration::from_millis(3)),
            cuts: [true, cuts_to_engine],
            frozen: Timestamp::ZERO,
            partitioned: false,
            is_wide: false,
            stalled: [Timestamp::ZERO; 2],
            reset: false,
            faulty: false,
            closed: [false; 2],
            ready: [(true, true); 2],
            agent_read: 0,
            agent_writes: 0,
            frames: Frames::default(),
            blocked: false,
        }
    }

    /// One that takes much at once from the peer.
    pub fn wide(rng: &mut Rng) -> Self {
        Self { capacity: [1 << 20, 4_096], cuts: [false; 2], ..Self::new(rng, false) }
    }

    /// Nothing is on its way to the agent, and it can write this much.
    pub fn is_quiet(&self, bytes: usize) -> bool {
        let [to_agent, to_engine] = &self.pipes;
        to_agent.queued == 0
            && !to_agent.shut
            && to_engine.queued + bytes < self.capacity[ENGINE]
            && self.stalled == [Timestamp::ZERO; 2]
            && self.closed == [false; 2]
            && !self.reset
            && !self.faulty
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
                if side == ENGINE && std::mem::take(&mut self.blocked) {
                    self.ready[AGENT].1 = true;
                }
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
        let was_full = pipe.queued >= self.capacity[side];
        pipe.queued -= n;
        self.ready[1 - side].1 |= was_full && pipe.queued < self.capacity[side];
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
        let free = self.capacity[1 - side].saturating_sub(pipe.queued);
        if free == 0 || side == AGENT && self.blocked {
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

    /// What one receive of the agent has got.
    fn take_arrived(&mut self) -> Vec<u8> {
        let arrived = &mut self.pipes[AGENT].arrived;
        let bytes: Vec<u8> = arrived.drain(..arrived.len().min(1_024)).collect();
        self.pipes[AGENT].queued -= bytes.len();
        bytes
    }

    /// Takes much at once, and what is sent to the agent arrives whole.
    pub fn widen(&mut self) {
        self.is_wide = true;
        self.capacity = [1 << 16; 2];
        self.cuts[AGENT] = false;
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

    /// Whether the agent may have to discard what it has queued.
    pub fn is_lossy(&self) -> bool {
        self.reset || self.closed[ENGINE] || self.partitioned
    }

    pub fn reset(&mut self) {
        self.reset = true;
        self.ready = [(true, true); 2];
        self.stalled = [Timestamp::ZERO; 2];
        self.blocked = false;
    }

    pub fn partition(&mut self, until: Timestamp) {
        self.partitioned = true;
        self.freeze(until);
    }

    pub fn freeze(&mut self, until: Timestamp) {
        self.frozen = self.frozen.max(until);
    }

    /// The engine does not read until then, and nothing is buffered for it.
    pub fn block(&mut self, until: Timestamp) {
        self.stall(ENGINE, until);
        self.blocked = true;
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

impl End<'_> {
    pub fn take_arrived(&mut self) -> Vec<u8> {
        self.wire.take_arrived()
    }
}

impl Read for End<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let read = self.wire.read(AGENT, self.rng, to);
        self.wire.agent_read += read.as_ref().copied().unwrap_or_default();
        read
    }
}

impl Write for End<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.wire.write(AGENT, self.now, self.rng, bytes);
        self.wire.agent_writes += usize::from(written.is_ok());
        if let Ok(n) = written {
            self.wire.frames.written(&bytes[..n]);
        }
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream for End<'_> {
    fn is_drained(&mut self) -> bool {
        self.wire.pipes[AGENT].arrived.is_empty()
    }

    fn shut_write(&mut self) -> io::Result<()> {
        self.wire.shut(AGENT, self.now);
        Ok(())
    }
}
