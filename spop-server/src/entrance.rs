//! A listener, as its connections know it: its address and its accept stage.

use std::{io, sync::Arc};

#[cfg(feature = "tls")]
use spop_core::accept::AcceptHandler;
use spop_core::{accept::AcceptConfig, config::Checked};

use crate::Address;
#[cfg(feature = "tls")]
use crate::tls::Tls;

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
        Ok(Self {
            listener: None,
            config: Arc::new(config.checked()?),
            #[cfg(feature = "tls")]
            tls: None,
        })
    }

    /// An entrance with certificates. TLS is added to the end of the list if it is not there.
    ///
    /// # Errors
    /// The list is full, or the configuration cannot work.
    #[cfg(feature = "tls")]
    pub fn with_tls(config: AcceptConfig, tls: Tls) -> io::Result<Self> {
        let config =
            if config.has_tls() { config } else { config.with(AcceptHandler::Tls).map_err(io::Error::other)? };
        Ok(Self { listener: None, config: Arc::new(config.checked()?), tls: Some(tls) })
    }
}
