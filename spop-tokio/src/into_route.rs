//! Functions as routes: with state, with what they take from the request, async or not.

use std::marker::PhantomData;

use spop_core::agent::{BoxError, Partial, Watch};

use crate::{
    FromRequest, Handler, Reply, Request, Route,
    route::Target,
    slot::{BoxedSlot, FutureSlot, ReplySlot},
};

/// What becomes a [`Route`] of a router with state `S`.
///
/// - A [`Handler`], such as an async function of the [`Request`], or another router.
/// - A function of, in this order and each optional: the state `&S`, up to four values that are [`FromRequest`], the [`Request`].
///   It is async, or returns its reply at once and must not wait.
///
/// ```
/// use spop_tokio::{accept::Peer, Request, Router, Scope};
///
/// struct Networks(Vec<String>);
///
/// async fn known(networks: &Networks, peer: Peer) -> (Scope, &'static str, bool) {
///     let peer = peer.to_string();
///     (Scope::Session, "known", networks.0.iter().any(|network| peer.starts_with(network)))
/// }
///
/// fn count(networks: &Networks, request: Request) -> (Scope, &'static str, usize) {
///     (Scope::Session, "count", networks.0.len() + request.messages().len())
/// }
///
/// let networks = Networks(vec!["192.0.2.".to_owned()]);
/// let router = Router::with_state(networks).on("known", known).on("count", count);
/// # let _ = router;
/// ```
///
/// An argument that is not taken from a request, and a state of another type, do not compile:
///
/// ```compile_fail
/// async fn check(request: spop_tokio::Request, peer: spop_tokio::Peer) {}
/// spop_tokio::Router::new().on("check", check);
/// ```
///
/// ```compile_fail
/// async fn check(state: &String) {}
/// spop_tokio::Router::with_state(7).on("check", check);
/// ```
///
/// `M` tells the forms apart; the compiler finds it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler of a route with state `{S}`",
    label = "not a handler of this router",
    note = "a handler is a function or closure of, in this order and each optional: the state `&{S}`, up to four values that are `FromRequest`, the `Request`",
    note = "it is async, with a future that is `Send`, or not, and returns `()`, `(Scope, name, value)`, `Actions`, `Reply`, or a `Result` of these with any error",
    note = "a `Handler` is one too; add a `Route` with `Router::route`"
)]
pub trait IntoRoute<S, M>: Sized {
    /// Makes it a route.
    fn into_route(self) -> Route<S>;
}

/// The form of a [`Handler`].
#[derive(Debug)]
pub struct ViaHandler(());

/// The form of a function.
#[derive(Debug)]
pub struct ViaFunction<M>(PhantomData<M>);

impl<S, H: Handler> IntoRoute<S, ViaHandler> for H {
    fn into_route(self) -> Route<S> {
        Route::boxed(self)
    }
}

impl<S, H: Handler> Target<S> for H {
    fn slot<'a>(&'a self, _: &'a S) -> BoxedSlot<'a> {
        FutureSlot::new(|request| Ok(self.handle(request)))
    }

    fn watch(&self, arriving: Partial<'_>) -> Watch {
        Handler::watch(self, arriving)
    }
}

impl<S: Sync + 'static, M: 'static, F: for<'a> Function<'a, S, M>> IntoRoute<S, ViaFunction<M>> for F {
    fn into_route(self) -> Route<S> {
        Route::boxed(FunctionTarget { function: self, form: PhantomData })
    }
}

struct FunctionTarget<F, M> {
    function: F,
    form: PhantomData<fn() -> M>,
}

impl<S: Sync + 'static, M: 'static, F: for<'a> Function<'a, S, M>> Target<S> for FunctionTarget<F, M> {
    fn slot<'a>(&'a self, state: &'a S) -> BoxedSlot<'a> {
        self.function.slot(state)
    }
}

/// A function of state and request.
pub trait Function<'a, S, M>: Send + Sync + 'static {
    /// Memory for its calls.
    fn slot(&'a self, state: &'a S) -> BoxedSlot<'a>;
}

/// What a function returns: a future of a reply, or a reply.
pub trait IntoCall<'a, M>: Sized {
    /// Memory for the calls of this function.
    fn slot(make: impl Fn(Request) -> Result<Self, BoxError> + Send + 'a) -> BoxedSlot<'a>;
}

/// A future of a reply.
#[derive(Debug)]
pub struct Later(());

/// A reply.
#[derive(Debug)]
pub struct Now(());

impl<'a, F: Future<Output: Into<Reply>> + Send + 'a> IntoCall<'a, Later> for F {
    fn slot(make: impl Fn(Request) -> Result<Self, BoxError> + Send + 'a) -> BoxedSlot<'a> {
        FutureSlot::new(make)
    }
}

impl<'a, R: Into<Reply>> IntoCall<'a, Now> for R {
    fn slot(make: impl Fn(Request) -> Result<Self, BoxError> + Send + 'a) -> BoxedSlot<'a> {
        Box::new(ReplySlot(make))
    }
}

/// One that is async is a [`Handler`].
impl<'a, S, F, R> Function<'a, S, (Now, Request)> for F
where
    F: Fn(Request) -> R + Send + Sync + 'static,
    R: IntoCall<'a, Now>,
{
    fn slot(&'a self, _: &'a S) -> BoxedSlot<'a> {
        R::slot(move |request| Ok(self(request)))
    }
}

macro_rules! functions {
    ([$($argument:ident)*] [$($state:ident: $state_type:ty)?] [$($request:ident: $request_type:ty)?] $form:ty) => {
        impl<'a, S, F, R, O $(, $argument)*> Function<'a, S, (O, $form, ($($argument,)*))> for F
        where
            S: Sync,
            F: Fn($($state_type,)? $($argument,)* $($request_type)?) -> R + Send + Sync + 'static,
            R: IntoCall<'a, O>,
            $($argument: FromRequest,)*
        {
            #[allow(non_snake_case, unused_variables)] // Values are named as their types; some forms do without one.
            fn slot(&'a self, the_state: &'a S) -> BoxedSlot<'a> {
                R::slot(move |the_request: Request| {
                    $(let $argument = $argument::from_request(&the_request)?;)*
                    $(let $state = the_state;)?
                    $(let $request = the_request;)?
                    Ok(self($($state,)? $($argument,)* $($request)?))
                })
            }
        }
    };
    ($([$($argument:ident)*])*) => {$(
        functions! { [$($argument)*] [state: &'a S] [] (&'static S,) }
        functions! { [$($argument)*] [state: &'a S] [request: Request] (&'static S, Request) }
    )*};
}

functions! { [] [A] [A B] [A B C] [A B C D] }
functions! { [] [] [] () }
functions! { [A] [] [] () }
functions! { [A B] [] [] () }
functions! { [A B C] [] [] () }
functions! { [A B C D] [] [] () }
functions! { [A] [] [request: Request] (Request,) }
functions! { [A B] [] [request: Request] (Request,) }
functions! { [A B C] [] [request: Request] (Request,) }
functions! { [A B C D] [] [request: Request] (Request,) }
