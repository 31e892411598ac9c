//! Why a session ended, who ended it, and what was lost.

use core::fmt;

use bytes::Bytes;

use super::{Timer, Violation};
use crate::{excerpt::Escaped, wire::Status};

/// The end of a session: its reason, and the work that was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Closed {
    /// Why the session ended.
    pub reason: CloseReason,
    /// What was unfinished.
    pub lost: Lost,
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The connection was a health check, and was answered.
    HealthCheck,
    /// The connection was a health check, and was refused because the agent is in lame-duck mode.
    HealthCheckRefused,
    /// The peer sent a DISCONNECT.
    #[non_exhaustive]
    PeerDisconnect {
        /// The status code (section 3.5).
        status: Status,
        /// The first 256 bytes of the message.
        message: Bytes,
    },
    /// The peer violated the protocol.
    Violation(Violation),
    /// A timer expired.
    Timeout(Timer),
    /// This side sent a DISCONNECT with this status: the application, or a limit, ended the session.
    Disconnect(Status),
    /// A drain finished with no answer outstanding.
    Drained,
    /// The peer shut its write side, and no answer is outstanding.
    Eof,
    /// The transport failed.
    Transport,
    /// This side stopped reading for good. Engine only: it models an HAProxy whose receive buffer is full.
    Stalled,
}

/// Who ended a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Initiator {
    /// This side.
    Us,
    /// The peer, by a DISCONNECT, a violation or the end of its input.
    Peer,
    /// A timer.
    Time,
    /// The transport.
    Transport,
}

/// The longest message of a peer's DISCONNECT that is kept, in bytes: a frame may have a megabyte, and a connection that
/// closes keeps its reason. A log line shows no more either.
const PEER_MESSAGE_MAX: usize = 256;

impl CloseReason {
    /// The peer sent a DISCONNECT. Its message is cut, in UTF-8 at a character.
    pub(crate) fn peer_disconnect(status: Status, message: &[u8]) -> Self {
        let mut end = PEER_MESSAGE_MAX.min(message.len());
        let max = end;
        while max - end < 3 && message.get(end).is_some_and(|byte| byte & 0xc0 == 0x80) {
            end = end.saturating_sub(1);
        }
        let message = message.get(..end).unwrap_or_default();
        Self::PeerDisconnect { status, message: Bytes::copy_from_slice(message) }
    }

    /// Who ended the session.
    pub const fn initiator(&self) -> Initiator {
        match self {
            Self::HealthCheck | Self::PeerDisconnect { .. } | Self::Violation(_) | Self::Eof => {
                Initiator::Peer
            }
            Self::Timeout(_) => Initiator::Time,
            Self::HealthCheckRefused | Self::Disconnect(_) | Self::Drained | Self::Stalled => Initiator::Us,
            Self::Transport => Initiator::Transport,
        }
    }

    /// Whether sessions end like this in normal operation.
    ///
    /// True for health checks, drains, the end of the input, the idle and age timers, and a DISCONNECT of either side with
    /// status 0 or 2.
    pub const fn is_normal(&self) -> bool {
        match self {
            Self::HealthCheck
            | Self::HealthCheckRefused
            | Self::Drained
            | Self::Eof
            | Self::Timeout(Timer::Idle | Timer::Age) => true,
            Self::PeerDisconnect { status, .. } | Self::Disconnect(status) => {
                matches!(*status, Status::NORMAL | Status::TIMEOUT)
            }
            Self::Violation(_) | Self::Timeout(_) | Self::Transport | Self::Stalled => false,
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HealthCheck => f.write_str("a health check was answered"),
            Self::HealthCheckRefused => {
                f.write_str("a health check was refused: the agent is about to shut down")
            }
            Self::PeerDisconnect { status, message } => {
                write!(f, "the peer disconnected with {status}: \"{}\"", Escaped(message))
            }
            Self::Violation(violation) => {
                write!(f, "the peer broke the protocol: {violation}; status {}", violation.status())
            }
            Self::Timeout(timer) => timer.fmt(f),
            Self::Disconnect(status) => write!(f, "disconnected by this side with {status}"),
            Self::Drained => f.write_str("drained"),
            Self::Eof => f.write_str("the peer closed the connection"),
            Self::Transport => f.write_str("the transport failed"),
            Self::Stalled => f.write_str("this side stopped reading"),
        }
    }
}

/// Work that was unfinished when a session ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lost {
    /// NOTIFYs without an answer.
    pub messages: usize,
    /// Payloads whose last fragment did not arrive.
    pub payloads: usize,
    /// Bytes of a frame that did not arrive whole.
    pub frame_bytes: usize,
    /// Answers whose last fragment was not sent.
    pub answers: usize,
}

