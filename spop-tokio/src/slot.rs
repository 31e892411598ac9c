//! The memory of the calls of routes.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use spop_core::agent::BoxError;
use spop_server::Outcome;

use crate::{Reply, Request};

/// Calls the function of a route, one call after the other, and keeps the future of a call that waits. The next call uses its memory
/// again. The outcome is written where it stays: each move of a reply copies more than a hundred bytes.
pub trait Slot: Send {
    /// Calls the function, and polls its future once. The outcome stays as it is if that is not ready.
    fn call(&mut self, request: Request, cx: &mut Context<'_>, outcome: &mut Outcome);

    /// Polls the future again.
    fn poll(&mut self, cx: &mut Context<'_>, outcome: &mut Outcome);

    /// Drops the future.
    fn clear(&mut self);
}

/// That of one route.
pub(crate) type BoxedSlot<'a> = Box<dyn Slot + 'a>;

/// A slot of a function that returns futures.
pub(crate) struct FutureSlot<M, F> {
    make: M,
    future: Pin<Box<Option<F>>>,
}

impl<M, F> FutureSlot<M, F>
where
    M: Fn(Request) -> Result<F, BoxError> + Send,
    F: Future<Output: Into<Reply>> + Send,
{
    #[expect(clippy::new_ret_no_self, reason = "it is always boxed")]
    pub(crate) fn new<'a>(make: M) -> BoxedSlot<'a>
    where
        Self: 'a,
    {
        Box::new(Self { make, future: Box::pin(None) })
    }
}

impl<M, F> Slot for FutureSlot<M, F>
where
    M: Fn(Request) -> Result<F, BoxError> + Send,
    F: Future<Output: Into<Reply>> + Send,
{
    #[inline]
    fn call(&mut self, request: Request, cx: &mut Context<'_>, outcome: &mut Outcome) {
        match (self.make)(request) {
            Ok(future) => self.future.set(Some(future)),
            Err(error) => {
                *outcome = Outcome::Now(Reply::failed(error));
                return;
            }
        }
        self.poll(cx, outcome);
    }

    #[inline]
    fn poll(&mut self, cx: &mut Context<'_>, outcome: &mut Outcome) {
        let Some(future) = self.future.as_mut().as_pin_mut() else { return };
        if let Poll::Ready(ready) = future.poll(cx) {
            self.future.set(None);
            *outcome = Outcome::Now(ready.into());
        }
    }

    fn clear(&mut self) {
        self.future.set(None);
    }
}

/// A slot of a function that returns replies.
pub(crate) struct ReplySlot<M>(pub(crate) M);

impl<M, R> Slot for ReplySlot<M>
where
    M: Fn(Request) -> Result<R, BoxError> + Send,
    R: Into<Reply>,
{
    #[inline]
    fn call(&mut self, request: Request, _: &mut Context<'_>, outcome: &mut Outcome) {
        *outcome = Outcome::Now((self.0)(request).map_or_else(Reply::failed, Into::into));
    }

    fn poll(&mut self, _: &mut Context<'_>, _: &mut Outcome) {}

    fn clear(&mut self) {}
}

/// How many slots a connection keeps: as many as most routers have routes.
const SPARE: usize = 8;

/// The slots of a connection, for further calls.
#[doc(hidden)]
#[derive(Default)]
#[allow(unreachable_pub)] // It is an argument of a public trait.
pub struct Spare<'a>(Option<Box<[Kept<'a>; SPARE]>>);

/// The slot of a route.
#[derive(Default)]
pub(crate) struct Kept<'a> {
    position: usize,
    pub(crate) slot: Option<BoxedSlot<'a>>,
}

impl<'a> Spare<'a> {
    /// That of the route at this position of its router.
    #[inline]
    pub(crate) fn of(&mut self, position: usize) -> &mut Option<BoxedSlot<'a>> {
        let kept = self.0.get_or_insert_default();
        #[expect(clippy::indexing_slicing, reason = "the remainder is an index")]
        let kept = &mut kept[position % SPARE];
        if kept.position != position {
            *kept = Kept { position, slot: None };
        }
        &mut kept.slot
    }

    /// Keeps a slot whose call has ended, unless there is another of its route.
    pub(crate) fn keep(&mut self, position: usize, slot: BoxedSlot<'a>) {
        self.of(position).get_or_insert(slot);
    }

    /// Frees the memory.
    pub(crate) fn clear(&mut self) {
        self.0 = None;
    }
}

impl fmt::Debug for Spare<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spare").finish_non_exhaustive()
    }
}
