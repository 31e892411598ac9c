//! Tests of handlers: requests made by hand, calls of handlers, transcripts. Feature `testing`.
//!
//! - [`TestRequest`] makes a request without a connection, and [`call`] runs a handler with it.
//! - [`replay`] runs a transcript of the frames that HAProxy and the agent exchange, with every way to cut them.
//! - [`spop_core::testing::Pair`] has HAProxy's side of the protocol.
//!
//! ```
//! use std::net::IpAddr;
//! use spop_core::{Actions, Scope, frame::ArgError};
//! use spop_server::{Request, testing::{self, TestRequest}};
//!
//! fn reputation(request: Request<'_>) -> Result<Actions, ArgError> {
//!     let ip: IpAddr = request.arg("ip")?;
//!     let mut actions = Actions::new();
//!     actions.set_var(Scope::Session, "ip_score", if ip.is_loopback() { 100 } else { 50 });
//!     Ok(actions)
//! }
//!
//! let outcome = testing::call(&mut reputation, TestRequest::new("check-ip ip=ipv4:127.0.0.1"));
//! assert_eq!(outcome.sentence(), "set sess ip_score=int32:100");
//!
//! let outcome = testing::call(&mut reputation, TestRequest::new("check-ip ip=bool:true"));
//! assert!(outcome.failure().unwrap().starts_with("handler_failed: "));
//! ```

mod call;
mod failures;
mod replay;
mod request;
#[cfg(test)]
mod tests;

pub use spop_core::testing::{Conditions, Cuts, Outcome, ReplayError};

#[doc(hidden)]
pub use call::Pending;
pub use call::{LIMIT, call};
pub use failures::FailureRecord;
pub use replay::replay;
pub use request::{Canceller, TestRequest};
