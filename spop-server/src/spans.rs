//! The spans in which connections and handlers run. A module of its own, so that a filter can name it.

use spop_core::{ConnectionId, accept::Peer, frame::Ids};
use tracing::{Level, Span, debug_span, level_enabled, span::EnteredSpan};

use crate::{Connection, label::Labelled};

/// A connection, from its acceptance to its end.
pub(crate) fn connection(peer: &Peer, id: ConnectionId) -> Span {
    debug_span!("connection", %peer, id = id.0)
}

/// Enters the span of a request, while its handler works on it, inside its connection.
#[inline]
pub(crate) fn enter_request(
    connection: &Connection,
    ids: Ids,
    labelled: Labelled<'_>,
) -> Option<EnteredSpan> {
    level_enabled!(Level::DEBUG).then(|| request(connection, ids, labelled).entered())
}

#[cold]
fn request(connection: &Connection, ids: Ids, labelled: Labelled<'_>) -> Span {
    debug_span!(parent: connection.span(), "request", %ids, messages = %labelled.label())
}
