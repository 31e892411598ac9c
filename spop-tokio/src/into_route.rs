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
/// # Functions that do not compile
///
/// When a function is not accepted, the cause is one of these:
///
/// - Its arguments have another order, are more than four between the state and the request, or have one that is not
///   [`FromRequest`]: a state of another type than the router's, for example, or a `&Request`.
/// - Its result is not [`Into<Reply>`], or the error in it does not convert into a [`BoxError`].
/// - Its future is not `Send`: it holds an `Rc`, or the guard of a `std` mutex, across an `await`.
///
/// If the arguments are right, a function with these bounds makes the compiler say which of the other two it is, and name the value that is
/// not `Send`:
///
/// ```
/// use spop_tokio::{Actions, ArgError, Reply, Request};
///
/// # struct Rules;
/// async fn check(rules: &Rules, request: Request) -> Result<Actions, ArgError> {
///     // ...
/// #   Ok(Actions::new())
/// }
///
/// async fn _why(rules: &Rules, request: Request) -> Reply {
///     fn is_send<F: Future + Send>(future: F) -> F {
///         future
///     }
///     is_send(check(rules, request)).await.into()
/// }
/// ```
///
/// # Closures
///
/// - With `?`, the type of the error must be given where the closure ends: `Ok::<_, BoxError>(…)`. Without it "type annotations" are
///   needed.
/// - An async closure must not capture anything: "async closure does not implement `Fn`". Its future borrows from the closure then,
///   which the trait `Fn` has no form for. A closure with an `async move` block may capture what it clones into the block, but the block
///   cannot borrow the state: "lifetime may not live long enough". Put what is captured into the state, or share the state by an
///   `Arc`, and clone that into the block:
///
/// ```
/// use std::sync::Arc;
/// use spop_tokio::{Actions, BoxError, Request, Router, Scope};
///
/// struct Rules(Vec<String>);
///
/// async fn inspect(rules: &Rules, limit: usize, request: Request) -> Result<Actions, BoxError> {
///     let path: &[u8] = request.arg("path")?;
///     Ok(Actions::new().set(Scope::Transaction, "blocked", path.len() > limit * rules.0.len()))
/// }
///
/// let mut router = Router::with_state(Arc::new(Rules(vec![])));
/// for (message, limit) in [("waf-strict", 3), ("waf-lenient", 8)] {
///     router = router.on(message, move |rules: &Arc<Rules>, request: Request| {
///         let rules = Arc::clone(rules);
///         async move { inspect(&rules, limit, request).await }
///     });
/// }
/// # let _ = router;
/// ```
///
/// `M` tells the forms apart; the compiler finds it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a handler of a route with state `{S}`",
    label = "not a handler of this router",
    note = "its arguments must be, in this order and each optional: the state `&{S}`, up to four values that are `FromRequest`, the `Request`",
    note = "its result must be `()`, `(Scope, name, value)`, `Actions`, `Reply`, or a `Result` of these with any error (in a closure with `?`: `Ok::<_, BoxError>(...)`)",
    note = "if it is async, its future must be `Send`: without an `Rc` or the guard of a `std` mutex across an `await`",
    note = "the documentation of `IntoRoute` shows how to find out which; add a `Route` with `Router::route`"
)]
pub trait IntoRoute<S, M>: Sized {
    /// Makes it a route.
    fn into_route(self) -> Route<S>;
}

/// Of the form `Request`: a handler.
impl<S, H: Handler> IntoRoute<S, Request> for H {
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

/// Of a form `fn(…)`: a function.
impl<S: Sync + 'static, M: 'static, F: for<'a> Function<'a, S, M>> IntoRoute<S, fn(M)> for F {
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
pub struct Async(());

/// A reply.
#[derive(Debug)]
pub struct NotAsync(());

impl<'a, F: Future<Output: Into<Reply>> + Send + 'a> IntoCall<'a, Async> for F {
    fn slot(make: impl Fn(Request) -> Result<Self, BoxError> + Send + 'a) -> BoxedSlot<'a> {
        FutureSlot::new(make)
    }
}

impl<'a, R: Into<Reply>> IntoCall<'a, NotAsync> for R {
    fn slot(make: impl Fn(Request) -> Result<Self, BoxError> + Send + 'a) -> BoxedSlot<'a> {
        Box::new(ReplySlot(make))
    }
}

/// One that is async is a [`Handler`].
impl<'a, S, F, R> Function<'a, S, (NotAsync, Request)> for F
where
    F: Fn(Request) -> R + Send + Sync + 'static,
    R: IntoCall<'a, NotAsync>,
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
