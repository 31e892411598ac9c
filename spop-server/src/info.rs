//! The state of an open connection.

use std::{net::SocketAddr, time::Duration};

use spop_core::{accept::Peer, link::Phase};

use crate::Address;

/// The state of an open connection at the end of its last turn. Returned by
/// [`ServerHandle::connections`](crate::ServerHandle::connections).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// Its identifier, as in the log.
    pub id: u64,
    /// The listener that accepted it, if one did.
    pub listener: Option<Address>,
    /// Whether that listener has TLS.
    pub tls: bool,
    /// The peer of the transport.
    pub peer: Peer,
    /// As [`Connection::source`](crate::Connection::source), once the session is established.
    pub source: Option<SocketAddr>,
    /// The engine-id, if the peer announced one. What is not printable ASCII is escaped.
    pub engine_id: Option<String>,
    /// The phase of its session.
    pub phase: Phase,
    /// NOTIFYs that were received.
    pub requests: u64,
    /// Those of them that are unanswered.
    pub in_flight: usize,
    /// Queued output that the transport has not accepted, in bytes.
    pub outgoing: usize,
    /// How long it has been open, in whole seconds.
    pub age: Duration,
    /// For how long no request has come or was answered, in whole seconds.
    pub idle: Duration,
}
