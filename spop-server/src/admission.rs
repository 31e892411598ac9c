//! What a connection occupies under the limits of the server.

use crate::{ConnectionPermit, Place, SourcePermit};

/// What a connection occupies, until it is dropped. By default nothing: of a connection that the server did not accept itself.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    connection: ConnectionPermit,
    source: SourcePermit,
}

/// What a connection that has ended occupies while handlers keep requests of it.
#[derive(Debug)]
pub(crate) struct KeptAdmission {
    #[allow(dead_code)] // Held for its drop.
    place: Place,
    #[allow(dead_code)] // Held for its drop.
    source: SourcePermit,
}

impl Admission {
    pub(crate) const fn new(connection: ConnectionPermit, source: SourcePermit) -> Self {
        Self { connection, source }
    }

    /// The connection has ended, and handlers keep requests of it.
    pub(crate) fn keep(self) -> Option<KeptAdmission> {
        Some(KeptAdmission { place: self.connection.close()?, source: self.source })
    }
}
