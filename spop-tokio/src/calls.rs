//! The handler calls of one connection.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll, Waker},
};

use futures_util::stream::{FuturesUnordered, StreamExt};
use spop_core::{Ticket, agent::TicketId, frame::Ids};

use crate::Reply;

/// What became of a call: the reply, or what the handler said when it panicked.
pub(crate) type Outcome = Result<Reply, String>;

/// Calls that run, each with the ticket it answers.
///
/// A call that is ready at once costs no allocation: it runs in a slot that the next one uses again. One that is not
/// takes the slot with it.
pub(crate) struct Calls<F> {
    slot: Option<Slot<F>>,
    /// None before the first that was slow: a set takes memory, be it empty.
    slow: Option<FuturesUnordered<Slow<F>>>,
}

type Slot<F> = Pin<Box<Option<F>>>;

impl<F: Future<Output = Reply>> Calls<F> {
    pub(crate) fn new() -> Self {
        Self { slot: None, slow: None }
    }

    /// Runs a call as far as it goes; the outcome comes back with the ticket if that is to its end. It is made where it
    /// will run: moving it costs as much as running it, often.
    #[inline]
    pub(crate) fn start(
        &mut self,
        cx: &mut Context<'_>,
        ticket: Ticket,
        call: impl FnOnce() -> F,
    ) -> Option<(Ticket, Outcome)> {
        let mut slot = self.slot.take().unwrap_or_else(|| Box::pin(None));
        slot.set(Some(call()));
        if let Poll::Ready(outcome) = poll_slot(&mut slot, cx) {
            self.slot = Some(slot);
            return Some((ticket, outcome));
        }
        let slow = Slow { ticket: Some(ticket), slot: Some(slot), waker: None };
        self.slow.get_or_insert_default().push(slow);
        None
    }

    /// A call that has come to its end since. Those that were just started run on here, so that they are woken.
    pub(crate) fn finished(&mut self, cx: &mut Context<'_>) -> Option<(Ticket, Outcome)> {
        let slow = self.slow.as_mut()?;
        while let Poll::Ready(Some((finished, slot))) = slow.poll_next_unpin(cx) {
            self.slot = self.slot.take().or(slot);
            if finished.is_some() {
                return finished;
            }
        }
        None
    }

    /// Drops a call where it waits; returns whose it was.
    pub(crate) fn cancel(&mut self, id: TicketId) -> Option<Ids> {
        let mut slow = self.slow.iter_mut().flat_map(FuturesUnordered::iter_mut);
        let slow = slow.find(|slow| slow.ticket.as_ref().is_some_and(|ticket| ticket.id() == id))?;
        let ticket = slow.ticket.take()?;
        slow.drop_call();
        if let Some(waker) = slow.waker.take() {
            waker.wake();
        }
        Some(ticket.ids())
    }

    /// Whether no call runs.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.slow.as_ref().is_none_or(FuturesUnordered::is_empty)
    }

    /// Whether there is memory that calls to come would use.
    #[cfg(test)]
    pub(crate) const fn has_memory(&self) -> bool {
        self.slot.is_some() || self.slow.is_some()
    }

    /// Gives back the memory that calls to come would use.
    pub(crate) fn trim(&mut self) {
        self.slot = None;
        if self.is_empty() {
            self.slow = None;
        }
    }

    /// Drops all calls that are not ready, and returns whose answers they owe.
    pub(crate) fn give_up(&mut self) -> Vec<Ticket> {
        let slow = self.slow.iter_mut().flat_map(FuturesUnordered::iter_mut);
        let tickets = slow.filter_map(|slow| slow.ticket.take()).collect();
        self.clear();
        tickets
    }

    /// Drops all calls.
    pub(crate) fn clear(&mut self) {
        self.slow.iter_mut().flat_map(FuturesUnordered::iter_mut).for_each(Slow::drop_call);
        self.slow = None;
    }
}

/// A call that was not ready at once. It is worth nothing without its ticket: then it was cancelled.
struct Slow<F> {
    ticket: Option<Ticket>,
    slot: Option<Slot<F>>,
    /// Gets a cancelled call out of the set.
    waker: Option<Waker>,
}

impl<F> Slow<F> {
    fn drop_call(&mut self) {
        if let Some(slot) = &mut self.slot {
            empty(slot);
        }
    }
}

impl<F: Future<Output = Reply>> Future for Slow<F> {
    type Output = (Option<(Ticket, Outcome)>, Option<Slot<F>>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let (Some(slot), Some(ticket)) = (&mut this.slot, this.ticket.take()) else {
            return Poll::Ready((None, this.slot.take()));
        };
        let Poll::Ready(outcome) = poll_slot(slot, cx) else {
            this.ticket = Some(ticket);
            this.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        Poll::Ready((Some((ticket, outcome)), this.slot.take()))
    }
}

/// Runs the call in a slot, and empties the slot at its end. A panic ends the call, not the connection.
#[inline]
fn poll_slot<F: Future<Output = Reply>>(slot: &mut Slot<F>, cx: &mut Context<'_>) -> Poll<Outcome> {
    let Some(call) = slot.as_mut().as_pin_mut() else {
        return Poll::Ready(Err(String::new()));
    };
    let outcome = match catch_unwind(AssertUnwindSafe(|| call.poll(cx))) {
        Ok(Poll::Pending) => return Poll::Pending,
        Ok(Poll::Ready(reply)) => Ok(reply),
        Err(panic) => Err(panic_message(panic.as_ref())),
    };
    empty(slot);
    Poll::Ready(outcome)
}

/// Drops the call in a slot. A panic meanwhile is the handler's, and its request has ended already.
#[inline]
fn empty<F>(slot: &mut Slot<F>) {
    let _ = catch_unwind(AssertUnwindSafe(|| slot.set(None)));
}

/// The message of a panic.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_owned()
}
