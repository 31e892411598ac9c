//! What a function takes from a request.

use spop_core::{accept::Peer, agent::BoxError};
use spop_server::Cancellation;

use crate::Request;

/// A value that the function of a [`Route`](crate::Route) takes from its request: an argument of the function.
///
/// Implement it for what several handlers read from their messages. An error fails the request.
///
/// ```
/// use std::net::IpAddr;
/// use spop_tokio::{BoxError, FromRequest, Request, Router, Scope};
///
/// struct Client {
///     ip: IpAddr,
///     port: u16,
/// }
///
/// impl FromRequest for Client {
///     fn from_request(request: &Request) -> Result<Self, BoxError> {
///         Ok(Self { ip: request.arg("ip")?, port: request.arg("port")? })
///     }
/// }
///
/// async fn check(client: Client) -> (Scope, &'static str, bool) {
///     (Scope::Session, "local", client.ip.is_loopback() && client.port > 1023)
/// }
///
/// let router = Router::new().on("check", check);
/// # let _ = router;
/// ```
///
#[cfg_attr(
    feature = "serde",
    doc = "[`Args`](crate::Args) takes the arguments of a message by the names of fields."
)]
#[cfg_attr(
    not(feature = "serde"),
    doc = "With the feature `serde`, `Args` takes the arguments of a message by the names of fields."
)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be taken from a request",
    label = "not an extractor",
    note = "implement `FromRequest` for it, or take the arguments of the message with `Args` (feature `serde`)",
    note = "the state of a router is taken as a reference, first; the `Request` itself is taken by value, last"
)]
pub trait FromRequest: Sized {
    /// Takes it from a request.
    ///
    /// # Errors
    /// Any: the request fails with it.
    fn from_request(request: &Request) -> Result<Self, BoxError>;
}

/// As [`Request::peer`](spop_server::Request::peer).
impl FromRequest for Peer {
    fn from_request(request: &Request) -> Result<Self, BoxError> {
        Ok(request.peer().clone())
    }
}

/// As [`Request::cancellation`](spop_server::Request::cancellation).
impl FromRequest for Cancellation {
    fn from_request(request: &Request) -> Result<Self, BoxError> {
        Ok(request.cancellation())
    }
}

/// The arguments of the first message, as a structure whose fields have their names. Feature `serde`.
///
/// ```
/// use std::net::IpAddr;
/// use serde::Deserialize;
/// use spop_tokio::{Args, Router, Scope};
///
/// #[derive(Deserialize)]
/// struct Check {
///     ip: IpAddr,
///     path: String,
///     user: Option<String>,
/// }
///
/// async fn check(Args(check): Args<Check>) -> (Scope, &'static str, bool) {
///     (Scope::Transaction, "odd", check.path.contains("/../") || check.user.is_none() && check.ip.is_loopback())
/// }
///
/// let router = Router::new().on("check", check);
/// # let _ = router;
/// ```
///
/// The types of fields: see [`Message::deserialize`](spop_core::frame::Message::deserialize).
/// [`Request::deserialize`](spop_server::Request::deserialize) borrows text and bytes.
#[cfg(feature = "serde")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Args<T>(pub T);

#[cfg(feature = "serde")]
impl<T: serde::de::DeserializeOwned> FromRequest for Args<T> {
    fn from_request(request: &Request) -> Result<Self, BoxError> {
        Ok(Self(request.deserialize()?))
    }
}
