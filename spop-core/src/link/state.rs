//! The connection state that both reactors build on.

use super::{
    Closing, Layers, Phase, Side, memory::Memory, outbox::Outbox, payloads::Payloads, sending::Sending,
};
use crate::Timestamp;

/// The state of one connection, for either role.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)] // Independent conditions, not states.
pub(crate) struct Link {
    pub(super) side: Side,
    pub(crate) phase: Phase,
    /// The longest frame, without its length prefix.
    pub(crate) max_frame_size: u32,
    pub(crate) reassembly: Payloads,
    pub(super) out: Outbox,
    pub(super) sending: Sending,
    /// Bytes that each outgoing fragment stays below the frame size.
    pub(super) spare: u32,
    pub(super) closing: Closing,
    pub(super) layers: Layers,
    /// The current time: the latest that any input carried.
    pub(super) now: Timestamp,
    /// When the connection was opened or, in `Phase::Closing`, when closing began.
    pub(super) since: Timestamp,
    /// When a frame was last received, queued or sent.
    pub(super) last_active: Timestamp,
    /// When this side last applied backpressure. Frame and fragment timeouts start no earlier: the peer could not send.
    pub(super) backpressure_at: Timestamp,
    /// The frame that has arrived in part: since when, and how many of its bytes are there.
    pub(super) partial: Option<(Timestamp, usize)>,
    /// The deadline of the drain; `None` without a drain.
    pub(super) drain_by: Option<Timestamp>,
    /// When the current close stage began or last made progress.
    pub(super) stage_since: Timestamp,
    pub(super) eof: bool,
    /// Backpressure: complete frames may be left in the input.
    pub(super) paused: bool,
    /// Engine only: the connection stalls. It no longer reads or writes, and does not close.
    pub(super) mute: bool,
    /// [`Interest::shut`](super::Interest::shut) was set at least once.
    pub(super) shut_requested: bool,
    pub(crate) memory: Memory,
    /// Frames of unknown type.
    pub(super) skipped: u32,
}

impl Link {
    pub(crate) fn new(side: Side, max_frame_size: u32, now: Timestamp) -> Self {
        Self {
            side,
            phase: Phase::Connected,
            max_frame_size,
            reassembly: Payloads::default(),
            out: Outbox::default(),
            sending: Sending::default(),
            spare: 0,
            closing: Closing::default(),
            layers: Layers::Plain,
            now,
            since: now,
            last_active: now,
            backpressure_at: now,
            partial: None,
            drain_by: None,
            stage_since: now,
            eof: false,
            paused: false,
            mute: false,
            shut_requested: false,
            memory: Memory::default(),
            skipped: 0,
        }
    }

    pub(crate) fn set_layers(&mut self, layers: Layers) {
        self.layers = layers;
    }

    /// Queues all output until the input ends.
    pub(crate) fn defer_output(&mut self) {
        self.out.deferred = true;
    }

    /// When a frame was last received, queued or sent.
    pub(crate) fn last_active(&self) -> Timestamp {
        self.last_active
    }

    pub(crate) fn is_deferred(&self) -> bool {
        self.out.deferred
    }

    /// Holds the outgoing queue, or releases it. After the end of the input and while closing, it is never held.
    pub(crate) fn hold_output(&mut self, held: bool) {
        self.out.held = held && !self.eof && !self.is_closing();
    }

    /// Whether queued output is held.
    #[inline]
    pub(crate) const fn holds_output(&self) -> bool {
        self.out.held
    }

    /// Since when queued output has been held; `None` if nothing is held.
    pub(crate) fn held_since(&self) -> Option<Timestamp> {
        (self.out.held && !self.out.is_empty()).then_some(self.out.progress)
    }

    /// Keeps outgoing fragments this many bytes below the frame size.
    pub(crate) fn spare(&mut self, bytes: u32) {
        self.spare = bytes;
    }

    /// Advances the time, and returns it. The time never goes back.
    pub(crate) fn tick(&mut self, now: Timestamp) -> Timestamp {
        self.now = self.now.max(now);
        self.now
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.phase == Phase::Closing
    }

    pub(crate) fn is_eof(&self) -> bool {
        self.eof
    }

    pub(crate) fn skipped(&self) -> u64 {
        self.skipped.into()
    }

    /// Bytes of a frame that has arrived in part.
    pub(crate) fn partial_bytes(&self) -> usize {
        self.partial.map_or(0, |(_, bytes)| bytes)
    }

    /// Backpressure is in effect now.
    pub(crate) fn under_backpressure(&mut self) {
        self.backpressure_at = self.now;
    }

    /// Stops the timeout of the frame that has arrived in part.
    pub(crate) fn forget_partial(&mut self) {
        self.partial = None;
    }

    /// Whether backpressure may have left complete frames in the input.
    pub(crate) fn is_paused(&self) -> bool {
        self.paused
    }
}

impl Side {
    /// The other side.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Engine => Self::Agent,
            Self::Agent => Self::Engine,
        }
    }
}
