//! How a connection ends: drain, disconnect, flush, await the peer's close, shut, linger, close.

use super::{Link, Misuse, Phase, Progress, Stage};
use crate::{
    Timestamp,
    frame::{Disconnect, Flags, FrameType, Header, Ids},
    wire::Status,
};

/// What a DISCONNECT of this side may say, so that the frame fits into the smallest frame size.
pub(crate) const MESSAGE_MAX: usize = 180;

impl Link {
    /// Wants to end when nothing is owed, and at `by` at the latest.
    pub(crate) fn drain(&mut self, by: Timestamp) {
        if !self.is_closing() {
            self.closing.want(Stage::Drain);
            self.closing.set(Stage::Drain, Progress::Started);
            self.drain_by = Some(self.drain_by.map_or(by, |earlier| earlier.min(by)));
        }
    }

    /// Takes a drain back.
    pub(crate) fn stop_draining(&mut self) {
        if !self.is_closing() {
            self.closing.set(Stage::Drain, Progress::NotWanted);
            self.drain_by = None;
            self.out.held = false;
        }
    }

    /// Whether a drain may go on.
    pub(crate) fn drain_is_in_time(&self) -> bool {
        self.drain_by.is_some_and(|by| self.now < by)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.drain_by.is_some()
    }

    /// An agent ends the session with a DISCONNECT.
    pub(crate) fn disconnect(&mut self, status: Status, message: &str) {
        self.push_disconnect(FrameType::AgentDisconnect, status, message);
        self.closing.set(Stage::Disconnect, Progress::Done);
        self.closing.want(Stage::AwaitClose);
        self.close();
    }

    /// An engine sends a DISCONNECT, and reads on until the agent's comes.
    pub(crate) fn disconnect_and_await(&mut self, status: Status, message: &str) {
        self.push_disconnect(FrameType::HaproxyDisconnect, status, message);
        self.phase = Phase::Closing;
        self.closing.set(Stage::Drain, Progress::NotWanted);
        self.closing.set(Stage::Disconnect, Progress::Done);
        self.closing.set(Stage::AwaitDisconnect, Progress::Started);
        self.step_since = self.now;
    }

    /// Whether the own DISCONNECT was queued, and the agent's has not come.
    pub(crate) fn awaits_disconnect(&self) -> bool {
        self.closing.current() == Some(Stage::AwaitDisconnect)
    }

    /// Stops reading and writing without an end.
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
        let message = shortened(message, MESSAGE_MAX);
        Disconnect { status, message: message.as_bytes() }.encode(&mut payload);
        self.push(Header { frame_type, flags: Flags::FIN, ids: Ids::ZERO }, &payload);
    }

    /// Ends the session: lets what is queued leave, shuts, lingers and closes.
    pub(crate) fn close(&mut self) {
        if self.is_draining() {
            self.closing.set(Stage::Drain, Progress::Done);
        }
        self.phase = Phase::Closing;
        self.mute = false;
        self.closing.set(Stage::AwaitDisconnect, Progress::NotWanted);
        self.out.deferred = false;
        self.out.held = false;
        self.partial = None;
        self.paused = false;
        self.step_since = self.now;
        self.since = self.now;
        self.closing.want_end(self.layers);
        self.advance();
    }

    /// Ends the session at once: the transport carries nothing any more.
    pub(crate) fn abandon(&mut self) {
        self.phase = Phase::Closing;
        self.mute = false;
        self.eof = true;
        self.partial = None;
        self.paused = false;
        self.out.clear();
        self.closing.only_close();
    }

    /// The write side of the layer that [`Interest::shut`] named was shut, or the attempt began and is to be repeated.
    ///
    /// # Errors
    /// When that was never asked for. A report that comes after its time was up changes nothing.
    pub(crate) fn write_shut(&mut self, progress: Progress) -> Result<(), Misuse> {
        if !self.shut_asked {
            return Err(Misuse::ShutNotAsked);
        }
        if let Some(step @ (Stage::ShutData | Stage::ShutTransport)) = self.closing.current() {
            if progress == Progress::Done {
                self.step_done(step);
            } else {
                self.closing.set(step, progress);
            }
        }
        Ok(())
    }

    fn step_done(&mut self, step: Stage) {
        self.closing.set(step, Progress::Done);
        self.step_since = self.now;
        self.advance();
    }

    /// Takes the steps that need nobody else.
    pub(super) fn advance(&mut self) {
        if !self.is_closing() {
            return;
        }
        while let Some(step) = self.closing.current() {
            let done = match step {
                Stage::Flush => self.nothing_to_send(),
                Stage::AwaitClose | Stage::Linger => self.eof,
                Stage::ShutData | Stage::ShutTransport => {
                    self.shut_asked = true;
                    return;
                }
                _ => return,
            };
            if !done {
                self.closing.set(step, Progress::Started);
                return;
            }
            self.closing.set(step, Progress::Done);
            self.step_since = self.now;
        }
    }

    /// A step of closing did not finish in time. What could not be flushed is given up, and with it every later step but
    /// the last; for the others the next step is taken.
    pub(super) fn step_overdue(&mut self) {
        match self.closing.current() {
            Some(Stage::Flush) => self.abandon(),
            // It has had its time to read the DISCONNECT, and will not close sooner for a FIN.
            Some(step @ Stage::AwaitClose) => {
                self.closing.set(Stage::Linger, Progress::Done);
                self.step_done(step);
            }
            Some(step) if step != Stage::Close => self.step_done(step),
            _ => {}
        }
    }
}

/// The front of a text, at most `max` bytes of it.
fn shortened(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}
