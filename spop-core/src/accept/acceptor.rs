//! The state machine that runs the handlers of a connection.

use alloc::sync::Arc;
use core::ops::ControlFlow::{self, Break, Continue};

use bytes::{Buf as _, Bytes};

#[cfg(feature = "proxy")]
use super::proxy::Read;
use super::{
    AcceptConfig, AcceptHandler as Handler, Origin, Peer, Policy, Refusal, RefuseReason, Waiting,
    monitor::Probe,
};
use crate::{
    Timestamp,
    config::Checked,
    link::{Misuse, Step},
};

/// What the driver does next with a pending connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "this is what the connection waits for"]
#[non_exhaustive]
pub enum Accept {
    /// Read, and call [`Acceptor::on_bytes`]. The current handler needs at least `at_least` further bytes.
    WantBytes {
        /// The number of bytes, those of the rest of the input not counted.
        at_least: usize,
    },
    /// Start TLS. The rest of the input belongs to it. Then call [`Acceptor::on_tls_done`].
    StartTls,
    /// Write [`Acceptor::outgoing`] and call [`Acceptor::on_sent`].
    SendReply,
    /// Shut the write side and continue to read until the peer closes: a monitor's answer was sent.
    ShutWrite,
    /// Nothing: the TLS handshake is not done, or the accept stage is over.
    Paused,
    /// Close the connection: it gets no session, for this reason.
    Refuse(Refusal),
    /// Close the connection: it ended as expected, without a session.
    Close(Closing),
    /// The session begins. The rest of the input belongs to it.
    Ready(Origin),
}

/// Why a connection ends without a session and without a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Closing {
    /// It was a monitor's probe and was answered, or closed without an answer as the [`Monitor`](super::Monitor) is configured
    /// to do in lame-duck mode.
    Answered,
    /// The peer connected and closed without sending a byte, as a TCP check does.
    Silent,
}

/// Runs the handlers of an [`AcceptConfig`] for one connection. The [module](super) shows how to drive it.
///
/// ```text
///              ┌─────────────────────────── handlers, in order ────────────────────────────┐
///  new ──▶ Bytes ──SourceRules─▶ Bytes ──PROXY header─▶ Bytes ──Tls─▶ Tls ──on_tls_done─▶ Bytes ──▶ Over (Ready)
///              │ a probe                                          any state ──refused, closed, timer──▶ Over
///              └────▶ Answer ──all sent─▶ Linger ──end of input, timer─▶ Over (Close)
/// ```
///
/// The result does not depend on how the input is cut.
#[derive(Clone, Debug)]
pub struct Acceptor {
    config: Arc<Checked<AcceptConfig>>,
    /// The index of the current handler.
    at: usize,
    state: State,
    origin: Origin,
    deadline: Timestamp,
    /// The end of the input was reported.
    eof: bool,
    /// The server is in lame-duck mode.
    lame_duck: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// The current handler waits for bytes.
    Bytes { wanted: usize },
    /// The current handler is TLS, and the handshake is not done.
    Tls,
    /// The current handler is a monitor, and `rest` of its answer is not sent.
    Answer { rest: Bytes },
    /// A monitor's answer was sent, and its close is awaited.
    Linger,
    /// The session began, or the connection ended.
    Over,
}

impl Acceptor {
    /// A connection from `peer` that was accepted at `now`.
    pub fn new(config: Arc<Checked<AcceptConfig>>, peer: Peer, now: Timestamp) -> Self {
        let deadline = now + config.timeout;
        Self {
            config,
            at: 0,
            state: State::Bytes { wanted: 0 },
            origin: Origin::new(peer),
            deadline,
            eof: false,
            lame_duck: false,
        }
    }

    /// Whether the server is in lame-duck mode, the first stage of a shutdown. Default: false. A probe that is recognized in it
    /// gets the response of [`Monitor::lame_duck`](super::Monitor::lame_duck). Nothing else changes. Call it before
    /// [`on_bytes`](Self::on_bytes), for new and for pending connections.
    pub const fn set_lame_duck(&mut self, lame_duck: bool) {
        self.lame_duck = lame_duck;
    }

