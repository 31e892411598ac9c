//! A server: listeners, and a task for each connection.

use std::{
    fmt,
    future::poll_fn,
    io, mem,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::{Either, FutureExt as _, select};
use spop_core::{AgentConfig, config::Checked};
use spop_server::{
    Address, ConnectionInfo, Counters, Endpoint, Entrance, Level, Place, Seat, Sources, Stats,
    is_of_connection,
};
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::{Sleep, sleep},
};
use tracing::{error, warn};

use crate::{
    Handler, Peer, Service,
    control::Control,
    entrance::{self, Arrival, Passage, Passing},
    listen::Listener,
    stream::Stream,
};

/// How long a listener rests that cannot accept: the process has no file descriptors left, as a rule.
const BACK_OFF: Duration = Duration::from_millis(100);
/// How long tasks may take to notice a stop. One whose handler blocks its thread never does.
const STOP: Duration = Duration::from_secs(1);
/// Connections accepted in one go, before those that are open have their turn.
const BATCH: usize = 64;

/// An agent on any number of sockets.
///
/// ```no_run
/// use spop_tokio::{Actions, Request, Scope, Server};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let server = Server::new(|request: Request| async move {
///     let mut actions = Actions::new();
///     actions.set_var(Scope::Transaction, "messages", request.messages().len() as u64);
///     actions
/// });
/// let server = server.bind("127.0.0.1:12345").await?.bind("/run/agent.sock").await?;
/// server.serve_until(async { drop(tokio::signal::ctrl_c().await) }).await;
/// # Ok(())
/// # }
/// ```
#[must_use = "a server does nothing before `serve`"]
pub struct Server<H> {
    service: Service<H>,
    listeners: Vec<Listener>,
    max_connections: usize,
    sources: Sources,
}

impl<H> fmt::Debug for Server<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, listeners, max_connections, sources } = self;
        let mut server = f.debug_struct("Server");
        server.field("service", service).field("listeners", listeners);
        server.field("max_connections", max_connections).field("sources", sources).finish()
    }
}

impl<H: Handler> Server<H> {
    /// A server that listens nowhere yet, with the default configuration.
    pub fn new(handler: H) -> Self {
        Self::with_checked(handler, Checked::default())
    }

    /// A server that listens nowhere yet.
    ///
    /// # Errors
    /// The configuration cannot work: of the kind [`InvalidInput`](io::ErrorKind::InvalidInput), with the
    /// [`ConfigError`](spop_core::config::ConfigError) inside, whose text names the field.
    pub fn with_config(handler: H, config: AgentConfig) -> io::Result<Self> {
        Ok(Self::with_checked(handler, config.checked()?))
    }

    fn with_checked(handler: H, config: Checked<AgentConfig>) -> Self {
        Self {
            service: Service::with_checked(handler, config),
            listeners: Vec::new(),
            max_connections: 10_000,
            sources: Sources::default(),
        }
    }

    /// How many connections may be open; more are closed as soon as they come, and counted. Default 10000.
    pub const fn max_connections(mut self, max: usize) -> Self {
        self.max_connections = max;
        self
    }

    /// How many connections may be open from one address; more are closed as soon as they come, and counted. It is the
    /// peer's address that counts, and unix sockets have none. Default: as many as [`max_connections`](Self::max_connections).
    pub fn max_connections_per_source(mut self, max: usize) -> Self {
        self.sources.limit(max);
        self
    }

    /// How many requests may be worked on, on all connections together. One more gets at once what
    /// [`AgentConfig::on_failure`] says, and its handler is not called. Default: no limit but that of each connection.
    pub fn max_in_flight(self, max: usize) -> Self {
        self.service.shared.in_flight.limit(max);
        self
    }

    /// How many bytes of requests that have not arrived whole all connections together may hold: fragments, and long frames.
    /// The connection that exceeds it is disconnected with [`Status::RESOURCE`](spop_core::Status::RESOURCE). Counted in
    /// steps of 16 KiB for each connection. Default 256 MiB.
    pub fn max_unfinished_bytes(self, max: usize) -> Self {
        self.service.shared.unfinished.limit(max);
        self
    }

    /// Length of the lame duck stage of a shutdown: health checks (HAProxy's `option spop-check`) and monitors are refused,
    /// everything else is served. Then the drain begins. Default zero.
    ///
    /// HAProxy takes a server out after `fall` failed checks, `inter` apart: use more than `fall` × `inter` plus one check. A
    /// plain `check` only connects and does not notice. Without this stage HAProxy 3.1 and later lose requests in a restart: a
    /// request whose connection is refused waits a second before its next attempt. Leave it at zero where another process
    /// listens on the same socket.
    pub fn lame_duck(self, time: Duration) -> Self {
        self.service.shared.control.set_lame_duck(time);
        self
    }

