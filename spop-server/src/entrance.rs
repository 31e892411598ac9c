//! What the connections of a listener pass before their sessions.

use std::{io, sync::Arc};

use spop_core::accept::{AcceptConfig, Step};

#[cfg(feature = "tls")]
use crate::tls::Tls;

/// What the connections of one listener pass before their sessions, with what TLS needs.
#[derive(Clone, Debug)]
pub struct Entrance {
    /// The handlers.
    pub config: Arc<AcceptConfig>,
    /// The certificates, where one of the handlers is TLS.
    #[cfg(feature = "tls")]
    pub tls: Option<Tls>,
}

impl Entrance {
    /// An entrance, unless every connection goes straight on. With certificates, TLS is added to the end of the list if it
    /// is not there.
    ///
    /// # Errors
    /// The list asks for TLS, and there is no certificate.
    #[cfg(feature = "tls")]
    pub fn new(mut config: AcceptConfig, tls: Option<Tls>) -> io::Result<Option<Arc<Self>>> {
        let step = config.steps().contains(&Step::Tls);
        match &tls {
            None if step => return Err(io::Error::other("it asks for TLS, and has no certificate")),
            Some(_) if !step => config = config.with(Step::Tls).map_err(io::Error::other)?,
            _ => {}
        }
        let any = !config.steps().is_empty();
        Ok(any.then(|| Arc::new(Self { config: Arc::new(config), tls })))
    }

    /// An entrance, unless every connection goes straight on.
    ///
    /// # Errors
    /// The list asks for TLS, which is a feature that was not built.
    #[cfg(not(feature = "tls"))]
    pub fn new(config: AcceptConfig) -> io::Result<Option<Arc<Self>>> {
        if config.steps().contains(&Step::Tls) {
            return Err(io::Error::other("it asks for TLS, which is a feature that was not built"));
        }
        let any = !config.steps().is_empty();
        Ok(any.then(|| Arc::new(Self { config: Arc::new(config) })))
    }
}
