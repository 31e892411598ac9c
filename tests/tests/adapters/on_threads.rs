//! Servers of the example `thread-per-connection` of `spop-server`: blocking sockets, a thread for each connection.

use std::net::TcpListener;

use anyhow::{Result, ensure};
use spop_core::Clock;
use spop_server::{Agent, Entrance, Swap};

use super::plain::{OnThread, Play};
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
        ensure!(plan.path.is_none() && plan.tls.is_none(), "it has TCP only");
        let swap = Swap::new(Play { gate: plan.gate.clone(), generation: 0 });
        let entrance = Entrance::new(plan.accept)?;
        let agent = Agent::new(plan.config, Clock::start())?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (address, handle, handler) = (listener.local_addr()?.to_string(), agent.handle(), swap.clone());
        let serve = move || threads::serve(listener, &agent, entrance.as_ref(), &handler);
        Ok(OnThread::start(address, handle, swap, plan.gate, serve))
    }
}
