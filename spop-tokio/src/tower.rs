//! Handlers from services of tower.

use std::{fmt, future::poll_fn};

use tower_service::Service;

use crate::{Handler, Reply, Request};

/// A handler from a [`tower_service::Service`] of [`Request`]s: with it, tower's layers wrap handlers (timeouts, limits,
/// load shedding). Each request gets a clone of the service, waits until that is ready, and calls it.
///
/// ```
/// # use std::{convert::Infallible, future::Ready, task::{Context, Poll}};
/// use spop_tokio::{Actions, Request, Server, TowerHandler};
///
/// #[derive(Clone)]
/// struct Nothing;
///
/// impl tower_service::Service<Request> for Nothing {
///     type Response = Actions;
///     type Error = Infallible;
///     type Future = Ready<Result<Actions, Infallible>>;
///
///     fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
///         Poll::Ready(Ok(()))
///     }
///
///     fn call(&mut self, _: Request) -> Self::Future {
///         std::future::ready(Ok(Actions::new()))
///     }
/// }
///
/// let server = Server::new(TowerHandler::new(Nothing));
/// # drop(server);
/// ```
#[derive(Clone, Debug)]
pub struct TowerHandler<S>(S);

impl<S> TowerHandler<S> {
    /// A handler that calls clones of this service.
    pub const fn new(service: S) -> Self {
        Self(service)
    }
}

impl<S> Handler for TowerHandler<S>
where
    S: Service<Request, Response: Into<Reply>, Error: fmt::Display, Future: Send>,
    S: Clone + Send + Sync + 'static,
{
    type Answer = Reply;

    async fn handle(&self, request: Request) -> Reply {
        let mut service = self.0.clone();
        if let Err(error) = poll_fn(|cx| service.poll_ready(cx)).await {
            return Reply::Fail(error.to_string());
        }
        service.call(request).await.map_err(|error| error.to_string()).into()
    }
}
