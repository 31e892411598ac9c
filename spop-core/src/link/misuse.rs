//! What a driver did wrong.

/// An input that reports what cannot have happened: a fault of the driver. The reactor has not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Misuse {
    /// `on_sent` reports more bytes than were outgoing.
    #[error("{sent} bytes were reported as sent, but {outgoing} were outgoing")]
    SentTooMuch {
        /// What was reported.
        sent: usize,
        /// The length of `outgoing()`.
        outgoing: usize,
    },
    /// `on_write_shut` reports a shutdown that [`Interest::shut`](super::Interest::shut) has not asked for.
    #[error("the write side was reported as shut, which was not asked for")]
    ShutNotAsked,
}
