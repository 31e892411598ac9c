//! What a reactor asks of its driver.

use core::fmt;

/// What an input that brings bytes returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the input advances by `consumed`, and the action is to be carried out"]
pub struct Step<A> {
    /// How many bytes of the input were used, from its front. The next input begins with the byte behind them.
    pub consumed: usize,
    /// What is to be done.
    pub action: A,
}

/// What a driver should do, as it follows from the state: level-triggered, to be read as often as you like.
///
/// Exhaustive on purpose: a driver that does not know one of these wishes is incomplete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // Independent wishes, not states.
pub struct Interest {
    /// Read from the transport when it is readable, and pass on what came. False is backpressure, or the end of the input.
    pub read: bool,
    /// Read now, even if the transport was not reported readable, and call `on_read_blocked` if nothing is there. A drain
    /// disconnects only when nothing has arrived, and readiness may be reported late. Set only together with `read`.
    pub read_now: bool,
    /// Write what [`outgoing`](crate::AgentReactor::outgoing) returns.
    pub write: bool,
    /// Call `on_bytes` now with what is left of the input, even if that is nothing: a limit no longer holds, or a decision has
    /// a consequence that is to be carried out.
    pub resume: bool,
    /// Shut the write side of this layer, then report it to `on_write_shut`.
    pub shut: Option<Layer>,
    /// Close the transport. Nothing more will be asked.
    pub close: bool,
}

/// A layer of a connection whose write side can be shut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layer {
    /// What wraps the bytes, such as TLS: its close is a message of its own (`close_notify`).
    Data,
    /// The socket.
    Transport,
}

/// What a deadline is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Timer {
    /// The handshake is not done.
    Hello,
    /// A frame has not arrived whole.
    Frame,
    /// The next fragment of a payload has not come.
    Fragment,
    /// A payload was refused, and nothing has come since.
    Refused,
    /// Nothing happens.
    Idle,
    /// The connection was quiet for a while, and gives unused memory back.
    Memory,
    /// The connection is older than it may be.
    Age,
    /// The connection is at a limit of requests in flight, and the oldest is older than `AgentConfig::processing`.
    Processing,
    /// A NOTIFY was not answered.
    Message,
    /// The peer reads nothing.
    Write,
    /// What is owed was not finished in time for the drain.
    Drain,
    /// A step of closing does not finish.
    Linger,
}

impl fmt::Display for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hello => "the handshake was not finished in time",
            Self::Frame => "a frame did not arrive whole in time",
            Self::Fragment => "the next fragment of a payload did not come in time",
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
