//! What is known of a connection with a session.

use std::{
    cell::Cell,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicIsize, Ordering},
    },
};

use spop_core::{
    Clock, ConnectionId, Session,
    accept::{Addresses, Origin, Peer, ProxyHeader},
    agent::TicketId,
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
    /// How many requests of it handlers keep. Negative for a moment, when one is dropped before it is counted.
    pub(crate) held: AtomicIsize,
}

thread_local! {
    /// The call of a handler that runs on this thread: the address of its connection, and its request.
    static CALL: Cell<Option<(usize, TicketId)>> = const { Cell::new(None) };
}

/// The calls of handlers, to count the requests that handlers keep.
///
/// A request counts from the end of its call. One that is dropped within its call, on the same thread, is not counted: so are
/// most, and the count is memory that threads share.
impl Connection {
    /// A handler is called; returns what [`end_call`](Self::end_call) needs: a handler may drive another connection.
    #[inline]
    pub(crate) fn begin_call(&self, request: TicketId) -> Option<(usize, TicketId)> {
        CALL.replace(Some((self.address(), request)))
    }

    /// The call has ended. If the handler made the request its own (`claimed`) and has not dropped it here, it is counted.
    #[inline]
    pub(crate) fn end_call(&self, outer: Option<(usize, TicketId)>, claimed: bool, bytes: usize) {
        if CALL.replace(outer).is_some() && claimed {
            self.count_kept(bytes);
        }
    }

    #[inline(never)]
    fn count_kept(&self, bytes: usize) {
        self.requests.add(bytes);
        self.held.fetch_add(1, Ordering::Relaxed);
    }

    /// A request that a handler made its own was dropped, on any thread.
    #[inline]
    pub(crate) fn request_dropped(&self, request: TicketId, bytes: usize) {
        let call = Some((self.address(), request));
        // As long as the request exists, no other connection has this address.
        if CALL.try_with(|current| current.get() == call && current.replace(None).is_some()) != Ok(true) {
            self.discount_kept(bytes);
        }
    }

    #[inline(never)]
    fn discount_kept(&self, bytes: usize) {
        self.requests.subtract(bytes);
        self.held.fetch_sub(1, Ordering::Relaxed);
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
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
