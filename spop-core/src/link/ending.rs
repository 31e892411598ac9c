//! The close sequence: drain, disconnect, flush, await the peer's close, shut the write side, linger, close.

use super::{Link, Misuse, Phase, Progress, Stage};
use crate::{
    Timestamp,
    excerpt::prefix,
    frame::{Disconnect, Flags, FrameType, Header, Ids},
    wire::Status,
};

/// The longest message of a DISCONNECT, in bytes. The frame then fits the smallest frame size, 256 bytes.
pub(crate) const MESSAGE_MAX: usize = 180;

impl Link {
    /// Starts a drain that ends at `by` at the latest. Of two drains the earlier deadline counts.
    pub(crate) fn drain(&mut self, by: Timestamp) {
        if !self.is_closing() {
            self.closing.request(Stage::Drain);
            self.closing.set(Stage::Drain, Progress::Started);
            self.drain_by = Some(self.drain_by.map_or(by, |earlier| earlier.min(by)));
        }
    }

    /// Cancels a drain.
    pub(crate) fn stop_draining(&mut self) {
        if !self.is_closing() {
            self.closing.set(Stage::Drain, Progress::NotRequested);
            self.drain_by = None;
            self.out.held = false;
        }
    }

    /// Whether the deadline of the drain lies ahead.
    pub(crate) fn drain_is_in_time(&self) -> bool {
        self.drain_by.is_some_and(|by| self.now < by)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.drain_by.is_some()
    }

    /// Agent: sends a DISCONNECT and starts to close.
    pub(crate) fn disconnect(&mut self, status: Status, message: &str) {
        self.push_disconnect(FrameType::AgentDisconnect, status, message);
        self.closing.set(Stage::Disconnect, Progress::Done);
        self.closing.request(Stage::AwaitClose);
        self.close();
    }

    /// Engine: sends a DISCONNECT, and reads until the agent's arrives.
    pub(crate) fn disconnect_and_await(&mut self, status: Status, message: &str) {
        self.push_disconnect(FrameType::HaproxyDisconnect, status, message);
        self.phase = Phase::Closing;
        self.closing.set(Stage::Drain, Progress::NotRequested);
        self.closing.set(Stage::Disconnect, Progress::Done);
        self.closing.set(Stage::AwaitDisconnect, Progress::Started);
        self.stage_since = self.now;
    }

    /// Engine: whether its DISCONNECT was queued and the agent's has not arrived.
    pub(crate) fn awaits_disconnect(&self) -> bool {
        self.closing.current() == Some(Stage::AwaitDisconnect)
    }

    /// Engine: stalls the connection, which neither reads, writes nor closes any more.
    pub(crate) fn mute(&mut self) {
        self.phase = Phase::Closing;
        self.mute = true;
        self.out.held = true;
    }

    pub(crate) fn is_mute(&self) -> bool {
        self.mute
    }

    pub(crate) fn push_disconnect(&mut self, frame_type: FrameType, status: Status, message: &str) {
        let mut payload = alloc::vec::Vec::new();
        let message = prefix(message, MESSAGE_MAX);
        Disconnect { status, message: message.as_bytes() }.encode(&mut payload);
        self.push(Header { frame_type, flags: Flags::FIN, ids: Ids::ZERO }, &payload);
    }

    /// Starts to close: flushes the queue, shuts the write side, lingers and closes.
    pub(crate) fn close(&mut self) {
        if self.is_draining() {
            self.closing.set(Stage::Drain, Progress::Done);
        }
        self.phase = Phase::Closing;
        self.mute = false;
        self.closing.set(Stage::AwaitDisconnect, Progress::NotRequested);
        self.out.deferred = false;
        self.out.held = false;
        self.partial = None;
        self.paused = false;
        self.stage_since = self.now;
        self.since = self.now;
        self.closing.request_close(self.layers);
        self.advance();
    }

    /// Closes at once, without flush or shutdown: the transport is broken, or the peer does not read.
    pub(crate) fn abandon(&mut self) {
        self.phase = Phase::Closing;
        self.mute = false;
        self.eof = true;
        self.partial = None;
        self.paused = false;
        self.out.clear();
        self.closing.only_close();
    }

    /// The driver shut the write side of the layer that [`Interest::shut`](super::Interest::shut) named, or started to.
    ///
    /// A report that arrives after the stage has timed out is ignored.
    ///
    /// # Errors
    /// [`Misuse::ShutNotRequested`] if no shutdown was ever asked for.
    pub(crate) fn write_shut(&mut self, progress: Progress) -> Result<(), Misuse> {
        if !self.shut_requested {
            return Err(Misuse::ShutNotRequested);
        }
        if let Some(stage @ (Stage::ShutData | Stage::ShutTransport)) = self.closing.current() {
            match progress {
                Progress::Done => self.stage_done(stage),
                Progress::Started => self.closing.set(stage, progress),
                // It is requested as before.
                Progress::Requested | Progress::NotRequested => self.closing.set(stage, Progress::Requested),
            }
        }
        Ok(())
    }

    fn stage_done(&mut self, stage: Stage) {
        self.closing.set(stage, Progress::Done);
        self.stage_since = self.now;
        self.advance();
    }

    /// Completes stages until one has to wait for the driver, the peer or a timer.
    pub(super) fn advance(&mut self) {
        if !self.is_closing() {
            return;
        }
        while let Some(stage) = self.closing.current() {
            let done = match stage {
                Stage::Flush => self.nothing_to_send(),
                Stage::AwaitClose | Stage::Linger => self.eof,
                Stage::ShutData | Stage::ShutTransport => {
                    self.shut_requested = true;
                    return;
                }
                _ => return,
            };
            if !done {
                self.closing.set(stage, Progress::Started);
                return;
            }
            self.closing.set(stage, Progress::Done);
            self.stage_since = self.now;
        }
    }

    /// The linger timeout of the current stage expired. After a failed flush the connection closes at once; after any other
    /// stage the next one begins.
    pub(super) fn stage_timed_out(&mut self) {
        match self.closing.current() {
            Some(Stage::Flush) => self.abandon(),
            // The peer had one linger timeout to close after the DISCONNECT; it gets no second one after the FIN.
            Some(stage @ Stage::AwaitClose) => {
                self.closing.set(Stage::Linger, Progress::Done);
                self.stage_done(stage);
            }
            Some(stage) if stage != Stage::Close => self.stage_done(stage),
            _ => {}
        }
    }
}
