//! What a reactor asks its driver to do.

use core::fmt;

/// The result of an input that carries bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the input advances by `consumed`, and the action is to be carried out"]
pub struct Step<A> {
    /// How many bytes were used, from the front of the input. The next input begins with the byte after them.
    pub consumed: usize,
    /// The action to carry out.
    pub action: A,
}

/// What the driver should do, derived from the state of the reactor. It is level-triggered: read it as often as needed.
///
/// The type is exhaustive on purpose: a driver that ignores one of the fields is incomplete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // Independent requests, not states.
pub struct Interest {
    /// Read when the transport is readable, and pass the bytes to `on_bytes`. False under backpressure, after the end of
    /// the input, and once the connection can be closed.
    pub read: bool,
    /// Read now, even if the transport was not reported readable, and call `on_read_blocked` if the read would block. A drain
    /// disconnects only if no input has arrived, and readiness may be reported late. Set only together with `read`.
    pub read_now: bool,
    /// Write the bytes that [`outgoing`](crate::AgentReactor::outgoing) returns.
    pub write: bool,
    /// Call `on_bytes` now, before any read, with the unused rest of the input, even if it is empty: backpressure has ended,
    /// or a decision has ended the session and `on_bytes` returns `Close`. In the second case no other field is set.
    pub resume: bool,
    /// Shut the write side of this layer, and report it to `on_write_shut`.
    pub shut: Option<Layer>,
    /// Close the transport. The connection is over.
    pub close: bool,
}

/// A layer of a connection whose write side can be shut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layer {
    /// The layer on the socket, such as TLS, whose shutdown is a message of its own (`close_notify`).
    Data,
    /// The socket.
    Transport,
}

/// The timer behind a deadline.
///
/// The durations are in [`Timeouts`](crate::config::Timeouts) unless another place is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Timer {
    /// `hello`: the handshake is not complete.
    Hello,
    /// `frame`: a frame has arrived in part only.
    Frame,
    /// `frame`: the last fragment of a payload has not arrived.
    Fragment,
    /// [`AgentConfig::drain_after_refusal`](crate::AgentConfig::drain_after_refusal): a payload was refused, and no frame
    /// has arrived since.
    Refused,
    /// `idle`: no frame was sent or received, and no answer is outstanding.
    Idle,
    /// `memory`: the connection is idle, and frees unused memory. A driver can free its own buffers of the connection at
    /// this deadline.
    Memory,
    /// [`AgentConfig::max_age`](crate::AgentConfig::max_age): the connection is to be drained for its age.
    Age,
    /// [`AgentConfig::processing`](crate::AgentConfig::processing): the connection is at a limit of requests in flight, and
    /// the oldest is overdue.
    Processing,
    /// `message`: a NOTIFY was not answered.
    Message,
    /// `write`: bytes are queued, and the transport accepts none.
    Write,
    /// `drain`: the drain is to take its next step, or its time is over.
    Drain,
    /// `linger`: a stage of closing is not complete.
    Linger,
}

impl fmt::Display for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hello => "the handshake was not finished in time",
            Self::Frame => "a frame did not arrive whole in time",
            Self::Fragment => "a payload did not arrive whole in time",
            Self::Refused => "nothing came after a payload was refused",
            Self::Idle => "the connection was idle too long",
            Self::Memory => "unused memory was given back",
            Self::Age => "the connection reached its maximum age",
            Self::Processing => "a NOTIFY was not answered within `processing`",
            Self::Message => "a NOTIFY was not answered in time",
            Self::Write => "the peer read nothing for too long",
            Self::Drain => "the drain was not finished in time",
            Self::Linger => "a step of closing did not finish in time",
        })
    }
}
