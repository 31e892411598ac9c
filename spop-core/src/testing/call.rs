//! A call of the handler.

use core::ops::Deref;

use crate::{Notify, Timestamp};

/// A call of the handler of a [`Pair`](super::Pair): the NOTIFY, and the virtual time.
#[derive(Debug)]
pub struct Call<'a> {
    notify: &'a Notify<'a>,
    now: Timestamp,
}

impl<'a> Call<'a> {
    pub(super) const fn new(notify: &'a Notify<'a>, now: Timestamp) -> Self {
        Self { notify, now }
    }

    /// The virtual time: zero when the connection is opened.
    pub const fn now(&self) -> Timestamp {
        self.now
    }
}

impl<'a> Deref for Call<'a> {
    type Target = Notify<'a>;

    fn deref(&self) -> &Notify<'a> {
        self.notify
    }
}
