//! What servers have in common, whatever moves their bytes: listeners, limits, numbers, TLS certificates, a log that a peer
//! cannot fill.
//!
//! It is what `spop-tokio` and `spop-mio` are made of besides `spop-core`, for them and for adapters like them: the
//! protocol's own crate opens no file and asks the system for nothing.

#![forbid(unsafe_code)]

mod account;
mod address;
mod cancelled;
mod endpoint;
mod entrance;
#[cfg(unix)]
mod file_access;
mod info;
mod level;
mod limits;
mod listening;
mod log;
mod message;
mod metrics;
mod name_warnings;
mod service_manager;
#[cfg(unix)]
mod socket_file;
mod stats;
#[cfg(all(feature = "systemd", unix))]
pub mod systemd;
#[cfg(feature = "tls")]
pub mod tls;

pub use account::NameOrId;
pub use address::{AbstractName, Address, Family, ParsedAddress};
pub use cancelled::Cancelled;
pub use endpoint::Endpoint;
pub use entrance::Entrance;
pub use info::ConnectionInfo;
pub use level::{AtomicLevel, Level};
pub use limits::{InFlight, Permit, Place, Sources, Unfinished, UnfinishedBytes};
pub use listening::{BACKLOG, Listener, Listening, SocketOptions, is_of_connection};
pub use log::{LogLimit, LogLimits};
pub use message::{TOO_MUCH_UNFINISHED, overdue};
pub use metrics::{Began, Metrics, Open, Work};
pub use name_warnings::NameWarnings;
pub use service_manager::{tell_ready, tell_stopping};
#[cfg(unix)]
pub use socket_file::SocketFile;
pub use stats::{Counters, Seat, Stats};
