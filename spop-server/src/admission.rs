//! What a connection occupies under the limits of the server.

use crate::{ConnectionPermit, Place, SourcePermit};

/// What a connection occupies, until it is dropped.
#[derive(Debug)]
pub(crate) struct Admission {
    connection: ConnectionPermit,
    source: SourcePermit,
}

/// What a connection that has ended occupies while handlers keep requests of it.
#[derive(Debug)]
pub(crate) struct KeptAdmission {
    #[allow(dead_code)] // Held for its drop.
    place: Option<Place>,
    #[allow(dead_code)] // Held for its drop.
    source: SourcePermit,
}

impl Admission {
    pub(crate) const fn new(connection: ConnectionPermit, source: SourcePermit) -> Self {
        Self { connection, source }
    }

    /// The connection has ended, and handlers keep requests of it.
    pub(crate) fn keep(self) -> KeptAdmission {
        KeptAdmission { place: self.connection.close(), source: self.source }
    }
}
