//! A thread of the load: an event loop over its connections.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering, mpsc::Receiver},
    time::Duration,
};

use fastrand::Rng;
use mio::{Events, Poll, Token};
use spop_core::{
    EngineConfig, Timestamp,
    config::Checked,
    engine::{NotifyError, UnclaimedAck},
};
use tokio::sync::mpsc::UnboundedSender;

use super::{
    channel::Channel,
    connection::{Connection, State, Turn},
    shared::{Event, Opened, Progress, Shared},
    stats::Stats,
    supply::{Next, Request, Supply},
    timer::Timer,
};
use crate::address::Bare;

pub(super) const WAKER: Token = Token(usize::MAX);
const TIMER: Token = Token(usize::MAX - 1);

/// How often timeouts are looked for.
const TICK: Duration = Duration::from_millis(50);

/// How often counts are reported.
const REPORT: Duration = Duration::from_millis(200);

/// What a read takes at most.
const READ: usize = 64 << 10;

pub(super) struct Worker {
    shared: Arc<Shared>,
    index: usize,
    config: Arc<Checked<EngineConfig>>,
    poll: Poll,
    timer: Timer,
    opened: Receiver<Opened>,
    events: UnboundedSender<Event>,
    /// What [`Progress`] takes.
    report: Arc<Mutex<Progress>>,
    slots: Vec<Slot>,
    /// Connections that may accept a request, each once.
    free: VecDeque<usize>,
    /// Connections with something to write, each once.
    dirty: Vec<usize>,
    rng: Rng,
    payload: Vec<u8>,
    buffer: Vec<u8>,
    stats: Stats,
    unclaimed: Vec<UnclaimedAck>,
    last: Option<Timestamp>,
    next_tick: Timestamp,
    next_report: Timestamp,
}

#[derive(Default)]
#[allow(clippy::struct_excessive_bools)] // Independent marks, not states.
struct Slot {
    connection: Option<Connection>,
    has_session: bool,
    /// Requests may be sent on it: a closed loop with a ramp begins later on some.
    has_begun: bool,
    is_free: bool,
    is_dirty: bool,
}

impl Worker {
    #[allow(clippy::too_many_arguments)] // All that a thread gets.
    pub(super) fn new(
        shared: Arc<Shared>,
        index: usize,
        config: Arc<Checked<EngineConfig>>,
        poll: Poll,
        bares: Vec<Bare>,
        opened: Receiver<Opened>,
        events: UnboundedSender<Event>,
        report: Arc<Mutex<Progress>>,
    ) -> io::Result<Self> {
        let timer = Timer::new(&poll, TIMER)?;
        let frame = config.max_frame_size as usize;
        let mut worker = Self {
            index,
            poll,
            timer,
            opened,
            events,
            report,
            slots: Vec::new(),
            free: VecDeque::new(),
            dirty: Vec::new(),
            rng: Rng::with_seed(shared.seed.wrapping_add(index as u64)),
            payload: Vec::new(),
            buffer: vec![0; READ + frame],
            stats: Stats::new(),
            unclaimed: Vec::new(),
            last: None,
            next_tick: shared.clock.now(),
            next_report: shared.clock.now(),
            shared,
            config,
        };
        for (slot, bare) in bares.into_iter().enumerate() {
            worker.slots.push(Slot::default());
            worker.connect(slot, bare)?;
        }
        Ok(worker)
    }

    /// Runs to the end. `Begun` is reported by one of the threads.
    pub(super) fn run(mut self) -> io::Result<()> {
        let greeted = self.greet().inspect_err(|_| self.shared.stop.store(true, Ordering::Relaxed));
        // The others wait for this thread, whatever happened to it.
        let leads = self.shared.barrier.wait().is_leader();
        greeted?;
        let begin = *self.shared.begin.get_or_init(|| self.shared.clock.now());
        if leads {
            let _ = self.events.send(Event::Begun);
        }
        let supply = Supply::new(self.shared.load, begin, self.index as u64, self.shared.threads as u64);
        // One thread less is another load: the run ends.
        let result = self.load(supply).inspect_err(|_| self.shared.stop.store(true, Ordering::Relaxed));
        self.stats.unfinished =
            self.slots.iter().flat_map(|slot| &slot.connection).map(Connection::in_flight).sum::<usize>()
                as u64;
        self.report();
        let now = self.shared.clock.now();
        for slot in &mut self.slots {
            if let Some(connection) = slot.connection.take() {
                connection.close(now);
            }
        }
        result
    }

