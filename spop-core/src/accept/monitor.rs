//! Monitors: health checks that do not speak SPOP.

use bytes::Bytes;

use super::Response;

/// Answers the probe of a health check and closes the connection, instead of starting a session.
///
/// ```
/// use spop_core::accept::Monitor;
///
/// let health = Monitor::new("GET /health ", "HTTP/1.0 200 OK\r\n\r\nalive\n")
///     .lame_duck("HTTP/1.0 503 Service Unavailable\r\n\r\nshutting down\n");
/// let line = Monitor::new("ping\n", "pong\n");
/// ```
///
/// # Lame-duck mode
/// While the server is in lame-duck mode, the first stage of a shutdown, a probe gets the response of
/// [`lame_duck`](Self::lame_duck). Without one, the connection is closed without an answer. That fails an HTTP check and a
/// `tcp-check` with an `expect` rule. It does not fail a check that only connects, and it changes nothing for HAProxy's
/// `agent-check`.
///
/// # HAProxy's `agent-check`
/// HAProxy connects to a separate port (`agent-port`) and reads one line, after sending the text of `agent-send` if there is
/// one. [`Monitor::for_all`] serves it on a separate listener. The keywords of the line (`up`, `down`, `ready`,
/// `drain`, `maint`, `50%`, `maxconn:30`) change the server in HAProxy, and what they do not mention stays as it is: an agent that
/// answered `drain` or `down` must answer `ready` or `up` later. A missing answer changes nothing, so lame-duck mode needs a
/// response here. The line ends with `\n`. Give HAProxy an `agent-inter` of a second or more, or an `agent-send`: without
/// `agent-send`, the ACK of its TCP handshake is delayed, and with an `agent-inter` of 200 ms the check times out.
///
/// ```
/// use spop_core::accept::{AcceptConfig, Monitor, SharedResponse};
///
/// // server agent1 192.0.2.10:12345 check agent-check agent-port 12346 agent-inter 1s
/// let weight = SharedResponse::new("up ready 100%\n");
/// let agent_check = AcceptConfig::new().with(Monitor::for_all(&weight).lame_duck("drain\n"))?;
///
/// weight.set("up ready 50%\n"); // at any time, from any thread
/// # Ok::<(), spop_core::accept::AcceptHandlerError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Monitor {
    request: Request,
    response: Response,
    lame_duck: Option<Response>,
}

/// Which connections are probes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Request {
    All,
    Begins(Bytes),
}

/// Whether a connection is a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// It is.
    Yes,
    /// It is not.
    No,
    /// More bytes are needed to decide.
    Perhaps,
}

impl Monitor {
    /// Answers connections that begin with `request`. Other connections go to the next handler with all their bytes. With an
    /// empty `request` no connection is a probe; see [`for_all`](Self::for_all). With an empty response the connection is closed
    /// without an answer.
    pub fn new(request: impl Into<Bytes>, response: impl Into<Response>) -> Self {
        Self { request: Request::Begins(request.into()), response: response.into(), lame_duck: None }
    }

    /// Answers every connection at once, before a byte is received. The listener has no sessions then, and no handler can
    /// follow.
    pub fn for_all(response: impl Into<Response>) -> Self {
        Self { request: Request::All, response: response.into(), lame_duck: None }
    }

    /// Sets the response while the server is in lame-duck mode.
    #[must_use]
    pub fn lame_duck(mut self, response: impl Into<Response>) -> Self {
        self.lame_duck = Some(response.into());
        self
    }

    pub(super) fn is_for_all(&self) -> bool {
        self.request == Request::All
    }

    pub(super) fn probe(&self, bytes: &[u8]) -> Probe {
        match &self.request {
            Request::All => Probe::Yes,
            Request::Begins(request) if request.is_empty() => Probe::No,
            Request::Begins(request) if bytes.starts_with(request) => Probe::Yes,
            Request::Begins(request) if request.starts_with(bytes) => Probe::Perhaps,
            Request::Begins(_) => Probe::No,
        }
    }

    /// The current response; empty if the probe is closed without an answer.
    pub(super) fn answer(&self, lame_duck: bool) -> Bytes {
        if lame_duck {
            self.lame_duck.as_ref().map(Response::bytes).unwrap_or_default()
        } else {
            self.response.bytes()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_known_by_its_first_bytes() {
        let monitor = Monitor::new("ping\n", "pong\n");
        assert_eq!(monitor.probe(b""), Probe::Perhaps);
        assert_eq!(monitor.probe(b"pin"), Probe::Perhaps);
        assert_eq!(monitor.probe(b"ping\n"), Probe::Yes);
        assert_eq!(monitor.probe(b"ping\nand more"), Probe::Yes);
        assert_eq!(monitor.probe(b"pino"), Probe::No);
        assert_eq!(Monitor::new("", "pong\n").probe(b""), Probe::No);
        assert_eq!(Monitor::for_all("up\n").probe(b""), Probe::Yes);
        assert_eq!(Monitor::for_all("up\n").probe(b"agent-send"), Probe::Yes);
    }

    #[test]
    fn the_lame_duck_stage_has_a_response_of_its_own() {
        let monitor = Monitor::new("ping\n", "pong\n");
        assert_eq!((monitor.answer(false), monitor.answer(true)), ("pong\n".into(), Bytes::new()));
        let monitor = monitor.lame_duck("gone\n");
        assert_eq!((monitor.answer(false), monitor.answer(true)), ("pong\n".into(), "gone\n".into()));
    }
}
