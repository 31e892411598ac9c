//! Where a server listens.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener},
};
#[cfg(unix)]
use std::{
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
};

use crate::{Endpoint, ParsedAddress};

/// What [`Server::bind`](crate::Server::bind) takes: an [`Endpoint`], everything that an endpoint is made from, and listeners of
/// tokio. Implement it for a type of a configuration.
///
/// ```no_run
/// # async fn handler(_: spop_tokio::Request) -> spop_tokio::Actions { spop_tokio::Actions::new() }
/// # async fn main_() -> std::io::Result<()> {
/// use spop_tokio::{Endpoint, Server};
/// use tokio::net::TcpListener;
///
/// let listener = TcpListener::bind("127.0.0.1:12345").await?;
/// let server = Server::new(handler)
///     .bind(listener).await?
///     .bind(("localhost", 12346)).await?
///     .bind("/run/agent.sock").await?
///     .bind(Endpoint::from("0.0.0.0:12347").reuse_port(true)).await?;
/// # drop(server);
/// # Ok(())
/// # }
/// ```
///
/// Anything else is an error of the compiler:
///
/// ```compile_fail
/// # async fn handler(_: spop_tokio::Request) -> spop_tokio::Actions { spop_tokio::Actions::new() }
/// # async fn main_() -> std::io::Result<()> {
/// spop_tokio::Server::new(handler).bind(12345).await?; // use ("127.0.0.1", 12345)
/// # Ok(())
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "a server cannot listen on `{Self}`",
    label = "not an endpoint",
    note = "endpoints are texts such as \"127.0.0.1:12345\" and \"/run/agent.sock\", `(host, port)`, `SocketAddr`, paths, listeners \
            of std and tokio, and `Endpoint`"
)]
pub trait IntoEndpoint {
    /// The endpoint.
    ///
    /// # Errors
    /// A listener of tokio cannot be taken from its runtime.
    fn into_endpoint(self) -> io::Result<Endpoint>;
}

impl IntoEndpoint for Endpoint {
    fn into_endpoint(self) -> io::Result<Endpoint> {
        Ok(self)
    }
}

// One by one: with an implementation for all `Into<Endpoint>` there could be none for the listeners of tokio.
macro_rules! endpoints {
    ($($(#[$attribute:meta])* $type:ty),* $(,)?) => {
        $(
            $(#[$attribute])*
            impl IntoEndpoint for $type {
                fn into_endpoint(self) -> io::Result<Endpoint> {
                    Ok(self.into())
                }
            }
        )*
    };
}

endpoints! {
    &str,
    String,
    &String,
    ParsedAddress,
    SocketAddr,
    (IpAddr, u16),
    (&str, u16),
    (String, u16),
    TcpListener,
    #[cfg(unix)]
    &Path,
    #[cfg(unix)]
    PathBuf,
    #[cfg(unix)]
    UnixListener,
}

impl IntoEndpoint for tokio::net::TcpListener {
    fn into_endpoint(self) -> io::Result<Endpoint> {
        self.into_std().map(Into::into)
    }
}

/// Its socket file is not removed.
#[cfg(unix)]
impl IntoEndpoint for tokio::net::UnixListener {
    fn into_endpoint(self) -> io::Result<Endpoint> {
        self.into_std().map(Into::into)
    }
}