    /// The handshakes of all connections.
    fn greet(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let end = self.shared.clock.now() + self.shared.timeout;
        loop {
            let now = self.shared.clock.now();
            self.write_all(now);
            let waits = self.slots.iter().any(|slot| slot.connection.is_some() && !slot.has_session);
            if !waits || now >= end || self.is_stopped() {
                return Ok(());
            }
            self.timer.wait(&mut self.poll, &mut events, TICK, None)?;
            self.turn(&events, None)?;
        }
    }

    fn load(&mut self, mut supply: Supply) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut later = self.later(&supply);
        // All threads report at the same times.
        self.next_report = self.shared.clock.now() + REPORT;
        loop {
            let now = self.shared.clock.now();
            while let Some((at, slot)) = later.front().copied()
                && at <= now
            {
                later.pop_front();
                if let Some(slot) = self.slots.get_mut(slot) {
                    slot.has_begun = true;
                }
                self.free(slot);
            }
            if now >= self.next_tick {
                self.next_tick = now + TICK;
                self.check_time(now);
                self.drop_overdue(now, &mut supply);
            }
            if now >= self.next_report {
                self.next_report = now + REPORT;
                self.report();
            }
            let next = self.dispatch(now, &mut supply);
            self.write_all(now);
            let mut due = None;
            match next {
                _ if self.is_stopped() => return Ok(()),
                Some(Next::Over) if self.slots.iter().all(|slot| slot.in_flight() == 0) => return Ok(()),
                // Something was freed by a connection that ended.
                Some(Next::Request(_)) if !self.free.is_empty() => due = Some(now),
                Some(Next::At(at)) => due = Some(at),
                _ => {}
            }
            if let Some((at, _)) = later.front() {
                due = Some(due.map_or(*at, |due| due.min(*at)));
            }
            let now = self.shared.clock.now();
            let (tick, due) = (self.next_tick.since(now), due.map(|due| due.since(now)));
            self.timer.wait(&mut self.poll, &mut events, tick, due)?;
            self.turn(&events, Some(&mut supply))?;
        }
    }

    /// When requests begin on each connection.
    fn later(&self, supply: &Supply) -> VecDeque<(Timestamp, usize)> {
        let Shared { threads, connections, .. } = *self.shared;
        (0..self.slots.len())
            .map(|slot| (supply.starts(slot * threads + self.index, connections), slot))
            .collect()
    }

    /// Sends requests while there are some, and connections that accept them. Returns what comes next.
    fn dispatch(&mut self, now: Timestamp, supply: &mut Supply) -> Option<Next> {
        loop {
            let next = supply.peek(now);
            let Next::Request(request) = next else { return Some(next) };
            let Some(slot) = self.free.pop_front() else { return Some(next) };
            if let Some(slot) = self.slots.get_mut(slot) {
                slot.is_free = false;
            }
            if self.ask(slot, now, request) {
                supply.advance();
            }
        }
    }

    /// Whether the request was sent, or has failed.
    fn ask(&mut self, slot: usize, now: Timestamp, request: Request) -> bool {
        let Some(connection) = self.slots.get_mut(slot).and_then(|slot| slot.connection.as_mut()) else {
            return false;
        };
        let Some(template) = self.shared.template(request) else { return false };
        let payload = match template.constant() {
            Some(payload) => payload,
            None => {
                template.fill(request.number, &mut self.rng, &mut self.payload);
                &self.payload
            }
        };
        match connection.ask(now, request.due, payload) {
            Ok(()) => {
                self.stats.sent += 1;
                self.mark_dirty(slot);
            }
            // The connection is free again at the next tick: a closed loop would do nothing else.
            Err(NotifyError::TooBig { .. }) => {
                self.stats.failed(3, 1);
                return true;
            }
            Err(_) => return false,
        }
        self.free(slot);
        true
    }

    /// Requests that were due so long ago that HAProxy has given them up.
    fn drop_overdue(&mut self, now: Timestamp, supply: &mut Supply) {
        while let Next::Request(request) = supply.peek(now)
            && request.due + self.shared.timeout <= now
        {
            supply.advance();
            self.stats.failed(1, 1);
            self.stats.never_sent += 1;
        }
    }

    /// Handles events. A connection that was answered is asked again before the next one is read: so the agent has something to do
    /// meanwhile.
    fn turn(&mut self, events: &Events, mut supply: Option<&mut Supply>) -> io::Result<()> {
        for event in events {
            match event.token() {
                TIMER => {}
                WAKER => {
                    while let Ok(Opened { slot, bare }) = self.opened.try_recv() {
                        self.connect(slot, bare)?;
                    }
                }
                Token(slot) => {
                    let now = self.shared.clock.now();
                    if event.is_readable() || event.is_read_closed() || event.is_error() {
                        self.with(slot, now, Connection::read);
                    }
                    if self.connection(slot).is_some_and(Connection::wants_write) {
                        self.mark_dirty(slot);
                    }
                    if let Some(supply) = supply.as_deref_mut() {
                        self.dispatch(now, supply);
                    }
                    self.write_all(now);
                }
            }
        }
        Ok(())
    }

    fn connect(&mut self, key: usize, bare: Bare) -> io::Result<()> {
        let now = self.shared.clock.now();
        let channel = Channel::register(bare, self.poll.registry(), Token(key))?;
        if let Some(slot) = self.slots.get_mut(key) {
            slot.connection = Some(Connection::new(channel, &self.config, self.shared.in_flight, key, now));
        }
        self.mark_dirty(key);
        Ok(())
    }

    /// Lets a connection do something, and looks at what has become of it.
    fn with(
        &mut self,
        key: usize,
        now: Timestamp,
        step: impl FnOnce(&mut Connection, &mut Turn<'_>) -> State,
    ) {
        let answered = self.stats.answered;
        let Some(slot) = self.slots.get_mut(key) else { return };
        let Some(connection) = &mut slot.connection else { return };
        let mut turn =
            Turn { now, buffer: &mut self.buffer, stats: &mut self.stats, unclaimed: &mut self.unclaimed };
        let state = step(connection, &mut turn);
        if self.stats.answered > answered {
            self.last = Some(now);
        }
        if state == State::Open && connection.is_stuck() {
            self.stats.ended("it accepted no more requests: HAProxy would open another connection".into(), 1);
            self.reopen(key);
        } else if state == State::Over {
            self.reopen(key);
        } else {
            if connection.has_session() && !slot.has_session {
                slot.has_session = true;
                self.shared.open.fetch_add(1, Ordering::Relaxed);
            }
            if connection.is_ready() {
                self.free(key);
            }
        }
        while let Some(ack) = self.unclaimed.pop() {
            self.claim(now, ack);
        }
    }

    fn reopen(&mut self, key: usize) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let pause = !slot.connection.take().is_some_and(|connection| connection.has_answered);
        if std::mem::take(&mut slot.has_session) {
            self.shared.open.fetch_sub(1, Ordering::Relaxed);
        }
        let _ = self.events.send(Event::Open { thread: self.index, slot: key, pause });
    }

    /// An answer that took another connection of the engine; one that is too late is discarded.
    #[cold]
    fn claim(&mut self, now: Timestamp, mut ack: UnclaimedAck) {
        for key in 0..self.slots.len() {
            let Some(Slot { connection: Some(connection), .. }) = self.slots.get_mut(key) else { continue };
            let mut turn = Turn {
                now,
                buffer: &mut self.buffer,
                stats: &mut self.stats,
                unclaimed: &mut self.unclaimed,
            };
            match connection.claim(ack, &mut turn) {
                Ok(()) => {
                    self.last = Some(now);
                    self.free(key);
                    return;
                }
                Err(other) => ack = other,
            }
        }
    }

    fn check_time(&mut self, now: Timestamp) {
        for slot in 0..self.slots.len() {
            self.with(slot, now, Connection::check_time);
        }
    }

    fn write_all(&mut self, now: Timestamp) {
        while let Some(key) = self.dirty.pop() {
            if let Some(slot) = self.slots.get_mut(key) {
                slot.is_dirty = false;
                self.with(key, now, Connection::write);
            }
        }
    }

    fn connection(&self, key: usize) -> Option<&Connection> {
        self.slots.get(key)?.connection.as_ref()
    }

    fn free(&mut self, key: usize) {
        if let Some(slot) = self.slots.get_mut(key)
            && slot.has_begun
            && !slot.is_free
            && slot.connection.as_ref().is_some_and(Connection::is_ready)
        {
            slot.is_free = true;
            self.free.push_back(key);
        }
    }

    fn mark_dirty(&mut self, key: usize) {
        if let Some(slot) = self.slots.get_mut(key)
            && !slot.is_dirty
        {
            slot.is_dirty = true;
            self.dirty.push(key);
        }
    }

    fn report(&mut self) {
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.stats.take(&mut self.stats);
        report.last = self.last;
        report.until = Some(self.shared.clock.now());
    }

    fn is_stopped(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }
}

impl Slot {
    fn in_flight(&self) -> usize {
        self.connection.as_ref().map_or(0, Connection::in_flight)
    }
}
