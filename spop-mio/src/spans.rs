//! The span in which handlers run. A module of its own, so that a filter can name it.

use spop_core::{ConnectionId, frame::Ids};
use tracing::{Span, debug_span};

use crate::passing::Whence;

/// A request, while its handler works on it, inside of its connection.
#[inline]
pub(crate) fn request(peer: &Whence, connection: ConnectionId, ids: Ids) -> Span {
    let connection = debug_span!("connection", %peer, id = connection.0);
    debug_span!(parent: &connection, "request", %ids)
}
