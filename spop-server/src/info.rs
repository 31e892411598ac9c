//! The state of an open connection.

use std::time::Duration;

use bytes::Bytes;
use spop_core::{accept::Peer, link::Phase};

/// The state of an open connection at the end of its last turn. Returned by
/// [`ServerHandle::connections`](crate::ServerHandle::connections).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// Its identifier, as in the log.
    pub id: u64,
    /// The peer of the transport.
    pub peer: Peer,
    /// The engine-id, if the peer announced one.
    pub engine_id: Option<Bytes>,
    /// The phase of its session.
    pub phase: Phase,
    /// Unanswered NOTIFYs.
    pub in_flight: usize,
    /// Queued output that the transport has not accepted, in bytes.
    pub outgoing: usize,
    /// How long it has been open.
    pub age: Duration,
}
