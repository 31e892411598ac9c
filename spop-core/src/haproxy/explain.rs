//! HAProxy's error numbers, explained.

/// An error number of HAProxy, explained. See [`explain`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explanation {
    /// A short name, such as `timeout`. Numbers from 256 have the name of section 3.5.
    pub name: &'static str,
    /// What happened.
    pub meaning: &'static str,
    /// The usual causes, the likeliest first. Empty where nothing is wrong.
    pub causes: &'static [Cause],
}

/// One cause of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cause {
    /// The versions of HAProxy in which it occurs: `all`, `up to 3.0`, or `3.1 and later`. "Up to 3.0" was read in the sources
    /// of 2.6 and 3.0.
    pub versions: &'static str,
    /// What leads to the error.
    pub cause: &'static str,
    /// What to do about it.
    pub remedy: &'static str,
}

const ALL: &str = "all";
const TO_3_0: &str = "up to 3.0";
const FROM_3_1: &str = "3.1 and later";

/// A macro, because the references to its lists must be promoted to statics.
macro_rules! cause {
    ($versions:expr, $cause:expr, $remedy:expr $(,)?) => {
        Cause { versions: $versions, cause: $cause, remedy: $remedy }
    };
}

const fn explanation(name: &'static str, meaning: &'static str, causes: &'static [Cause]) -> Explanation {
    Explanation { name, meaning, causes }
}

/// Explains the number in HAProxy's log (`st=258`) and in the variable of `option set-on-error`: 0 is success, 1 to 5 and 255
/// are errors of the engine, and 256 + N is status N of section 3.5, by which the session ended. `None` for a number that no
/// HAProxy uses.
///
/// The number of an [`EngineError`](crate::engine::EngineError) is its [`code`](crate::engine::EngineError::code).
///
/// ```
/// use spop_core::haproxy::explain;
///
/// let found = explain(258).unwrap();
/// assert_eq!(found.name, "a timeout occurred");
/// for cause in found.causes {
///     println!("{}: {} {}", cause.versions, cause.cause, cause.remedy);
/// }
/// ```
pub const fn explain(code: u32) -> Option<Explanation> {
    Some(match code {
        0 => explanation("success", "The agent answered; its actions were applied.", &[]),
        1 => TIMEOUT,
        2 => RESOURCES,
        3 => TOO_BIG,
        4 => ABORTED,
        5 => INTERRUPTED,
        255 => explanation(
            "unknown",
            "An unknown error. The specification reserves the number; HAProxy does not set it.",
            &[],
        ),
        256.. => status(code - 256),
        _ => return None,
    })
}

const TIMEOUT: Explanation = explanation(
    "timeout",
    "No answer arrived within `timeout processing`.",
    &[
        cause!(
            ALL,
            "The agent does not run, cannot be reached, or refuses the connection: HAProxy tries again until the timeout.",
            "See if the agent runs and its port answers: `spop check ADDRESS`. Add a health check (`option spop-check`).",
        ),
        cause!(
            ALL,
            "The handler is slower than `timeout processing`.",
            "Speed up the handler, or raise `timeout processing`.",
        ),
        cause!(
            TO_3_0,
            "With `async`, the agent disconnected: the request waits for an answer on another connection.",
            "Drain the agent before its restart, or set `no option async`.",
        ),
        cause!(
            FROM_3_1,
            "One of several servers refuses the connection: without `option redispatch 1` HAProxy tries no other.",
            "Set `option redispatch 1`.",
        ),
        cause!(
            FROM_3_1,
            "Unread answers filled HAProxy's receive buffer (`tune.bufsize`, 16384): the connection stalls for good.",
            "Do not negotiate pipelining in the agent, and keep an answer below about 16000 bytes.",
        ),
        cause!(
            FROM_3_1,
            "The agent violated the protocol, or shut its write side right behind its DISCONNECT: HAProxy reports neither.",
            "Trace the multiplexer (`-dt spop:developer:advanced`). An agent must await HAProxy's close after a DISCONNECT.",
        ),
    ],
);

const RESOURCES: Explanation = explanation(
    "resources",
    "HAProxy could not allocate a resource, or had no connection for the request.",
    &[
        cause!(
            TO_3_0,
            "No connection is open and none may be opened: no server of the backend is up, or `maxconnrate` is reached.",
            "Check the health of the backend's servers; raise `maxconnrate`.",
        ),
        cause!(ALL, "HAProxy is out of memory.", "Check HAProxy's memory limit (`-m`) and the host's."),
    ],
);

