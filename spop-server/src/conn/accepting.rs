//! The accept stage of a connection: what it passes before its session.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
};

use spop_core::{
    Interest, Misuse, Step, Timestamp,
    accept::{Accept, Acceptor, Peer},
    link::Layer,
};

use super::{Conn, State};
#[cfg(feature = "tls")]
use crate::tls::{Tls, TlsPeer};
use crate::{Entrance, connection::Accepted};

/// A connection before its session.
#[derive(Debug)]
pub(super) struct Accepting {
    acceptor: Acceptor,
    #[cfg_attr(not(feature = "tls"), allow(dead_code))]
    entrance: Arc<Entrance>,
    next: Accept,
    /// TLS has sent its `close_notify`.
    data_shut: bool,
    #[cfg(feature = "tls")]
    tls: Option<TlsPeer>,
}

impl Accepting {
    pub(super) fn new(entrance: &Arc<Entrance>, peer: Peer, now: Timestamp) -> Self {
        Self {
            acceptor: Acceptor::new(Arc::clone(&entrance.config), peer, now),
            entrance: Arc::clone(entrance),
            next: Accept::Paused,
            data_shut: false,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    pub(super) fn start(&mut self, now: Timestamp) {
        self.next = self.acceptor.on_bytes(now, &[]).action;
    }

    pub(super) fn set_lame_duck(&mut self, lame_duck: bool) {
        self.acceptor.set_lame_duck(lame_duck);
    }

    pub(super) fn interest(&self) -> Interest {
        let mut interest = Interest::default();
        match self.next {
            Accept::WantBytes { .. } => interest.read = true,
            Accept::SendReply => interest.write = true,
            Accept::ShutWrite => interest.shut = Some(self.layer()),
            _ => {}
        }
        interest
    }

    /// The layer that is shut next.
    fn layer(&self) -> Layer {
        if self.acceptor.origin().tls && !self.data_shut { Layer::Data } else { Layer::Transport }
    }

    pub(super) fn deadline(&self) -> Option<Timestamp> {
        self.acceptor.deadline()
    }

    pub(super) fn outgoing(&self) -> &[u8] {
        self.acceptor.outgoing()
    }

    pub(super) fn wants_tls(&self) -> bool {
        matches!(self.next, Accept::StartTls)
    }

    #[cfg(feature = "tls")]
    pub(super) fn tls(&self) -> Option<&Tls> {
        self.entrance.tls.as_ref()
    }

    pub(super) fn on_input(&mut self, now: Timestamp, input: &[u8], eof: bool, used: &mut usize) {
        let Step { consumed, action } =
            if eof { self.acceptor.on_input_eof(now, input) } else { self.acceptor.on_bytes(now, input) };
        *used = consumed;
        // The TLS handshake continues, and the driver has its bytes.
        if !self.wants_tls() || !matches!(action, Accept::Paused) {
            self.next = action;
        }
    }

    pub(super) fn on_sent(&mut self, now: Timestamp, n: usize) -> Result<(), Misuse> {
        self.next = self.acceptor.on_sent(now, n)?;
        Ok(())
    }

    /// The layer was shut. After the last, a monitor's close is awaited.
    pub(super) fn on_write_shut(&mut self) {
        if self.layer() == Layer::Data {
            self.data_shut = true;
        } else if matches!(self.next, Accept::ShutWrite) {
            self.next = Accept::WantBytes { at_least: 1 };
        }
    }

    pub(super) fn on_timeout(&mut self, now: Timestamp) {
        if self.acceptor.deadline().is_some_and(|deadline| deadline <= now) {
            self.next = self.acceptor.on_timeout(now);
        }
    }
}

impl Conn {
    /// Has the accept stage process an event, and applies what it comes to.
    #[cold]
    pub(super) fn accept(&mut self, now: Timestamp, event: impl FnOnce(&mut Accepting)) {
        let State::Accepting(accepting) = &mut self.state else { return };
        // The answer of a monitor may come from a function of the application.
        if catch_unwind(AssertUnwindSafe(|| event(accepting))).is_err() {
            return self.reject(now, "monitor_panicked", &"the answer of a monitor panicked");
        }
        match &accepting.next {
            Accept::Refuse(refusal) => {
                let refusal = refusal.clone();
                self.reject(now, "refused", &refusal);
            }
            Accept::Ready(origin) => {
                let accepted = Accepted {
                    origin: origin.clone(),
                    #[cfg(feature = "tls")]
                    tls: accepting.tls.take(),
                };
                self.begin(now, Some(Box::new(accepted)));
                let stage = self.stage;
                if let State::Session(session) = &mut self.state {
                    session.set_stage(now, stage);
                }
            }
            Accept::WantBytes { .. } | Accept::SendReply | Accept::ShutWrite | Accept::StartTls => {}
            // `Close`. The others ask for what was done already, and never come.
            _ => {
                self.agent.counters.probes.fetch_add(1, Ordering::Relaxed);
                self.agent.metrics.of(self.connection.entrance.as_ref()).probe();
                self.state = State::Over;
            }
        }
    }

    /// Ends a connection that may have no session.
    #[cold]
    pub(super) fn reject(&mut self, now: Timestamp, what: &'static str, error: &dyn fmt::Display) {
        self.agent.counters.rejected.fetch_add(1, Ordering::Relaxed);
        self.agent.metrics.of(self.connection.entrance.as_ref()).rejected();
        self.agent.log_not_accepted(now, what, error);
        self.state = State::Over;
    }

    /// The TLS handshake is done. What TLS decrypts is the input from here on.
    ///
    /// # Errors
    /// [`Misuse::TlsNotRequested`], unless [`wants_tls`](Self::wants_tls) asked for it.
    #[cfg(feature = "tls")]
    pub fn on_tls_done(&mut self, now: Timestamp, peer: TlsPeer) -> Result<(), Misuse> {
        let mut done = Err(Misuse::TlsNotRequested);
        self.accept(now, |accepting| {
            done = accepting.acceptor.on_tls_done(now);
            if done.is_ok() {
                accepting.tls = Some(peer);
                accepting.next = accepting.acceptor.on_bytes(now, &[]).action;
            }
        });
        done
    }

    /// The TLS handshake has failed. If the peer closed the connection, the error is
    /// [`UnexpectedEof`](std::io::ErrorKind::UnexpectedEof).
    pub fn on_tls_failed(&mut self, now: Timestamp, error: &std::io::Error) {
        if !self.wants_tls() {
            return;
        }
        if error.kind() == std::io::ErrorKind::UnexpectedEof {
            return self
                .accept(now, |accepting| accepting.next = accepting.acceptor.on_input_eof(now, &[]).action);
        }
        let connection = Arc::clone(&self.connection);
        self.reject(now, "tls_failed", &format_args!("TLS with {} failed: {error}", connection.peer()));
    }
}
