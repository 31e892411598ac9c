//! The state that both reactors stand on.

use super::{
    Closing, Layers, Phase, Side, memory::Memory, outbox::Outbox, reassembly::Reassembly, sending::Sending,
};
use crate::Timestamp;

/// One connection, whichever side of it this is.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)] // Independent facts, not states.
pub(crate) struct Link {
    pub(super) side: Side,
    pub(crate) phase: Phase,
    /// The longest frame, without its length prefix.
    pub(crate) max_frame_size: u32,
    pub(crate) reassembly: Reassembly,
    pub(super) out: Outbox,
    pub(super) sending: Sending,
    /// How many bytes of its frame a fragment leaves free.
    pub(super) spare: usize,
    pub(super) closing: Closing,
    pub(super) layers: Layers,
    /// The latest time that any input told.
    pub(super) now: Timestamp,
    /// When the connection was opened; once it is closing, when that began.
    pub(super) since: Timestamp,
    /// When a frame last came or left.
    pub(super) active: Timestamp,
    /// The last time that this side did not read, because of a limit. Until then the peer could not be late.
    pub(super) stopped: Timestamp,
    /// Since when a frame has been arriving, and how much of it is there.
    pub(super) partial: Option<(Timestamp, usize)>,
    pub(super) drain_by: Option<Timestamp>,
    /// When the current step of closing was begun, or has last come on.
    pub(super) step_since: Timestamp,
    pub(super) eof: bool,
    /// Frames were left unused because of a limit.
    pub(super) paused: bool,
    /// An engine that neither reads nor writes any more, and does not close either.
    pub(super) mute: bool,
    /// The driver was asked to shut the write side.
    pub(super) shut_asked: bool,
    pub(crate) memory: Memory,
    pub(super) skipped: u64,
}

impl Link {
    pub(crate) fn new(side: Side, max_frame_size: u32, now: Timestamp) -> Self {
        Self {
            side,
            phase: Phase::Connected,
            max_frame_size,
            reassembly: Reassembly::default(),
            out: Outbox::default(),
            sending: Sending::default(),
            spare: 0,
            closing: Closing::default(),
            layers: Layers::Plain,
            now,
            since: now,
            active: now,
            stopped: now,
            partial: None,
            drain_by: None,
            step_since: now,
            eof: false,
            paused: false,
            mute: false,
            shut_asked: false,
            memory: Memory::default(),
            skipped: 0,
        }
    }

    pub(crate) fn set_layers(&mut self, layers: Layers) {
        self.layers = layers;
    }

    pub(crate) fn defer_output(&mut self) {
        self.out.deferred = true;
    }

    /// When a frame last came or left.
    pub(crate) fn last_active(&self) -> Timestamp {
        self.active
    }

    pub(crate) fn is_deferred(&self) -> bool {
        self.out.deferred
    }

    /// Holds back what is to be sent, or lets it go.
    pub(crate) fn hold_output(&mut self, held: bool) {
        self.out.held = held && !self.eof && !self.is_closing();
    }

    /// Since when output has been held back that could leave.
    pub(crate) fn held_since(&self) -> Option<Timestamp> {
        (self.out.held && !self.out.is_empty()).then_some(self.out.progress)
    }

    /// Makes fragments shorter than their frames could hold, by this much.
    pub(crate) fn spare(&mut self, bytes: usize) {
        self.spare = bytes;
    }

    /// Moves the time on, never back.
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
        self.skipped
    }

    /// Bytes of a frame that has not arrived whole.
    pub(crate) fn partial_bytes(&self) -> usize {
        self.partial.map_or(0, |(_, bytes)| bytes)
    }

    /// Reading has stopped, and may go on from now on.
    pub(crate) fn reading_stopped(&mut self) {
        self.stopped = self.now;
    }

    /// The frame under way is not waited for any more.
    pub(crate) fn forget_partial(&mut self) {
        self.partial = None;
    }

    /// Whether frames were left unused because of a limit.
    pub(crate) fn is_paused(&self) -> bool {
        self.paused
    }
}

impl Side {
    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Engine => Self::Agent,
            Self::Agent => Self::Engine,
        }
    }
}
