//! What all workers of a server share.

use std::sync::Arc;

use spop_core::{AgentConfig, Clock, config::Checked};
use spop_server::{InFlight, Metrics, NameWarnings, Sources, Unfinished};

use crate::{control::Control, mail::Mailbox, responder::Letter};

/// What all workers of a server share. A request touches nothing of it that another one writes, unless there is a limit on
/// all requests together.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Arc<Checked<AgentConfig>>,
    pub(crate) clock: Clock,
    pub(crate) control: Arc<Control>,
    pub(crate) max_connections: usize,
    pub(crate) sources: Sources,
    pub(crate) in_flight: InFlight,
    pub(crate) unfinished: Unfinished,
    pub(crate) metrics: Metrics,
    pub(crate) names: NameWarnings,
    /// The mailboxes of all workers, by their numbers.
    pub(crate) everybody: Vec<Arc<Mailbox<Letter>>>,
}
