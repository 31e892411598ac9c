//! The spans in which connections and handlers run. A module of its own, so that a filter can name it.

use spop_core::{ConnectionId, accept::Peer, frame::Ids};
use tracing::{Span, debug_span};

use crate::{Connection, label::Labelled};

/// A connection, from its acceptance to its end.
pub(crate) fn connection(peer: &Peer, id: ConnectionId) -> Span {
    debug_span!("connection", %peer, id = id.0)
}

/// A request, while its handler works on it, inside its connection.
#[inline]
pub(crate) fn request(connection: &Connection, ids: Ids, labelled: Labelled<'_>) -> Span {
    debug_span!(parent: connection.span(), "request", %ids, messages = %labelled.label())
}
