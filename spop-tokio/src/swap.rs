//! A handler that is replaced while it is in use.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use spop_core::agent::Partial;

use crate::{Handler, Request, Watch};

/// A handler that can be replaced at run time, without a lock for requests and without waiting for those in progress: they
/// end with the handler that they began with. Clones are the same handler.
///
/// ```
/// use spop_tokio::{Actions, Handler, Request, Scope, Server, Swap};
///
/// struct Score(i32);
///
/// impl Handler for Score {
///     type Output = Actions;
///
///     async fn handle(&self, _: Request) -> Actions {
///         Actions::new().set(Scope::Session, "score", self.0)
///     }
/// }
///
/// let current = Swap::new(Score(50));
/// let server = Server::new(current.clone());
/// // Later, anywhere:
/// current.replace(Score(60));
/// # drop(server);
/// ```
///
/// A request costs one more reference count than without it.
pub struct Swap<H>(Arc<ArcSwap<H>>);

impl<H> Swap<H> {
    /// A handler to begin with.
    pub fn new(handler: H) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(handler)))
    }

    /// Uses this handler for further requests. The one before is dropped when the last of its requests has ended.
    pub fn replace(&self, handler: H) {
        self.0.store(Arc::new(handler));
    }

    /// The current handler.
    pub fn current(&self) -> Arc<H> {
        self.0.load_full()
    }
}

impl<H> Clone for Swap<H> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<H> fmt::Debug for Swap<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Swap").finish_non_exhaustive()
    }
}

impl<H: Handler> Handler for Swap<H> {
    type Output = H::Output;

    async fn handle(&self, request: Request) -> H::Output {
        let handler = self.current();
        handler.handle(request).await
    }

    fn watch(&self, arriving: Partial<'_>) -> Watch {
        self.0.load().watch(arriving)
    }
}
