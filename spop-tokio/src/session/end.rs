//! The session as the loop sees it.

use std::task::Context;

use bytes::Bytes;
use spop_core::{Clock, Interest, Misuse, Status, Timer, Timestamp, link::Progress};
use spop_server::TOO_MUCH_UNFINISHED;

use super::{EARLY, Session};
use crate::{Handler, Reply, Request, transfer::End};

impl<H, F, C> End for Session<H, F, C>
where
    H: Handler,
    F: Future<Output = Reply>,
    C: Fn(Request) -> F,
{
    fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    #[inline]
    fn interest(&self) -> Interest {
        self.reactor.interest()
    }

    fn deadline(&self) -> Option<Timestamp> {
        self.reactor.deadline().map(|(at, _)| at)
    }

    fn outgoing(&mut self) -> &[u8] {
        self.reactor.outgoing()
    }

    #[inline]
    fn work(&mut self, cx: &mut Context<'_>) -> bool {
        (self.membership.is_some() || !self.calls.is_empty()) && self.answer(cx)
    }

    fn received(&mut self, bytes: usize) {
        self.shared.metrics.received(bytes);
    }

    #[inline]
    fn on_bytes(&mut self, now: Timestamp, cx: &mut Context<'_>, input: &Bytes, eof: bool) -> usize {
        let mut used = self.pass_on(now, cx, input, eof);
        if !self.shared.unfinished.count(&mut self.unfinished, self.reactor.unfinished_bytes()) {
            self.reactor.disconnect(now, Status::RESOURCE, TOO_MUCH_UNFINISHED);
            self.log_failed_connection(&TOO_MUCH_UNFINISHED);
            used += self.pass_on(now, cx, &input.slice(used.min(input.len())..), eof);
            // What it held is gone now, and not when the peer has closed.
            let _ = self.shared.unfinished.count(&mut self.unfinished, self.reactor.unfinished_bytes());
        }
        used
    }

    fn on_read_blocked(&mut self, now: Timestamp, cx: &mut Context<'_>) {
        let action = self.reactor.on_read_blocked(now);
        self.carry_out_event(now, cx, action);
    }

    fn on_sent(&mut self, now: Timestamp, cx: &mut Context<'_>, n: usize) -> Result<(), Misuse> {
        let action = self.reactor.on_sent(now, n)?;
        self.shared.metrics.sent(n);
        self.carry_out_event(now, cx, action);
        if self.sends < EARLY {
            self.sends += 1;
            self.calls.trim();
        }
        Ok(())
    }

    fn on_write_shut(
        &mut self,
        now: Timestamp,
        cx: &mut Context<'_>,
        progress: Progress,
    ) -> Result<(), Misuse> {
        let action = self.reactor.on_write_shut(now, progress)?;
        self.carry_out_event(now, cx, action);
        Ok(())
    }

    fn on_transport_error(&mut self, now: Timestamp, cx: &mut Context<'_>) {
        let action = self.reactor.on_transport_error(now);
        self.carry_out_event(now, cx, action);
    }

    fn on_timeout(&mut self, now: Timestamp, cx: &mut Context<'_>) {
        loop {
            if matches!(self.reactor.deadline(), Some((at, Timer::Memory)) if at <= now) {
                self.sends = 0;
                self.calls.trim();
            }
            let action = self.reactor.on_timeout(now);
            if !self.carry_out_event(now, cx, action) {
                break;
            }
        }
        // A payload that was given up is gone. It cannot be more than before.
        let _ = self.shared.unfinished.count(&mut self.unfinished, self.reactor.unfinished_bytes());
    }
}
