//! The spans in which connections and handlers run. A module of its own, so that a filter can name it.

use spop_core::{accept::Peer, frame::Ids};
use tracing::{Span, debug_span};

/// A connection, from its acceptance to its end.
pub(crate) fn connection(peer: &Peer, id: u64) -> Span {
    debug_span!("connection", %peer, id)
}

/// A request, while its handler works on it.
#[inline]
pub(crate) fn request(ids: Ids) -> Span {
    debug_span!("request", %ids)
}
