//! Closing, step by step. Each step is wanted, started and done on its own; one that cannot finish stays and is tried again.

/// The steps of closing, in the order they are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Stage {
    /// Finish what is owed.
    Drain,
    /// Queue the DISCONNECT.
    Disconnect,
    /// An engine: read on until the agent's DISCONNECT comes, while the own one leaves.
    AwaitDisconnect,
    /// Let the outgoing bytes leave.
    Flush,
    /// After a DISCONNECT, read and discard until the peer closes, or the linger timer ends.
    ///
    /// HAProxy closes within a millisecond. A FIN or `close_notify` right behind the DISCONNECT makes HAProxy 3.2 and 3.4 miss
    /// it: 15 of 60 pending requests hung until their processing timeout.
    AwaitClose,
    /// Shut the write side of the data layer, where there is one.
    ShutData,
    /// Shut the write side of the transport.
    ShutTransport,
    /// Without a DISCONNECT, read and discard until the peer has closed: to close with unread input would reset the
    /// connection, and could destroy the last answers on their way.
    Linger,
    /// Close the transport.
    Close,
}

impl Stage {
    /// All steps, in order.
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

/// How far a step is, in HAProxy's two bits: the high one is the wish, the low one that something was done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Progress {
    /// Nobody wants it.
    NotWanted = 0b00,
    /// It is to be done.
    Wanted = 0b10,
    /// It was begun.
    Started = 0b11,
    /// It was done.
    Done = 0b01,
}

/// Which layers a connection has above its socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Layers {
    /// None: SPOP goes over the socket itself.
    #[default]
    Plain,
    /// A data layer, such as TLS, whose write side is shut before the socket's.
    Data,
}

/// The progress of all steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Closing(u32);

impl Closing {
    /// How far this step is.
    pub(crate) const fn progress(self, step: Stage) -> Progress {
        match self.0 >> (2 * step as u32) & 0b11 {
            0b00 => Progress::NotWanted,
            0b10 => Progress::Wanted,
            0b11 => Progress::Started,
            _ => Progress::Done,
        }
    }

    /// The step to be taken now: the first that is wanted or started.
    pub(crate) fn current(self) -> Option<Stage> {
        Stage::ALL
            .into_iter()
            .find(|step| matches!(self.progress(*step), Progress::Wanted | Progress::Started))
    }

    pub(super) const fn set(&mut self, step: Stage, progress: Progress) {
        let shift = 2 * step as u32;
        self.0 = self.0 & !(0b11 << shift) | (progress as u32) << shift;
    }

    /// Wants a step that was neither wanted nor done before.
    pub(super) fn want(&mut self, step: Stage) {
        if self.progress(step) == Progress::NotWanted {
            self.set(step, Progress::Wanted);
        }
    }

    /// Wants whatever comes after the DISCONNECT.
    pub(super) fn want_end(&mut self, layers: Layers) {
        for step in [Stage::Flush, Stage::ShutTransport, Stage::Linger, Stage::Close] {
            self.want(step);
        }
        if layers == Layers::Data {
            self.want(Stage::ShutData);
        }
    }

    /// Gives up every step before the close.
    pub(super) fn only_close(&mut self) {
        *self = Self::default();
        self.set(Stage::Close, Progress::Wanted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_independent_and_come_in_order() {
        let mut closing = Closing::default();
        assert_eq!(closing.current(), None);
        closing.want_end(Layers::Data);
        for step in [Stage::Flush, Stage::ShutData, Stage::ShutTransport, Stage::Linger, Stage::Close] {
            assert_eq!((closing.current(), closing.progress(step)), (Some(step), Progress::Wanted));
            closing.set(step, Progress::Started);
            assert_eq!((closing.current(), closing.progress(step)), (Some(step), Progress::Started));
            closing.set(step, Progress::Wanted);
            assert_eq!(closing.current(), Some(step), "a failed step is tried again");
            closing.set(step, Progress::Done);
            closing.want(step);
            assert_eq!(closing.progress(step), Progress::Done, "what is done is not wanted again");
        }
        assert_eq!(closing.current(), None);
        assert_eq!(closing.progress(Stage::Disconnect), Progress::NotWanted);
    }
}
