//! The interface of a driver to a connection.

use std::{io, task::Waker};

use spop_core::{Interest, Misuse, Timestamp, link::Progress};

#[cfg(feature = "tls")]
use crate::tls::{Tls, TlsPeer};
use crate::{Conn, Handler};

/// A side of the protocol that a [`Driver`](crate::Driver) drives: [`Conn`], or an engine's connection. `H` is the type that its
/// inputs call: for `Conn`, a [`Handler`].
///
/// The methods are those of `Conn`. [`on_bytes`](Self::on_bytes) with `eof` is [`Conn::on_input_eof`].
#[allow(missing_docs, clippy::missing_errors_doc)] // As the methods of the reactors, and of `Conn`.
pub trait Protocol<H: ?Sized> {
    fn interest(&self) -> Interest;
    fn deadline(&self) -> Option<Timestamp>;
    fn outgoing(&mut self) -> &[u8];
    fn on_bytes(&mut self, now: Timestamp, handler: &mut H, input: &[u8], eof: bool) -> usize;
    fn on_read_blocked(&mut self, now: Timestamp, handler: &mut H);
    fn on_sent(&mut self, now: Timestamp, handler: &mut H, n: usize) -> Result<(), Misuse>;
    fn on_write_shut(&mut self, now: Timestamp, handler: &mut H, progress: Progress) -> Result<(), Misuse>;
    fn on_transport_error(&mut self, now: Timestamp, handler: &mut H, error: &io::Error);
    fn on_timeout(&mut self, now: Timestamp, handler: &mut H);
    fn on_transport_closed(&mut self) {}
    /// Applies what other threads have sent.
    fn on_wake(&mut self, now: Timestamp, handler: &mut H) {
        let _ = (now, handler);
    }
    fn is_woken(&self) -> bool {
        false
    }
    fn set_waker(&mut self, waker: &Waker) {
        let _ = waker;
    }
    fn is_stopping(&self) -> bool {
        false
    }
    fn is_over(&self) -> bool {
        self.interest().close
    }
    fn wants_tls(&self) -> bool {
        false
    }
    #[cfg(feature = "tls")]
    fn tls(&self) -> Option<&Tls> {
        None
    }
    #[cfg(feature = "tls")]
    fn on_tls_done(&mut self, now: Timestamp, peer: TlsPeer) -> Result<(), Misuse> {
        let _ = (now, peer);
        Err(Misuse::TlsNotRequested)
    }
    fn on_tls_failed(&mut self, now: Timestamp, error: &io::Error) {
        let _ = (now, error);
    }
}

impl<H: Handler> Protocol<H> for Conn {
    #[expect(clippy::inline_always, reason = "as `Conn::interest`")]
    #[inline(always)]
    fn interest(&self) -> Interest {
        self.interest()
    }

    #[inline]
    fn deadline(&self) -> Option<Timestamp> {
        self.deadline()
    }

    #[inline]
    fn outgoing(&mut self) -> &[u8] {
        Self::outgoing(self)
    }

    #[inline]
    fn on_bytes(&mut self, now: Timestamp, handler: &mut H, input: &[u8], eof: bool) -> usize {
        if eof { self.on_input_eof(now, handler, input) } else { Self::on_bytes(self, now, handler, input) }
    }

    fn on_read_blocked(&mut self, now: Timestamp, handler: &mut H) {
        self.on_read_blocked(now, handler);
    }

    #[inline]
    fn on_sent(&mut self, now: Timestamp, handler: &mut H, n: usize) -> Result<(), Misuse> {
        self.on_sent(now, handler, n)
    }

    fn on_write_shut(&mut self, now: Timestamp, handler: &mut H, progress: Progress) -> Result<(), Misuse> {
        self.on_write_shut(now, handler, progress)
    }

    fn on_transport_error(&mut self, now: Timestamp, handler: &mut H, error: &io::Error) {
        self.on_transport_error(now, handler, error);
    }

    fn on_timeout(&mut self, now: Timestamp, handler: &mut H) {
        self.on_timeout(now, handler);
    }

    fn on_transport_closed(&mut self) {
        self.on_transport_closed();
    }

    fn on_wake(&mut self, now: Timestamp, handler: &mut H) {
        self.on_wake(now, handler);
    }

    #[inline]
    fn is_woken(&self) -> bool {
        self.is_woken()
    }

    #[inline]
    fn set_waker(&mut self, waker: &Waker) {
        self.set_waker(waker);
    }

    #[inline]
    fn is_stopping(&self) -> bool {
        self.is_stopping()
    }

    fn is_over(&self) -> bool {
        self.is_over()
    }

    #[inline]
    fn wants_tls(&self) -> bool {
        self.wants_tls()
    }

    #[cfg(feature = "tls")]
    fn tls(&self) -> Option<&Tls> {
        self.tls()
    }

    #[cfg(feature = "tls")]
    fn on_tls_done(&mut self, now: Timestamp, peer: TlsPeer) -> Result<(), Misuse> {
        self.on_tls_done(now, peer)
    }

    fn on_tls_failed(&mut self, now: Timestamp, error: &io::Error) {
        self.on_tls_failed(now, error);
    }
}
