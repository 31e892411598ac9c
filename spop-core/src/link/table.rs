//! The table of legal frames by phase, sender, type and flags. It is the same for both roles.
//!
//! The receiver of an illegal frame reports it as a [`Violation`](super::Violation); the reactors never send one.

use crate::frame::{Flags, FrameType};

/// A side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The side that sends NOTIFY frames: HAProxy.
    Engine,
    /// The side that answers them.
    Agent,
}

/// The phase of a connection, the same for both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// Open; no frame was exchanged.
    Connected,
    /// The engine has sent its HELLO.
    Greeted,
    /// The agent has sent its HELLO.
    Established,
    /// Either side has sent a DISCONNECT, or the connection ends without one.
    Closing,
}

impl Phase {
    /// All phases, in order.
    pub const ALL: [Self; 4] = [Self::Connected, Self::Greeted, Self::Established, Self::Closing];
}

/// The meaning of a frame for its receiver, by its type and flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// The HELLO that is expected in this phase.
    Hello,
    /// An unfragmented payload.
    Whole,
    /// The first fragment of a payload.
    First,
    /// A fragment that is neither the first nor the last.
    More,
    /// The last fragment.
    Last,
    /// The payload is aborted.
    Abort,
    /// The sender ends the session.
    Disconnect,
    /// The type is unknown: the frame is skipped and counted.
    Skip,
    /// The connection is closing: the frame is discarded.
    Discard,
    /// The frame is illegal.
    Illegal(Illegal),
}

/// Why a frame is illegal, by its type and flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Illegal {
    /// It precedes the sender's HELLO.
    BeforeHello,
    /// It is a second HELLO.
    SecondHello,
    /// Only the other side may send this type.
    WrongSide,
    /// It is a HELLO or DISCONNECT without FIN.
    Fragmented,
}

/// The meaning of a frame of this type with these flags, sent by `sender` in this phase.
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
