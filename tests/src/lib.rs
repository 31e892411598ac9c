//! What the tests share: captures for the reactors, real HAProxy, agents run as programs, and the HTTP
//! traffic that goes through them.

#![forbid(unsafe_code)]

pub mod agent;
pub mod bystander;
pub mod captures;
pub mod cli;
pub mod clients;
pub mod corpus;
pub mod haproxy;
pub mod http;
pub mod load;
pub mod peer;
pub mod ports;
pub mod process;
pub mod relay;
pub mod replay;
pub mod restarts;
pub mod session;
pub mod shipped;
pub mod stage;
pub mod tcpdump;
pub mod wait;
pub mod wrk;

pub use spop_core::testing::transcript::{driver, random};
pub use spop_fuzz_bodies::model;

/// The programs of the READMEs and of the guide compile and run.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../../README.md")]
    struct Workspace;
    #[doc = include_str!("../../spop-core/README.md")]
    struct Core;
    #[doc = include_str!("../../spop-mio/README.md")]
    struct Mio;
    #[doc = include_str!("../../spop-tokio/README.md")]
    struct Tokio;
    #[doc = include_str!("../../spop-server/src/guide/adapters.md")]
    struct Adapters;
    #[doc = include_str!("../../spop-server/src/guide/arguments.md")]
    struct Arguments;
    #[doc = include_str!("../../spop-server/src/guide/bodies.md")]
    struct Bodies;
    #[doc = include_str!("../../spop-server/src/guide/command_line.md")]
    struct CommandLine;
    #[doc = include_str!("../../spop-server/src/guide/drivers.md")]
    struct Drivers;
    #[doc = include_str!("../../spop-server/src/guide/errors.md")]
    struct Errors;
    #[doc = include_str!("../../spop-server/src/guide/failures.md")]
    struct Failures;
    #[doc = include_str!("../../spop-server/src/guide/limits.md")]
    struct Limits;
    #[doc = include_str!("../../spop-server/src/guide/listeners.md")]
    struct Listeners;
    #[doc = include_str!("../../spop-server/src/guide/moving.md")]
    struct Moving;
    #[cfg(feature = "status")]
    #[doc = include_str!("../../spop-server/src/guide/observability.md")]
    struct Observability;
    #[doc = include_str!("../../spop-server/src/guide/open_or_closed.md")]
    struct OpenOrClosed;
    #[doc = include_str!("../../spop-server/src/guide/performance.md")]
    struct Performance;
    #[doc = include_str!("../../spop-server/src/guide/quick_start.md")]
    struct QuickStart;
    #[doc = include_str!("../../spop-server/src/guide/restarts.md")]
    struct Restarts;
    #[doc = include_str!("../../spop-server/src/guide/settings.md")]
    struct Settings;
    #[doc = include_str!("../../spop-server/src/guide/events.md")]
    struct Events;
    #[doc = include_str!("../../spop-server/src/guide/several_agents.md")]
    struct SeveralAgents;
    #[doc = include_str!("../../spop-server/src/guide/testing.md")]
    struct Testing;
    #[doc = include_str!("../../spop-server/src/guide/timeouts.md")]
    struct Timeouts;
    #[doc = include_str!("../../spop-server/src/guide/tls.md")]
    struct Tls;
    #[doc = include_str!("../../spop-server/src/guide/unix_sockets.md")]
    struct UnixSockets;
    #[doc = include_str!("../../spop-server/src/guide/versions.md")]
    struct Versions;
}