const TOO_BIG: Explanation = explanation(
    "too big",
    "The encoded messages exceed HAProxy's `max-frame-size`, and cannot be fragmented.",
    &[
        cause!(
            TO_3_0,
            "`no option send-frag-payload` is set, or a single value other than a string or binary does not fit.",
            "Allow `send-frag-payload` and announce fragmentation in the agent.",
        ),
        cause!(
            FROM_3_1,
            "The arguments, a request body above all, exceed a frame. These versions do not fragment.",
            "Raise `tune.bufsize` and `max-frame-size`, or send less: `req.body,bytes(0,8192)`.",
        ),
    ],
);

const ABORTED: Explanation = explanation(
    "aborted",
    "Up to 3.0 the agent aborted a fragmented payload. In 3.1 and later the number means that the request was interrupted.",
    &[
        cause!(
            TO_3_0,
            "The agent refused the payload: it exceeds the agent's limit, or the handler has seen enough.",
            "Raise the agent's payload limit, or send less.",
        ),
        cause!(
            FROM_3_1,
            "HAProxy gave up the request: the client has gone, or the rules ended before the answer.",
            "Nothing, if clients disconnect. Otherwise check the timeouts of the proxy.",
        ),
    ],
);

const INTERRUPTED: Explanation = explanation(
    "interrupted",
    "HAProxy gave up the request. 3.1 and later report 4 instead.",
    &[cause!(
        TO_3_0,
        "The rules of `send-spoe-group` ended before the answer, as when the inspection delay was over.",
        "Raise `tcp-request inspect-delay`, or speed up the handler.",
    )],
);

