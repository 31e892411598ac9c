//! Servers of the example `io-uring` of `spop-server`: one ring, on one thread.

use std::net::TcpListener;

use anyhow::{Result, ensure};
use spop_core::Clock;
use spop_server::{Agent, Entrance, Swap};

use super::plain::{OnThread, Play};
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
        ensure!(plan.path.is_none() && plan.tls.is_none(), "it has TCP only");
        let swap = Swap::new(Play { gate: plan.gate.clone(), generation: 0 });
        let entrance = Entrance::new(plan.accept)?;
        let agent = Agent::new(plan.config, Clock::start())?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (address, handle) = (listener.local_addr()?.to_string(), agent.handle());
        let mut handler = swap.clone();
        let serve = move || uring::serve(listener, &agent, entrance.as_ref(), &mut handler);
        Ok(OnThread::start(address, handle, swap, plan.gate, serve))
    }
}
