//! Agents on `io_uring`: the loop of `spop-core`'s front page, with accepts, receives and sends that are asked of the kernel for
//! many connections with one system call.
//!
//! Input is handled in the kernel's receive buffers: [`on_bytes`](AgentReactor::on_bytes) takes a slice, so only what is left of
//! a frame that has not arrived whole is copied. All completions of a round are handled before anything is sent: one send
//! has the answers to all that a connection has received.

use std::{
    collections::BTreeSet,
    io,
    net::{Shutdown, TcpListener, TcpStream},
    os::fd::AsFd,
    sync::Arc,
    time::Duration,
};

use io_uring::cqueue;
use slab::Slab;
use spop_core::{
    Action, Actions, AgentConfig, AgentReactor, Clock, ConnectionId, Notify, Timestamp, config::Checked,
    frame::MessageIter, link::Progress,
};

use self::{
    buffers::HEADROOM,
    ring::{Completion, Operation, Ring},
};

#[path = "buffers.rs"]
mod buffers;
#[path = "ring.rs"]
mod ring;

/// After an accept has failed, because descriptors are exhausted for instance, the next one waits for this long.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Serves until there is something to read from `drain`, and then until every connection is drained.
///
/// # Errors
/// When there is no `io_uring`, or it fails as a whole; nothing that a connection does.
pub(crate) fn serve(
    listener: TcpListener,
    drain: &impl AsFd,
    config: AgentConfig,
    answer: impl FnMut(MessageIter<'_>) -> Actions,
) -> io::Result<()> {
    let clock = Clock::start();
    let mut agent = Agent {
        ring: Ring::new()?,
        listener: Some(listener),
        draining: false,
        config: Arc::new(config.checked()?),
        now: clock.now(),
        answer,
        conns: Slab::new(),
        opened: 0,
        changed: Vec::new(),
        reading_now: Vec::new(),
        timers: BTreeSet::new(),
        accept_at: None,
        out_of_buffers: false,
    };
    agent.ring.wait_for_drain(drain)?;
    agent.accept()?;
    let mut completions = Vec::new();
    while agent.listener.is_some() || !agent.conns.is_empty() {
        agent.ring.wait(agent.timeout(clock.now()), &mut completions)?;
        agent.now = clock.now();
        for completion in completions.drain(..) {
            agent.complete(&completion)?;
        }
        if std::mem::take(&mut agent.out_of_buffers) {
            agent.ring.buffers.grow();
        }
        agent.reads_found_nothing();
        agent.serve_timers();
        while let Some(key) = agent.changed.pop() {
            agent.apply_interest(key)?;
        }
        if agent.accept_at.is_some_and(|at| at <= agent.now) {
            agent.accept_at = None;
            agent.accept()?;
        }
    }
    Ok(())
}

struct Agent<F> {
    ring: Ring,
    /// Until a drain has begun and the accept has ended.
    listener: Option<TcpListener>,
    draining: bool,
    config: Arc<Checked<AgentConfig>>,
    now: Timestamp,
    answer: F,
    conns: Slab<Conn>,
    opened: u64,
    /// Connections whose interest may have changed.
    changed: Vec<usize>,
    /// Connections with `read_now`: their receives are tried once more before it is said that there was nothing.
    reading_now: Vec<usize>,
    /// One timer for each connection, not later than its deadline.
    timers: BTreeSet<(Timestamp, usize)>,
    /// When to accept again after a failure.
    accept_at: Option<Timestamp>,
    /// The kernel had more to receive than buffers for it.
    out_of_buffers: bool,
}

struct Conn {
    stream: TcpStream,
    reactor: AgentReactor,
    /// Input that was not used: the beginning of a frame, or frames that wait for a limit.
    leftover: Vec<u8>,
    /// What the kernel is sending: never touched while it does.
    out: Vec<u8>,
    sending: bool,
    receiving: Receiving,
    changed: bool,
    timer: Option<Timestamp>,
    /// No more operations: it is dropped when those under way have ended.
    over: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Receiving {
    No,
    Yes,
    /// It was asked to end.
    Ending,
}

impl<F: FnMut(MessageIter<'_>) -> Actions> Agent<F> {
    /// How long there is nothing to do unless an operation completes.
    fn timeout(&self, now: Timestamp) -> Option<Duration> {
        if !self.reading_now.is_empty() {
            return Some(Duration::ZERO);
        }
        let timer = self.timers.first().map(|(at, _)| *at);
        Some(timer.into_iter().chain(self.accept_at).min()?.since(now))
    }

    fn complete(&mut self, completion: &Completion) -> io::Result<()> {
        match completion.operation {
            Operation::Accept => self.accepted(completion)?,
            Operation::Receive(key) => self.received(key, completion),
            Operation::Send(key) => self.sent(key, completion.result),
            Operation::Drain => self.drain()?,
            Operation::Other => {}
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        self.listener.as_ref().map_or(Ok(()), |listener| self.ring.accept(listener))
    }

    fn drain(&mut self) -> io::Result<()> {
        self.draining = true;
        for (key, conn) in &mut self.conns {
            conn.reactor.drain(self.now);
            mark_changed(conn, key, &mut self.changed);
        }
        if self.accept_at.take().is_some() {
            // There is no accept to end.
            self.listener = None;
        }
        self.ring.stop_accepting()
    }

    fn accepted(&mut self, completion: &Completion) -> io::Result<()> {
        let accepted = Ring::stream(completion);
        let failed = accepted.is_none();
        if let Some(stream) = accepted {
            // Answers leave in one piece, and at once.
            let _ = stream.set_nodelay(true);
            self.opened += 1;
            let config = Arc::clone(&self.config);
            let mut reactor = AgentReactor::new(config, ConnectionId(self.opened), self.now);
            if self.draining {
                reactor.drain(self.now);
            }
            let key = self.conns.insert(Conn {
                stream,
                reactor,
                leftover: Vec::new(),
                out: Vec::new(),
                sending: false,
                receiving: Receiving::No,
                changed: true,
                timer: None,
                over: false,
            });
            self.changed.push(key);
        }
        if cqueue::more(completion.flags) {
            Ok(())
        } else if self.draining {
            self.listener = None;
            Ok(())
        } else if failed {
            self.accept_at = Some(self.now + BACK_OFF);
            Ok(())
        } else {
            self.accept()
        }
    }

    fn received(&mut self, key: usize, completion: &Completion) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if !cqueue::more(completion.flags) {
            conn.receiving = Receiving::No;
        }
        mark_changed(conn, key, &mut self.changed);
        if let Some(id) = cqueue::buffer_select(completion.flags) {
            if let Ok(len) = usize::try_from(completion.result) {
                conn.receive(self.now, self.ring.buffers.get(id), len, &mut self.answer);
            }
            self.ring.buffers.give_back(id);
        }
        match completion.result {
            0 => conn.feed_leftover(self.now, true, &mut self.answer),
            1.. => {}
            _ if completion.wants_buffers() => self.out_of_buffers = true,
            _ if completion.is_cancelled() => {}
            _ => conn.fail(self.now),
        }
    }

    fn sent(&mut self, key: usize, result: i32) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.sending = false;
        self.ring.reuse(&mut conn.out);
        match usize::try_from(result) {
            Ok(sent) if sent > 0 && conn.reactor.on_sent(self.now, sent).is_ok() => {}
            _ => conn.fail(self.now),
        }
        mark_changed(conn, key, &mut self.changed);
    }

    /// All that had arrived was received since `read_now` was seen: the kernel looked at the sockets once more.
    fn reads_found_nothing(&mut self) {
        for key in self.reading_now.drain(..) {
            let Some(conn) = self.conns.get_mut(key) else { continue };
            // A receive that has ended meanwhile, for want of buffers for instance, has not looked.
            if conn.receiving == Receiving::Yes && conn.reactor.interest().read_now {
                let _ = conn.reactor.on_read_blocked(self.now);
            }
            mark_changed(conn, key, &mut self.changed);
        }
    }

    fn serve_timers(&mut self) {
        while let Some((_, key)) = self.timers.first().copied().filter(|(at, _)| *at <= self.now) {
            self.timers.pop_first();
            let Some(conn) = self.conns.get_mut(key) else { continue };
            conn.timer = None;
            // The deadline may have moved on since the timer was set.
            if conn.reactor.deadline().is_some_and(|(at, _)| at <= self.now) {
                while !conn.reactor.on_timeout(self.now).ends_input() {}
            }
            mark_changed(conn, key, &mut self.changed);
        }
    }

    /// Asks the kernel for what a connection is interested in.
    fn apply_interest(&mut self, key: usize) -> io::Result<()> {
        let Some(conn) = self.conns.get_mut(key) else { return Ok(()) };
        conn.changed = false;
        let mut interest = conn.reactor.interest();
        while interest.resume || interest.shut.is_some() && !conn.sending {
            if interest.resume {
                conn.feed_leftover(self.now, false, &mut self.answer);
            } else {
                // What cannot be shut is gone already.
                let _ = conn.stream.shutdown(Shutdown::Write);
                let _ = conn.reactor.on_write_shut(self.now, Progress::Done);
            }
            interest = conn.reactor.interest();
        }
        if interest.close && !conn.over {
            conn.over = true;
            // Ends what is under way.
            let _ = conn.stream.shutdown(Shutdown::Both);
        }
        if conn.over {
            if !conn.sending && conn.receiving == Receiving::No {
                self.timers.extract(conn.timer, key);
                self.conns.remove(key);
            }
            return Ok(());
        }
        if interest.write && !conn.sending {
            conn.out = self.ring.spare();
            conn.out.extend_from_slice(conn.reactor.outgoing());
            conn.sending = true;
            self.ring.send(&conn.stream, &conn.out, key)?;
        }
        match (interest.read, conn.receiving) {
            (true, Receiving::No) => {
                conn.receiving = Receiving::Yes;
                self.ring.receive(&conn.stream, key)?;
            }
            (false, Receiving::Yes) => {
                conn.receiving = Receiving::Ending;
                self.ring.stop_receiving(key)?;
            }
            _ => {}
        }
        if interest.read_now {
            self.reading_now.push(key);
        }
        if let Some((deadline, _)) = conn.reactor.deadline()
            && conn.timer.is_none_or(|timer| deadline < timer)
        {
            self.timers.extract(conn.timer, key);
            self.timers.insert((deadline, key));
            conn.timer = Some(deadline);
        }
        Ok(())
    }
}

trait Timers {
    fn extract(&mut self, at: Option<Timestamp>, key: usize);
}

impl Timers for BTreeSet<(Timestamp, usize)> {
    fn extract(&mut self, at: Option<Timestamp>, key: usize) {
        if let Some(at) = at {
            self.remove(&(at, key));
        }
    }
}

fn mark_changed(conn: &mut Conn, key: usize, changed: &mut Vec<usize>) {
    if !std::mem::replace(&mut conn.changed, true) {
        changed.push(key);
    }
}

impl Conn {
    /// Handles `len` bytes that lie behind the headroom of a buffer, and what was left before them. The shorter of the two is
    /// copied: what was left to the headroom, or, when a long frame arrives in small pieces, the piece behind what was left.
    fn receive(
        &mut self,
        now: Timestamp,
        buffer: &mut [u8],
        len: usize,
        answer: &mut impl FnMut(MessageIter<'_>) -> Actions,
    ) {
        let kept = self.leftover.len();
        if kept > HEADROOM || kept > len {
            self.leftover.extend_from_slice(buffer.get(HEADROOM..HEADROOM + len).unwrap_or_default());
            return self.feed_leftover(now, false, answer);
        }
        let Some(input) = buffer.get_mut(HEADROOM - kept..HEADROOM + len) else { return };
        for (to, from) in input.iter_mut().zip(self.leftover.drain(..)) {
            *to = from;
        }
        let used = self.feed(now, input, false, answer);
        self.leftover.extend_from_slice(input.get(used..).unwrap_or_default());
        self.release_memory();
    }

    fn feed_leftover(
        &mut self,
        now: Timestamp,
        ended: bool,
        answer: &mut impl FnMut(MessageIter<'_>) -> Actions,
    ) {
        let mut leftover = std::mem::take(&mut self.leftover);
        let used = self.feed(now, &leftover, ended, answer);
        leftover.drain(..used);
        self.leftover = leftover;
        self.release_memory();
    }

    /// A connection on which every frame was whole holds no memory for input.
    fn release_memory(&mut self) {
        if self.leftover.is_empty() && self.leftover.capacity() > 0 {
            self.leftover = Vec::new();
        }
    }

    /// Gives input to the reactor until there is nothing left of it, or no more to do with it; returns how many bytes were used.
    fn feed(
        &mut self,
        now: Timestamp,
        input: &[u8],
        ended: bool,
        answer: &mut impl FnMut(MessageIter<'_>) -> Actions,
    ) -> usize {
        let mut used = 0;
        loop {
            let unused = input.get(used..).unwrap_or_default();
            let step = if ended {
                self.reactor.on_input_eof(now, unused)
            } else {
                self.reactor.on_bytes(now, unused)
            };
            used += step.consumed;
            match step.action {
                Action::RunMessages(Notify { ticket, payload, .. }) => {
                    let actions = answer(payload.messages().iter());
                    if let Err(error) = self.reactor.acknowledge(now, ticket, &actions) {
                        let _ = self.reactor.fail(now, error.into_ticket());
                    }
                }
                action if !action.ends_input() => {}
                _ => return used,
            }
            if used == input.len() && !ended {
                return used;
            }
        }
    }

    fn fail(&mut self, now: Timestamp) {
        let _ = self.reactor.on_transport_error(now);
    }
}
