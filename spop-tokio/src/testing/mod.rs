//! Tests of handlers, without a socket. Feature `testing`.
//!
//! - [`call`] runs a handler or a router with a request made by hand ([`TestRequest`]).
//! - [`Pair`] connects a handler with HAProxy's side of the protocol, in memory: with its timeouts, any latency, and any cuts.
//! - [`replay`] runs a transcript of what HAProxy and the agent exchange, with every way to cut it.
//!
//! With a paused clock (`#[tokio::test(start_paused = true)]`; the feature enables `test-util` of tokio) time is virtual: a test
//! that waits for a timeout takes no time.
//!
//! A handler with a mocked upstream, alone, and the same through the protocol, with a timeout and each frame cut in three:
//!
//! ```
//! use std::{io, net::IpAddr, time::Duration};
//! use spop_tokio::{Actions, BoxError, Request, Route, Router, Scope};
//!
//! /// What the handler asks: a client of a service in the agent, a mock in tests.
//! trait Upstream: Send + Sync + 'static {
//!     fn score(&self, ip: IpAddr) -> impl Future<Output = io::Result<u32>> + Send;
//! }
//!
//! async fn reputation<U: Upstream>(upstream: &U, request: Request) -> Result<Actions, BoxError> {
//!     let score = upstream.score(request.arg("ip")?).await?;
//!     Ok(Actions::new().set(Scope::Session, "ip_score", score))
//! }
//!
//! fn router<U: Upstream>(upstream: U) -> Router<U> {
//!     let route = Route::new(reputation::<U>).timeout(Duration::from_millis(80));
//!     Router::with_state(upstream).route("check-ip", route)
//! }
//!
//! use spop_tokio::{AgentConfig, EngineConfig, FailureKind};
//! use spop_tokio::testing::{self, Cuts, Pair, TestRequest};
//! use tokio::time::{Instant, sleep};
//!
//! /// Answers after this time.
//! struct Mock(Duration);
//!
//! impl Upstream for Mock {
//!     async fn score(&self, _: IpAddr) -> io::Result<u32> {
//!         sleep(self.0).await;
//!         Ok(99)
//!     }
//! }
//!
//! const QUESTION: &str = "check-ip ip=ipv4:203.0.113.7";
//!
//! // #[tokio::test(start_paused = true)]
//! async fn an_address_has_the_score_of_the_upstream() {
//!     let router = router(Mock(Duration::from_millis(20)));
//!     let outcome = testing::call(&router, TestRequest::new(QUESTION)).await;
//!     assert_eq!(outcome.sentence(), "set sess ip_score=uint32:99");
//! }
//!
//! // #[tokio::test(start_paused = true)]
//! async fn a_slow_upstream_costs_haproxy_80_ms() -> Result<(), BoxError> {
//!     // Reads return 5 bytes, then 20, then the rest.
//!     let cuts = Cuts::Lengths(vec![5, 20, usize::MAX]);
//!     let router = router(Mock(Duration::from_secs(5)));
//!     let mut pair = Pair::new(EngineConfig::haproxy_3_2(), AgentConfig::default(), router).with_cuts(cuts);
//!
//!     let asked = Instant::now();
//!     let outcome = pair.ask(&QUESTION.parse()?).await?;
//!     assert_eq!(asked.elapsed(), Duration::from_millis(80));
//!     assert_eq!(outcome.failure_kind(), Some(FailureKind::TimedOut));
//!     assert_eq!(outcome.failure(), Some(r#"timed_out: message "check-ip": no answer within 80ms"#));
//!     Ok(())
//! }
//! # let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
//! # runtime()?.block_on(an_address_has_the_score_of_the_upstream());
//! # runtime()?.block_on(a_slow_upstream_costs_haproxy_80_ms())?;
//! # Ok::<(), BoxError>(())
//! ```
//!
//! In a router the text of a failure begins with its kind and the name of the message. If HAProxy drops a variable for its name,
//! [`Outcome::sentence`] says so, and the test fails.
//!
//! Messages are written in the [notation](spop_core::notation), or built, with headers as `req.hdrs_bin` fetches them:
//!
//! ```
//! use spop_tokio::{MessageList, testing::TestRequest};
//!
//! let mut messages = MessageList::new();
//! messages.message("check-request").arg("method", "GET").headers("hdrs", [("host", "example.org")])?;
//! let request = TestRequest::of(&messages); // or `pair.ask(&messages)`
//! # let _ = request;
//! # Ok::<(), spop_tokio::HeaderError>(())
//! ```

mod call;
mod link;
mod pair;
mod replay;

pub use call::call;
pub use pair::Pair;
pub use replay::replay;
pub use spop_core::{
    haproxy::{Sample, VarRules},
    testing::{Conditions, Cuts, Outcome, ReplayError},
};
pub use spop_server::testing::{Canceller, LIMIT, TestRequest};
