//! Servers of the example `io-uring` of `spop-server`: one ring, on one thread.

use anyhow::Result;

use super::plain::OnThread;
use super::stage::{Adapter, Over, Plan, Running};

#[allow(unsafe_code)] // Of the ring.
#[path = "../../../spop-server/examples/io-uring/driver.rs"]
mod uring;

pub(crate) struct OnUring;

impl Adapter for OnUring {
    fn over(&self) -> &'static [Over] {
        &[Over::Tcp]
    }

    fn start(&self, plan: Plan) -> Result<Box<dyn Running>> {
        OnThread::over_tcp(plan, |listener, agent, entrance, mut handler| {
            uring::serve(listener, agent, entrance, &mut handler)
        })
    }
}
