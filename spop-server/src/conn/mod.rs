//! One accepted connection, from its first byte to its last.

mod accepting;
mod answer;
mod end;
mod report;
mod session;
#[cfg(test)]
mod tests;
mod turn;

use std::{
    io, mem,
    sync::{Arc, atomic::Ordering},
    task::Waker,
};

use spop_core::{
    Action, AgentReactor, Closed, Interest, Misuse, Timestamp,
    accept::Peer,
    agent::{Reply, TicketId},
    link::{Layers, Progress},
};
use tracing::{Span, debug};

use self::{accepting::Accepting, session::Session};
use crate::{Admission, Agent, Connection, Entrance, Handler, Stage, connection::Accepted, registry::Slot};

/// One connection of a server: the accept stage, the session, the failure policy, limits, counters, log events, answers that
/// take other connections, the stages of a shutdown.
///
/// It is driven like a reactor of `spop-core`: bytes in, bytes out, and what to do next by [`interest`](Self::interest) and
/// [`deadline`](Self::deadline). It has no socket, no task and no clock. The application is a [`Handler`], which every input
/// takes. [`Driver`](crate::Driver) drives it over a transport that does not block, and
/// [`CompletionDriver`](crate::CompletionDriver) over one that reports completions. Any other driver does the following, and
/// [`Agent`] has the steps of the server:
///
/// 1. **Start.** When a listener has accepted a connection, [`Agent::accept`] it. If the listener has an accept stage,
///    `interest` can ask for a write or for `close` before any input.
/// 2. **Wake-ups.** Register a waker with [`set_waker`](Self::set_waker), and call [`on_wake`](Self::on_wake) when it was woken:
///    other threads and connections send answers, and the shutdown advances. If wakers cost memory, register one only when
///    [`wants_waker`](Self::wants_waker) is true; read it at the end of each turn. Give the connections without a waker a
///    turn when the stage of the shutdown changes.
/// 3. **Interest.** Read [`interest`](Self::interest), and apply its fields as steps 1 to 4 of [the loop](spop_core#the-loop) of
///    `spop-core` say, until nothing is left to do but to wait: `resume` before `read`. The unused part of the input is the
///    beginning of the next input, and the buffer must be able to hold the longest frame. The input of `resume` is the unused
///    part, even if it is empty. After `close` it is discarded.
/// 4. **TLS.** If [`wants_tls`](Self::wants_tls) is true, start TLS with the unused input, and report the end of its handshake with
///    [`on_tls_done`](Self::on_tls_done) or [`on_tls_failed`](Self::on_tls_failed). During the handshake `interest` is empty, and
///    the [`deadline`](Self::deadline) still applies. After it the input is what TLS decrypts.
/// 5. **Time.** Call [`on_timeout`](Self::on_timeout) when the [`deadline`](Self::deadline) has passed, after the input that has
///    arrived.
/// 6. **Errors.** Report an error of the transport, or a [`Misuse`], to [`on_transport_error`](Self::on_transport_error).
/// 7. **End.** When `interest().close` is true, close the transport and call
///    [`on_transport_closed`](Self::on_transport_closed). Drop the `Conn` when [`is_over`](Self::is_over) is true. Until then
///    other connections of its engine send the answers to its requests, and it needs steps 2 and 5 only.
/// 8. **Stop.** When [`is_stopping`](Self::is_stopping) is true, write what can be written without waiting, close the transport,
///    and drop the `Conn`.
///
/// One call processes all of its input. So that a peer that sends without a pause does not block the others of a thread, end the
/// turn of a connection after a bounded number of bytes: [`Driver`](crate::Driver) does after 64 KiB.
#[derive(Debug)]
pub struct Conn {
    agent: Arc<Agent>,
    connection: Arc<Connection>,
    slot: Slot,
    /// The stage of the shutdown, as far as it was applied.
    stage: Stage,
    waker: Option<Waker>,
    state: State,
    admission: Admission,
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // A connection is a session for most of its life, and one pointer less to follow.
enum State {
    /// Before the session.
    Accepting(Box<Accepting>),
    Session(Session),
    /// It ended without a session.
    Over,
}

impl Conn {
    pub(crate) fn new(
        agent: &Arc<Agent>,
        now: Timestamp,
        peer: Peer,
        entrance: Option<&Arc<Entrance>>,
        admission: Admission,
    ) -> Self {
        let (connection, slot) = agent.register(peer, now, entrance.cloned());
        let mut conn = Self {
            agent: Arc::clone(agent),
            connection,
            slot,
            stage: Stage::Serve,
            waker: None,
            state: State::Over,
            admission,
        };
        match entrance.filter(|entrance| !entrance.config.handlers().is_empty()) {
            Some(entrance) => {
                conn.state =
                    State::Accepting(Box::new(Accepting::new(entrance, conn.connection.peer().clone(), now)));
                conn.apply_stage(now);
                conn.accept(now, |accepting| accepting.start(now));
            }
            None => {
                conn.begin(now, None);
                conn.apply_stage(now);
            }
        }
        conn
    }

