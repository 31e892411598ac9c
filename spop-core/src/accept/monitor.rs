//! Monitor probes: a load balancer asks whether we live, in a language of its own.

use bytes::Bytes;

/// A probe that is answered and closed instead of becoming a session.
///
/// ```
/// use spop_core::accept::Monitor;
///
/// let health = Monitor::new("GET /health ", "HTTP/1.0 200 OK\r\n\r\nalive\n");
/// let line = Monitor::new("ping\n", "pong\n");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Monitor {
    /// The bytes a probe begins with. Any other connection goes on with the next handler and keeps its bytes. When this is
    /// empty no connection is a probe.
    pub request: Bytes,
    /// What a probe is answered. It may be empty: the connection is just closed.
    pub response: Bytes,
}

/// What the first bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    /// It is one.
    Yes,
    /// It is none.
    No,
    /// It may be one, when more have come.
    Perhaps,
}

impl Monitor {
    /// Answers connections that begin with `request`.
    pub fn new(request: impl Into<Bytes>, response: impl Into<Bytes>) -> Self {
        Self { request: request.into(), response: response.into() }
    }

    pub(super) fn probe(&self, bytes: &[u8]) -> Probe {
        if self.request.is_empty() {
            return Probe::No;
        }
        if bytes.starts_with(&self.request) {
            return Probe::Yes;
        }
        if self.request.starts_with(bytes) {
            return Probe::Perhaps;
        }
        Probe::No
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
    }
}
