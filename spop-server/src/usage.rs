//! How near a server is to its limits.

use std::sync::atomic::Ordering;

use crate::{Agent, ServerHandle, Stage};

/// What is used of a limit over all connections. Returned by [`ServerHandle::usage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// The field of [`ServerConfig`](crate::ServerConfig) that has the limit.
    pub limit: &'static str,
    /// What is used of it now. Bytes are counted in steps of 16 KiB for each connection.
    pub used: usize,
    /// The limit.
    pub max: usize,
}

impl ServerHandle {
    /// What is used of each limit over all connections that is set, with that of one source left out.
    pub fn usage(&self) -> Vec<Usage> {
        self.agent().usage()
    }

    /// The stage of the shutdown.
    pub fn stage(&self) -> Stage {
        self.agent().stage()
    }
}

impl Agent {
    fn usage(&self) -> Vec<Usage> {
        let usage = |limit, used, max| Usage { limit, used, max };
        let mut all = vec![usage(
            "max_connections",
            self.counters.places.load(Ordering::Relaxed),
            self.max_connections,
        )];
        all.extend(self.in_flight.usage().map(|(used, max)| usage("max_in_flight", used, max)));
        for (limit, total) in [("max_request_bytes", &self.requests), ("max_buffered_bytes", &self.buffered)]
        {
            all.push(usage(limit, total.now(), total.max()));
        }
        let (background, max) = self.shutdown.background_usage();
        all.push(usage("max_background", background, max));
        all
    }
}

#[cfg(test)]
mod tests {
    use spop_core::{Clock, accept::Peer};

    use super::*;
    use crate::ServerConfig;

    #[test]
    fn each_limit_that_is_set_has_what_is_used_of_it() {
        let mut config = ServerConfig { max_connections: 3, ..ServerConfig::default() };
        let limits = |config: &ServerConfig| {
            let agent = Agent::new(config.clone(), Clock::start()).unwrap();
            let _conn = agent.accept(agent.clock().now(), Peer::unnamed(), None).unwrap();
            let usage = agent.handle().usage();
            usage.into_iter().map(|one| (one.limit, one.used, one.max)).collect::<Vec<_>>()
        };
        let bytes = 128 << 20;
        let mut expected = vec![
            ("max_connections", 1, 3),
            ("max_request_bytes", 0, bytes),
            ("max_buffered_bytes", 0, bytes),
            ("max_background", 0, 1_000),
        ];
        assert_eq!(limits(&config), expected);
        config.max_in_flight = Some(7);
        expected.insert(1, ("max_in_flight", 0, 7));
        assert_eq!(limits(&config), expected);
    }
}
