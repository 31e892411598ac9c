//! The handlers of a listener's connections, and their timeouts.

use core::time::Duration;

use arrayvec::ArrayVec;

#[cfg(feature = "proxy")]
use super::ExpectProxy;
use super::{Monitor, SourceRules};
use crate::config::{Checked, ConfigError, lasts};

/// The maximum number of handlers.
pub const MAX_HANDLERS: usize = 8;

/// One handler of the accept stage.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AcceptHandler {
    /// Allow or deny the connection by its source address.
    SourceRules(SourceRules),
    /// Read the PROXY header.
    #[cfg(feature = "proxy")]
    ExpectProxy(ExpectProxy),
    /// Answer a monitor's probe and close its connection.
    Monitor(Monitor),
    /// Start TLS. What follows is inside it.
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

/// The accept stage of a listener's connections: handlers in order, and timeouts. Plain data: share one in an `Arc`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AcceptConfig {
    handlers: ArrayVec<AcceptHandler, MAX_HANDLERS>,
    /// The time limit from accepting the connection to its session, or until a monitor's answer is sent. Not zero. Default: 5 s.
    pub timeout: Duration,
    /// How long to await a monitor's close after its answer was sent. An earlier close could make TCP reset the connection, and
    /// the monitor would lose the answer. Not zero. Default: 1 s.
    pub linger: Duration,
}

impl AcceptConfig {
    /// No handlers: the session of each connection begins at once.
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
    /// [`AcceptHandlerError`] when the list is full, has a second PROXY header or a second TLS, or ends with a
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
            AcceptHandler::ExpectProxy(_) if self.expects_proxy() => {
                return Err(AcceptHandlerError::SecondProxyHeader);
            }
            AcceptHandler::Tls if self.has_tls() => {
                return Err(AcceptHandlerError::SecondTls);
            }
            _ => {}
        }
        self.handlers.try_push(handler).map_err(|_| AcceptHandlerError::TooMany)?;
        Ok(self)
    }

    /// Checks the configuration.
    ///
    /// # Errors
    /// [`ConfigError`] when a timeout is zero.
    pub fn checked(self) -> Result<Checked<Self>, ConfigError> {
        lasts("timeout", self.timeout, Duration::ZERO)?;
        lasts("linger", self.linger, Duration::ZERO)?;
        Ok(Checked::new(self))
    }

    /// The handlers, in order.
    pub fn handlers(&self) -> &[AcceptHandler] {
        &self.handlers
    }

    /// Whether connections pass TLS.
    pub fn has_tls(&self) -> bool {
        self.handlers.contains(&AcceptHandler::Tls)
    }

    /// Whether connections have a PROXY header.
    pub fn expects_proxy(&self) -> bool {
        #[cfg(feature = "proxy")]
        return self.handlers.iter().any(|handler| matches!(handler, AcceptHandler::ExpectProxy(_)));
        #[cfg(not(feature = "proxy"))]
        false
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
    /// The list has [`MAX_HANDLERS`] handlers already.
    #[error("a connection passes at most {MAX_HANDLERS} handlers")]
    TooMany,
    /// A connection has one PROXY header.
    #[error("a PROXY header is expected twice")]
    SecondProxyHeader,
    /// A connection has one TLS layer.
    #[error("TLS is started twice")]
    SecondTls,
    /// No connection would reach it.
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
