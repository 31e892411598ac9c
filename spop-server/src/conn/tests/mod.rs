//! Connections in virtual time, without sockets.

mod answers;
mod engines;
mod entrance;
mod events;
mod failures;
mod handlers;
mod limits;
mod log_texts;
mod memory;
mod orphans;
#[cfg(feature = "metrics")]
mod recorder;
mod shutdown;
mod watch;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Wake, Waker},
    time::Duration,
};

use spop_core::{
    Actions, AgentConfig, Clock, Scope, Status, Timestamp,
    accept::Peer,
    agent::{Partial, Reply, TicketId, Watch},
    frame::Capabilities,
    notation,
};
use tracing::{Event, Metadata, Subscriber, field::Visit, span, subscriber::DefaultGuard};

use crate::{
    Agent, Cancelled, Conn, Entrance, FailureKind, Handler, Outcome, Request, Responder, ServerConfig,
    test_support::sentences,
};

/// A server without sockets, and its handler. When it is dropped, after its connections, everything must have been returned.
struct Server {
    agent: Arc<Agent>,
    app: App,
    now: Timestamp,
    /// The log lines, as the event's name and its field `what`.
    log: Arc<Mutex<Vec<String>>>,
    _logging: DefaultGuard,
}

type Meanwhile = Box<dyn FnOnce(&mut Vec<Responder>)>;

/// Answers by the name of the first message.
#[derive(Default)]
struct App {
    deferred: Vec<Responder>,
    /// Requests that an adapter would answer.
    kept: Vec<Request<'static>>,
    cancel_panics: bool,
    cancelled: Vec<Cancelled>,
    called: usize,
    released: usize,
    watched: usize,
    /// Runs while a request `busy` is handled.
    meanwhile: Option<Meanwhile>,
    on_watch: Option<fn(Partial<'_>) -> Watch>,
}

impl Handler for App {
    fn handle(&mut self, request: Request<'_>) -> Outcome {
        self.called += 1;
        let name = request.messages().iter().next().unwrap().name().to_vec();
        match name.as_slice() {
            b"later" => return request.defer(|responder| self.deferred.push(responder)),
            b"dropped" => return request.defer(drop),
            b"keep" => {
                self.kept.push(request.into_owned());
                return Outcome::Later;
            }
            b"later-panic" => {
                let _ = request.defer(|responder| self.deferred.push(responder));
                panic!("boom");
            }
            b"later-now" => _ = request.defer(|responder| self.deferred.push(responder)),
            b"replied" => return request.defer(|responder| responder.reply(score())),
            b"nothing" => return Outcome::Later,
            b"busy" => {
                let run = self.meanwhile.take();
                if let Some(run) = run {
                    run(&mut self.deferred);
                }
            }
            b"parts" => {
                request.send_part(part("a"));
                request.send_part(part("b"));
                return part("c").into();
            }
            b"part-then-later" => {
                request.send_part(part("a"));
                return request.defer(|responder| self.deferred.push(responder));
            }
            b"panic" => panic!("boom"),
            b"panic-later" => _ = request.defer(|_responder| panic!("boom")),
            b"fail" => return Err::<Actions, _>("no").into(),
            b"abort" => return Reply::Abort.into(),
            b"large" => return long(15_000).into(),
            b"long" => return long(20_000).into(),
            b"disconnect" => return disconnect().into(),
            _ => {}
        }
        score().into()
    }

    fn watch(&mut self, arriving: Partial<'_>) -> Watch {
        self.watched += 1;
        self.on_watch.map_or(Watch::Continue, |watch| watch(arriving))
    }

    fn cancel(&mut self, _request: TicketId, why: Cancelled) {
        self.cancelled.push(why);
        assert!(!self.cancel_panics, "boom");
    }

    fn release_memory(&mut self) {
        self.released += 1;
    }
}

fn score() -> Actions {
    let mut actions = Actions::new();
    actions.set_var(Scope::Transaction, "score", 42_i32);
    actions
}

const SCORE: &str = "set txn score=int32:42";

fn part(name: &str) -> Actions {
    let mut actions = Actions::new();
    actions.set_var(Scope::Transaction, name, true);
    actions
}

fn long(length: usize) -> Actions {
    let mut actions = Actions::new();
    actions.set_var(Scope::Transaction, "long", "x".repeat(length).as_str());
    actions
}

fn disconnect() -> Reply {
    Reply::Disconnect { status: Status(42), message: "go".into() }
}

/// What connections count until each request has ended.
#[derive(Debug, Default, PartialEq, Eq)]
struct Totals {
    notifies: usize,
    acks: usize,
    failures: usize,
    cancelled: usize,
}

impl Server {
    fn new(config: impl Into<ServerConfig>) -> Self {
        let agent = Agent::new(config, Clock::start()).unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let logging = tracing::subscriber::set_default(Log(Arc::clone(&log)));
        Self { agent, app: App::default(), now: Timestamp::from_millis(1), log, _logging: logging }
    }

    /// A connection whose answers may take others of its engine.
    fn asynchronous() -> Self {
        Self::new(asynchronous())
    }

    fn connect(&mut self) -> Conn {
        self.connect_from(Peer::unnamed(), None).unwrap()
    }

