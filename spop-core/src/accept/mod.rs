//! The accept stage: what happens on a connection before its first SPOP frame.
//!
//! A pending connection passes handlers before its session begins, in the order of the configuration:
//!
//! * [`SourceRules`] allow or deny it by its source address;
//! * `ExpectProxy` (with the feature `proxy`) reads the PROXY header, which announces the client's address;
//! * a [`Monitor`] answers a health check, or HAProxy's `agent-check`, and closes the connection;
//! * [`Tls`](AcceptHandler::Tls) starts TLS, which the driver does.
//!
//! A handler passes the connection on to the next one, ends it, or waits for more bytes. One timeout covers all of them. After
//! the last handler the session begins. [`Acceptor`] runs the handlers. Like the reactors it opens no socket and reads no clock.
//!
//! # The run loop
//!
//! 1. When a connection is accepted, make an [`Acceptor`] and, if the server is in lame-duck mode, call
//!    [`set_lame_duck`](Acceptor::set_lame_duck). Then call [`on_bytes`](Acceptor::on_bytes) with no bytes.
//! 2. Carry out the [`Accept`]. An input that takes bytes returns it in a [`Step`](crate::Step): drop the bytes that were
//!    used, and keep the rest as the beginning of the next input.
//!    * `WantBytes`: read, then call `on_bytes`, or [`on_input_eof`](Acceptor::on_input_eof) at the end of the input. The
//!      buffer must be able to hold the longest PROXY header and the longest request of a monitor.
//!    * `StartTls`: give the rest of the input and the socket to TLS. When the handshake is done, call
//!      [`on_tls_done`](Acceptor::on_tls_done), then `on_bytes` with the decrypted bytes or none. If TLS fails, close the
//!      connection: TLS has sent its alert.
//!    * `SendReply`: write [`outgoing`](Acceptor::outgoing), then call [`on_sent`](Acceptor::on_sent).
//!    * `ShutWrite`: shut the write side, then call `on_bytes` with no bytes.
//!    * `Refuse`, `Close`: close the connection. The value says why.
//!    * `Ready`: the session begins. The rest of the input is the beginning of the session's input. If the end of the input
//!      has come already, report it to the session as well.
//!    * `Paused`: nothing.
//! 3. Call [`on_timeout`](Acceptor::on_timeout) when the [`deadline`](Acceptor::deadline) has come.
//!
//! ```
//! use std::sync::Arc;
//!
//! use spop_core::{Step, Timestamp};
//! use spop_core::accept::{Accept, AcceptConfig, Acceptor, Closing, Monitor, Peer, Policy, SourceRules};
//!
//! let rules = SourceRules::new(Policy::Deny).allow("203.0.113.0/24".parse()?);
//! let config = AcceptConfig::new().with(rules)?.with(Monitor::new("GET /health ", "HTTP/1.0 200 OK\r\n\r\n"))?;
//! let config = Arc::new(config.checked()?);
//!
//! let peer = |text: &str| text.parse::<std::net::SocketAddr>().map(Peer::from);
//! let now = Timestamp::ZERO;
//!
//! // A session: nothing of its first frame is used here.
//! let mut acceptor = Acceptor::new(config.clone(), peer("203.0.113.9:4711")?, now);
//! assert_eq!(acceptor.on_bytes(now, &[]).action, Accept::WantBytes { at_least: 1 });
//! let step = acceptor.on_bytes(now, b"\0\0\0\x81");
//! assert!(matches!(step, Step { consumed: 0, action: Accept::Ready(_) }));
//!
//! // A health check.
//! let mut acceptor = Acceptor::new(config.clone(), peer("203.0.113.9:4712")?, now);
//! let step = acceptor.on_bytes(now, b"GET /health HTTP/1.0\r\n\r\n");
//! assert_eq!(step, Step { consumed: 24, action: Accept::SendReply });
//! let sent = acceptor.outgoing().len();
//! assert_eq!(acceptor.on_sent(now, sent)?, Accept::ShutWrite);
//! assert_eq!(acceptor.on_input_eof(now, &[]).action, Accept::Close(Closing::Answered));
//!
//! // A source address that no rule allows.
//! let mut acceptor = Acceptor::new(config, peer("198.51.100.7:4713")?, now);
//! let Accept::Refuse(refusal) = acceptor.on_bytes(now, &[]).action else { panic!() };
//! assert_eq!(refusal.to_string(), "198.51.100.7 is denied: no rule allows it");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The connecting side
//!
//! [`Opening`] is the counterpart for the side that connects: it sends a PROXY header and has TLS started before the session
//! begins.

mod acceptor;
mod config;
mod monitor;
mod network;
mod opening;
mod origin;
#[cfg(feature = "proxy")]
mod proxy;
mod proxy_encode;
mod refusal;
mod response;
mod rules;
#[cfg(test)]
mod tests;

pub use acceptor::{Accept, Acceptor, Closing};
pub use config::{AcceptConfig, AcceptHandler, AcceptHandlerError, MAX_HANDLERS};
pub use monitor::Monitor;
pub use network::{Network, NetworkError};
pub use opening::{Open, OpenConfig, OpenError, OpenPhase, Opening};
pub use origin::{Addresses, Origin, Peer, ProxyHeader, ProxyVersion};
#[cfg(feature = "proxy")]
pub use proxy::ExpectProxy;
pub use proxy_encode::encode_proxy_header;
pub use refusal::{FirstBytes, ProxyError, Refusal, RefuseReason, Waiting};
pub use response::Response;
#[cfg(feature = "std")]
pub use response::SharedResponse;
pub use rules::{Policy, SourceRules};
