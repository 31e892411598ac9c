//! Detection of tickets that are dropped unanswered: in debug builds with `std` only, at no cost otherwise.

#[cfg(all(debug_assertions, feature = "std"))]
mod detection {
    use alloc::{sync::Arc, vec::Vec};
    use std::sync::Mutex;

    use crate::agent::TicketId;

    /// The most tickets that are counted between two events; others are not.
    const MAX: usize = 32;

    /// The reactor's side.
    #[derive(Debug)]
    pub(in crate::agent) struct Dropped {
        /// Those since the last event, settled ones included.
        tickets: Arc<Mutex<Vec<TicketId>>>,
        /// How many were unanswered, up to that event.
        unanswered: u64,
    }

    impl Dropped {
        pub(in crate::agent) fn new() -> Self {
            Self { tickets: Arc::new(Mutex::new(Vec::with_capacity(MAX))), unanswered: 0 }
        }

        pub(in crate::agent) fn guard(&self, id: TicketId) -> Guard {
            Guard(Some((id, Arc::clone(&self.tickets))))
        }

        /// Clears the list, and counts those of its tickets that are unanswered.
        pub(in crate::agent) fn update(&mut self, waits: impl Fn(TicketId) -> bool) {
            if let Ok(mut dropped) = self.tickets.lock() {
                self.unanswered += dropped.drain(..).filter(|id| waits(*id)).count() as u64;
            }
        }

        pub(in crate::agent) const fn unanswered(&self) -> u64 {
            self.unanswered
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
        pub(in crate::agent) fn update(&mut self, _: impl Fn(TicketId) -> bool) {}

        pub(in crate::agent) const fn unanswered(&self) -> u64 {
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
