//! The connecting side: what it sends before a session.

use alloc::vec::Vec;
use core::{fmt, time::Duration};

use super::{Addresses, ProxyVersion, encode_proxy_header};
use crate::{
    Timestamp,
    config::{Checked, ConfigError, lasts},
    link::Misuse,
};

/// What the connecting side does before a session begins.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenConfig {
    /// Send a PROXY header of this version. Default: none.
    pub proxy: Option<ProxyVersion>,
    /// Start TLS, after the header. Default: no.
    pub tls: bool,
    /// The time limit for both together; not zero. Default: 5 s.
    pub timeout: Duration,
}

impl Default for OpenConfig {
    fn default() -> Self {
        Self { proxy: None, tls: false, timeout: Duration::from_secs(5) }
    }
}

impl OpenConfig {
    /// Checks the configuration.
    ///
    /// # Errors
    /// [`ConfigError`] when the timeout is zero.
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

/// What the driver does next with a connection that it opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "this is what the connection waits for"]
#[non_exhaustive]
pub enum Open {
    /// Write [`Opening::outgoing`] and call [`Opening::on_sent`].
    SendHeader,
    /// Start TLS, then call [`Opening::on_tls_done`].
    StartTls,
    /// Nothing: the TLS handshake is not done, or the session began or the opening failed before.
    Paused,
    /// The session begins.
    Ready,
    /// Close the connection.
    Fail(OpenError),
}

/// Why no session begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The peer closed the connection.
    #[error("the peer closed the connection before {0} was done")]
    Eof(OpenPhase),
    /// [`OpenConfig::timeout`] has passed.
    #[error("{0} was not done within {1:?}")]
    Timeout(OpenPhase, Duration),
}

/// What an opening waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OpenPhase {
    /// The PROXY header is not sent.
    ProxyHeader,
    /// The TLS handshake is not done.
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

/// Opens a connection: sends the PROXY header, then has TLS started, until the session begins. The counterpart of
/// [`Acceptor`](super::Acceptor).
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
    /// A connection that a proxy passes on for a client (`addresses`), or its own (`None`); the PROXY header says which.
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
    /// [`Misuse::TlsNotRequested`] unless [`Open::StartTls`] asked for it. Nothing has changed then.
    pub fn on_tls_done(&mut self, _now: Timestamp) -> Result<Open, Misuse> {
        if self.state != State::Tls {
            return Err(Misuse::TlsNotRequested);
        }
        Ok(self.end(Open::Ready))
    }

    /// The peer has shut its write side.
    pub fn on_input_eof(&mut self, _now: Timestamp) -> Open {
        match self.waits_for() {
            Some(phase) => self.end(Open::Fail(OpenError::Eof(phase))),
            None => Open::Paused,
        }
    }

    /// The [`deadline`](Self::deadline) may have come. Before it, nothing changes.
    pub fn on_timeout(&mut self, now: Timestamp) -> Open {
        match self.waits_for() {
            Some(phase) if now >= self.deadline => {
                self.end(Open::Fail(OpenError::Timeout(phase, self.timeout)))
            }
            _ => self.standing(),
        }
    }

    /// The bytes to write: the rest of the PROXY header.
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