    fn connect_from(&mut self, peer: Peer, entrance: Option<&Arc<Entrance>>) -> Option<Conn> {
        self.agent.accept(self.now, peer, entrance)
    }

    /// A connection with a session of this engine.
    fn session(&mut self, engine: &str) -> Conn {
        let mut conn = self.connect();
        self.greet(&mut conn, engine);
        conn
    }

    fn greet(&mut self, conn: &mut Conn, engine: &str) {
        self.greet_with(conn, "pipelining,async", engine);
    }

    fn greet_with(&mut self, conn: &mut Conn, capabilities: &str, engine: &str) {
        self.say(conn, &hello(capabilities, engine));
        assert!(self.hear(conn)[0].starts_with("AGENT-HELLO"));
    }

    fn say(&mut self, conn: &mut Conn, line: &str) {
        let bytes = notation::parse_bytes(line).unwrap();
        self.say_bytes(conn, &bytes);
    }

    fn say_bytes(&mut self, conn: &mut Conn, bytes: &[u8]) {
        let mut used = conn.on_bytes(self.now, &mut self.app, bytes);
        while conn.interest().resume {
            used += conn.on_bytes(self.now, &mut self.app, &bytes[used..]);
        }
        assert_eq!(used, bytes.len());
    }

    /// The peer reads: what the connection has sent, as sentences.
    fn hear(&mut self, conn: &mut Conn) -> Vec<String> {
        sentences(&self.hear_bytes(conn))
    }

    fn hear_bytes(&mut self, conn: &mut Conn) -> Vec<u8> {
        let mut all = Vec::new();
        while conn.interest().write {
            let bytes = conn.outgoing().to_vec();
            conn.on_sent(self.now, &mut self.app, bytes.len()).unwrap();
            all.extend(bytes);
        }
        all
    }

    /// What a driver does with a connection that was woken.
    fn wake(&mut self, conn: &mut Conn) {
        if conn.is_woken() {
            conn.on_wake(self.now, &mut self.app);
        }
        self.resume(conn);
    }

    fn resume(&mut self, conn: &mut Conn) {
        while conn.interest().resume {
            conn.on_bytes(self.now, &mut self.app, &[]);
        }
    }

    /// Time passes, and no input arrives.
    fn wait(&mut self, conn: &mut Conn, time: Duration) {
        let end = self.now + time;
        while let Some(at) = conn.deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            conn.on_timeout(self.now, &mut self.app);
            self.resume(conn);
            if conn.interest().read_now {
                conn.on_read_blocked(self.now, &mut self.app);
            }
            self.resume(conn);
            assert!(
                conn.deadline().is_none_or(|next| next > self.now),
                "a deadline that was handled is over"
            );
        }
        self.now = end;
    }

    /// The transport fails.
    fn lose(&mut self, conn: &mut Conn) {
        conn.on_transport_error(self.now, &mut self.app, &std::io::ErrorKind::ConnectionReset.into());
        assert!(conn.interest().close);
    }

    fn answer_first(&mut self) {
        self.app.deferred.remove(0).reply(score());
    }

    /// What connections have counted so far.
    fn totals(&self) -> Totals {
        let totals = self.agent.metrics.totals.lock().unwrap_or_else(PoisonError::into_inner);
        let get = |key: &str| totals.get(key).copied().unwrap_or_default();
        Totals {
            notifies: get("spop_notifies_total"),
            acks: get("spop_acks_total"),
            failures: get("spop_failures_total"),
            cancelled: get("spop_cancelled_total"),
        }
    }

    /// The log lines since the last call.
    fn logged(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let Totals { notifies, acks, failures, cancelled } = self.totals();
        assert_eq!(notifies, acks + failures + cancelled, "each request ends once: {:?}", self.totals());
        assert_eq!(self.agent.stats().open, 0);
        assert!(self.agent.open_connections(self.now).is_empty());
        assert_eq!(self.agent.engines.len(), 0);
        self.app.deferred.clear();
        assert_eq!(self.agent.in_flight.now(), 0);
        assert_eq!((self.agent.buffered.now(), self.agent.requests.now()), (0, 0));
    }
}

fn hello(capabilities: &str, engine: &str) -> String {
    format!(
        r#"HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 capabilities=string:"{capabilities}" engine-id=string:{engine}"#
    )
}

fn asynchronous() -> AgentConfig {
    let mut config = AgentConfig::default();
    config.capabilities |= Capabilities::ASYNC;
    config
}

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Counts its wake-ups.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Woken {
    fn waker() -> (Arc<Self>, Waker) {
        let woken = Arc::new(Self::default());
        let waker = Waker::from(Arc::clone(&woken));
        (woken, waker)
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Keeps what is logged.
struct Log(Arc<Mutex<Vec<String>>>);

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event()
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = event.metadata().name().to_owned();
        event.record(&mut What(&mut line));
        self.0.lock().unwrap().push(line);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct What<'a>(&'a mut String);

impl Visit for What<'_> {
    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        if field.name() == "what" {
            self.0.push(' ');
            self.0.push_str(value);
        }
    }

    fn record_debug(&mut self, _: &tracing::field::Field, _: &dyn std::fmt::Debug) {}
}
