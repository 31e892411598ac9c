//! The faults of the agent, and the cases that find them.

/// A fault, or a habit that is none. Its name says what the agent does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    AcceptsAnyVersion,
    AcceptsLaterVersions,
    AcceptsLongFrames,
    AllocatesTheLength,
    AnswersAborted,
    AnswersBeforeHello,
    AnswersFirstFragment,
    AnswersOnFirstConnection,
    AnswersOnFirstOfEngine,
    AnswersPerMessage,
    AnswersSlowly,
    AnswersTwice,
    ChecksUtf8,
    ClosesWithoutDisconnect,
    CrashesAt255Arguments,
    CrashesOnHalfFrame,
    CrashesOnUnknownType,
    DisconnectHasNoMessage,
    DisconnectInTwoSegments,
    DisconnectsForLongAnswers,
    DisconnectsWith0,
    FillsTheBuffer,
    FrameSizeAboveOffer,
    FrameSizeIsInt64,
    HasNo64BitNumbers,
    HelloHasIds,
    HelloInTwoSegments,
    IdsOfOneByte,
    IgnoresDisconnect,
    IgnoresEngineIds,
    IgnoresStream0,
    IgnoresUnknownMessages,
    KeepsSpaces,
    LeavesHealthCheckOpen,
    LongAck,
    MalformedActions,
    MixesPayloads,
    NeedsEngineId,
    NeedsWholeFrames,
    NeverAnswersFragments,
    NoCapabilities,
    NoFin,
    NoFrameSize,
    NoVersion,
    OldVersion,
    RejectsEmptyNotify,
    RejectsInterlaced,
    RejectsNull,
    RejectsReservedFlags,
    RejectsUnknownCapabilities,
    RejectsUnknownItems,
    RejectsUnknownType,
    RemembersIds,
    ReservedFlags,
    ServesOneConnection,
    SmallFrames,
    StatusIsAlways99,
    StaysOpen,
    StaysOpenAfterDisconnect,
    SwallowsRestOfRead,
    TalksAfterHealthCheck,
    TalksFirst,
    WantsArgumentNames,
    WantsItemsInOrder,
    WrongFrameId,
    WrongStreamId,
}

impl Fault {
    /// Whether it can look otherwise on a busy machine.
    pub(super) const fn needs_time(self) -> bool {
        // To the agent, the connection before is the first one until it notices that it is closed.
        let is_first_that_is_closed = matches!(self, Self::AnswersOnFirstConnection);
        // What shows the others comes, or happens, while the suite listens for what may not come.
        let is_late = matches!(
            self,
            Self::AllocatesTheLength
                | Self::AnswersAborted
                | Self::AnswersBeforeHello
                | Self::AnswersFirstFragment
                | Self::AnswersPerMessage
                | Self::AnswersTwice
                | Self::CrashesOnHalfFrame
                | Self::TalksAfterHealthCheck
                | Self::TalksFirst
        );
        is_first_that_is_closed || is_late
    }
}

