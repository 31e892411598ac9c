//! A connection of a server: its stream, its session, and the end of the server.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use spop_core::Status;
use spop_server::Level;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    Handler, Reply, Request,
    control::Subscription,
    service::Shared,
    session::{Ended, Session},
    transfer::Transfer,
};

/// A connection as one future. It is woken by its socket, its timer, its slow calls, or the end of the server.
pub(crate) struct Driver<I, H, F, C> {
    pub(crate) transfer: Transfer<I>,
    pub(crate) session: Session<H, F, C>,
    pub(crate) shared: Arc<Shared<H>>,
    pub(crate) control: Subscription,
    pub(crate) level: Level,
}

/// Nothing in it is pinned in place: calls live in boxes of their own.
impl<I, H, F, C> Unpin for Driver<I, H, F, C> {}

impl<I, H, F, C> Future for Driver<I, H, F, C>
where
    I: AsyncRead + AsyncWrite + Unpin,
    H: Handler,
    F: Future<Output = Reply>,
    C: Fn(Request) -> F,
{
    type Output = Ended<F>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if !this.follow_shutdown(cx) && this.transfer.poll(&mut this.session, cx).is_pending() {
            this.control.show(&this.session.reactor);
            return Poll::Pending;
        }
        Poll::Ready(this.session.end())
    }
}

impl<I, H, F, C> Driver<I, H, F, C>
where
    I: AsyncRead + AsyncWrite + Unpin,
    H: Handler,
    F: Future<Output = Reply>,
    C: Fn(Request) -> F,
{
    /// Passes on the stage of the server's shutdown; true when the connection is to be closed at once.
    fn follow_shutdown(&mut self, cx: &mut Context<'_>) -> bool {
        let level = self.control.level(cx.waker());
        if level > self.level {
            self.level = level;
            let now = self.shared.now();
            self.session.reactor.set_lame_duck(true);
            if level >= Level::Drain {
                self.session.reactor.drain(now);
            }
            if level == Level::Stop {
                self.session.reactor.disconnect(now, Status::NORMAL, "the agent stops");
                self.transfer.stop(&mut self.session, cx);
            }
        }
        level == Level::Stop
    }
}
