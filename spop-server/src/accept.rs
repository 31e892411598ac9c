//! Accepting without waiting.

use std::{
    io,
    net::{TcpListener, TcpStream},
    sync::Arc,
    time::Duration,
};

use spop_core::{Timestamp, accept::Peer};

use crate::{Agent, Conn, Entrance, is_of_connection};

/// How long a listener waits after an accept has failed with an error that [is not about one connection](is_of_connection), for
/// example because the process has no file descriptor left.
pub const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);

impl Agent {
    /// Accepts the connections that wait at a listener that does not block: all of its backlog. Those within the limits go to
    /// `accepted`.
    ///
    /// `None` if the next one is to be accepted when the listener is readable; the time to try again if an accept has failed.
    pub fn accept_all(
        self: &Arc<Self>,
        now: Timestamp,
        listener: &TcpListener,
        entrance: Option<&Arc<Entrance>>,
        accepted: impl FnMut(TcpStream, Conn),
    ) -> Option<Timestamp> {
        let accept = || listener.accept().map(|(stream, peer)| (stream, Peer::Ip(peer)));
        self.accept_each(now, accept, entrance, accepted)
    }

    fn accept_each<S>(
        self: &Arc<Self>,
        now: Timestamp,
        mut accept: impl FnMut() -> io::Result<(S, Peer)>,
        entrance: Option<&Arc<Entrance>>,
        mut accepted: impl FnMut(S, Conn),
    ) -> Option<Timestamp> {
        loop {
            match accept() {
                Ok((stream, peer)) => {
                    if let Some(conn) = self.accept(now, peer, entrance) {
                        accepted(stream, conn);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if is_of_connection(&error) => {}
                Err(error) => {
                    self.accept_failed(now, &error);
                    return Some(now + ACCEPT_BACK_OFF);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use spop_core::Clock;

    use super::*;

    #[test]
    fn an_error_of_a_connection_does_not_end_accepting_and_others_have_it_tried_again_later() {
        let agent = Agent::with_defaults(Clock::start());
        let (now, unnamed) = (Timestamp::from_millis(7), || Ok((1, Peer::unnamed())));
        let mut results = vec![
            unnamed(),
            Err(io::ErrorKind::ConnectionAborted.into()),
            unnamed(),
            Err(io::ErrorKind::WouldBlock.into()),
            unnamed(),
            Err(io::ErrorKind::OutOfMemory.into()),
        ]
        .into_iter();
        let mut accept_each = || {
            let mut count = 0;
            let at = agent.accept_each(now, || results.next().unwrap(), None, |n, _| count += n);
            (count, at, agent.stats().failed_accepts)
        };
        assert_eq!(accept_each(), (2, None, 0));
        assert_eq!(accept_each(), (1, Some(now + ACCEPT_BACK_OFF), 1));
    }
}