    /// Runs the handlers on the input: the unused rest of earlier input, followed by what was read since. The first call may
    /// have no bytes: some handlers need none.
    pub fn on_bytes(&mut self, now: Timestamp, input: &[u8]) -> Step<Accept> {
        match self.state {
            State::Bytes { .. } => self.run(now, input),
            State::Answer { .. } | State::Linger => Step { consumed: input.len(), action: self.standing() },
            State::Tls | State::Over => Step { consumed: 0, action: Accept::Paused },
        }
    }

    /// The peer has shut its write side. The input is the unused rest of earlier input.
    pub fn on_input_eof(&mut self, now: Timestamp, input: &[u8]) -> Step<Accept> {
        self.eof = true;
        let action = match self.state {
            State::Bytes { .. } if input.is_empty() && self.origin.proxy.is_none() && !self.origin.tls => {
                self.close(Closing::Silent)
            }
            State::Tls => self.refuse(RefuseReason::Eof { during: Waiting::Tls, got: 0 }),
            State::Linger => self.close(Closing::Answered),
            State::Bytes { .. } | State::Answer { .. } | State::Over => return self.on_bytes(now, input),
        };
        Step { consumed: 0, action }
    }

    /// The [`deadline`](Self::deadline) may have come. Before it, nothing changes.
    pub fn on_timeout(&mut self, now: Timestamp) -> Accept {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return self.standing();
        }
        let during = match self.state {
            State::Bytes { .. } => match self.config.handlers().get(self.at) {
                #[cfg(feature = "proxy")]
                Some(Handler::ExpectProxy(_)) => Waiting::ProxyHeader,
                _ => Waiting::FirstBytes,
            },
            State::Tls => Waiting::Tls,
            State::Answer { .. } => Waiting::Answer,
            State::Linger | State::Over => return self.close(Closing::Answered),
        };
        self.refuse(RefuseReason::Timeout { during, limit: self.config.timeout })
    }

    /// The TLS handshake is done. Call [`on_bytes`](Self::on_bytes) next with the decrypted bytes, or with none: they are the
    /// input from here on.
    ///
    /// # Errors
    /// [`Misuse::TlsNotRequested`] unless [`Accept::StartTls`] asked for it. Nothing has changed then.
    pub fn on_tls_done(&mut self, _now: Timestamp) -> Result<(), Misuse> {
        if self.state != State::Tls {
            return Err(Misuse::TlsNotRequested);
        }
        self.origin.tls = true;
        self.at += 1;
        self.state = State::Bytes { wanted: 0 };
        Ok(())
    }

    /// The first `n` bytes of [`outgoing`](Self::outgoing) were written.
    ///
    /// # Errors
    /// [`Misuse::SentTooMuch`] when there are fewer. Nothing has changed then.
    pub fn on_sent(&mut self, now: Timestamp, n: usize) -> Result<Accept, Misuse> {
        let outgoing = self.outgoing().len();
        if n > outgoing {
            return Err(Misuse::SentTooMuch { sent: n, outgoing });
        }
        Ok(self.sent(now, n))
    }

    /// The bytes to write: the rest of a monitor's answer.
    pub fn outgoing(&self) -> &[u8] {
        match &self.state {
            State::Answer { rest } => rest,
            _ => &[],
        }
    }

    /// When to call [`on_timeout`](Self::on_timeout); `None` when the accept stage is over.
    pub fn deadline(&self) -> Option<Timestamp> {
        (self.state != State::Over).then_some(self.deadline)
    }

    /// What is known of the connection so far.
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Runs the current handler and those behind it until one needs more than the input.
    fn run(&mut self, now: Timestamp, input: &[u8]) -> Step<Accept> {
        let config = Arc::clone(&self.config);
        let mut rest = input;
        let action = loop {
            let Some(handler) = config.handlers().get(self.at) else {
                self.state = State::Over;
                break Accept::Ready(self.origin.clone());
            };
            match self.handle(now, handler, &mut rest) {
                Continue(()) => self.at += 1,
                Break(action) => break action,
            }
        };
        Step { consumed: input.len() - rest.len(), action }
    }

    /// Runs one handler, which advances `rest` past the bytes that it used. `Continue` passes the connection on to the next.
    fn handle(&mut self, now: Timestamp, handler: &Handler, rest: &mut &[u8]) -> ControlFlow<Accept> {
        match handler {
            Handler::SourceRules(rules) => {
                if let (Policy::Deny, network) = rules.evaluate(self.origin.client()) {
                    let announced = self.origin.announced().map(|addresses| addresses.source.clone());
                    return Break(self.refuse(RefuseReason::Denied { announced, network }));
                }
            }
            #[cfg(feature = "proxy")]
            Handler::ExpectProxy(expect) => {
                if !expect.trusts(&self.origin.transport) {
                    return Break(self.refuse(RefuseReason::Untrusted));
                }
                let reason = match expect.read(rest, self.eof) {
                    Read::Header(header, len) => {
                        self.origin.proxy = Some(header);
                        *rest = rest.get(len..).unwrap_or_default();
                        return Continue(());
                    }
                    Read::Incomplete { .. } if self.eof => {
                        RefuseReason::Eof { during: Waiting::ProxyHeader, got: rest.len() }
                    }
                    Read::Incomplete { missing } => return Break(self.want(missing)),
                    Read::Spop => RefuseReason::SpopWithoutProxyHeader,
                    Read::Other(first) => RefuseReason::NoProxyHeader(first),
                    Read::Bad(error) => RefuseReason::BadProxyHeader(error),
                };
                return Break(self.refuse(reason));
            }
            Handler::Monitor(monitor) => match monitor.probe(rest) {
                Probe::Yes => {
                    *rest = &[];
                    self.state = State::Answer { rest: monitor.answer(self.lame_duck) };
                    return Break(self.sent(now, 0));
                }
                Probe::Perhaps if !self.eof => return Break(self.want(1)),
                Probe::Perhaps | Probe::No => {}
            },
            Handler::Tls if self.eof => {
                return Break(self.refuse(RefuseReason::Eof { during: Waiting::Tls, got: rest.len() }));
            }
            Handler::Tls => {
                self.state = State::Tls;
                return Break(Accept::StartTls);
            }
        }
        Continue(())
    }

    fn sent(&mut self, now: Timestamp, n: usize) -> Accept {
        if let State::Answer { rest } = &mut self.state {
            rest.advance(n);
            if rest.is_empty() {
                return self.linger(now);
            }
        }
        self.standing()
    }

    fn want(&mut self, wanted: usize) -> Accept {
        self.state = State::Bytes { wanted };
        self.standing()
    }

    /// The answer was sent. A close with unread input makes TCP reset the connection, and the peer may lose the answer: so the
    /// write side is shut, and the peer's close awaited.
    fn linger(&mut self, now: Timestamp) -> Accept {
        if self.eof {
            return self.close(Closing::Answered);
        }
        self.state = State::Linger;
        self.deadline = now + self.config.linger;
        Accept::ShutWrite
    }

    fn refuse(&mut self, reason: RefuseReason) -> Accept {
        self.state = State::Over;
        Accept::Refuse(Refusal { peer: self.origin.transport.clone(), reason })
    }

    fn close(&mut self, closing: Closing) -> Accept {
        self.state = State::Over;
        Accept::Close(closing)
    }

    /// What remains to be done after an input that changed nothing.
    fn standing(&self) -> Accept {
        match &self.state {
            State::Bytes { wanted } => Accept::WantBytes { at_least: *wanted },
            State::Answer { .. } => Accept::SendReply,
            State::Linger => Accept::WantBytes { at_least: 1 },
            State::Tls | State::Over => Accept::Paused,
        }
    }
}
