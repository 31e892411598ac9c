//! Serving connections, wherever they come from.

use std::{fmt, io, mem, sync::Arc};

use futures_util::future::{FutureExt as _, OptionFuture};
use spop_core::{AgentConfig, Clock, Closed, ConnectionId, Timestamp, config::Checked};
use spop_server::{Counters, InFlight, Level, Metrics, NameWarnings, Unfinished};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::sleep,
};

use tracing::Instrument as _;

use crate::{
    Handler, Peer, Reply, Request, ServerHandle,
    control::Control,
    driver::Driver,
    entrance::Arrival,
    log::Limits,
    session::{Ended, Session},
    siblings::{Orphans, Siblings},
    spans,
    transfer::{self, Transfer},
};

/// A handler and what its connections share: the part of a [`Server`](crate::Server) that needs no listener. For streams
/// that are made by hand: TLS, a pipe, a socket handed over by another process.
///
/// ```
/// # use spop_tokio::{Actions, AgentConfig, Peer, Request, Service};
/// async fn serve(stream: tokio::net::TcpStream, service: &Service<impl spop_tokio::Handler>) {
///     let closed = service.serve_connection(stream, Peer::Other("by hand".into())).await;
///     println!("{closed:?}");
/// }
/// ```
pub struct Service<H> {
    pub(crate) shared: Arc<Shared<H>>,
}

impl<H> Clone for Service<H> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<H> fmt::Debug for Service<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

/// What all connections of a server share.
pub(crate) struct Shared<H> {
    pub(crate) handler: Arc<H>,
    pub(crate) config: Arc<Checked<AgentConfig>>,
    pub(crate) control: Arc<Control>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) logs: Limits,
    pub(crate) names: NameWarnings,
    pub(crate) metrics: Metrics,
    pub(crate) in_flight: InFlight,
    pub(crate) unfinished: Unfinished,
    pub(crate) siblings: Arc<Siblings>,
    pub(crate) clock: Clock,
}

impl<H> Shared<H> {
    #[inline]
    pub(crate) fn now(&self) -> Timestamp {
        transfer::now(&self.clock)
    }
}

impl<H: Handler> Service<H> {
    /// A service that has no connection yet.
    ///
    /// # Errors
    /// The configuration cannot work: of the kind [`InvalidInput`](io::ErrorKind::InvalidInput), with the
    /// [`ConfigError`](spop_core::config::ConfigError) inside, whose text names the field.
    pub fn new(handler: H, config: AgentConfig) -> io::Result<Self> {
        Ok(Self::with_checked(handler, config.checked()?))
    }

    pub(crate) fn with_checked(handler: H, config: Checked<AgentConfig>) -> Self {
        let shared = Shared {
            handler: Arc::new(handler),
            config: Arc::new(config),
            control: Arc::default(),
            counters: Arc::default(),
            logs: Limits::default(),
            names: NameWarnings::default(),
            metrics: Metrics::new(),
            in_flight: InFlight::default(),
            unfinished: Unfinished::default(),
            siblings: Arc::default(),
            clock: Clock::start(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// What ends the connections of this service from outside.
    pub fn handle(&self) -> ServerHandle {
        let (control, counters) = (&self.shared.control, &self.shared.counters);
        ServerHandle { control: Arc::clone(control), counters: Arc::clone(counters) }
    }

    /// Serves one connection to its end, and says why it ended. To be spawned, or awaited in place.
    pub fn serve_connection<I>(
        &self,
        io: I,
        peer: Peer,
    ) -> impl Future<Output = Option<Closed>> + Send + use<I, H>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send,
    {
        self.serve(io, peer.into())
    }

    pub(crate) fn serve<I>(
        &self,
        io: I,
        mut arrival: Arrival,
    ) -> impl Future<Output = Option<Closed>> + Send + use<I, H>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let shared = Arc::clone(&self.shared);
        let control = shared.control.subscribe();
        control.live(&arrival.peer);
        let inbox = mem::take(&mut arrival.rest).into();
        // Each request counts a reference. With a count for each connection, threads do not fight for one.
        let handler = Arc::new(Arc::clone(&shared.handler));
        let call = move |request| call(Arc::clone(&handler), request);
        let id = ConnectionId(control.key());
        let span = spans::connection(&arrival.peer, id.0);
        let serving = Arc::clone(&shared);
        let driver = Driver {
            transfer: Transfer::new(io, inbox),
            session: Session::new(Arc::clone(&shared), id, arrival, call),
            shared,
            control,
            level: Level::Serve,
        };
        driver
            .then(move |Ended { closed, orphans }| {
                let orphans = orphans.map(|(calls, membership)| {
                    let deadline = serving.config.timeouts.message.map(|timeout| Box::pin(sleep(timeout)));
                    Orphans { calls, membership, control: serving.control.subscribe(), deadline, stopped: 0 }
                });
                OptionFuture::from(orphans).map(move |stopped| {
                    serving.metrics.cancelled(stopped.unwrap_or_default());
                    closed
                })
            })
            .instrument(span)
    }
}

/// A handler at work. Not an async function: that would hold the request a second time, as its argument.
#[allow(clippy::redundant_allocation)] // The outer count is the connection's, the inner one everybody's.
#[inline]
fn call<H: Handler>(handler: Arc<Arc<H>>, mut request: Request) -> impl Future<Output = Reply> {
    let job = mem::take(&mut request.job);
    let span = spans::request(request.ids);
    async move {
        let reply = handler.handle(request).instrument(span).await.into();
        drop(job);
        reply
    }
}