    /// Listens there too. A socket file that nobody serves is replaced; it is removed when the server ends.
    ///
    /// # Errors
    /// Says where it cannot listen, and why.
    pub async fn bind(mut self, endpoint: impl Into<Endpoint>) -> io::Result<Self> {
        let endpoint = endpoint.into();
        // It may ask for the addresses of a name.
        let listening = spawn_blocking(|| endpoint.listen(false)).await.map_err(io::Error::other)??;
        self.listeners.push(listening.try_into()?);
        Ok(self)
    }

    /// Where the server listens, in the order of [`bind`](Self::bind).
    ///
    /// # Errors
    /// When the system does not say.
    pub fn addresses(&self) -> io::Result<Vec<Address>> {
        self.listeners.iter().map(Listener::address).collect()
    }

    /// What ends the server from outside, and tells how it is.
    pub fn handle(&self) -> ServerHandle {
        self.service.handle()
    }

    /// The service, for connections that come in other ways. They end with the server, but do not count.
    pub fn service(&self) -> Service<H> {
        self.service.clone()
    }

    /// Serves until [`ServerHandle::drain`] or [`ServerHandle::stop`] is called, and the last connection has ended.
    pub async fn serve(self) {
        self.serve_until(std::future::pending()).await;
    }

    /// Serves until `shutdown` is ready, then drains as [`ServerHandle::drain`] does: the listeners close, each connection is served on until nothing is
    /// owed. Returns when the last has ended.
    pub async fn serve_until(self, shutdown: impl Future<Output = ()>) {
        let handle = self.handle();
        let mut control = handle.control.subscribe();
        let mut shutdown = pin!(shutdown);
        let mut asked = false;
        let mut lame_duck: Option<Pin<Box<Sleep>>> = None;
        let mut stop: Option<Pin<Box<Sleep>>> = None;
        let listeners = self.listeners.len();
        let mut serving = Serving { server: self, tasks: JoinSet::new(), back_off: None };
        tell(spop_server::tell_ready(listeners));
        let mut told = false;
        poll_fn(|cx| {
            if !asked && shutdown.as_mut().poll(cx).is_ready() {
                asked = true;
                handle.drain();
            }
            let mut level = control.level(cx.waker());
            serving.reap(cx);
            if level > Level::Serve && !told {
                told = true;
                tell(spop_server::tell_stopping(serving.counters().stats().open));
            }
            if level == Level::LameDuck {
                let time = handle.control.lame_duck();
                if lame_duck.get_or_insert_with(|| Box::pin(sleep(time))).as_mut().poll(cx).is_ready() {
                    handle.control.raise(Level::Drain);
                    level = Level::Drain;
                }
            }
            if level <= Level::LameDuck {
                serving.accept(cx);
                // A set that was empty wakes nobody before it is asked again.
                serving.reap(cx);
                return Poll::Pending;
            }
            if level == Level::Drain {
                serving.accept_last();
                serving.reap(cx);
            }
            serving.server.listeners.clear();
            let overdue = level == Level::Stop
                && stop.get_or_insert_with(|| Box::pin(sleep(STOP))).as_mut().poll(cx).is_ready();
            if overdue || serving.tasks.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

struct Serving<H> {
    server: Server<H>,
    tasks: JoinSet<()>,
    back_off: Option<Pin<Box<Sleep>>>,
}

impl<H: Handler> Serving<H> {
    /// Notices which connections have ended.
    fn reap(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(ended)) = self.tasks.poll_join_next(cx) {
            if let Err(error) = ended
                && let Some(suppressed) = self.server.service.shared.logs.closed.pass()
            {
                error!(name: "connection_panicked", %error, suppressed, "connection panicked");
            }
        }
    }

    fn accept(&mut self, cx: &mut Context<'_>) {
        if let Some(back_off) = &mut self.back_off {
            if back_off.as_mut().poll(cx).is_pending() {
                return;
            }
            self.back_off = None;
        }
        for index in 0..self.server.listeners.len() {
            for turn in 0.. {
                if turn == BATCH {
                    cx.waker().wake_by_ref();
                    break;
                }
                let Some(listener) = self.server.listeners.get(index) else { break };
                match listener.poll_accept(cx) {
                    Poll::Ready(Ok((stream, peer))) => {
                        let entrance = listener.entrance.clone();
                        self.admit(stream, peer, entrance);
                    }
                    Poll::Ready(Err(error)) if is_of_connection(&error) => {}
                    Poll::Ready(Err(error)) => {
                        self.counters().failed_accepts.fetch_add(1, Ordering::Relaxed);
                        self.warn("accept_failed", &error);
                        self.back_off = Some(Box::pin(sleep(BACK_OFF)));
                        cx.waker().wake_by_ref();
                        return;
                    }
                    Poll::Pending => break,
                }
            }
        }
    }

    /// Closes the listeners. Who has come already is served.
    fn accept_last(&mut self) {
        for listener in mem::take(&mut self.server.listeners) {
            let entrance = listener.entrance.clone();
            for (stream, peer) in listener.close() {
                self.admit(stream, peer, entrance.clone());
            }
        }
    }

    fn admit(&mut self, stream: Stream, peer: Peer, entrance: Option<Arc<Entrance>>) {
        let Some(seat) = self.counters().seat(self.server.max_connections) else {
            self.counters().refused.fetch_add(1, Ordering::Relaxed);
            self.server.service.shared.metrics.refused(1);
            self.warn("connection_refused", &format_args!("{peer}: too many connections"));
            return;
        };
        let Some(place) = self.server.sources.enter(&peer) else {
            self.counters().refused.fetch_add(1, Ordering::Relaxed);
            self.server.service.shared.metrics.refused(1);
            self.warn("connection_refused", &format_args!("{peer}: too many connections from its address"));
            return;
        };
        self.counters().accepted.fetch_add(1, Ordering::Relaxed);
        let service = &self.server.service;
        let held = (seat, place);
        match (entrance, stream) {
            (Some(entrance), stream) => {
                self.tasks.spawn(ended(enter(service.clone(), entrance, stream, peer), held))
            }
            (None, Stream::Tcp(stream)) => self.tasks.spawn(ended(service.serve(stream, peer.into()), held)),
            #[cfg(unix)]
            (None, Stream::Unix(stream)) => self.tasks.spawn(ended(service.serve(stream, peer.into()), held)),
        };
    }

    fn counters(&self) -> &Arc<Counters> {
        &self.server.service.shared.counters
    }

    fn warn(&self, what: &'static str, error: &dyn fmt::Display) {
        if let Some(suppressed) = self.server.service.shared.logs.accept.pass() {
            warn!(name: "not_accepted", what, %error, suppressed, "not accepted");
        }
    }
}

/// What came of a message to the service manager.
fn tell(sent: io::Result<()>) {
    if let Err(error) = sent {
        warn!(name: "service_manager", %error, "the service manager was not told");
    }
}

/// A connection, and what it holds until its end. Not an async function: that would keep room for the connection twice,
/// as its argument and as what it awaits.
fn ended<T>(connection: impl Future<Output = T>, held: (Seat, Place)) -> impl Future<Output = ()> {
    connection.map(move |_| drop(held))
}

/// Takes a connection through what its listener has before sessions, then serves it.
async fn enter<H: Handler>(service: Service<H>, entrance: Arc<Entrance>, stream: Stream, peer: Peer) {
    let shared = &service.shared;
    let mut control = shared.control.subscribe();
    let stopped = pin!(poll_fn(|cx| match control.level(cx.waker()) {
        Level::Stop => Poll::Ready(()),
        _ => Poll::Pending,
    }));
    // In a box: a session is longer than this, and should not have to keep the room.
    let passage = Box::pin(entrance::pass(&entrance, stream, peer, shared.clock, &shared.control));
    let Either::Left((passage, _)) = select(passage, stopped).await else { return };
    match passage {
        Passage::Session(stream, arrival) => {
            drop(control);
            serve(&service, stream, arrival).await;
        }
        Passage::Probe => {
            shared.counters.probes.fetch_add(1, Ordering::Relaxed);
            shared.metrics.probes(1);
        }
        Passage::Refused(what, error) => {
            shared.counters.rejected.fetch_add(1, Ordering::Relaxed);
            shared.metrics.rejected(1);
            if let Some(suppressed) = shared.logs.accept.pass() {
                warn!(name: "not_accepted", what, %error, suppressed, "not accepted");
            }
        }
    }
}

async fn serve<H: Handler>(service: &Service<H>, stream: Passing, arrival: Arrival) {
    match stream {
        Passing::Plain(Stream::Tcp(stream)) => Box::pin(service.serve(stream, arrival)).await,
        #[cfg(unix)]
        Passing::Plain(Stream::Unix(stream)) => Box::pin(service.serve(stream, arrival)).await,
        #[cfg(feature = "tls")]
        Passing::Tls(stream) => Box::pin(service.serve(*stream, arrival)).await,
    };
}

/// Ends a [`Server`] or [`Service`] from outside, and tells how it is.
#[derive(Clone, Debug)]
pub struct ServerHandle {
    pub(crate) control: Arc<Control>,
    pub(crate) counters: Arc<Counters>,
}

impl ServerHandle {
    /// Ends the server gracefully. First health checks and monitors are refused, for as long as [`Server::lame_duck`] says;
    /// then it accepts no more connections, and each ends as soon as nothing is owed on it, or when
    /// [`Timeouts::drain`](spop_core::config::Timeouts::drain) is over.
    /// A second call ends the lame duck stage.
    pub fn drain(&self) {
        self.control.shut_down();
    }

    /// Ends the server at once: what was answered is sent if it can be, what was not is lost.
    pub fn stop(&self) {
        self.control.raise(Level::Stop);
    }

    /// The numbers so far.
    pub fn stats(&self) -> Stats {
        self.counters.stats()
    }

    /// The connections that are open, for a status page. A look at each: not for every request.
    pub fn connections(&self) -> Vec<ConnectionInfo> {
        self.control.connections()
    }
}