/// A fault, the cases that are played, and how the titles of those begin that fail.
pub(super) type Found = (Fault, &'static str, &'static [&'static str]);

/// Faults of an agent that goes on.
pub(super) const FOUND: [Found; 60] = [
    (
        Fault::AcceptsAnyVersion,
        "version",
        &["Without a common version the answer", "Without a common version the status"],
    ),
    (Fault::AcceptsLaterVersions, "version", &["Without a common version the status"]),
    (Fault::AcceptsLongFrames, "violations:", &["A frame longer than agreed"]),
    (
        Fault::AnswersAborted,
        "fragments:",
        &["A payload that HAProxy aborts", "What follows an aborted payload"],
    ),
    (Fault::AnswersBeforeHello, "handshake:", &["A NOTIFY before"]),
    (Fault::AnswersFirstFragment, "in two fragments", &["A NOTIFY in two fragments"]),
    (Fault::AnswersOnFirstConnection, "requests:", &["Each connection has its own", "Without async an ACK"]),
    (Fault::AnswersPerMessage, "requests:", &["Several messages in a NOTIFY"]),
    (Fault::AnswersTwice, "is answered once", &["A NOTIFY is answered once"]),
    (Fault::ChecksUtf8, "requests:", &["A STRING is not checked"]),
    (Fault::ClosesWithoutDisconnect, "with an AGENT-DISCONNECT", &["A HAPROXY-DISCONNECT is answered"]),
    (Fault::DisconnectHasNoMessage, "closing:", &["The AGENT-DISCONNECT has a status-code"]),
    (Fault::DisconnectInTwoSegments, "closing:", &["The AGENT-DISCONNECT leaves in one segment"]),
    (Fault::DisconnectsWith0, "closing:", &["The status of the HAPROXY-DISCONNECT is repeated"]),
    (Fault::FillsTheBuffer, "receive buffer", &["An ACK does not fill"]),
    (
        Fault::FrameSizeAboveOffer,
        "handshake:",
        &[
            "The AGENT-HELLO has a max-frame-size",
            "The smallest frame size",
            "The frame size is never above the offer of HAProxy: 1000",
            "The frame size is never above the offer of HAProxy: 65532",
            "A large frame size",
            "A health check is answered",
        ],
    ),
    (Fault::FrameSizeIsInt64, "handshake:", &["The AGENT-HELLO has a max-frame-size"]),
    (
        Fault::HelloHasIds,
        "is answered with an AGENT-HELLO",
        &["A HAPROXY-HELLO is answered", "A health check is answered"],
    ),
    (Fault::HelloInTwoSegments, "handshake:", &["The AGENT-HELLO leaves in one segment"]),
    (Fault::IdsOfOneByte, "requests:", &["Identifiers of all lengths"]),
    (Fault::IgnoresDisconnect, "with an AGENT-DISCONNECT", &["A HAPROXY-DISCONNECT is answered"]),
    (Fault::IgnoresEngineIds, "pipelining:", &["With async, an ACK does not go"]),
    (Fault::IgnoresStream0, "requests:", &["The first stream of HAProxy"]),
    (Fault::IgnoresUnknownMessages, "does not know", &["A message that the agent does not know"]),
    (Fault::KeepsSpaces, "handshake:", &["Spaces in supported-versions"]),
    (Fault::LeavesHealthCheckOpen, "handshake:", &["The agent closes the connection of a health check"]),
    (Fault::LongAck, "no frame of the agent", &["No frame of the agent is longer"]),
    (Fault::MalformedActions, "well-formed actions", &["A NOTIFY is answered with an ACK"]),
    (Fault::MixesPayloads, "fragments:", &["Interlaced fragments of two payloads"]),
    (Fault::NeedsEngineId, "engine-id", &["The engine-id is optional"]),
    (
        Fault::NeedsWholeFrames,
        "byte by byte",
        &["A HAPROXY-HELLO that arrives", "A NOTIFY that arrives", "A HAPROXY-DISCONNECT that arrives"],
    ),
    (Fault::NeverAnswersFragments, "in two fragments", &["A NOTIFY in two fragments"]),
    (
        Fault::NoCapabilities,
        "handshake:",
        &["The AGENT-HELLO has its capabilities", "A health check is answered"],
    ),
    (Fault::NoFin, "well-formed actions", &["A NOTIFY is answered with an ACK"]),
    (
        Fault::NoFrameSize,
        "handshake:",
        &[
            "The AGENT-HELLO has a max-frame-size",
            "The smallest frame size",
            "The frame size is never above the offer of HAProxy: 1000",
            "The frame size is never above the offer of HAProxy: 65532",
            "A large frame size",
            "A health check is answered",
        ],
    ),
    (
        Fault::NoVersion,
        "handshake:",
        &["The AGENT-HELLO has the version", "Spaces in supported-versions", "A health check is answered"],
    ),
    (
        Fault::OldVersion,
        "handshake:",
        &["The AGENT-HELLO has the version", "Spaces in supported-versions", "A health check is answered"],
    ),
    (Fault::RejectsEmptyNotify, "requests:", &["A NOTIFY without messages"]),
    (Fault::RejectsInterlaced, "fragments:", &["A NOTIFY between the fragments"]),
    (Fault::RejectsNull, "requests:", &["Every type of value", "A failed fetch is NULL"]),
    (Fault::RejectsReservedFlags, "requests:", &["Reserved flags are ignored"]),
    (Fault::RejectsUnknownCapabilities, "handshake:", &["Unknown capabilities"]),
    (Fault::RejectsUnknownItems, "handshake:", &["Unknown items"]),
    (Fault::RejectsUnknownType, "requests:", &["Frames of an unknown type"]),
    (Fault::RemembersIds, "requests:", &["Identifiers may come again"]),
    (Fault::ReservedFlags, "well-formed actions", &["A NOTIFY is answered with an ACK"]),
    (Fault::ServesOneConnection, "connections", &["Fifty connections", "Connections that send nothing"]),
    (Fault::ServesOneConnection, "in the middle of a frame", &["A connection in the middle of a frame"]),
    (Fault::SmallFrames, "handshake:", &["A large frame size"]),
    (
        Fault::StatusIsAlways99,
        "is status 4",
        &[
            "A NOTIFY before",
            "A HAPROXY-HELLO with malformed items",
            "A HAPROXY-HELLO whose items",
            "A HAPROXY-HELLO with a stream-id",
            "A HAPROXY-HELLO in fragments",
            "A frame of length 0",
            "A frame that ends in its header",
            "A value that is truncated",
            "A value of a reserved type",
            "A second HAPROXY-HELLO",
        ],
    ),
    (Fault::StaysOpen, "closing:", &["HAProxy closes without", "HAProxy closes before"]),
    (Fault::StaysOpenAfterDisconnect, "closing:", &["Once HAProxy has closed", "After its AGENT-DISCONNECT"]),
    (Fault::SwallowsRestOfRead, "segment of a NOTIFY", &["A HAPROXY-DISCONNECT in the segment"]),
    (Fault::TalksAfterHealthCheck, "handshake:", &["Nothing follows the AGENT-HELLO"]),
    (Fault::TalksFirst, "sends nothing before", &["The agent sends nothing before"]),
    (
        Fault::WantsArgumentNames,
        "requests:",
        &["An argument without a name", "Several arguments without names"],
    ),
    (Fault::WantsItemsInOrder, "handshake:", &["The items of a HAPROXY-HELLO may"]),
    // The handshake is not to blame.
    (Fault::WrongFrameId, "handshake:", &[]),
    (Fault::WrongFrameId, "well-formed actions", &["A NOTIFY is answered with an ACK"]),
    (Fault::WrongStreamId, "well-formed actions", &["A NOTIFY is answered with an ACK"]),
];

/// What is no fault, and the cases that are played.
pub(super) const LEGAL: [(Fault, &str); 3] = [
    (Fault::AnswersOnFirstOfEngine, ""),
    (Fault::AnswersSlowly, "Twenty NOTIFYs"),
    (Fault::DisconnectsForLongAnswers, "No frame of the agent is longer"),
];

/// Faults at which the agent crashes: the cases that are played, and how the title begins of the one that is to blame.
pub(super) const CRASHES: [(Fault, &str, &str); 5] = [
    (Fault::AllocatesTheLength, "hostile:", "A length of 4 GiB"),
    (Fault::CrashesAt255Arguments, "requests:", "A message with 255 arguments"),
    (Fault::CrashesOnHalfFrame, "hostile:", "Half a length"),
    (Fault::CrashesOnUnknownType, "requests:", "Frames of an unknown type"),
    (Fault::HasNo64BitNumbers, "requests:", "The smallest and the greatest numbers"),
];
