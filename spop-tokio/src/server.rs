//! A server: listeners, and a task for each connection.

use std::{
    fmt,
    future::{pending, poll_fn},
    io, mem,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use futures_util::FutureExt as _;
use spop_server::{
    ACCEPT_BACK_OFF, Address, Agent, Entrance, ServerConfig, ServerHandle, Stage, Subscription,
    is_of_connection,
};
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::{Sleep, sleep},
};

use crate::{
    Handler, IntoEndpoint, Peer, Service,
    alarm::Alarm,
    listen::Listener,
    stream::{OfSocket, Stream},
};

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
///     Actions::new().set(Scope::Transaction, "messages", request.messages().len())
/// });
/// let server = server.bind("127.0.0.1:12345").await?.bind("/run/agent.sock").await?;
/// server.serve_until(async { drop(tokio::signal::ctrl_c().await) }).await
/// # }
/// ```
#[must_use = "a server does nothing before `serve`"]
pub struct Server<H> {
    service: Service<H>,
    listeners: Vec<Listener>,
}

impl<H> fmt::Debug for Server<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, listeners } = self;
        f.debug_struct("Server").field("service", service).field("listeners", listeners).finish()
    }
}

impl<H: Handler> Server<H> {
    /// A server that listens nowhere yet, with the default configuration.
    pub fn new(handler: H) -> Self {
        Self { service: Service::with_defaults(handler), listeners: Vec::new() }
    }

    /// A server that listens nowhere yet.
    ///
    /// # Errors
    /// The configuration cannot work: of the kind [`InvalidInput`](io::ErrorKind::InvalidInput), with the
    /// [`ConfigError`](spop_core::config::ConfigError) inside, whose text names the field.
    pub fn with_config(handler: H, config: impl Into<ServerConfig>) -> io::Result<Self> {
        Ok(Self { service: Service::new(handler, config)?, listeners: Vec::new() })
    }

    /// Listens on an endpoint, besides those before: an address, a path, a `(host, port)`, a listener of tokio or std, or an
    /// [`Endpoint`](spop_server::Endpoint) with options. A socket file that no process serves is replaced; it is removed when the
    /// server ends.
    ///
    /// # Errors
    /// Names the endpoint, and why the server cannot listen on it.
    pub async fn bind(mut self, endpoint: impl IntoEndpoint) -> io::Result<Self> {
        let endpoint = endpoint.into_endpoint()?;
        // It may look up a name.
        let listening = spawn_blocking(|| endpoint.listen(false)).await.map_err(io::Error::other)??;
        self.listeners.push(listening.try_into()?);
        Ok(self)
    }

    /// The addresses that the server listens on, in the order of [`bind`](Self::bind).
    ///
    /// # Errors
    /// Of the system.
    pub fn addresses(&self) -> io::Result<Vec<Address>> {
        self.listeners.iter().map(Listener::address).collect()
    }

    /// Ends the server from outside, and returns its counters.
    pub fn handle(&self) -> ServerHandle {
        self.service.handle()
    }

    /// The service, for connections that do not come from a listener. They drain with the server, which waits for them until a second
    /// after [`Timeouts::drain`](spop_core::config::Timeouts::drain), including those whose future is never polled. They are not counted
    /// under the limits on connections, nor in [`Stats`](spop_server::Stats).
    pub fn service(&self) -> Service<H> {
        self.service.clone()
    }

    /// As [`serve_until`](Self::serve_until), until [`ServerHandle::drain`] or [`ServerHandle::stop`] is called.
    ///
    /// # Errors
    /// None so far. Connections cause none.
    pub async fn serve(self) -> io::Result<()> {
        self.serve_until(pending()).await
    }

    /// Serves until `shutdown` is ready, then drains as [`ServerHandle::drain`] does. Returns when the last connection has ended, and
    /// what goes on in the [background](spop_server::Background), if that takes no longer than the drain may.
    ///
    /// # Errors
    /// As [`serve`](Self::serve).
    pub async fn serve_until(self, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let mut shutdown = pin!(shutdown.fuse());
        let handle = self.handle();
        let mut serving = Serving::new(self);
        serving.agent().ready(serving.listeners.iter().map(|listener| &listener.entrance));
        poll_fn(|cx| {
            if shutdown.as_mut().poll(cx).is_ready() {
                handle.drain();
            }
            serving.poll(cx)
        })
        .await;
        serving.agent().ended(serving.service.now());
        Ok(())
    }
}

