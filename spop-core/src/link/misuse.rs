//! Errors of the driver.

/// A report that contradicts the state of the reactor: a bug of the driver or of its transport. The reactor ignores the
/// report and is unchanged.
///
/// A driver should treat it as a failed transport and call `on_transport_error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Misuse {
    /// `on_sent` reported more bytes than were outgoing.
    #[error("{sent} bytes were reported as sent, but {outgoing} were outgoing")]
    SentTooMuch {
        /// The reported number of bytes.
        sent: usize,
        /// The length of `outgoing()`.
        outgoing: usize,
    },
    /// `on_write_shut` was called although [`Interest::shut`](super::Interest::shut) was never set.
    #[error("the write side was reported as shut, which was not asked for")]
    ShutNotRequested,
    /// `on_tls_done` reports a TLS handshake that has not been asked for.
    #[error("the TLS handshake was reported as done, which was not asked for")]
    TlsNotRequested,
}
