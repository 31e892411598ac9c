//! The input of a reactor in a test.

use alloc::vec::Vec;

use spop_core::Step;

/// Received bytes, and the position up to which a reactor has used them.
///
/// ```
/// use std::sync::Arc;
/// use spop_core::{Action, AgentReactor, ConnectionId, Timestamp, testing::Inbox};
///
/// let mut agent = AgentReactor::new(Arc::default(), ConnectionId(1), Timestamp::ZERO);
/// let mut inbox = Inbox::from(&[0, 0, 1][..]);
/// let action = inbox.feed(|input| agent.on_bytes(Timestamp::ZERO, input));
/// assert!(matches!(action, Action::WantBytes { at_least: 1 }));
/// assert_eq!(inbox.unused(), [0, 0, 1]);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    used: usize,
}

impl Inbox {
    /// An empty inbox.
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), used: 0 }
    }

    /// Appends received bytes.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.used);
        self.used = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The unused bytes.
    pub fn unused(&self) -> &[u8] {
        self.bytes.get(self.used..).unwrap_or_default()
    }

    /// Whether all bytes were used.
    pub fn is_empty(&self) -> bool {
        self.unused().is_empty()
    }

    /// The number of unused bytes.
    pub fn len(&self) -> usize {
        self.unused().len()
    }

    /// Discards the unused bytes.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.used = 0;
    }

    /// Passes the unused bytes to an input such as `on_bytes`, and returns the action.
    pub fn feed<'a, A>(&'a mut self, input: impl FnOnce(&'a [u8]) -> Step<A>) -> A {
        let Self { bytes, used } = self;
        let Step { consumed, action } = input(bytes.get(*used..).unwrap_or_default());
        *used += consumed;
        action
    }
}

impl From<&[u8]> for Inbox {
    fn from(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), used: 0 }
    }
}