struct Serving<H> {
    service: Service<H>,
    listeners: Vec<Listener>,
    connections: JoinSet<()>,
    back_off: Option<Pin<Box<Sleep>>>,
    /// The end of the lame duck stage, or that of the drain.
    alarm: Alarm,
    subscription: Option<(Waker, Subscription)>,
}

impl<H: Handler> Serving<H> {
    fn new(server: Server<H>) -> Self {
        Self {
            service: server.service,
            listeners: server.listeners,
            connections: JoinSet::new(),
            back_off: None,
            alarm: Alarm::default(),
            subscription: None,
        }
    }

    fn agent(&self) -> &Arc<Agent> {
        self.service.agent()
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.reap(cx);
        let stage = self.poll_stage(cx);
        match stage {
            Stage::Serve | Stage::LameDuck => {
                self.accept(cx);
                // A set that was empty wakes no task before it is polled again.
                self.reap(cx);
                return Poll::Pending;
            }
            Stage::Drain => self.accept_last(),
            Stage::Stop => self.listeners.clear(),
        }
        self.reap(cx);
        // In a drain its own connections have deadlines of their own.
        let waits = stage == Stage::Drain && !self.connections.is_empty();
        if !waits && self.agent().has_ended(self.service.now()) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// The stage of the shutdown. The task is woken when it changes.
    fn poll_stage(&mut self, cx: &mut Context<'_>) -> Stage {
        if self.subscription.as_ref().is_none_or(|(waker, _)| !waker.will_wake(cx.waker())) {
            self.subscription = Some((cx.waker().clone(), self.agent().subscribe(cx.waker())));
        }
        loop {
            let now = self.service.now();
            let agent = self.service.agent();
            let stage = agent.poll_shutdown(now);
            let deadline =
                if stage < Stage::Drain { agent.shutdown_deadline() } else { agent.end_deadline() };
            self.alarm.set(agent.clock(), deadline.filter(|at| *at > now));
            // It may have been set for a stage before.
            if !self.alarm.went_off(cx) {
                return stage;
            }
        }
    }

    /// Removes the connections that have ended.
    fn reap(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(ended)) = self.connections.poll_join_next(cx) {
            if let Err(error) = ended {
                self.agent().connection_panicked(self.service.now(), &error);
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
        for index in 0..self.listeners.len() {
            for turn in 0.. {
                if turn == BATCH {
                    cx.waker().wake_by_ref();
                    break;
                }
                let Some(listener) = self.listeners.get(index) else { break };
                match listener.poll_accept(cx) {
                    Poll::Ready(Ok((stream, peer))) => {
                        let entrance = Arc::clone(&listener.entrance);
                        self.admit(stream, peer, &entrance);
                    }
                    Poll::Ready(Err(error)) if is_of_connection(&error) => {}
                    Poll::Ready(Err(error)) => {
                        self.agent().accept_failed(self.service.now(), &error);
                        self.back_off = Some(Box::pin(sleep(ACCEPT_BACK_OFF)));
                        cx.waker().wake_by_ref();
                        return;
                    }
                    Poll::Pending => break,
                }
            }
        }
    }

    /// Closes the listeners, and serves the connections of their backlogs.
    fn accept_last(&mut self) {
        for listener in mem::take(&mut self.listeners) {
            let entrance = Arc::clone(&listener.entrance);
            for (stream, peer) in listener.close() {
                self.admit(stream, peer, &entrance);
            }
        }
    }

    fn admit(&mut self, stream: Stream, peer: Peer, entrance: &Arc<Entrance>) {
        if let Some(conn) = self.agent().accept(self.service.now(), peer, Some(entrance)) {
            self.connections.spawn(self.service.serve::<OfSocket, _>(stream, conn).map(drop));
        }
    }
}
