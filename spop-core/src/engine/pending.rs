//! The requests in flight on a connection.

use alloc::{collections::VecDeque, vec::Vec};

use crate::{Timestamp, frame::Ids};

/// Identifies a request on its connection. It is unique there, while STREAM-ID and FRAME-ID may come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NotifyId {
    number: u64,
    ids: Ids,
}

impl NotifyId {
    /// STREAM-ID and FRAME-ID.
    pub const fn ids(self) -> Ids {
        self.ids
    }
}

/// Requests in flight, oldest first: at most `max-waiting-frames`, so a linear search is cheap.
#[derive(Debug, Default)]
pub(super) struct Pending {
    requests: VecDeque<Request>,
    next: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) id: NotifyId,
    pub(super) asked: Timestamp,
}

impl Pending {
    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    #[inline]
    pub(super) fn insert(&mut self, ids: Ids, asked: Timestamp) -> NotifyId {
        let id = NotifyId { number: self.next, ids };
        self.next += 1;
        let later = self.requests.iter().rev().take_while(|request| request.asked > asked).count();
        self.requests.insert(self.requests.len() - later, Request { id, asked });
        id
    }

    /// The request in flight with these identifiers.
    #[inline]
    pub(super) fn find(&self, ids: Ids) -> Option<Request> {
        self.requests.iter().find(|request| request.id.ids == ids).copied()
    }

    /// A request in flight of this stream.
    pub(super) fn of_stream(&self, stream: u64) -> Option<Request> {
        self.requests.iter().find(|request| request.id.ids.stream == stream).copied()
    }

    pub(super) fn oldest(&self) -> Option<Request> {
        self.requests.front().copied()
    }

    #[inline]
    pub(super) fn remove(&mut self, id: NotifyId) -> Option<Request> {
        let index = self.requests.iter().position(|request| request.id == id)?;
        self.requests.remove(index)
    }

    pub(super) fn contains(&self, id: NotifyId) -> bool {
        self.requests.iter().any(|request| request.id == id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = NotifyId> + '_ {
        self.requests.iter().map(|request| request.id)
    }

    pub(super) fn take_all(&mut self) -> Vec<NotifyId> {
        core::mem::take(&mut self.requests).into_iter().map(|request| request.id).collect()
    }
}
