//! What can be seen of a connection that is open.

use std::time::Duration;

use bytes::Bytes;
use spop_core::{accept::Peer, link::Phase};

/// A connection that is open, as the `connections` of a server's handle found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// Its number, as in the log.
    pub id: u64,
    /// The other end.
    pub peer: Peer,
    /// Which engine it belongs to, if that is known.
    pub engine_id: Option<Bytes>,
    /// How far it has come.
    pub phase: Phase,
    /// NOTIFYs that wait for their answers.
    pub in_flight: usize,
    /// Bytes that the peer has not taken yet.
    pub outgoing: usize,
    /// How long it has been open.
    pub age: Duration,
}
