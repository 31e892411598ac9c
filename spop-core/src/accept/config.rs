//! Which handlers a connection passes, and how long it may take.

use core::time::Duration;

use arrayvec::ArrayVec;

#[cfg(feature = "proxy")]
use super::ExpectProxy;
use super::{Monitor, SourceRules};
use crate::config::{Checked, ConfigError, lasts};

/// How many handlers a list has room for.
pub const MAX_STEPS: usize = 8;

/// One handler.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Go on only if the source address may.
    Source(SourceRules),
    /// Take the PROXY header from the front of the connection.
    #[cfg(feature = "proxy")]
    ExpectProxy(ExpectProxy),
    /// Answer and close a monitor's probe.
    Monitor(Monitor),
    /// Go on inside TLS.
    Tls,
}

impl From<SourceRules> for Step {
    fn from(rules: SourceRules) -> Self {
        Self::Source(rules)
    }
}

#[cfg(feature = "proxy")]
impl From<ExpectProxy> for Step {
    fn from(expect: ExpectProxy) -> Self {
        Self::ExpectProxy(expect)
    }
}

impl From<Monitor> for Step {
    fn from(monitor: Monitor) -> Self {
        Self::Monitor(monitor)
    }
}

/// What the connections of a listener pass before their sessions. Plain data: share one in an `Arc`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AcceptConfig {
    steps: ArrayVec<Step, MAX_STEPS>,
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
        Self { steps: ArrayVec::new_const(), timeout: Duration::from_secs(5), linger: Duration::from_secs(1) }
    }

    /// Adds a handler to the end of the list.
    ///
    /// # Errors
    /// [`StepError`] when the list is full, has a PROXY header or TLS for the second time, or ends with a
    /// [`Monitor::for_all`].
    pub fn with(mut self, step: impl Into<Step>) -> Result<Self, StepError> {
        let step = step.into();
        if let Some(Step::Monitor(monitor)) = self.steps.last()
            && monitor.is_for_all()
        {
            return Err(StepError::AfterMonitorForAll);
        }
        match &step {
            #[cfg(feature = "proxy")]
            Step::ExpectProxy(_) if self.steps.iter().any(|step| matches!(step, Step::ExpectProxy(_))) => {
                return Err(StepError::SecondProxyHeader);
            }
            Step::Tls if self.steps.contains(&Step::Tls) => return Err(StepError::SecondTls),
            _ => {}
        }
        self.steps.try_push(step).map_err(|_| StepError::TooManySteps)?;
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
    pub fn steps(&self) -> &[Step] {
        &self.steps
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
pub enum StepError {
    /// It is longer than [`MAX_STEPS`].
    #[error("a connection passes at most {MAX_STEPS} handlers")]
    TooManySteps,
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
        let tls = AcceptConfig::new().with(Step::Tls).unwrap();
        assert_eq!(tls.clone().with(Step::Tls), Err(StepError::SecondTls));
        let full = (1..MAX_STEPS).fold(tls, |config, _| config.with(Monitor::new("?", "!")).unwrap());
        assert_eq!(full.steps().len(), MAX_STEPS);
        assert_eq!(full.with(Monitor::new("?", "!")), Err(StepError::TooManySteps));
    }

    #[test]
    fn nothing_follows_a_monitor_that_answers_every_connection() {
        let config = AcceptConfig::new().with(Step::Tls).unwrap().with(Monitor::for_all("up\n")).unwrap();
        assert_eq!(config.clone().with(Step::Tls), Err(StepError::AfterMonitorForAll));
        assert_eq!(config.with(Monitor::new("?", "!")), Err(StepError::AfterMonitorForAll));
    }

    #[cfg(feature = "proxy")]
    #[test]
    fn a_connection_has_one_proxy_header() {
        let config = AcceptConfig::new().with(ExpectProxy::new()).unwrap().with(Step::Tls).unwrap();
        assert_eq!(config.with(ExpectProxy::new()), Err(StepError::SecondProxyHeader));
    }
}