    /// Begins the session.
    fn begin(&mut self, now: Timestamp, accepted: Option<Box<Accepted>>) {
        let (peer, id) = (self.connection.peer(), self.connection.id);
        debug!(name: "connection_opened", %peer, connection = id.0, "connection opened");
        let layers = match &accepted {
            Some(accepted) if accepted.origin.tls => Layers::Data,
            _ => Layers::Plain,
        };
        let reactor = AgentReactor::new(Arc::clone(&self.agent.config), id, now).with_layers(layers);
        self.state = State::Session(Session::new(&self.agent, &self.connection, reactor, accepted));
    }

    // ---- what to do next ----

    /// What the driver should do now.
    #[expect(
        clippy::inline_always,
        reason = "packed into a register and taken apart again, the result costs as much as the work"
    )]
    #[inline(always)]
    pub fn interest(&self) -> Interest {
        match &self.state {
            State::Session(session) if self.stage != Stage::Stop => session.interest(),
            _ => self.other_interest(),
        }
    }

    /// Before and after the session, and when the server stops.
    #[cold]
    fn other_interest(&self) -> Interest {
        match &self.state {
            State::Session(session) => session.last_interest(),
            State::Accepting(accepting) if self.stage != Stage::Stop => accepting.interest(),
            State::Accepting(_) | State::Over => Interest { close: true, ..Interest::default() },
        }
    }

    /// When to call [`on_timeout`](Self::on_timeout).
    #[inline]
    pub fn deadline(&self) -> Option<Timestamp> {
        match &self.state {
            State::Session(session) => session.deadline(),
            State::Accepting(accepting) => accepting.deadline(),
            State::Over => None,
        }
    }

    /// The bytes to send, in order.
    #[inline]
    pub fn outgoing(&self) -> &[u8] {
        match &self.state {
            State::Session(session) => session.reactor.outgoing(),
            State::Accepting(accepting) => accepting.outgoing(),
            State::Over => &[],
        }
    }

    /// Whether TLS is to be started with the unused input: then call [`on_tls_done`](Self::on_tls_done) or
    /// [`on_tls_failed`](Self::on_tls_failed).
    #[inline]
    pub fn wants_tls(&self) -> bool {
        matches!(&self.state, State::Accepting(accepting) if accepting.wants_tls())
    }

    /// The certificates of the listener, for TLS.
    #[cfg(feature = "tls")]
    pub fn tls(&self) -> Option<&crate::tls::Tls> {
        match &self.state {
            State::Accepting(accepting) => accepting.tls(),
            _ => None,
        }
    }

    /// Whether the server stops ([`Stage::Stop`], applied by [`on_wake`](Self::on_wake)): write what can be written without
    /// waiting, close the transport, and drop the connection.
    #[inline]
    pub fn is_stopping(&self) -> bool {
        self.stage == Stage::Stop
    }

    /// Whether the connection can be dropped: `interest().close` is set, and no other connection will send answers to its
    /// requests.
    pub fn is_over(&self) -> bool {
        match &self.state {
            State::Session(session) => self.interest().close && !session.has_orphans(),
            State::Accepting(_) => self.stage == Stage::Stop,
            State::Over => true,
        }
    }

    /// Why the session ended, if it did.
    pub fn closed(&self) -> Option<&Closed> {
        match &self.state {
            State::Session(session) => session.closed.as_deref(),
            _ => None,
        }
    }

    /// The reactor of the session, if one has begun.
    pub fn reactor(&self) -> Option<&AgentReactor> {
        match &self.state {
            State::Session(session) => Some(&session.reactor),
            _ => None,
        }
    }

    /// Its identifier, as in the log. Unique within the server.
    pub fn id(&self) -> spop_core::ConnectionId {
        self.connection.id
    }

    /// Its span `connection`, of level debug. The spans of its requests are inside it.
    pub fn span(&self) -> &Span {
        self.connection.span()
    }

    /// The peer of the transport.
    pub fn peer(&self) -> &Peer {
        self.connection.peer()
    }

    // ---- events ----

    /// Registers the waker that is woken when [`on_wake`](Self::on_wake) is to be called; at once if it is to be called now. Cheap
    /// if it is the same waker as before.
    #[inline]
    pub fn set_waker(&mut self, waker: &Waker) {
        if self.waker.as_ref().is_none_or(|known| !known.will_wake(waker)) {
            self.connection.inbox.set_waker(waker);
            self.waker = Some(waker.clone());
            // What came before found no waker, or another.
            if self.is_woken() {
                waker.wake_by_ref();
            }
        }
    }

    /// Whether other threads or connections may send something, and no waker is registered: it has deferred a request, its handler
    /// keeps one, or it has joined an engine with `async`. An adapter whose wakers cost memory reads this at the end of each turn,
    /// and registers a waker only if it is true. Then the connections without a waker need a turn when the stage of the shutdown
    /// changes.
    #[inline]
    pub fn wants_waker(&self) -> bool {
        self.waker.is_none() && matches!(&self.state, State::Session(session) if session.has_senders())
    }

    /// Whether [`on_wake`](Self::on_wake) has something to do.
    #[inline]
    pub fn is_woken(&self) -> bool {
        self.connection.inbox.has_messages() || self.agent.stage() != self.stage
    }

    /// Applies what other threads have sent: answers, and the stage of the shutdown.
    pub fn on_wake(&mut self, now: Timestamp, handler: &mut impl Handler) {
        if self.agent.stage() != self.stage {
            self.apply_stage(now);
            if self.stage == Stage::Stop
                && let State::Session(session) = &mut self.state
            {
                session.stop(&self.agent, now, handler);
            }
        }
        if let State::Session(session) = &mut self.state {
            session.publish_backlog();
            session.take_messages(&self.agent, now, handler);
            session.at_rest(&self.agent, now, handler);
        }
    }

    fn apply_stage(&mut self, now: Timestamp) {
        self.stage = self.agent.stage();
        match &mut self.state {
            State::Session(session) => session.set_stage(now, self.stage),
            State::Accepting(accepting) => accepting.set_lame_duck(self.stage > Stage::Serve),
            State::Over => {}
        }
    }

    /// Processes input: the unused part of earlier input, followed by what was read. Returns how many bytes were used.
    #[inline]
    pub fn on_bytes(&mut self, now: Timestamp, handler: &mut impl Handler, input: &[u8]) -> usize {
        match &mut self.state {
            State::Session(session) => session.on_input(&self.agent, now, handler, input, false),
            _ => self.on_first_input(now, handler, input, false),
        }
    }

    /// The peer has shut its write side. The input is the unused part of earlier input, perhaps nothing. Returns how many bytes were
    /// used.
    pub fn on_input_eof(&mut self, now: Timestamp, handler: &mut impl Handler, input: &[u8]) -> usize {
        match &mut self.state {
            State::Session(session) => session.on_input(&self.agent, now, handler, input, true),
            _ => self.on_first_input(now, handler, input, true),
        }
    }

    /// Input of the accept stage, and what follows it in the session.
    #[cold]
    fn on_first_input(
        &mut self,
        now: Timestamp,
        handler: &mut impl Handler,
        input: &[u8],
        eof: bool,
    ) -> usize {
        let mut used = 0;
        self.accept(now, |accepting| accepting.on_input(now, input, eof, &mut used));
        let rest = input.get(used..).unwrap_or_default();
        match &mut self.state {
            State::Session(session) if eof || !rest.is_empty() => {
                used + session.on_input(&self.agent, now, handler, rest, eof)
            }
            State::Over => input.len(),
            _ => used,
        }
    }

    /// A read that [`Interest::read_now`] asked for would block.
    pub fn on_read_blocked(&mut self, now: Timestamp, handler: &mut impl Handler) {
        if let State::Session(session) = &mut self.state {
            session.on_read_blocked(&self.agent, now, handler);
        }
    }

    /// The first `n` bytes of [`outgoing`](Self::outgoing) were written.
    ///
    /// # Errors
    /// [`Misuse::SentTooMuch`]: treat it as a failed transport.
    #[inline]
    pub fn on_sent(&mut self, now: Timestamp, handler: &mut impl Handler, n: usize) -> Result<(), Misuse> {
        match &mut self.state {
            State::Session(session) => session.on_sent(&self.agent, now, handler, n),
            State::Accepting(_) => {
                let mut sent = Ok(());
                self.accept(now, |accepting| sent = accepting.on_sent(now, n));
                sent
            }
            State::Over => Ok(()),
        }
    }

    /// The write side of the layer that [`Interest::shut`] names was shut, or its shutdown would block. An error of the shutdown
    /// counts as [`Progress::Done`].
    ///
    /// # Errors
    /// [`Misuse::ShutNotRequested`]: treat it as a failed transport.
    pub fn on_write_shut(
        &mut self,
        now: Timestamp,
        handler: &mut impl Handler,
        progress: Progress,
    ) -> Result<(), Misuse> {
        match &mut self.state {
            State::Session(session) => {
                let action = session.reactor.on_write_shut(now, progress)?;
                session.on_event(&self.agent, now, handler, action);
            }
            State::Accepting(accepting) => {
                if progress == Progress::Done {
                    accepting.on_write_shut();
                }
            }
            State::Over => {}
        }
        Ok(())
    }

    /// The transport failed in either direction.
    pub fn on_transport_error(&mut self, now: Timestamp, handler: &mut impl Handler, error: &io::Error) {
        match &mut self.state {
            State::Session(session) => {
                match session.reactor.on_transport_error(now) {
                    Action::Close(closed) => session.close(&self.agent, now, handler, closed, Some(error)),
                    action => _ = session.carry_out(&self.agent, now, handler, action),
                }
                session.at_rest(&self.agent, now, handler);
            }
            // A monitor that has its answer may close without a `close_notify`.
            State::Accepting(_) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.on_first_input(now, handler, &[], true);
            }
            State::Accepting(_) => {
                let connection = Arc::clone(&self.connection);
                self.reject(
                    now,
                    "lost",
                    &format_args!("{} was lost before its session: {error}", connection.peer()),
                );
            }
            State::Over => {}
        }
    }

    /// The transport was closed, as [`interest`](Self::interest) asked for. The connection is no longer listed by
    /// [`ServerHandle::connections`](crate::ServerHandle::connections). It counts under the limits until it is dropped.
    pub fn on_transport_closed(&mut self) {
        self.connection.set_closed();
        if let State::Session(session) = &mut self.state {
            session.open = None;
        }
    }

    /// The [`deadline`](Self::deadline) may have passed. An early call does nothing.
    pub fn on_timeout(&mut self, now: Timestamp, handler: &mut impl Handler) {
        match &mut self.state {
            State::Session(session) => {
                session.on_timeout(&self.agent, now, handler);
                session.at_rest(&self.agent, now, handler);
            }
            _ => self.accept(now, |accepting| accepting.on_timeout(now)),
        }
    }

    /// The answer to a request that the handler [kept](crate::Outcome::Later), given on the thread of the connection. If the answer
    /// is not needed any more, it is dropped. If several are ready, call [`on_wake`](Self::on_wake) before the first: with `async`
    /// it records the send backlog by which another connection of the engine may be chosen.
    pub fn on_answer(
        &mut self,
        now: Timestamp,
        handler: &mut impl Handler,
        request: TicketId,
        answer: Reply,
    ) {
        if let State::Session(session) = &mut self.state {
            session.take_messages(&self.agent, now, handler);
            session.answer(&self.agent, now, handler, request, answer);
            session.at_rest(&self.agent, now, handler);
        }
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.agent.deregister(self.slot);
        if let State::Session(session) = mem::replace(&mut self.state, State::Over) {
            session.abandon(&self.agent);
        }
        // No answer finds it any more.
        drop(self.connection.inbox.close());
        if self.connection.held.load(Ordering::Relaxed) > 0
            && let Some(admission) = mem::take(&mut self.admission).keep()
        {
            self.connection.inbox.keep_admission(admission);
        }
    }
}
