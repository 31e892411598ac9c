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
pub mod process;
pub mod relay;
pub mod replay;
pub mod restarts;
pub mod stage;
pub mod wait;
pub mod wrk;

pub use spop_core::fuzzing::{driver, model, random};

/// The programs of the READMEs compile and run.
#[cfg(doctest)]
mod readmes {
    #[doc = include_str!("../../README.md")]
    struct Workspace;
    #[doc = include_str!("../../spop-core/README.md")]
    struct Core;
    #[doc = include_str!("../../spop-mio/README.md")]
    struct Mio;
    #[doc = include_str!("../../spop-tokio/README.md")]
    struct Tokio;
}
