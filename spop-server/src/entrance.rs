//! The accept stage of a listener.

use std::{io, sync::Arc};

use spop_core::{
    accept::{AcceptConfig, AcceptHandler},
    config::Checked,
};

#[cfg(feature = "tls")]
use crate::tls::Tls;

/// The accept stage of one listener: the handlers of its connections, and the certificates of TLS.
#[derive(Clone, Debug)]
pub struct Entrance {
    /// The handlers.
    pub config: Arc<Checked<AcceptConfig>>,
    /// The certificates, if one of the handlers is TLS.
    #[cfg(feature = "tls")]
    pub tls: Option<Tls>,
}

impl Entrance {
    /// An entrance without certificates; `None` if there are no handlers.
    ///
    /// # Errors
    /// The list asks for TLS, or the configuration cannot work.
    pub fn new(config: AcceptConfig) -> io::Result<Option<Arc<Self>>> {
        if config.handlers().contains(&AcceptHandler::Tls) {
            return Err(io::Error::other("it asks for TLS, and has no certificate"));
        }
        let any = !config.handlers().is_empty();
        let entrance = Self {
            config: Arc::new(config.checked()?),
            #[cfg(feature = "tls")]
            tls: None,
        };
        Ok(any.then(|| Arc::new(entrance)))
    }

    /// An entrance with certificates. TLS is added to the end of the list if it is not there.
    ///
    /// # Errors
    /// The list is full, or the configuration cannot work.
    #[cfg(feature = "tls")]
    pub fn with_tls(config: AcceptConfig, tls: Tls) -> io::Result<Option<Arc<Self>>> {
        let has_tls = config.handlers().contains(&AcceptHandler::Tls);
        let config =
            if has_tls { config } else { config.with(AcceptHandler::Tls).map_err(io::Error::other)? };
        Ok(Some(Arc::new(Self { config: Arc::new(config.checked()?), tls: Some(tls) })))
    }
}
