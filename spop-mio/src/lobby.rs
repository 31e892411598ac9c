//! The connections of a worker that have no session yet.

use std::{
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
};

use mio::{Interest, Registry, Token, event::Source as _};
use slab::Slab;
use spop_core::Timestamp;

use crate::{
    arrivals::Held,
    passing::{Arrival, Passage, Passing},
    timers::Timers,
};

/// The first of the tokens of those who wait here; no worker has so many connections.
pub(crate) const FIRST: usize = usize::MAX / 2 + 1;

/// Those who pass what their listener has before sessions: they come, have turns like connections, and leave.
#[derive(Debug, Default)]
pub(crate) struct Lobby {
    guests: Slab<Box<Guest>>,
    timers: Timers,
    ready: VecDeque<usize>,
}

#[derive(Debug)]
struct Guest {
    passing: Passing,
    held: Held,
    /// Whether it is among those that are ready.
    queued: bool,
}

/// Whoever leaves, and how.
#[derive(Debug)]
pub(crate) enum Left {
    Session(Box<Arrival>, Held),
    Probe,
    Refused(&'static str, String),
}

impl Lobby {
    pub(crate) fn is_empty(&self) -> bool {
        self.guests.is_empty()
    }

    /// Whether somebody has something to do.
    pub(crate) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// When somebody has waited long enough.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.timers.next()
    }

    pub(crate) fn enter(&mut self, registry: &Registry, mut passing: Passing, held: Held) -> io::Result<()> {
        let entry = self.guests.vacant_entry();
        let key = entry.key();
        if let Some(socket) = passing.socket_mut() {
            let both = Interest::READABLE | Interest::WRITABLE;
            socket.register(registry, Token(FIRST + key), both)?;
        }
        if let Some(deadline) = passing.deadline() {
            self.timers.set(key, deadline);
        }
        entry.insert(Box::new(Guest { passing, held, queued: false }));
        self.note(key);
        Ok(())
    }

    /// Somebody may have something to do. False when there is nobody of this number.
    pub(crate) fn note(&mut self, key: usize) -> bool {
        let guest = self.guests.get_mut(key);
        if let Some(guest) = guest {
            if !guest.queued {
                guest.queued = true;
                self.ready.push_back(key);
            }
            true
        } else {
            false
        }
    }

    /// How many turns there are to give now. Those that come to have more to do wait for the next round.
    pub(crate) fn round(&mut self, now: Timestamp) -> usize {
        while let Some(key) = self.timers.due(now) {
            self.note(key);
        }
        self.ready.len()
    }

    /// Gives the next one a turn.
    pub(crate) fn turn(&mut self, registry: &Registry, now: Timestamp, lame_duck: bool) -> Option<Left> {
        let key = self.ready.pop_front()?;
        let guest = self.guests.get_mut(key)?;
        guest.queued = false;
        // A monitor's answer may come from a function of the application.
        let turn = AssertUnwindSafe(|| guest.passing.turn(now, lame_duck));
        let passage = catch_unwind(turn).unwrap_or_else(|_| {
            Passage::Refused("monitor_panicked", "the answer of a monitor panicked".to_owned())
        });
        if let Passage::Waits(again) = passage {
            if let Some(deadline) = guest.passing.deadline()
                && self.timers.get(key) != Some(deadline)
            {
                self.timers.set(key, deadline);
            }
            if again {
                self.note(key);
            }
            return None;
        }
        let mut guest = self.guests.try_remove(key)?;
        self.timers.clear(key);
        match passage {
            Passage::Session(mut arrival) => {
                // It is registered elsewhere next.
                let _ = arrival.socket.deregister(registry);
                Some(Left::Session(arrival, guest.held))
            }
            ended => {
                if let Some(socket) = guest.passing.socket_mut() {
                    let _ = socket.deregister(registry);
                }
                Some(match ended {
                    Passage::Refused(what, words) => Left::Refused(what, words),
                    _ => Left::Probe,
                })
            }
        }
    }
}
