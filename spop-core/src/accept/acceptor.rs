//! The state machine that takes a connection through its handlers.

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

/// What is to be done with a connection next.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "this is what the connection waits for"]
#[non_exhaustive]
pub enum Accept {
    /// Read: nothing can be decided before `at_least` bytes more are in the inbox.
    WantBytes {
        /// How many bytes more than the inbox holds.
        at_least: usize,
    },
    /// Start TLS, with the bytes that the inbox holds for a beginning; then call [`Acceptor::on_tls_done`].
    StartTls,
    /// Write [`Acceptor::outgoing`] and report [`Acceptor::on_sent`].
    SendReply,
    /// Shut the write side and go on reading: the peer has its answer and closes now.
    ShutWrite,
    /// Nothing: either TLS is under way, or the connection was handed over or ended before.
    Paused,
    /// Close the connection: it may not have a session.
    Refuse(Refusal),
    /// Close the connection: all was well, and there is no session.
    Close(Closing),
    /// The session begins. What is left in the inbox belongs to it.
    Ready(Origin),
}

/// Why a connection ends well before its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Closing {
    /// It was a monitor's probe, and has been answered; or the server is in lame duck, and there is no answer for that.
    Answered,
    /// The peer connected and closed without a byte, as monitors do that look no further than the port.
    Silent,
}

/// Takes one connection through the handlers of an [`AcceptConfig`]. The [module](super) shows how to drive it.
///
/// ```text
///              ┌─────────────────────────── handlers, in order ────────────────────────────┐
///  new ──▶ Bytes ──SourceRules─▶ Bytes ──PROXY header─▶ Bytes ──Tls─▶ Tls ──on_tls_done─▶ Bytes ──▶ Over (Ready)
///              │ a probe                                          any state ──refused, closed, timer──▶ Over
///              └────▶ Answer ──all sent─▶ Linger ──end of input, timer─▶ Over (Close)
/// ```
///
/// The outcome does not depend on how the bytes are cut.
#[derive(Clone, Debug)]
pub struct Acceptor {
    config: Arc<Checked<AcceptConfig>>,
    /// The handler whose turn it is, as its place in the list.
    at: usize,
    state: State,
    origin: Origin,
    deadline: Timestamp,
    /// The peer has closed its side.
    eof: bool,
    /// The server is in lame duck.
    lame_duck: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// The handler waits for so many bytes more.
    Bytes { wanted: usize },
    /// The handler is TLS, and its handshake is under way.
    Tls,
    /// The handler is a monitor, and this is what is left of its answer.
    Answer { rest: Bytes },
    /// A monitor has its answer and may close.
    Linger,
    /// The connection belongs to its session, or to nobody.
    Over,
}

impl Acceptor {
    /// A connection whose transport has `peer` at its other end, and which is there since `now`.
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

    /// Whether the server is in lame duck, the first stage of a shutdown: a probe that is recognized from now on gets
    /// [`Monitor::lame_duck`](super::Monitor::lame_duck)'s response. All else is served as before. Call it before
    /// [`on_bytes`](Self::on_bytes), for a connection that is under way as for a new one; false at the beginning.
    pub const fn set_lame_duck(&mut self, lame_duck: bool) {
        self.lame_duck = lame_duck;
    }

    /// The input is the unused rest of the input before, followed by what was read since. Call it once at the beginning as
    /// well, with no bytes if none have come.
    pub fn on_bytes(&mut self, now: Timestamp, input: &[u8]) -> Step<Accept> {
        match self.state {
            State::Bytes { .. } => self.run(now, input),
            State::Answer { .. } | State::Linger => Step { consumed: input.len(), action: self.standing() },
            State::Tls | State::Over => Step { consumed: 0, action: Accept::Paused },
        }
    }

    /// The peer closed its side. The input is what [`on_bytes`](Self::on_bytes) did not use of what it sent before.
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

    /// It is `now`. Before the deadline this changes nothing.
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
    /// [`Misuse::TlsNotAsked`] unless [`Accept::StartTls`] asked for it. Nothing has changed then.
    pub fn on_tls_done(&mut self, _now: Timestamp) -> Result<(), Misuse> {
        if self.state != State::Tls {
            return Err(Misuse::TlsNotAsked);
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

    /// The bytes to send: what is left of a monitor's answer.
    pub fn outgoing(&self) -> &[u8] {
        match &self.state {
            State::Answer { rest } => rest,
            _ => &[],
        }
    }

    /// When to call [`on_timeout`](Self::on_timeout); `None` once the connection is handed over or ended.
    pub fn deadline(&self) -> Option<Timestamp> {
        (self.state != State::Over).then_some(self.deadline)
    }

    /// What is known so far.
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Continues with the current handler, and with the next ones as far as the input goes.
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

    /// Runs one handler. It takes its bytes from the front of `rest`, and continues with the next handler or breaks with what
    /// is to be done first.
    fn handle(&mut self, now: Timestamp, handler: &Handler, rest: &mut &[u8]) -> ControlFlow<Accept> {
        match handler {
            Handler::SourceRules(rules) => {
                if let (Policy::Deny, network) = rules.judge(self.origin.client()) {
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
                    Read::Other(began) => RefuseReason::NoProxyHeader(began),
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

    /// The answer has left. To close now, with input unread or still on its way, would make TCP reset the connection and
    /// could destroy it.
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

    /// What is still to be done when an input changed nothing.
    fn standing(&self) -> Accept {
        match &self.state {
            State::Bytes { wanted } => Accept::WantBytes { at_least: *wanted },
            State::Answer { .. } => Accept::SendReply,
            State::Linger => Accept::WantBytes { at_least: 1 },
            State::Tls | State::Over => Accept::Paused,
        }
    }
}
