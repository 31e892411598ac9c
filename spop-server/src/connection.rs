//! What is known of a connection with a session.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicUsize},
};

use spop_core::{
    Clock, ConnectionId, Session,
    accept::{Addresses, Origin, Peer, ProxyHeader},
};

use crate::{Share, cancellation::Watched, remote::Remote};

/// The connection that a request arrived on.
#[derive(Debug)]
pub struct Connection {
    pub(crate) remote: Arc<Remote>,
    pub(crate) accepted: Option<Box<Accepted>>,
    pub(crate) session: Arc<Session>,
    pub(crate) watched: Watched,
    pub(crate) clock: Clock,
    /// What its requests hold that handlers keep.
    pub(crate) requests: Share,
    /// How many requests of it handlers keep.
    pub(crate) held: AtomicUsize,
}

/// What the accept stage found out about a connection.
#[derive(Clone, Debug)]
pub(crate) struct Accepted {
    pub(crate) origin: Origin,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<crate::tls::TlsPeer>,
}

impl Connection {
    /// Its identifier, as in the log and in [`ConnectionInfo`](crate::ConnectionInfo). Unique within the server.
    pub fn id(&self) -> ConnectionId {
        self.remote.id
    }

    /// The session, as negotiated in the handshake.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The engine-id, if the peer announced one. HAProxy 2.6 and 3.0 have one for each thread.
    pub fn engine_id(&self) -> Option<&[u8]> {
        self.session.engine_id.as_deref()
    }

    /// The peer of the transport: HAProxy, not its client.
    pub fn peer(&self) -> &Peer {
        &self.remote.peer
    }

    /// The source address of the connection: what a PROXY header announced, otherwise that of the [`peer`](Self::peer), if it
    /// has one.
    pub fn source(&self) -> Option<SocketAddr> {
        self.addresses().map_or(self.peer(), |addresses| &addresses.source).socket_addr()
    }

    /// The destination address of the connection, if a PROXY header announced it.
    pub fn destination(&self) -> Option<SocketAddr> {
        self.addresses()?.destination.socket_addr()
    }

    /// The PROXY header of the connection, if its listener expects one.
    pub fn proxy_header(&self) -> Option<&ProxyHeader> {
        self.accepted.as_ref()?.origin.proxy.as_ref()
    }

    /// The TLS peer, if the connection is inside TLS.
    #[cfg(feature = "tls")]
    pub fn tls(&self) -> Option<&crate::tls::TlsPeer> {
        self.accepted.as_ref()?.tls.as_ref()
    }

    fn addresses(&self) -> Option<&Addresses> {
        self.proxy_header()?.addresses.as_ref()
    }
}
