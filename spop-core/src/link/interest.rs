//! What a reactor wants of its driver.

use core::fmt;

/// What a driver should do, as it follows from the state; read it as often as you like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // Independent wishes, not states.
pub struct Interest {
    /// Read from the transport and pass on what came. False is backpressure, or the end.
    pub read: bool,
    /// Write what [`outgoing`](crate::AgentReactor::outgoing) returns.
    pub write: bool,
    /// Bytes were left in the inbox at a limit that no longer holds: call `on_bytes` again without waiting for more.
    pub resume: bool,
    /// Shut the write side of this layer, then say so.
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
            Self::Age => "the connection reached its maximum age",
            Self::Processing => "a NOTIFY was not answered within `processing`",
            Self::Message => "a NOTIFY was not answered in time",
            Self::Write => "the peer read nothing for too long",
            Self::Drain => "the drain was not finished in time",
            Self::Linger => "a step of closing did not finish in time",
        })
    }
}
