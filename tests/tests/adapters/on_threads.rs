//! Servers of the example `thread-per-connection` of `spop-server`: blocking sockets, a thread for each connection.

use std::net::TcpListener;
use std::sync::mpsc;
use std::thread;

use anyhow::{Result, anyhow, ensure};
use spop_core::Clock;
use spop_server::{Agent, Entrance, ServerHandle, Stats, Swap};
use spop_tests::wait::PATIENCE;

use super::on_mio::Play;
use super::script::Gate;
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
        let (end, ended) = mpsc::channel();
        thread::spawn(move || {
            // The test may be over.
            let _ = end.send(threads::serve(listener, &agent, entrance.as_ref(), &handler));
        });
        Ok(Box::new(OfThreads { address, handle, swap, gate: plan.gate, ended }))
    }
}

struct OfThreads {
    address: String,
    handle: ServerHandle,
    swap: Swap<Play>,
    gate: Gate,
    ended: mpsc::Receiver<std::io::Result<()>>,
}

impl Running for OfThreads {
    fn address(&self) -> String {
        self.address.clone()
    }

    fn drain(&self) {
        self.handle.drain();
    }

    fn stop(&self) {
        self.handle.stop();
    }

    fn wait(&mut self) -> Result<()> {
        let ended = self.ended.recv_timeout(PATIENCE);
        Ok(ended.map_err(|error| anyhow!("the server does not end: {error}"))??)
    }

    fn stats(&self) -> Stats {
        self.handle.stats()
    }

    fn swap(&self, generation: u64) {
        self.swap.replace(Play { gate: self.gate.clone(), generation });
    }
}

impl Drop for OfThreads {
    fn drop(&mut self) {
        self.handle.stop();
    }
}
