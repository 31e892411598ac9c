//! What happens on a connection before its first SPOP frame.
//!
//! A connection may have to pass handlers before it becomes a session, in an order that the configuration gives:
//!
//! * [`SourceRules`] refuse it for where it comes from;
//! * `ExpectProxy` (with the feature `proxy`) takes the PROXY header from its beginning, which says whom it is passed on for;
//! * a [`Monitor`] answers a health check, or HAProxy's `agent-check`, and closes it;
//! * [`Tls`](Step::Tls) hands it to whoever does TLS;
//!
//! and when it has passed them all its session begins. Each handler succeeds and makes room for the next, or ends the
//! connection, or waits for more bytes under one timer for them all. [`Acceptor`] goes through them; like the reactors it
//! reads no socket and no clock.
//!
//! # The run loop
//!
//! 1. Make an [`Acceptor`] when the connection is there, tell it if the server is in
//!    [lame duck](Acceptor::set_lame_duck), and call [`on_bytes`](Acceptor::on_bytes) at once: the inbox may be empty.
//! 2. Do what the [`Accept`] says. Each input returns exactly one.
//!    * `WantBytes`: read into the inbox, then call `on_bytes`, or [`on_input_eof`](Acceptor::on_input_eof) at its end.
//!    * `StartTls`: give the TLS engine all that the inbox holds and the socket; call
//!      [`on_tls_done`](Acceptor::on_tls_done) with an inbox of decrypted bytes. When TLS fails, close: there is nothing
//!      to say that TLS has not said.
//!    * `SendReply`: write [`outgoing`](Acceptor::outgoing) and report [`on_sent`](Acceptor::on_sent).
//!    * `ShutWrite`: shut the write side; go on reading.
//!    * `Refuse`, `Close`: close the connection; the value says why.
//!    * `Ready`: the session begins. What the inbox holds belongs to it, and so does an end of input that came already.
//! 3. Meanwhile, call [`on_timeout`](Acceptor::on_timeout) when the [`deadline`](Acceptor::deadline) has come.
//!
//! ```
//! use std::sync::Arc;
//!
//! use bytes::BytesMut;
//! use spop_core::Timestamp;
//! use spop_core::accept::{Accept, AcceptConfig, Acceptor, Closing, Monitor, Peer, Policy, SourceRules, Step};
//!
//! let rules = SourceRules::new(Policy::Deny).allow("203.0.113.0/24".parse()?);
//! let config = AcceptConfig::new().with(rules)?.with(Monitor::new("GET /health ", "HTTP/1.0 200 OK\r\n\r\n"))?;
//! let config = Arc::new(config.checked()?);
//!
//! let peer = |text: &str| text.parse::<std::net::SocketAddr>().map(Peer::from);
//! let now = Timestamp::ZERO;
//!
//! // A session: its first frame stays in the inbox.
//! let mut acceptor = Acceptor::new(config.clone(), peer("203.0.113.9:4711")?, now);
//! let mut inbox = BytesMut::new();
//! assert_eq!(acceptor.on_bytes(now, &mut inbox), Accept::WantBytes { at_least: 1 });
//! inbox.extend_from_slice(b"\0\0\0\x81");
//! assert!(matches!(acceptor.on_bytes(now, &mut inbox), Accept::Ready(_)));
//! assert_eq!(inbox, b"\0\0\0\x81"[..]);
//!
//! // A health check.
//! let mut acceptor = Acceptor::new(config.clone(), peer("203.0.113.9:4712")?, now);
//! let mut inbox = BytesMut::from("GET /health HTTP/1.0\r\n\r\n");
//! assert_eq!(acceptor.on_bytes(now, &mut inbox), Accept::SendReply);
//! let sent = acceptor.outgoing().len();
//! assert_eq!(acceptor.on_sent(now, sent), Accept::ShutWrite);
//! assert_eq!(acceptor.on_input_eof(now, &mut inbox), Accept::Close(Closing::Answered));
//!
//! // Somebody else.
//! let mut acceptor = Acceptor::new(config, peer("198.51.100.7:4713")?, now);
//! let Accept::Refuse(refusal) = acceptor.on_bytes(now, &mut inbox) else { panic!() };
//! assert_eq!(refusal.to_string(), "198.51.100.7 is denied: no rule allows it");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The other side
//!
//! [`Opening`] is the same for the side that connects: it sends a PROXY header, has TLS started, and then the session
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
pub use refusal::{Began, ProxyError, Refusal, RefuseReason, Waiting};
pub use response::Response;
#[cfg(feature = "std")]
pub use response::SharedResponse;
pub use rules::{Policy, SourceRules};
