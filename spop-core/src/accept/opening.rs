//! The side that connects: what goes over a connection before its session.

use alloc::vec::Vec;
use core::{fmt, time::Duration};

use super::{Addresses, ProxyVersion, encode_proxy_header};
use crate::{
    Timestamp,
    config::{Checked, ConfigError, lasts},
    link::Misuse,
};

/// What comes before the sessions that this side opens.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenConfig {
    /// Send a PROXY header of this version. Default: none.
    pub proxy: Option<ProxyVersion>,
    /// Start TLS, after the header. Default: no.
    pub tls: bool,
    /// How long both together may take; not zero. Default: 5 s.
    pub timeout: Duration,
}

impl Default for OpenConfig {
    fn default() -> Self {
        Self { proxy: None, tls: false, timeout: Duration::from_secs(5) }
    }
}

impl OpenConfig {
    /// Checks that it can work.
    ///
    /// # Errors
    /// [`ConfigError`] when the time is zero.
    pub fn checked(self) -> Result<Checked<Self>, ConfigError> {
        lasts("timeout", self.timeout, Duration::ZERO)?;
        Ok(Checked::new(self))
    }
}

impl Default for Checked<OpenConfig> {
    fn default() -> Self {
        Self::new(OpenConfig::default())
    }
}

/// What is to be done next with a connection that this side opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "this is what the connection waits for"]
#[non_exhaustive]
pub enum Open {
    /// Write [`Opening::outgoing`] and report [`Opening::on_sent`].
    SendHeader,
    /// Start TLS, then call [`Opening::on_tls_done`].
    StartTls,
    /// Nothing: either TLS is under way, or the session began or the opening failed before.
    Paused,
    /// The session begins.
    Ready,
    /// Close the connection.
    Fail(OpenError),
}

/// Why no session begins on a connection that this side opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The peer closed its side.
    #[error("the peer closed the connection before {0} was done")]
    Eof(OpenPhase),
    /// The time for all of it ran out.
    #[error("{0} was not done within {1:?}")]
    Timeout(OpenPhase, Duration),
}

/// What an opening can wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OpenPhase {
    /// The PROXY header to leave.
    ProxyHeader,
    /// The end of the TLS handshake.
    Tls,
}

impl fmt::Display for OpenPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ProxyHeader => "sending the PROXY header",
            Self::Tls => "TLS",
        })
    }
}

/// Takes a connection that this side opened to where its session begins: sends the PROXY header, has TLS started.
///
/// ```
/// use spop_core::Timestamp;
/// use spop_core::accept::{Open, OpenConfig, Opening, ProxyVersion};
///
/// let mut config = OpenConfig::default();
/// config.proxy = Some(ProxyVersion::V1);
/// config.tls = true;
/// let config = config.checked()?;
///
/// let now = Timestamp::ZERO;
/// let mut opening = Opening::new(&config, None, now);
/// assert_eq!(opening.on_connected(now), Open::SendHeader);
/// assert_eq!(opening.outgoing(), b"PROXY UNKNOWN\r\n");
/// assert_eq!(opening.on_sent(now, 15)?, Open::StartTls);
/// assert_eq!(opening.on_tls_done(now)?, Open::Ready);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Opening {
    state: State,
    header: Vec<u8>,
    sent: usize,
    tls: bool,
    timeout: Duration,
    deadline: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Header,
    Tls,
    Over,
}

impl Opening {
    /// A connection that is being passed on for someone (`addresses`), or is this side's own.
    pub fn new(config: &Checked<OpenConfig>, addresses: Option<&Addresses>, now: Timestamp) -> Self {
        let mut header = Vec::new();
        if let Some(version) = config.proxy {
            encode_proxy_header(version, addresses, &mut header);
        }
        Self {
            state: State::Header,
            header,
            sent: 0,
            tls: config.tls,
            timeout: config.timeout,
            deadline: now + config.timeout,
        }
    }

    /// The transport is connected.
    pub fn on_connected(&mut self, _now: Timestamp) -> Open {
        self.sent(0)
    }

    /// The first `n` bytes of [`outgoing`](Self::outgoing) were written.
    ///
    /// # Errors
    /// [`Misuse::SentTooMuch`] when there are fewer. Nothing has changed then.
    pub fn on_sent(&mut self, _now: Timestamp, n: usize) -> Result<Open, Misuse> {
        let outgoing = self.outgoing().len();
        if n > outgoing {
            return Err(Misuse::SentTooMuch { sent: n, outgoing });
        }
        Ok(self.sent(n))
    }

    fn sent(&mut self, n: usize) -> Open {
        if self.state != State::Header {
            return Open::Paused;
        }
        self.sent += n;
        if !self.outgoing().is_empty() {
            return Open::SendHeader;
        }
        if self.tls {
            self.state = State::Tls;
            return Open::StartTls;
        }
        self.end(Open::Ready)
    }

    /// The TLS handshake is done.
    ///
    /// # Errors
    /// [`Misuse::TlsNotAsked`] unless [`Open::StartTls`] asked for it. Nothing has changed then.
    pub fn on_tls_done(&mut self, _now: Timestamp) -> Result<Open, Misuse> {
        if self.state != State::Tls {
            return Err(Misuse::TlsNotAsked);
        }
        Ok(self.end(Open::Ready))
    }

    /// The peer closed its side.
    pub fn on_input_eof(&mut self, _now: Timestamp) -> Open {
        match self.waits_for() {
            Some(phase) => self.end(Open::Fail(OpenError::Eof(phase))),
            None => Open::Paused,
        }
    }

    /// It is `now`. Before the deadline this changes nothing.
    pub fn on_timeout(&mut self, now: Timestamp) -> Open {
        match self.waits_for() {
            Some(phase) if now >= self.deadline => {
                self.end(Open::Fail(OpenError::Timeout(phase, self.timeout)))
            }
            _ => self.standing(),
        }
    }

    /// The bytes to send: what is left of the PROXY header.
    pub fn outgoing(&self) -> &[u8] {
        match self.state {
            State::Header => self.header.get(self.sent..).unwrap_or_default(),
            State::Tls | State::Over => &[],
        }
    }

    /// When to call [`on_timeout`](Self::on_timeout); `None` once the session began or the opening failed.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.waits_for().map(|_| self.deadline)
    }

    fn waits_for(&self) -> Option<OpenPhase> {
        match self.state {
            State::Header => Some(OpenPhase::ProxyHeader),
            State::Tls => Some(OpenPhase::Tls),
            State::Over => None,
        }
    }

    fn end(&mut self, with: Open) -> Open {
        self.state = State::Over;
        with
    }

    fn standing(&self) -> Open {
        match self.state {
            State::Header => Open::SendHeader,
            State::Tls | State::Over => Open::Paused,
        }
    }
}
