//! The stages of closing and their progress. Each stage has its own progress; one that cannot complete is tried again.

/// The stages of closing, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Stage {
    /// Answer the requests in flight.
    Drain,
    /// Queue the DISCONNECT.
    Disconnect,
    /// Engine only: send the own DISCONNECT, and read until the agent's arrives.
    AwaitDisconnect,
    /// Send the queued bytes.
    Flush,
    /// After a DISCONNECT: read and discard until the peer closes or the linger timeout expires.
    ///
    /// HAProxy closes within a millisecond. A FIN or `close_notify` right behind the DISCONNECT makes HAProxy 3.2 and 3.4 miss
    /// it: 15 of 60 pending requests hung until their processing timeout.
    AwaitClose,
    /// Shut the write side of the data layer, if there is one.
    ShutData,
    /// Shut the write side of the transport.
    ShutTransport,
    /// Without a DISCONNECT: read and discard until the peer has closed. A close with unread input sends a RST, which can
    /// destroy answers in transit.
    Linger,
    /// Close the transport.
    Close,
}

impl Stage {
    /// All stages, in order.
    pub(crate) const ALL: [Self; 9] = [
        Self::Drain,
        Self::Disconnect,
        Self::AwaitDisconnect,
        Self::Flush,
        Self::AwaitClose,
        Self::ShutData,
        Self::ShutTransport,
        Self::Linger,
        Self::Close,
    ];
}

/// The progress of a stage of closing, reported to `on_write_shut`.
// The values are two bits, as in HAProxy's connection flags: the high bit means requested, the low bit begun or done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Progress {
    /// Not requested. As a report: as `Requested`.
    NotRequested = 0b00,
    /// Requested, and not begun. As a report: the attempt could not begin.
    Requested = 0b10,
    /// Begun, and to be tried again.
    Started = 0b11,
    /// Done, or not possible.
    Done = 0b01,
}

/// The layers of a connection whose write sides are shut separately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Layers {
    /// The socket only.
    #[default]
    Plain,
    /// A data layer on the socket, such as TLS. Its write side is shut before the socket's.
    Data,
}

/// The progress of all stages, two bits each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Closing(u32);

impl Closing {
    /// The progress of a stage.
    pub(crate) const fn progress(self, stage: Stage) -> Progress {
        match self.0 >> (2 * stage as u32) & 0b11 {
            0b00 => Progress::NotRequested,
            0b10 => Progress::Requested,
            0b11 => Progress::Started,
            _ => Progress::Done,
        }
    }

    /// The current stage: the first that is requested and not done.
    pub(crate) fn current(self) -> Option<Stage> {
        Stage::ALL
            .into_iter()
            .find(|stage| matches!(self.progress(*stage), Progress::Requested | Progress::Started))
    }

    pub(super) const fn set(&mut self, stage: Stage, progress: Progress) {
        let shift = 2 * stage as u32;
        self.0 = self.0 & !(0b11 << shift) | (progress as u32) << shift;
    }

    /// Requests a stage that has no progress yet.
    pub(super) fn request(&mut self, stage: Stage) {
        if self.progress(stage) == Progress::NotRequested {
            self.set(stage, Progress::Requested);
        }
    }

    /// Requests all stages from the flush to the close, except `AwaitClose`.
    pub(super) fn request_close(&mut self, layers: Layers) {
        for stage in [Stage::Flush, Stage::ShutTransport, Stage::Linger, Stage::Close] {
            self.request(stage);
        }
        if layers == Layers::Data {
            self.request(Stage::ShutData);
        }
    }

    /// Skips all stages before the close.
    pub(super) fn only_close(&mut self) {
        *self = Self::default();
        self.set(Stage::Close, Progress::Requested);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_independent_and_come_in_order() {
        let mut closing = Closing::default();
        assert_eq!(closing.current(), None);
        closing.request_close(Layers::Data);
        for stage in [Stage::Flush, Stage::ShutData, Stage::ShutTransport, Stage::Linger, Stage::Close] {
            assert_eq!((closing.current(), closing.progress(stage)), (Some(stage), Progress::Requested));
            closing.set(stage, Progress::Started);
            assert_eq!((closing.current(), closing.progress(stage)), (Some(stage), Progress::Started));
            closing.set(stage, Progress::Requested);
            assert_eq!(closing.current(), Some(stage), "a failed stage is tried again");
            closing.set(stage, Progress::Done);
            closing.request(stage);
            assert_eq!(
                closing.progress(stage),
                Progress::Done,
                "a stage that is done is not requested again"
            );
        }
        assert_eq!(closing.current(), None);
        assert_eq!(closing.progress(Stage::Disconnect), Progress::NotRequested);
    }
}
