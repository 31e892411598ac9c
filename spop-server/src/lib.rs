//! SPOP servers without I/O: one connection of an agent from its first byte to its last, and what the operating system gives
//! every server.
//!
//! `spop-core` is the protocol. This crate is the server around it, whatever moves its bytes: [`Conn`] is one accepted
//! connection with every policy of a server, and [`Agent`] is what the connections of a server share. It is what `spop-tokio`
//! and `spop-mio` are made of, and what another adapter needs.
//!
//! - [`Agent`], [`ServerConfig`], [`ServerHandle`]: the shared state, its configuration, and its control from outside.
//! - [`Conn`]: a connection, driven like a reactor. [`Driver`] drives it over a [`Stream`] that does not block, and
//!   [`CompletionDriver`] over a transport that reports completions.
//! - [`Handler`], [`Request`], [`Responder`]: the application.
//! - [`Endpoint`], [`Listening`], [`Entrance`]: sockets that listen, and what their connections pass before a session.

#![forbid(unsafe_code)]

mod accept;
mod account;
mod address;
mod agent;
mod buffer;
mod cancellation;
mod cancelled;
mod completion_driver;
mod config;
mod conn;
mod connection;
mod descriptors;
mod driver;
mod endpoint;
mod engines;
mod entrance;
mod failure;
#[cfg(unix)]
mod file_access;
pub mod guide;
mod handler;
mod info;
mod limits;
mod listening;
mod log;
mod message;
mod metrics;
mod name_warnings;
#[cfg(unix)]
mod path_lock;
mod protocol;
mod remote;
mod request;
mod responder;
mod service_manager;
#[cfg(unix)]
mod socket_file;
mod spans;
mod stage;
mod stats;
mod stream;
mod swap;
#[cfg(all(feature = "systemd", unix))]
pub mod systemd;
#[cfg(test)]
mod test_support;
#[cfg(feature = "tls")]
pub mod tls;

pub use account::NameOrId;
pub use address::{AbstractName, Address, Family, ParsedAddress};
pub use agent::{Agent, ServerHandle, Subscription};
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
pub use failure::{Answer, Failure, FailureKind};
pub use handler::{Handler, Outcome};
pub use info::ConnectionInfo;
pub(crate) use limits::{HoldPermit, InFlight, SPARED, Share, SourcePermit, Sources, Total, WorkPermit};
pub use listening::{BACKLOG, Listener, Listening, SocketOptions, is_of_connection};
pub use log::LogLimit;
pub(crate) use message::{TOO_MUCH_BUFFERED, overdue};
pub(crate) use metrics::{Began, Metrics, Open, Work};
pub use name_warnings::NameWarnings;
pub use protocol::Protocol;
pub use request::{Request, RequestGuard};
pub use responder::Responder;
pub(crate) use service_manager::{tell_ready, tell_stopping};
#[cfg(unix)]
pub use socket_file::SocketFile;
pub use stage::Stage;
pub use stats::Stats;
pub(crate) use stats::{ConnectionPermit, Counters};
pub use stream::Stream;
pub use swap::Swap;
