//! Tests of handlers, without a socket. Feature `testing`.
//!
//! - [`call`] runs a handler or a router with a request made by hand ([`TestRequest`]).
//! - [`Pair`] connects a handler with HAProxy's side of the protocol, in memory: with its timeouts, any latency, and any cuts.
//! - [`replay`] runs a transcript of what HAProxy and the agent exchange, with every way to cut it.
//!
//! With a paused clock (`#[tokio::test(start_paused = true)]`; the feature enables `test-util` of tokio) time is virtual: a test
//! that waits for a timeout takes no time.
//!
//! The front page of the crate has a test with `call`. The same handler through the protocol, with a timeout, and with each frame
//! cut in three:
//!
//! ```
//! use std::{error::Error, time::Duration};
//! use spop_tokio::{Actions, AgentConfig, EngineConfig, Request, testing::{Cuts, Pair}};
//! use tokio::time::{Instant, sleep};
//!
//! async fn waits_for_its_upstream(_: Request) -> Actions {
//!     sleep(Duration::from_secs(5)).await;
//!     Actions::new()
//! }
//!
//! // #[tokio::test(start_paused = true)]
//! async fn a_slow_upstream_costs_haproxy_80_ms() -> Result<(), Box<dyn Error>> {
//!     let mut config = AgentConfig::default();
//!     config.timeouts.message = Some(Duration::from_millis(80));
//!     // Reads return 5 bytes, then 20, then the rest.
//!     let cuts = Cuts::Lengths(vec![5, 20, usize::MAX]);
//!     let mut pair = Pair::new(EngineConfig::haproxy_3_2(), config, waits_for_its_upstream).with_cuts(cuts);
//!
//!     let asked = Instant::now();
//!     let outcome = pair.ask(&"check-ip ip=ipv4:203.0.113.7".parse()?).await?;
//!     assert_eq!(outcome.failure(), Some("timed_out: no answer in time"));
//!     assert_eq!(asked.elapsed(), Duration::from_millis(80));
//!     Ok(())
//! }
//! # let mut runtime = tokio::runtime::Builder::new_current_thread();
//! # let runtime = runtime.enable_all().start_paused(true).build()?;
//! # runtime.block_on(a_slow_upstream_costs_haproxy_80_ms())?;
//! # Ok::<(), Box<dyn Error>>(())
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
