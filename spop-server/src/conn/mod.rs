//! One accepted connection, from its first byte to its last.

mod accepting;
mod answer;
mod end;
mod report;
mod session;
#[cfg(test)]
mod tests;

use std::{io, mem, sync::Arc, task::Waker};

use spop_core::{
    AgentReactor, Closed, Interest, Misuse, Timestamp,
    accept::Peer,
    agent::TicketId,
    link::{Layers, Progress},
};
use tracing::{Span, debug};

use self::{accepting::Accepting, session::Session};
use crate::{
    Agent, Answer, Entrance, Handler, Stage, agent::Admission, connection::Accepted, remote::Remote,
};

/// One connection of a server: the accept stage, the session, the failure policy, limits, counters, log events, answers that
/// take other connections, the stages of a shutdown.
///
/// It is driven like a reactor of `spop-core`: bytes in, bytes out, and what to do next by [`interest`](Self::interest) and
/// [`deadline`](Self::deadline). It has no socket, no task and no clock. The application is a [`Handler`], which every input
/// takes.
///
/// 1. When a listener has accepted a connection, [`Agent::accept`] it. Register a waker with [`set_waker`](Self::set_waker):
///    other threads wake the connection for answers that were deferred, for answers of other connections, and for a shutdown.
/// 2. When it was woken, call [`on_wake`](Self::on_wake).
/// 3. Read [`interest`](Self::interest), and apply it in the order of its fields as the front page of `spop-core` says. Keep
///    the part of the input that was not used, as the beginning of the next.
/// 4. If [`wants_tls`](Self::wants_tls) is true, start TLS with the unused input, and report how its handshake ended.
/// 5. Call [`on_timeout`](Self::on_timeout) when the [`deadline`](Self::deadline) has come.
/// 6. When `interest().close` is true, close the transport. When [`is_over`](Self::is_over) is true, drop the `Conn`: until
///    then it waits for answers that other connections of its engine will send, and
///    [`on_transport_closed`](Self::on_transport_closed) removes it from the open connections.
///
/// [`Driver`](crate::Driver) does this for a transport that does not block, and
/// [`CompletionDriver`](crate::CompletionDriver) for one that reports completions.
#[derive(Debug)]
pub struct Conn {
    agent: Arc<Agent>,
    remote: Arc<Remote>,
    /// The stage of the shutdown, as far as it was applied.
    stage: Stage,
    waker: Option<Waker>,
    state: State,
    #[allow(dead_code)] // Held for its drop.
    admission: Option<Admission>,
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
        admission: Option<Admission>,
    ) -> Self {
        let remote = agent.register(peer, now);
        let mut conn = Self {
            agent: Arc::clone(agent),
            remote,
            stage: Stage::Serve,
            waker: None,
            state: State::Over,
            admission,
        };
        match entrance {
            Some(entrance) => {
                conn.state =
                    State::Accepting(Box::new(Accepting::new(entrance, conn.remote.peer.clone(), now)));
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
        let (peer, id) = (&self.remote.peer, self.remote.id);
        debug!(name: "connection_opened", %peer, connection = id.0, "connection opened");
        let layers = match &accepted {
            Some(accepted) if accepted.origin.tls => Layers::Data,
            _ => Layers::Plain,
        };
        let reactor = AgentReactor::new(Arc::clone(&self.agent.config), id, now).with_layers(layers);
        self.state = State::Session(Session::new(&self.agent, &self.remote, reactor, accepted));
    }

    // ---- what to do next ----

    /// What the driver should do now.
    #[inline]
    pub fn interest(&self) -> Interest {
        match &self.state {
            State::Session(session) if self.stage == Stage::Stop => session.last_interest(),
            State::Session(session) => session.interest(),
            State::Accepting(_) if self.stage == Stage::Stop => {
                Interest { close: true, ..Interest::default() }
            }
            State::Accepting(accepting) => accepting.interest(),
            State::Over => Interest { close: true, ..Interest::default() },
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

    /// Whether the server stops: write what can be written without waiting, and close.
    #[inline]
    pub fn is_stopping(&self) -> bool {
        self.stage == Stage::Stop
    }

    /// Whether the transport can be closed and nothing else is to be done.
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
        self.remote.id
    }

    /// Its span: `connection`, for debugging. The spans of its requests are inside it.
    pub fn span(&self) -> &Span {
        self.remote.span()
    }

    /// The peer of the transport.
    pub fn peer(&self) -> &Peer {
        &self.remote.peer
    }

    // ---- events ----

    /// Whose wake-up has [`on_wake`](Self::on_wake) called. Cheap if it is the same as before.
    #[inline]
    pub fn set_waker(&mut self, waker: &Waker) {
        if self.waker.as_ref().is_none_or(|known| !known.will_wake(waker)) {
            self.remote.set_waker(waker);
            self.waker = Some(waker.clone());
            // What came before found no waker, or another.
            if self.is_woken() {
                waker.wake_by_ref();
            }
        }
    }

    /// Whether other threads or connections may send something, and no waker was registered. An adapter whose wakers cost memory
    /// registers one only then, after each turn, and gives each connection a turn when the stage of the shutdown changes.
    #[inline]
    pub fn wants_waker(&self) -> bool {
        self.waker.is_none() && matches!(&self.state, State::Session(session) if session.has_senders())
    }

    /// Whether there is something to do for [`on_wake`](Self::on_wake).
    #[inline]
    pub fn is_woken(&self) -> bool {
        self.remote.has_messages() || self.agent.stage() != self.stage
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

    /// The input: the unused part of earlier input, followed by what was read. Returns how many bytes of it were used.
    #[inline]
    pub fn on_bytes(&mut self, now: Timestamp, handler: &mut impl Handler, input: &[u8]) -> usize {
        match &mut self.state {
            State::Session(session) => session.on_input(&self.agent, now, handler, input, false),
            _ => self.on_first_input(now, handler, input, false),
        }
    }

    /// The peer has shut its write side; the input is what was not used.
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

    /// A read that [`Interest::read_now`] asked for found nothing.
    pub fn on_read_blocked(&mut self, now: Timestamp, handler: &mut impl Handler) {
        if let State::Session(session) = &mut self.state {
            let action = session.reactor.on_read_blocked(now);
            session.on_event(&self.agent, now, handler, action);
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

    /// The write side of the layer that [`Interest::shut`] names was shut, or cannot be now.
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
                if session.closed.is_none() {
                    debug!(name: "transport_failed", peer = %self.remote.peer, connection = self.remote.id.0, %error, "transport failed");
                }
                let action = session.reactor.on_transport_error(now);
                session.on_event(&self.agent, now, handler, action);
            }
            // A monitor that has its answer may close without a `close_notify`.
            State::Accepting(_) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.on_first_input(now, handler, &[], true);
            }
            State::Accepting(_) => {
                let remote = Arc::clone(&self.remote);
                self.reject(
                    now,
                    "lost",
                    &format_args!("{} was lost before its session: {error}", remote.peer),
                );
            }
            State::Over => {}
        }
    }

    /// The transport was closed, as [`interest`](Self::interest) asked for: the connection is not among the open ones any more,
    /// though it may wait for answers that others will send. It counts under the limits until it is dropped.
    pub fn on_transport_closed(&mut self) {
        self.remote.set_closed();
        if let State::Session(session) = &mut self.state {
            session.open = None;
        }
    }

    /// The [`deadline`](Self::deadline) may have come. Before it, nothing changes.
    pub fn on_timeout(&mut self, now: Timestamp, handler: &mut impl Handler) {
        match &mut self.state {
            State::Session(session) => {
                session.on_timeout(&self.agent, now, handler);
                session.at_rest(&self.agent, now, handler);
            }
            _ => self.accept(now, |accepting| accepting.on_timeout(now)),
        }
    }

    /// The answer to a request that the handler [kept](crate::Outcome::Later). If several are ready, call
    /// [`on_wake`](Self::on_wake) before the first: what is queued then, the peer has not read, and a connection of the same
    /// engine may be faster.
    pub fn on_answer(
        &mut self,
        now: Timestamp,
        handler: &mut impl Handler,
        request: TicketId,
        answer: Answer,
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
        self.agent.deregister(self.remote.id);
        if let State::Session(session) = mem::replace(&mut self.state, State::Over) {
            session.abandon(&self.agent);
        }
        // No answer finds it any more.
        drop(self.remote.close());
    }
}