impl Lost {
    /// Whether nothing was lost.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)?;
        let Lost { messages, payloads, frame_bytes, answers } = self.lost;
        for (count, what) in [
            (messages, "unanswered NOTIFYs"),
            (payloads, "unfinished payloads"),
            (frame_bytes, "bytes of an unfinished frame"),
            (answers, "unfinished answers"),
        ] {
            if count > 0 {
                write!(f, "; lost: {count} {what}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;
    use crate::{
        DecodeError,
        frame::{Flags, FrameType, Header, Ids},
        wire::{Malformed, Piece},
    };

    #[test]
    fn every_reason_has_its_message_its_initiator_and_whether_it_is_normal() {
        let frame = |len: u32| {
            let error = DecodeError { what: Malformed::Truncated(Piece::FrameHeader), offset: 0 };
            CloseReason::Violation(Violation::BadHeader { len, error })
        };
        let bye = |status| CloseReason::PeerDisconnect { status, message: Bytes::from_static(b"b\x00") };
        for (reason, text, initiator, normal) in [
            (CloseReason::HealthCheck, "a health check was answered", Initiator::Peer, true),
            (bye(Status::NORMAL), "the peer disconnected with 0 (normal): \"b\\x00\"", Initiator::Peer, true),
            (bye(Status::TIMEOUT), "the peer disconnected with 2", Initiator::Peer, true),
            (bye(Status(99)), "the peer disconnected with 99", Initiator::Peer, false),
            (frame(0), "the peer broke the protocol: ", Initiator::Peer, false),
            (CloseReason::Timeout(Timer::Idle), "the connection was idle too long", Initiator::Time, true),
            (
                CloseReason::Timeout(Timer::Frame),
                "a frame did not arrive whole in time",
                Initiator::Time,
                false,
            ),
            (CloseReason::Disconnect(Status(13)), "disconnected by this side with 13", Initiator::Us, false),
            (CloseReason::HealthCheckRefused, "a health check was refused", Initiator::Us, true),
            (CloseReason::Timeout(Timer::Age), "the connection reached", Initiator::Time, true),
            (CloseReason::Drained, "drained", Initiator::Us, true),
            (CloseReason::Eof, "the peer closed the connection", Initiator::Peer, true),
            (CloseReason::Transport, "the transport failed", Initiator::Transport, false),
            (CloseReason::Stalled, "this side stopped reading", Initiator::Us, false),
        ] {
            assert!(reason.to_string().starts_with(text), "{reason}");
            assert_eq!((reason.initiator(), reason.is_normal()), (initiator, normal), "{reason}");
        }
    }

    #[test]
    fn the_message_of_a_disconnect_is_cut_at_a_character() {
        let kept = |message: &[u8]| match CloseReason::peer_disconnect(Status::NORMAL, message) {
            CloseReason::PeerDisconnect { message, .. } => message,
            _ => Bytes::new(),
        };
        for len in [0, 1, 255, 256] {
            assert_eq!(kept(&b"x".repeat(len)), b"x".repeat(len));
        }
        assert_eq!(kept(&b"x".repeat(1 << 20)), b"x".repeat(256));
        assert_eq!(kept("é".repeat(200).as_bytes()), "é".repeat(128).as_bytes());
        assert_eq!(
            kept(["x", &"é".repeat(200)].concat().as_bytes()),
            ["x", &"é".repeat(127)].concat().as_bytes()
        );
        assert_eq!(kept("😀".repeat(65).as_bytes()), "😀".repeat(64).as_bytes());
        assert_eq!(kept(["xyz", &"😀".repeat(65)].concat().as_bytes()).len(), 3 + 63 * 4);
        assert_eq!(kept(&[0x80; 1_000]).len(), 253);
    }

    #[test]
    fn the_message_lists_what_was_lost() {
        let mut closed = Closed { reason: CloseReason::Eof, lost: Lost::default() };
        assert!(closed.lost.is_nothing());
        assert_eq!(closed.to_string(), "the peer closed the connection");
        closed.lost = Lost { messages: 1, payloads: 2, frame_bytes: 3, answers: 4 };
        assert_eq!(
            closed.to_string(),
            "the peer closed the connection; lost: 1 unanswered NOTIFYs; lost: 2 unfinished payloads; \
             lost: 3 bytes of an unfinished frame; lost: 4 unfinished answers"
        );
    }

    #[test]
    fn a_message_names_the_protocol_of_a_foreign_client() {
        for (bytes, text) in [
            (b"GET ", "an HTTP request"),
            (&[0x16, 0x03, 0x01, 0x02], "a TLS handshake"),
            (b"PROX", "a PROXY header"),
        ] {
            let max = 16_380;
            let message = Violation::FrameTooBig { len: u32::from_be_bytes(*bytes), max }.to_string();
            assert!(message.contains(text), "{message}");
        }
        let header = Header { frame_type: FrameType::Ack, flags: Flags::NONE, ids: Ids::new(1, 1) };
        assert_eq!(Violation::TooManyPayloads { header, max: 1 }.status(), Status::INTERLACED);
    }
}
