//! Handlers from services of tower.

use std::{
    future::poll_fn,
    task::{Poll, ready},
};

use futures_util::{FutureExt as _, TryFutureExt as _};
use spop_core::agent::BoxError;
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
    S: Service<Request, Response: Into<Reply>, Error: Into<BoxError>, Future: Send>,
    S: Clone + Send + Sync + 'static,
{
    type Output = Reply;

    /// Not an async function: it would have to be `Send` for services of requests of any lifetime.
    fn handle(&self, request: Request) -> impl Future<Output = Reply> + Send {
        let (mut service, mut request) = (self.0.clone(), Some(request));
        let call = poll_fn(move |cx| {
            ready!(service.poll_ready(cx))?;
            // A future that was ready is not polled again.
            request.take().map_or(Poll::Pending, |request| Poll::Ready(Ok(service.call(request))))
        });
        call.try_flatten().map(|answer: Result<_, S::Error>| answer.into())
    }
}
