//! How long handlers take.

#[cfg(feature = "metrics")]
use std::sync::OnceLock;

#[cfg(feature = "metrics")]
use metrics::{Histogram, histogram};
#[cfg(feature = "metrics")]
use spop_core::frame::Messages;

#[cfg(feature = "metrics")]
use crate::label::NAME;

/// Buckets for `spop_handler_seconds`, from 50 µs to 5 s. Whether a histogram has buckets, and which, decides the recorder:
/// see [the guide](crate::guide::observability).
pub const HANDLER_SECONDS_BUCKETS: [f64; 16] =
    [5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// How many names of messages are labels. Peers choose the names.
#[cfg(feature = "metrics")]
pub(super) const NAMES: usize = 64;

/// A histogram for each of the first names of messages, and one for all others. Found without a lock.
#[cfg(feature = "metrics")]
pub(super) struct HandlerSeconds {
    names: [OnceLock<(Box<[u8]>, Histogram)>; NAMES],
    pub(super) other: Histogram,
}

#[cfg(feature = "metrics")]
impl HandlerSeconds {
    pub(super) fn new() -> Self {
        Self { names: [const { OnceLock::new() }; NAMES], other: Self::register("other".to_owned()) }
    }

    fn register(message: String) -> Histogram {
        histogram!("spop_handler_seconds", "message" => message)
    }

    /// Where the histogram of these messages is.
    #[inline]
    pub(super) fn place_of_messages(&self, messages: Messages<'_>) -> usize {
        let name = messages.iter().next().map(|message| message.name()).unwrap_or_default();
        // Cut as in a `Label`.
        self.place(name.get(..NAME).unwrap_or(name))
    }

    pub(super) fn place(&self, name: &[u8]) -> usize {
        let is_it = |slot: &OnceLock<(Box<[u8]>, Histogram)>| {
            let known = match slot.get() {
                Some(known) => known,
                None => slot.get_or_init(|| (name.into(), Self::register(name.escape_ascii().to_string()))),
            };
            *known.0 == *name
        };
        self.names.iter().position(is_it).unwrap_or(NAMES)
    }

    pub(super) fn at(&self, place: usize) -> &Histogram {
        self.names.get(place).and_then(OnceLock::get).map_or(&self.other, |known| &known.1)
    }
}
