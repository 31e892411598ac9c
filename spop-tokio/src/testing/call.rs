//! Calls of handlers without a connection.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::Poll,
};

use futures_util::future::{Either, select};
use spop_server::{
    Failure,
    testing::{LIMIT, Outcome, Pending},
};
use tokio::time::{Instant, sleep_until};

use crate::{Handler, Reply, Request};

/// Calls a handler or a router, and awaits its answer, until the request's [deadline](super::TestRequest::deadline) or for
/// [`LIMIT`], by the clock of tokio. The handler's future is dropped then, and when the request is
/// [cancelled](super::TestRequest::cancellable). What HAProxy gets of a failure is an answer without actions;
/// [`Outcome::failure`] says why, as `KIND: ERROR`, with the kinds of [`FailureKind`](spop_server::FailureKind).
///
/// ```
/// use std::time::Duration;
/// use spop_tokio::{Actions, Request, Router, testing::{self, TestRequest}};
/// use tokio::time::{Instant, sleep};
///
/// async fn slow(_: Request) -> Actions {
///     sleep(Duration::from_secs(5)).await;
///     Actions::new()
/// }
///
/// async fn panics(_: Request) -> Actions {
///     panic!("no luck")
/// }
///
/// // #[tokio::test(start_paused = true)]
/// async fn failures_have_names() {
///     let router = Router::new().on("slow", slow).on("panics", panics);
///     let request = TestRequest::new("slow").deadline(Instant::now() + Duration::from_millis(80));
///     let outcome = testing::call(&router, request).await;
///     assert_eq!(outcome.failure(), Some("timed_out: no answer before the deadline"));
///
///     let outcome = testing::call(&router, TestRequest::new("panics")).await;
///     assert_eq!(outcome.failure(), Some("handler_panicked: message \"panics\": no luck"));
/// }
/// # let mut runtime = tokio::runtime::Builder::new_current_thread();
/// # runtime.enable_all().start_paused(true).build().unwrap().block_on(failures_have_names());
/// ```
///
/// No limit of a server applies: an answer that is too long for HAProxy, for example, shows with a [`Pair`](super::Pair).
pub async fn call<H: Handler>(handler: &H, request: impl Into<Request>) -> Outcome {
    let request = request.into();
    let pending = Pending::new(&request);
    let deadline = request.deadline().map(Instant::from_std);
    let answer = {
        let mut reply = pin!(async { Into::<Reply>::into(handler.handle(request).await) });
        let answer = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| reply.as_mut().poll(cx))) {
            Ok(poll) => poll,
            Err(panic) => Poll::Ready(Reply::Fail(Failure::panicked(panic.as_ref()))),
        });
        let end = async {
            let until = sleep_until(deadline.unwrap_or_else(|| Instant::now() + LIMIT));
            match select(pin!(pending.cancellation.cancelled()), pin!(until)).await {
                Either::Left((why, _)) => Some(why),
                Either::Right(_) => None,
            }
        };
        match select(pin!(answer), pin!(end)).await {
            Either::Left((answer, _)) => Ok(answer),
            Either::Right((end, _)) => Err(end),
        }
    };
    match answer {
        Ok(answer) => pending.answered(answer),
        Err(Some(why)) => pending.cancelled(why),
        Err(None) => pending.timed_out(deadline.is_some()),
    }
}
