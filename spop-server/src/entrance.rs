//! A listener, as its connections know it: its address and its accept stage.

use std::{
    io,
    sync::{Arc, OnceLock},
};

#[cfg(feature = "tls")]
use spop_core::accept::AcceptHandler;
use spop_core::{accept::AcceptConfig, config::Checked};

#[cfg(feature = "tls")]
use crate::tls::Tls;
use crate::{Address, ListenerMetrics};

/// What the connections of one listener have in common: its address, the handlers of the accept stage, and the certificates of
/// TLS.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Entrance {
    /// The address of the listener, for the log, [`ConnectionInfo`](crate::ConnectionInfo) and metrics. [`Endpoint`](crate::Endpoint)
    /// sets it.
    pub listener: Option<Address>,
    /// The handlers. If there are none, a session begins at once.
    pub config: Arc<Checked<AcceptConfig>>,
    /// The certificates, if one of the handlers is TLS.
    #[cfg(feature = "tls")]
    pub tls: Option<Tls>,
    /// Made when they are needed: the recorder is installed later.
    pub(crate) metrics: OnceLock<ListenerMetrics>,
}

impl Entrance {
    /// An entrance without certificates.
    ///
    /// # Errors
    /// The list asks for TLS, or the configuration cannot work.
    pub fn new(config: AcceptConfig) -> io::Result<Self> {
        if config.has_tls() {
            return Err(io::Error::other("it asks for TLS, and has no certificate"));
        }
        Self::of(config)
    }

    fn of(config: AcceptConfig) -> io::Result<Self> {
        Ok(Self {
            listener: None,
            config: Arc::new(config.checked()?),
            #[cfg(feature = "tls")]
            tls: None,
            metrics: OnceLock::new(),
        })
    }

    /// An entrance with certificates. TLS is added to the end of the list if it is not there.
    ///
    /// # Errors
    /// The list is full, or the configuration cannot work.
    #[cfg(feature = "tls")]
    pub fn with_tls(config: AcceptConfig, tls: Tls) -> io::Result<Self> {
        let config = if config.has_tls() {
            config
        } else {
            config.with(AcceptHandler::Tls).map_err(io::Error::other)?
        };
        Ok(Self { tls: Some(tls), ..Self::of(config)? })
    }
}
