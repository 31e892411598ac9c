//! Which handlers a connection passes, and how long it may take.

use core::time::Duration;

use arrayvec::ArrayVec;

#[cfg(feature = "proxy")]
use super::ExpectProxy;
use super::{Monitor, SourceRules};
use crate::config::{Checked, ConfigError, lasts};

/// How many handlers a list has room for.
pub const MAX_HANDLERS: usize = 8;

/// One handler.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AcceptHandler {
    /// Go on only if the source address may.
    SourceRules(SourceRules),
    /// Take the PROXY header from the front of the connection.
    #[cfg(feature = "proxy")]
    ExpectProxy(ExpectProxy),
    /// Answer and close a monitor's probe.
    Monitor(Monitor),
    /// Go on inside TLS.
    Tls,
}

impl From<SourceRules> for AcceptHandler {
    fn from(rules: SourceRules) -> Self {
        Self::SourceRules(rules)
    }
}

#[cfg(feature = "proxy")]
impl From<ExpectProxy> for AcceptHandler {
    fn from(expect: ExpectProxy) -> Self {
        Self::ExpectProxy(expect)
    }
}

impl From<Monitor> for AcceptHandler {
    fn from(monitor: Monitor) -> Self {
        Self::Monitor(monitor)
    }
}

/// What the connections of a listener pass before their sessions. Plain data: share one in an `Arc`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AcceptConfig {
    handlers: ArrayVec<AcceptHandler, MAX_HANDLERS>,
    /// How long all of it may take, from the connection to the session (or to a monitor's answer); not zero. Default: 5 s.
    pub timeout: Duration,
    /// How long a monitor that has its answer may take to close. Closing before it does could destroy the answer on its
    /// way. Not zero. Default: 1 s.
    pub linger: Duration,
}

impl AcceptConfig {
    /// No handlers: each connection is a session at once.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            handlers: ArrayVec::new_const(),
            timeout: Duration::from_secs(5),
            linger: Duration::from_secs(1),
        }
    }

    /// Adds a handler to the end of the list.
    ///
    /// # Errors
    /// [`AcceptHandlerError`] when the list is full, has a PROXY header or TLS for the second time, or ends with a
    /// [`Monitor::for_all`].
    pub fn with(mut self, handler: impl Into<AcceptHandler>) -> Result<Self, AcceptHandlerError> {
        let handler = handler.into();
        if let Some(AcceptHandler::Monitor(monitor)) = self.handlers.last()
            && monitor.is_for_all()
        {
            return Err(AcceptHandlerError::AfterMonitorForAll);
        }
        match &handler {
            #[cfg(feature = "proxy")]
            AcceptHandler::ExpectProxy(_)
                if self.handlers.iter().any(|handler| matches!(handler, AcceptHandler::ExpectProxy(_))) =>
            {
                return Err(AcceptHandlerError::SecondProxyHeader);
            }
            AcceptHandler::Tls if self.handlers.contains(&AcceptHandler::Tls) => {
                return Err(AcceptHandlerError::SecondTls);
            }
            _ => {}
        }
        self.handlers.try_push(handler).map_err(|_| AcceptHandlerError::TooMany)?;
        Ok(self)
    }

    /// Checks that it can work.
    ///
    /// # Errors
    /// [`ConfigError`] when a time is zero.
    pub fn checked(self) -> Result<Checked<Self>, ConfigError> {
        lasts("timeout", self.timeout, Duration::ZERO)?;
        lasts("linger", self.linger, Duration::ZERO)?;
        Ok(Checked::new(self))
    }

    /// The handlers, in order.
    pub fn handlers(&self) -> &[AcceptHandler] {
        &self.handlers
    }
}

impl Default for AcceptConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl Default for Checked<AcceptConfig> {
    fn default() -> Self {
        Self::new(AcceptConfig::default())
    }
}

/// A handler that cannot be added to the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptHandlerError {
    /// It is longer than [`MAX_HANDLERS`].
    #[error("a connection passes at most {MAX_HANDLERS} handlers")]
    TooMany,
    /// A connection has one PROXY header.
    #[error("a PROXY header is expected twice")]
    SecondProxyHeader,
    /// A connection has one TLS layer.
    #[error("TLS is started twice")]
    SecondTls,
    /// No connection would come to it.
    #[error("no handler can follow a monitor that answers every connection")]
    AfterMonitorForAll,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_an_end_and_no_handler_that_cannot_come_twice() {
        let tls = AcceptConfig::new().with(AcceptHandler::Tls).unwrap();
        assert_eq!(tls.clone().with(AcceptHandler::Tls), Err(AcceptHandlerError::SecondTls));
        let full = (1..MAX_HANDLERS).fold(tls, |config, _| config.with(Monitor::new("?", "!")).unwrap());
        assert_eq!(full.handlers().len(), MAX_HANDLERS);
        assert_eq!(full.with(Monitor::new("?", "!")), Err(AcceptHandlerError::TooMany));
    }

    #[test]
    fn nothing_follows_a_monitor_that_answers_every_connection() {
        let config =
            AcceptConfig::new().with(AcceptHandler::Tls).unwrap().with(Monitor::for_all("up\n")).unwrap();
        assert_eq!(config.clone().with(AcceptHandler::Tls), Err(AcceptHandlerError::AfterMonitorForAll));
        assert_eq!(config.with(Monitor::new("?", "!")), Err(AcceptHandlerError::AfterMonitorForAll));
    }

    #[cfg(feature = "proxy")]
    #[test]
    fn a_connection_has_one_proxy_header() {
        let config = AcceptConfig::new().with(ExpectProxy::new()).unwrap().with(AcceptHandler::Tls).unwrap();
        assert_eq!(config.with(ExpectProxy::new()), Err(AcceptHandlerError::SecondProxyHeader));
    }
}
