//! Which frame is legal when, from whom: one table that does not know its role.
//!
//! The receiver of an illegal frame reads it as a [`Violation`](super::Violation); a sender never sends one.

use crate::frame::{Flags, FrameType};

/// A side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// HAProxy, or whoever asks.
    Engine,
    /// Who answers.
    Agent,
}

/// How far a connection has come, as both sides see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// No frame was exchanged.
    Connected,
    /// The engine has sent its HELLO.
    Greeted,
    /// The agent has sent its HELLO.
    Established,
    /// A DISCONNECT was sent by either side, or the connection ends without one.
    Closing,
}

impl Phase {
    /// All phases, in order.
    pub const ALL: [Self; 4] = [Self::Connected, Self::Greeted, Self::Established, Self::Closing];
}

/// What a frame is to its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// The HELLO that is due.
    Hello,
    /// A payload in one frame.
    Whole,
    /// The first fragment of a payload.
    First,
    /// A further fragment.
    More,
    /// The last fragment.
    Last,
    /// The payload is to be forgotten.
    Abort,
    /// The sender ends the session.
    Disconnect,
    /// Of unknown type: skipped and counted.
    Skip,
    /// Too late to matter.
    Discard,
    /// Against the protocol.
    Illegal(Illegal),
}

/// Why a frame is against the protocol, as far as its type and flags tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Illegal {
    /// The handshake must come first.
    BeforeHello,
    /// The handshake was done already.
    SecondHello,
    /// Only the other side sends such frames.
    WrongSide,
    /// A HELLO or DISCONNECT must be whole.
    Fragmented,
}

/// What a frame of this type with these flags is, when `sender` sends it in this phase.
///
/// | phase | engine sends | agent sends |
/// |---|---|---|
/// | `Connected` | HAPROXY-HELLO → `Greeted` | AGENT-DISCONNECT → `Closing` |
/// | `Greeted` | HAPROXY-DISCONNECT → `Closing` | AGENT-HELLO → `Established`, AGENT-DISCONNECT → `Closing` |
/// | `Established` | NOTIFY, UNSET, HAPROXY-DISCONNECT → `Closing` | ACK, UNSET, AGENT-DISCONNECT → `Closing` |
/// | `Closing` | anything is discarded | anything is discarded |
///
/// Frames of unknown type are skipped once the sender's HELLO has passed. HELLO and DISCONNECT need FIN. ABORT, with FIN
/// or without, ends a payload; on a HELLO or DISCONNECT it means nothing.
#[inline]
pub const fn judge(phase: Phase, sender: Side, frame_type: FrameType, flags: Flags) -> Verdict {
    use FrameType as T;
    use Side::{Agent, Engine};

    match (phase, sender, frame_type) {
        (Phase::Closing, ..) => Verdict::Discard,

        (Phase::Established, Engine, T::Notify) | (Phase::Established, Agent, T::Ack) => {
            if flags.is_abort() {
                Verdict::Abort
            } else if flags.is_fin() {
                Verdict::Whole
            } else {
                Verdict::First
            }
        }
        (Phase::Established, _, T::Unset) => {
            if flags.is_abort() {
                Verdict::Abort
            } else if flags.is_fin() {
                Verdict::Last
            } else {
                Verdict::More
            }
        }

        (Phase::Connected, Engine, T::HaproxyHello) | (Phase::Greeted, Agent, T::AgentHello) => {
            unfragmented(flags, Verdict::Hello)
        }
        (Phase::Greeted | Phase::Established, Engine, T::HaproxyDisconnect)
        | (_, Agent, T::AgentDisconnect) => unfragmented(flags, Verdict::Disconnect),

        (Phase::Connected, ..)
        | (Phase::Greeted, Agent, _)
        | (Phase::Greeted, Engine, T::Notify | T::Unset) => Verdict::Illegal(Illegal::BeforeHello),
        (_, Engine, T::HaproxyHello) | (Phase::Established, Agent, T::AgentHello) => {
            Verdict::Illegal(Illegal::SecondHello)
        }
        (_, Engine, T::AgentHello | T::AgentDisconnect | T::Ack)
        | (Phase::Established, Agent, T::HaproxyHello | T::HaproxyDisconnect | T::Notify) => {
            Verdict::Illegal(Illegal::WrongSide)
        }
        (Phase::Greeted | Phase::Established, _, T::Unknown(_)) => Verdict::Skip,
    }
}

const fn unfragmented(flags: Flags, verdict: Verdict) -> Verdict {
    if flags.is_fin() { verdict } else { Verdict::Illegal(Illegal::Fragmented) }
}
