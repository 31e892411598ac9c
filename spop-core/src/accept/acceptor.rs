//! The state machine that takes a connection through its handlers.

use alloc::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};

#[cfg(feature = "proxy")]
use super::proxy::Read;
use super::{AcceptConfig, Origin, Peer, Policy, Refusal, RefuseReason, Step, Waiting, monitor::Probe};
use crate::{Timestamp, config::Checked};

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

    /// The inbox may hold more bytes than before. Those that a handler takes leave it; the others stay. Call this first of
    /// all, whether or not there are any.
    pub fn on_bytes(&mut self, now: Timestamp, inbox: &mut BytesMut) -> Accept {
        match self.state {
            State::Bytes { .. } => self.run(now, inbox),
            State::Answer { .. } | State::Linger => {
                inbox.clear();
                self.standing()
            }
            State::Tls | State::Over => Accept::Paused,
        }
    }

    /// The peer closed its side; the inbox holds what it sent before.
    pub fn on_input_eof(&mut self, now: Timestamp, inbox: &mut BytesMut) -> Accept {
        self.eof = true;
        match self.state {
            State::Bytes { .. } if inbox.is_empty() && self.origin.proxy.is_none() && !self.origin.tls => {
                self.close(Closing::Silent)
            }
            State::Tls => self.refuse(RefuseReason::Eof { during: Waiting::Tls, got: 0 }),
            State::Linger => self.close(Closing::Answered),
            State::Bytes { .. } | State::Answer { .. } | State::Over => self.on_bytes(now, inbox),
        }
    }

    /// It is `now`. Before the deadline this changes nothing.
    pub fn on_timeout(&mut self, now: Timestamp) -> Accept {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return self.standing();
        }
        let during = match self.state {
            State::Bytes { .. } => match self.config.steps().get(self.at) {
                #[cfg(feature = "proxy")]
                Some(Step::ExpectProxy(_)) => Waiting::ProxyHeader,
                _ => Waiting::FirstBytes,
            },
            State::Tls => Waiting::Tls,
            State::Answer { .. } => Waiting::Answer,
            State::Linger | State::Over => return self.close(Closing::Answered),
        };
        self.refuse(RefuseReason::Timeout { during, limit: self.config.timeout })
    }

    /// The TLS handshake was done. From here on the inbox is one of decrypted bytes.
    pub fn on_tls_done(&mut self, now: Timestamp, inbox: &mut BytesMut) -> Accept {
        if self.state != State::Tls {
            return self.standing();
        }
        self.origin.tls = true;
        self.at += 1;
        self.run(now, inbox)
    }

    /// The first `n` outgoing bytes have left.
    pub fn on_sent(&mut self, now: Timestamp, n: usize) -> Accept {
        if let State::Answer { rest } = &mut self.state {
            rest.advance(n.min(rest.len()));
            if rest.is_empty() {
                return self.linger(now);
            }
        }
        self.standing()
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

    /// Goes on with the handler whose turn it is.
    fn run(&mut self, now: Timestamp, inbox: &mut BytesMut) -> Accept {
        let config = Arc::clone(&self.config);
        while let Some(step) = config.steps().get(self.at) {
            match step {
                Step::Source(rules) => {
                    if let (Policy::Deny, network) = rules.judge(self.origin.client()) {
                        let announced = self.origin.announced().map(|addresses| addresses.source.clone());
                        return self.refuse(RefuseReason::Denied { announced, network });
                    }
                }
                #[cfg(feature = "proxy")]
                Step::ExpectProxy(expect) => {
                    if !expect.trusts(&self.origin.transport) {
                        return self.refuse(RefuseReason::Untrusted);
                    }
                    match expect.read(inbox, self.eof) {
                        Read::Header(header) => self.origin.proxy = Some(header),
                        Read::Incomplete { .. } if self.eof => {
                            let (during, got) = (Waiting::ProxyHeader, inbox.len());
                            return self.refuse(RefuseReason::Eof { during, got });
                        }
                        Read::Incomplete { missing } => return self.want(missing),
                        Read::Spop => return self.refuse(RefuseReason::SpopWithoutProxyHeader),
                        Read::Other(began) => return self.refuse(RefuseReason::NoProxyHeader(began)),
                        Read::Bad(error) => return self.refuse(RefuseReason::BadProxyHeader(error)),
                    }
                }
                Step::Monitor(monitor) => match monitor.probe(inbox) {
                    Probe::Yes => {
                        inbox.clear();
                        self.state = State::Answer { rest: monitor.answer(self.lame_duck) };
                        return self.on_sent(now, 0);
                    }
                    Probe::Perhaps if !self.eof => return self.want(1),
                    Probe::Perhaps | Probe::No => {}
                },
                Step::Tls if self.eof => {
                    return self.refuse(RefuseReason::Eof { during: Waiting::Tls, got: inbox.len() });
                }
                Step::Tls => {
                    self.state = State::Tls;
                    return Accept::StartTls;
                }
            }
            self.at += 1;
        }
        self.state = State::Over;
        Accept::Ready(self.origin.clone())
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