#[expect(clippy::too_many_lines, reason = "a table")]
const fn status(code: u32) -> Explanation {
    let Some(name) = crate::Status(code).reason() else {
        return explanation(
            "a code of the application",
            "The agent disconnected with a status of its own: subtract 256.",
            &[cause!(ALL, "The agent decided to disconnect.", "See the agent's log and documentation.")],
        );
    };
    let (meaning, causes): (&str, &[Cause]) = match code {
        0 => (
            "The session ended without an error while the request was in flight.",
            &[
                cause!(
                    TO_3_0,
                    "The agent disconnected: a drain or restart.",
                    "Drain with a lame duck stage."
                ),
                cause!(
                    FROM_3_1,
                    "The ACK exceeds HAProxy's `max-frame-size`. (A DISCONNECT with status 0 is reported as 257.)",
                    "Send a shorter answer.",
                ),
            ],
        ),
        1 => (
            "The connection was closed or reset while the request was in flight, or could not be opened.",
            &[
                cause!(
                    FROM_3_1,
                    "No server of the backend is up: the health checks of all have failed.",
                    "See if the agents run and their ports answer: `spop check ADDRESS`.",
                ),
                cause!(
                    ALL,
                    "The agent crashed, was killed, or closed the connection.",
                    "See the agent's log.",
                ),
                cause!(
                    ALL,
                    "The agent shut its write side before it had answered: HAProxy does not support a half-closed connection.",
                    "Answer before shutting.",
                ),
                cause!(
                    FROM_3_1,
                    "The server has refused the connection once a second until `retries`, by default 3, were used up.",
                    "Set `option redispatch 1`, with two servers or more; check the address.",
                ),
                cause!(
                    FROM_3_1,
                    "The agent disconnected with status 0 (a drain or restart) as the request was sent.",
                    "Drain with a lame duck stage.",
                ),
            ],
        ),
        2 => (
            "The session ended with a timeout while the request was in flight.",
            &[
                cause!(
                    ALL,
                    "The agent disconnected: its own timeout ended.",
                    "Raise the agent's timeout; see its log.",
                ),
                cause!(
                    TO_3_0,
                    "`timeout hello` or `timeout idle` ended: the latter also runs while requests are in flight.",
                    "Set `timeout idle` well above `timeout processing`.",
                ),
            ],
        ),
        3 => (
            "A frame exceeds the negotiated size.",
            &[
                cause!(
                    FROM_3_1,
                    "The agent announced a `max-frame-size` below HAProxy's, and the request does not fit it.",
                    "Announce at least `tune.bufsize` - 4 in the agent.",
                ),
                cause!(
                    TO_3_0,
                    "The agent's `max-frame-size` is below HAProxy's, and a thread of HAProxy has not read it yet: its first requests.",
                    "Announce at least `tune.bufsize` - 4 in the agent.",
                ),
                cause!(
                    ALL,
                    "A frame is longer than its receiver accepts.",
                    "Compare `max-frame-size` of both sides in the agent's log.",
                ),
            ],
        ),
        4 => (
            "One side could not decode a frame.",
            &[
                cause!(
                    ALL,
                    "A defect of the agent, or a backend that is no SPOP agent.",
                    "See the agent's log; check the address.",
                ),
                cause!(
                    FROM_3_1,
                    "The agent died, or closed the connection, while it wrote a frame.",
                    "See the agent's log.",
                ),
            ],
        ),
        5..=9 => (
            "The handshake failed.",
            &[cause!(
                ALL,
                "The HELLO of one side lacks an item, or has a value that the other does not support.",
                "The version must be 2.0, and the agent's `max-frame-size` from 256 to HAProxy's.",
            )],
        ),
        10 => (
            "A frame was fragmented, or had to be, and fragmentation was not negotiated.",
            &[
                cause!(
                    TO_3_0,
                    "A payload exceeds the negotiated frame size, and the agent did not announce fragmentation.",
                    "Announce fragmentation in the agent, or raise its `max-frame-size`.",
                ),
                cause!(
                    ALL,
                    "The agent fragmented an ACK, which no HAProxy accepts.",
                    "Send a shorter answer.",
                ),
            ],
        ),
        11 => (
            "The fragments of two payloads were interleaved.",
            &[cause!(
                ALL,
                "The agent does not support what HAProxy sent, or has a defect.",
                "See the agent's log.",
            )],
        ),
        12 => (
            "A frame names a request that is not in flight.",
            &[cause!(
                TO_3_0,
                "Without pipelining, an ACK came late, or twice, while another request was in flight.",
                "Speed up the handler, or raise `timeout processing`.",
            )],
        ),
        13 => (
            "The agent or HAProxy could not allocate a resource.",
            &[cause!(ALL, "The agent is at a limit of connections or memory.", "See the agent's log.")],
        ),
        _ => (
            "The session ended with an unknown error.",
            &[cause!(ALL, "The agent disconnected without a specific status.", "See the agent's log.")],
        ),
    };
    explanation(name, meaning, causes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Status, engine::EngineError};

    #[test]
    fn every_error_of_an_engine_and_every_status_is_explained() {
        use EngineError::{Aborted, Interrupted, Resources, Spop, Timeout, TooBig, Unknown};
        let engine = [Timeout, Resources, TooBig, Aborted, Interrupted];
        let assigned = (0..=99).map(Status).filter(|status| status.reason().is_some());
        let mut statuses = 0;
        for error in
            engine.into_iter().chain(assigned.map(Spop)).chain([Spop(Status(42)), Spop(Status(u32::MAX))])
        {
            let found = explain(error.code()).unwrap_or_else(|| panic!("{error}"));
            assert!(!found.causes.is_empty(), "{error}: {found:?}");
            if let Spop(status) = error {
                statuses += 1;
                assert_eq!(found.name, status.reason().unwrap_or("a code of the application"));
            }
            for cause in found.causes {
                assert!([ALL, TO_3_0, FROM_3_1].contains(&cause.versions), "{error}");
                assert!(cause.cause.ends_with(['.', ')']) && cause.remedy.ends_with(['.', ')']), "{error}");
            }
        }
        assert_eq!(statuses, 15 + 2);
        assert!(explain(0).is_some() && explain(Unknown.code()).is_some());
        assert_eq!((explain(6), explain(254)), (None, None));
    }

    #[test]
    fn a_number_means_what_its_error_means() {
        for (code, name) in
            [(1, "timeout"), (2, "resources"), (3, "too big"), (4, "aborted"), (5, "interrupted")]
        {
            assert_eq!(explain(code).unwrap().name, name);
        }
        assert_eq!(explain(256 + 8).unwrap().name, "unsupported version");
        assert_eq!(explain(298).unwrap().name, "a code of the application");
    }
}
