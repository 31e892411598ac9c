//! SPOP servers without I/O: sessions, failure policy, limits, statistics and shutdown; and the listeners, socket files and TLS
//! certificates that servers need from the operating system.
//!
//! `spop-core` is the protocol. This crate is the server around it, whatever moves its bytes: [`Conn`] is one accepted
//! connection with every policy of a server, and [`Agent`] is the state that the connections of a server share. The adapters
//! `spop-tokio` and `spop-mio` are built on it. To run an agent, use one of them; the [`guide`] applies to both.
//!
//! - [`Agent`], [`ServerConfig`], [`ServerHandle`]: the shared state, its configuration, and its control from outside.
//! - [`Conn`]: a connection, driven like a reactor. [`Driver`] drives it over a [`Stream`] that does not block, and
//!   [`CompletionDriver`] over a transport that reports completions.
//! - [`Handler`], [`Request`], [`Responder`]: the application.
//! - [`Endpoint`], [`Listening`], [`Entrance`]: listeners, and the accept stage that their connections pass before a session.
//!
//! # Another adapter
//!
//! For an event loop or a runtime of your own:
//!
//! 1. Open listeners with [`Endpoint::listen`], or with the means of your runtime.
//! 2. Make an [`Agent`]. Its documentation has the steps of a server: accept, limits, shutdown.
//! 3. Drive each connection with a [`Driver`], if sockets report readiness, or with a [`CompletionDriver`], if they report
//!    completions. The documentation of each lists what is left to the loop. For anything else, such as blocking sockets, drive the
//!    [`Conn`] itself; its documentation has all steps.
//! 4. Call the application in a [`Handler`]. If its answers come later on the thread of the connection, as from a future, keep
//!    [`Request::into_owned`], return [`Outcome::Later`], and call [`Conn::on_answer`]. From other threads a [`Responder`]
//!    answers.
//!
//! The examples `foreign-poll` (poll(2)), `io-uring` and `thread-per-connection` (blocking sockets) are complete adapters of at
//! most 300 lines.

#![forbid(unsafe_code)]
// On docs.rs, items say which feature they need.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod accept;
mod account;
mod address;
mod admission;
mod agent;
mod buffer;
mod cancellation;
mod cancelled;
mod completion_driver;
mod config;
mod conn;
mod connection;
mod descriptors;
mod drain;
mod driver;
mod endpoint;
mod engines;
mod entrance;
#[cfg(unix)]
mod file_access;
pub mod guide;
mod handler;
mod inbox;
mod info;
mod label;
mod limits;
mod listening;
mod log;
mod message;
mod metrics;
mod name_warnings;
#[cfg(unix)]
mod path_lock;
mod protocol;
mod registry;
mod request;
mod responder;
mod service_manager;
mod shutdown;
#[cfg(all(feature = "signals", unix))]
mod signals;
#[cfg(unix)]
mod socket_file;
mod spans;
mod stage;
mod stats;
#[cfg(feature = "status")]
pub mod status;
mod stream;
mod swap;
#[cfg(all(feature = "systemd", unix))]
pub mod systemd;
#[cfg(test)]
mod test_support;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "tls")]
pub mod tls;
mod usage;

pub use accept::ACCEPT_BACK_OFF;
pub use account::NameOrId;
pub use address::{AbstractName, Address, Family, ParsedAddress};
pub(crate) use admission::{Admission, KeptAdmission};
pub use agent::{Agent, ServerHandle};
pub use buffer::{Leftover, ReadBuffer};
pub use cancellation::Cancellation;
pub use cancelled::Cancelled;
pub use completion_driver::{CompletionDriver, Operation};
pub use config::ServerConfig;
pub use conn::Conn;
pub use connection::Connection;
pub use driver::{Driver, Turn};
pub use endpoint::Endpoint;
pub use entrance::Entrance;
pub use handler::{Handler, Outcome};
pub use info::ConnectionInfo;
// For the command line, whose connections have drivers of their own.
#[cfg(unix)]
#[doc(hidden)]
pub use descriptors::{DescriptorLimit, raise_descriptor_limit};
pub(crate) use limits::{
    InFlight, REQUESTS_SPARED, RequestPermit, SPARED, Share, SharedPermit, SourcePermit, Sources, Total,
};
#[doc(hidden)]
pub use limits::{SPARED as BUFFERED_SPARED, Share as BufferedShare, Total as BufferedTotal};
pub use listening::{BACKLOG, Listener, Listening, SocketOptions, is_of_connection};
pub use log::LogLimit;
#[doc(hidden)]
pub use message::TOO_MUCH_BUFFERED;
pub(crate) use message::overdue;
pub use metrics::HANDLER_SECONDS_BUCKETS;
pub(crate) use metrics::{Began, ListenerMetrics, Metrics, Open, Work};
pub use name_warnings::NameWarnings;
pub use protocol::Protocol;
pub use request::{Request, RequestGuard};
pub use responder::Responder;
pub(crate) use service_manager::{tell_ready, tell_stopping};
pub use shutdown::{Background, Subscription};
#[cfg(unix)]
pub use socket_file::SocketFile;
pub use spop_core::agent::{Failure, FailureKind};
pub use stage::Stage;
pub(crate) use stats::{ConnectionPermit, Counters, Place};
pub use stats::{Failures, Stats};
pub use stream::Stream;
pub use swap::Swap;
pub use usage::Usage;
