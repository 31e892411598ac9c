//! Tickets that are dropped while their NOTIFY waits: noticed in debug builds with `std`, free of cost otherwise.

#[cfg(all(debug_assertions, feature = "std"))]
mod noticed {
    use alloc::{sync::Arc, vec::Vec};
    use std::sync::Mutex;

    use crate::agent::TicketId;

    /// How many tickets are noticed that are dropped between two reports of the driver; more are not.
    const MAX: usize = 32;

    /// The reactor's side: tickets that were dropped since it last looked, settled ones among them.
    #[derive(Debug)]
    pub(in crate::agent) struct Dropped(Arc<Mutex<Vec<TicketId>>>);

    impl Dropped {
        pub(in crate::agent) fn new() -> Self {
            Self(Arc::new(Mutex::new(Vec::with_capacity(MAX))))
        }

        pub(in crate::agent) fn guard(&self, id: TicketId) -> Guard {
            Guard(Some((id, Arc::clone(&self.0))))
        }

        /// How many of those that were dropped still wait.
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
mod noticed {
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

pub(super) use noticed::{Dropped, Guard};

/// Tickets are equal whether or not anything notices their end.
impl PartialEq for Guard {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Guard {}
