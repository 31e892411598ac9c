//! HAProxy and a server, connected in memory.

use std::{fmt, future::poll_fn, pin::Pin, sync::Arc, task::Poll, time::Duration};

use spop_core::{
    Closed, EngineConfig, MessageList, Session,
    engine::{Ended, NotifyError, NotifyId},
    testing::{Conditions, Cuts, Outcome, engine_side::EngineSide, wire::Wire},
};
use spop_server::{Agent, ServerConfig, ServerHandle, testing::FailureRecord};
use tokio::{
    task::JoinSet,
    time::{Sleep, sleep_until, timeout},
};

use super::link::{Link, State};
use crate::{Handler, Peer, Service};

/// How long an outcome is awaited at most, for handlers and engines without a timeout.
const LIMIT: Duration = Duration::from_secs(3600);

/// HAProxy's side of the protocol, and a server with a handler, connected in memory.
///
/// The server is the real one, with its policies: timeouts, limits, `on_failure`. HAProxy is the engine of `spop-core` with the
/// profile of a version, for example [`EngineConfig::haproxy_3_2`]; it makes one connection. Time is tokio's, and the server
/// runs on a task of the runtime. HAProxy's side processes events only in [`ask`](Self::ask) and the methods that begin with
/// `run_`. The [example of the module](super) has one.
pub struct Pair {
    link: Link,
    agent: Arc<Agent>,
    /// Aborted when it is dropped.
    connection: JoinSet<Option<Closed>>,
}

impl Pair {
    /// An engine, and a server with this handler, over a connection without latency, loss or cuts.
    ///
    /// # Panics
    /// If a configuration is invalid, and outside of a runtime.
    #[track_caller]
    pub fn new<H: Handler>(engine: EngineConfig, server: impl Into<ServerConfig>, handler: H) -> Self {
        Self::with(Conditions::default(), engine, server, handler)
    }

    /// As [`new`](Self::new), with these conditions in both directions.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    #[track_caller]
    #[expect(clippy::panic, reason = "a test with a configuration like this has no other way to go on")]
    pub fn with<H: Handler>(
        conditions: Conditions,
        engine: EngineConfig,
        server: impl Into<ServerConfig>,
        handler: H,
    ) -> Self {
        let engine =
            engine.checked().unwrap_or_else(|error| panic!("the configuration of the engine: {error}"));
        let service = Service::new(handler, server)
            .unwrap_or_else(|error| panic!("the configuration of the server: {error}"));
        let agent = Arc::clone(service.agent());
        FailureRecord::begin(&agent);
        let link = Link::new(engine, conditions);
        let mut connection = JoinSet::new();
        connection.spawn(service.serve_connection(link.stream(), Peer::Other("a test".into())));
        Self { link, agent, connection }
    }

    /// Sets how the bytes are cut into reads, in both directions: for a pair that has sent nothing yet.
    #[must_use]
    pub fn with_cuts(self, cuts: Cuts) -> Self {
        let mut conditions = Conditions::default();
        conditions.cuts = cuts;
        let mut state = self.link.lock();
        *state.engine.out() = Wire::new(conditions.clone(), 0);
        state.out = Wire::new(conditions, 1);
        drop(state);
        self
    }

    /// Sends one request, and awaits its outcome.
    ///
    /// # Errors
    /// [`NotifyError`] if it cannot be sent.
    pub async fn ask(&mut self, messages: &MessageList) -> Result<Outcome, NotifyError> {
        self.run_handshake().await;
        let id = self.notify(messages)?;
        let settled = |engine: &EngineSide| engine.outcomes.iter().position(|(settled, _)| *settled == id);
        let _ = timeout(LIMIT, self.run_until(|engine| settled(engine).is_some())).await;
        let engine = &mut self.link.lock().engine;
        Ok(settled(engine).map_or_else(Outcome::waiting, |index| engine.outcomes.remove(index).1))
    }

    /// Sends a request; its outcome comes with [`run_until_settled`](Self::run_until_settled).
    ///
    /// # Errors
    /// [`NotifyError`] if it cannot be sent, for example before the [handshake](Self::run_handshake).
    pub fn notify(&mut self, messages: &MessageList) -> Result<NotifyId, NotifyError> {
        self.link.lock().engine.notify(self.link.now(), None, messages)
    }

    /// Runs until the session is established or the connection has ended. True if there is a session.
    pub async fn run_handshake(&mut self) -> bool {
        self.run_until(|engine| engine.session.is_some() || engine.ended.is_some()).await;
        self.link.lock().engine.session.is_some()
    }

    /// Runs until no request is in flight, and returns the outcomes in the order of their ends.
    pub async fn run_until_settled(&mut self) -> Vec<(NotifyId, Outcome)> {
        let settled = self.run_until(|engine| engine.reactor.in_flight() == 0);
        let _ = timeout(LIMIT, settled).await;
        std::mem::take(&mut self.link.lock().engine.outcomes)
    }

    /// Runs for this time.
    pub async fn run_for(&mut self, time: Duration) {
        let _ = timeout(time, self.run_until(|_| false)).await;
    }

    /// Runs until both sides have closed the connection, and returns why the server's session ended.
    pub async fn run_to_end(mut self) -> Option<Closed> {
        self.run_until(EngineSide::is_closed).await;
        self.connection.join_next().await?.ok()?
    }

    /// Breaks the connection now.
    pub fn lose(&mut self) {
        let mut state = self.link.lock();
        state.out.lose();
        state.wake_agent();
    }

    /// The session, once it is established.
    pub fn session(&self) -> Option<Session> {
        self.link.lock().engine.session.clone()
    }

    /// The end of the session, as HAProxy's side sees it.
    pub fn engine_ended(&self) -> Option<Ended> {
        self.link.lock().engine.ended.clone()
    }

    /// Drains the server from outside, and returns its counters.
    pub fn handle(&self) -> ServerHandle {
        self.agent.handle()
    }

    async fn run_until(&self, is_done: impl Fn(&EngineSide) -> bool) {
        let mut alarm: Option<Pin<Box<Sleep>>> = None;
        poll_fn(|cx| {
            loop {
                let now = self.link.now();
                let mut state = self.link.lock();
                let failures = FailureRecord::begin(&self.agent).take();
                let failures = failures.into_iter().map(|(ids, failure)| (ids, (&failure).into()));
                state.engine.failures.extend(failures);
                let mut worked = state.is_lost() && state.engine.lose(now);
                let State { engine, out, .. } = &mut *state;
                engine.fire(now);
                while engine.turn(now, out) {
                    worked = true;
                }
                let (done, next) = (is_done(engine), engine.next_event(out));
                state.waker = Some(cx.waker().clone());
                if worked {
                    state.wake_agent();
                }
                drop(state);
                if done {
                    return Poll::Ready(());
                }
                let Some(at) = next.and_then(|at| self.link.instant(at)) else { return Poll::Pending };
                if alarm.insert(Box::pin(sleep_until(at))).as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await;
    }
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair").field("link", &self.link).finish_non_exhaustive()
    }
}
