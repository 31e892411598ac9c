//! What the threads of a run have in common, and what they report.

use std::{
    sync::{
        Barrier, OnceLock,
        atomic::{AtomicBool, AtomicUsize},
    },
    time::Duration,
};

use spop_core::{Clock, Timestamp};

use super::{
    stats::Stats,
    supply::{Load, Request},
    template::Template,
};
use crate::address::Bare;

/// What all threads have in common.
pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) templates: Vec<Template>,
    pub(super) load: Load,
    pub(super) in_flight: usize,
    pub(super) timeout: Duration,
    pub(super) seed: u64,
    pub(super) threads: usize,
    pub(super) connections: usize,
    /// Set when the run is to end at once.
    pub(super) stop: AtomicBool,
    /// Connections with a session.
    pub(super) open: AtomicUsize,
    /// All threads begin at once, when their connections have greeted the agent.
    pub(super) barrier: Barrier,
    pub(super) begin: OnceLock<Timestamp>,
}

/// What a thread tells the one that started it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    Begun,
    /// A connection is to be opened, after a pause if the last one was of no use.
    Open {
        thread: usize,
        slot: usize,
        pause: bool,
    },
}

/// A connection that was opened for a slot.
pub(super) struct Opened {
    pub(super) slot: usize,
    pub(super) bare: Bare,
}

impl Shared {
    /// The messages of a request: they take turns.
    pub(super) fn template(&self, request: Request) -> Option<&Template> {
        match &self.templates[..] {
            [only] => Some(only),
            many => many.get(usize::try_from(request.turn.checked_rem(many.len() as u64)?).ok()?),
        }
    }
}

/// What a thread has counted since it was last asked.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) stats: Stats,
    /// When the last answer came.
    pub(super) last: Option<Timestamp>,
    /// When the counts were reported.
    pub(super) until: Option<Timestamp>,
}
