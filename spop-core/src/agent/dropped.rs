//! Detection of tickets that are dropped unanswered: in debug builds with `std` only, at no cost otherwise.

#[cfg(all(debug_assertions, feature = "std"))]
mod detection {
    use alloc::{sync::Arc, vec::Vec};
    use std::sync::Mutex;

    use crate::agent::TicketId;

    /// The most tickets that are counted between two events; others are not.
    const MAX: usize = 32;

    /// The reactor's side: the tickets that were dropped since the last event, settled ones included.
    #[derive(Debug)]
    pub(in crate::agent) struct Dropped(Arc<Mutex<Vec<TicketId>>>);

    impl Dropped {
        pub(in crate::agent) fn new() -> Self {
            Self(Arc::new(Mutex::new(Vec::with_capacity(MAX))))
        }

        pub(in crate::agent) fn guard(&self, id: TicketId) -> Guard {
            Guard(Some((id, Arc::clone(&self.0))))
        }

        /// Clears the list; returns how many of its tickets are unanswered.
        pub(in crate::agent) fn count(&self, waits: impl Fn(TicketId) -> bool) -> u64 {
            self.0.lock().map_or(0, |mut dropped| dropped.drain(..).filter(|id| waits(*id)).count() as u64)
        }
    }

    /// The ticket's side.
    #[derive(Debug, Default)]
    pub(in crate::agent) struct Guard(Option<(TicketId, Arc<Mutex<Vec<TicketId>>>)>);

    impl Drop for Guard {
        fn drop(&mut self) {
            if let Some((id, dropped)) = &self.0
                && let Ok(mut dropped) = dropped.lock()
                && dropped.len() < MAX
            {
                dropped.push(*id);
            }
        }
    }
}

#[cfg(not(all(debug_assertions, feature = "std")))]
mod detection {
    use crate::agent::TicketId;

    #[derive(Debug)]
    pub(in crate::agent) struct Dropped;

    impl Dropped {
        pub(in crate::agent) const fn new() -> Self {
            Self
        }

        #[inline]
        pub(in crate::agent) const fn guard(&self, _: TicketId) -> Guard {
            Guard
        }

        #[inline]
        pub(in crate::agent) fn count(&self, _: impl Fn(TicketId) -> bool) -> u64 {
            0
        }
    }

    #[derive(Debug, Default)]
    pub(in crate::agent) struct Guard;
}

pub(super) use detection::{Dropped, Guard};

/// The guard does not take part in the equality of tickets.
impl PartialEq for Guard {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Guard {}
