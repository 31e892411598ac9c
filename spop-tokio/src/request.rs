//! What HAProxy asks.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use spop_core::{
    Session,
    accept::{Addresses, Peer, ProxyHeader},
    frame::{ArgError, FromValue, Ids, Message, Messages, OwnedMessages},
};
use spop_server::{Permit, Work};

use crate::{Cancellation, cancellation::Watched, entrance::Accepted};

/// One NOTIFY: the messages of one event, to be answered together.
#[derive(Debug)]
pub struct Request {
    pub(crate) messages: OwnedMessages,
    pub(crate) ids: Ids,
    pub(crate) deadline: Option<Instant>,
    pub(crate) origin: Arc<Origin>,
    /// Its place among all that are worked on; taken out before the handler sees it.
    pub(crate) job: Job,
}

/// Where requests come from; one for each connection.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) peer: Peer,
    pub(crate) accepted: Option<Arc<Accepted>>,
    pub(crate) session: Session,
    pub(crate) watched: Watched,
}

impl Request {
    /// The messages, in order. They keep the buffer alive that the request was read into, up to 64 KiB;
    /// [`to_owned`](Messages::to_owned) copies them.
    #[inline]
    pub fn messages(&self) -> Messages<'_> {
        self.messages.view()
    }

    /// The first message of this name.
    pub fn message(&self, name: &str) -> Option<Message<'_>> {
        self.messages.get(name)
    }

    /// The first argument of this name of the first message, as a `T`: for handlers behind a [`Router`](crate::Router),
    /// whose requests have one message.
    ///
    /// # Errors
    /// [`ArgError`] names the message and the argument. An `Option<T>` takes an absent argument and NULL for `None`.
    pub fn arg<'a, T: FromValue<'a>>(&'a self, name: &str) -> Result<T, ArgError> {
        self.messages.arg(name)
    }

    /// The name of the first message.
    pub(crate) fn name(&self) -> &[u8] {
        self.messages().iter().next().map(|message| message.name()).unwrap_or_default()
    }

    /// A request for each message.
    pub(crate) fn each(&self) -> impl Iterator<Item = Self> {
        self.messages.each().map(|messages| Self {
            messages,
            ids: self.ids,
            deadline: self.deadline,
            origin: Arc::clone(&self.origin),
            job: Job::default(),
        })
    }

    /// STREAM-ID: HAProxy's number of the stream; with HAProxy 3.1 and later it counts requests on the connection.
    pub const fn stream_id(&self) -> u64 {
        self.ids.stream
    }

    /// FRAME-ID: counts the requests of a stream.
    pub const fn frame_id(&self) -> u64 {
        self.ids.frame
    }

    /// Which engine asks, if it said so. HAProxy 2.6 and 3.0 have one for each thread.
    pub fn engine_id(&self) -> Option<&[u8]> {
        self.origin.session.engine_id.as_deref()
    }

    /// What both sides of the connection agreed on.
    pub fn session(&self) -> &Session {
        &self.origin.session
    }

    /// The other end of the connection: HAProxy, not its client.
    pub fn peer(&self) -> &Peer {
        &self.origin.peer
    }

    /// The address that the connection comes from: what a PROXY header announced, and otherwise that of the
    /// [`peer`](Self::peer), if it has one.
    pub fn source(&self) -> Option<SocketAddr> {
        self.addresses().map_or(&self.origin.peer, |addresses| &addresses.source).socket_addr()
    }

    /// The address that the connection went to, if a PROXY header announced it.
    pub fn destination(&self) -> Option<SocketAddr> {
        self.addresses()?.destination.socket_addr()
    }

    /// The PROXY header of the connection, if its listener expects one.
    pub fn proxy_header(&self) -> Option<&ProxyHeader> {
        self.origin.accepted.as_ref()?.origin.proxy.as_ref()
    }

    /// What TLS says of the connection, if there is TLS.
    #[cfg(feature = "tls")]
    pub fn tls(&self) -> Option<&crate::tls::TlsPeer> {
        self.origin.accepted.as_ref()?.tls.as_ref()
    }

    /// Tells work outside of the handler when the answer is not wanted any more. The handler itself must ask for it, before
    /// it gives the request away.
    pub fn cancellation(&self) -> Cancellation {
        self.origin.watched.watch(self.ids)
    }

    fn addresses(&self) -> Option<&Addresses> {
        self.proxy_header()?.addresses.as_ref()
    }

    /// When the request will be given up, where [`Timeouts::message`](spop_core::config::Timeouts::message) is set.
    /// HAProxy does not tell its own `timeout processing`.
    pub const fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

/// One request that is worked on: what is held until its handler has ended.
#[derive(Debug, Default)]
pub(crate) struct Job {
    #[allow(dead_code)] // Held for its drop.
    pub(crate) permit: Permit,
    #[allow(dead_code)] // Held for its drop.
    pub(crate) work: Work,
}
