//! Servers of the example `thread-per-connection` of `spop-server`: blocking sockets, a thread for each connection.

use anyhow::Result;

use super::plain::OnThread;
use super::stage::{Adapter, Over, Plan, Running};

#[allow(dead_code)] // Its `main`.
#[path = "../../../spop-server/examples/thread-per-connection.rs"]
mod threads;

pub(crate) struct OnThreads;

impl Adapter for OnThreads {
    fn over(&self) -> &'static [Over] {
        &[Over::Tcp]
    }

    fn shares_threads(&self) -> bool {
        false
    }

    fn start(&self, plan: Plan) -> Result<Box<dyn Running>> {
        OnThread::over_tcp(plan, |listener, agent, entrance, handler| {
            threads::serve(listener, agent, entrance, &handler)
        })
    }
}
