//! Serving connections without a listener.

use std::{fmt, io, sync::Arc};

use spop_core::{Closed, Timestamp};
use spop_server::{Agent, Conn, ServerConfig, ServerHandle};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    Handler, Peer, connection,
    transport::{self, Readiness, Unknown},
};

/// A handler and what its connections share: the part of a [`Server`](crate::Server) that needs no listener. For streams
/// that are made by hand: TLS, a pipe, a socket of another process.
///
/// ```
/// # use spop_tokio::{Actions, AgentConfig, Peer, Request, Service};
/// async fn serve(stream: tokio::net::TcpStream, service: &Service<impl spop_tokio::Handler>) {
///     let closed = service.serve_connection(stream, Peer::Other("by hand".into())).await;
///     println!("{closed:?}");
/// }
/// ```
pub struct Service<H> {
    handler: Arc<H>,
    agent: Arc<Agent>,
}

impl<H> Clone for Service<H> {
    fn clone(&self) -> Self {
        Self { handler: Arc::clone(&self.handler), agent: Arc::clone(&self.agent) }
    }
}

impl<H> fmt::Debug for Service<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("agent", &self.agent).finish_non_exhaustive()
    }
}

impl<H: Handler> Service<H> {
    /// A service that has no connection yet.
    ///
    /// # Errors
    /// The configuration cannot work: of the kind [`InvalidInput`](io::ErrorKind::InvalidInput), with the
    /// [`ConfigError`](spop_core::config::ConfigError) inside, whose text names the field.
    pub fn new(handler: H, config: impl Into<ServerConfig>) -> io::Result<Self> {
        Ok(Self { handler: Arc::new(handler), agent: Agent::new(config, transport::clock())? })
    }

    pub(crate) fn with_defaults(handler: H) -> Self {
        Self { handler: Arc::new(handler), agent: Agent::with_defaults(transport::clock()) }
    }

    /// Ends the connections of this service from outside, and returns its counters.
    pub fn handle(&self) -> ServerHandle {
        self.agent.handle()
    }

    /// Serves one connection to its end, and returns why its session ended. Spawn it, or await it in place. It is not counted
    /// under the limits on connections.
    pub fn serve_connection<I>(
        &self,
        io: I,
        peer: Peer,
    ) -> impl Future<Output = Option<Closed>> + Send + use<I, H>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send,
    {
        self.serve::<Unknown, _>(io, self.agent.connection(self.now(), peer))
    }

    pub(crate) fn serve<R, I>(
        &self,
        io: I,
        conn: Conn,
    ) -> impl Future<Output = Option<Closed>> + Send + use<R, I, H>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send,
        R: Readiness<I>,
    {
        connection::serve::<R, _, _>(io, conn, *self.agent.clock(), &self.handler)
    }

    pub(crate) const fn agent(&self) -> &Arc<Agent> {
        &self.agent
    }

    pub(crate) fn now(&self) -> Timestamp {
        transport::now(self.agent.clock())
    }
}
