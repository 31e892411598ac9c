//! What the connections of a listener pass before their sessions.

use std::{io, sync::Arc};

use spop_core::{
    accept::{AcceptConfig, Step},
    config::Checked,
};

#[cfg(feature = "tls")]
use crate::tls::Tls;

/// What the connections of one listener pass before their sessions, with what TLS needs.
#[derive(Clone, Debug)]
pub struct Entrance {
    /// The handlers.
    pub config: Arc<Checked<AcceptConfig>>,
    /// The certificates, where one of the handlers is TLS.
    #[cfg(feature = "tls")]
    pub tls: Option<Tls>,
}

impl Entrance {
    /// An entrance without certificates, unless every connection goes straight on.
    ///
    /// # Errors
    /// The list asks for TLS, or the configuration cannot work.
    pub fn new(config: AcceptConfig) -> io::Result<Option<Arc<Self>>> {
        if config.steps().contains(&Step::Tls) {
            return Err(io::Error::other("it asks for TLS, and has no certificate"));
        }
        let any = !config.steps().is_empty();
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
        let step = config.steps().contains(&Step::Tls);
        let config = if step { config } else { config.with(Step::Tls).map_err(io::Error::other)? };
        Ok(Some(Arc::new(Self { config: Arc::new(config.checked()?), tls: Some(tls) })))
    }
}
