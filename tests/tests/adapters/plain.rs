//! What the adapters with handlers of plain functions have in common: the handler, and a server on a thread of its own.

use std::io;
use std::net::TcpListener;
use std::sync::{Arc, mpsc};
use std::thread;

use anyhow::{Result, anyhow, ensure};
use spop_core::Clock;
use spop_core::agent::{Partial, Reply, Watch};
use spop_server::{
    Agent, Cancelled, ConnectionInfo, Entrance, Handler, Outcome, Request, Responder, ServerHandle, Stats,
    Swap,
};
use spop_tests::wait::PATIENCE;

use super::script::{Deed, Facts, Gate, Later, deed, watch};
use super::stage::{Plan, Running};

#[derive(Clone)]
pub(crate) struct Play {
    pub(crate) gate: Gate,
    pub(crate) generation: u64,
}

impl Handler for Play {
    fn handle(&mut self, request: Request<'_>) -> Outcome {
        let facts = Facts {
            source: request.source(),
            destination: request.destination(),
            engine: request.engine_id().map(<[u8]>::to_vec),
            certificates: request.tls().map(|tls| tls.certificates.len()),
            generation: self.generation,
        };
        match deed(request.messages(), &facts) {
            Deed::Say(reply) => reply.into(),
            Deed::Hold(key, reply) => {
                request.defer(|responder| self.gate.keep(key, Box::new(responder), reply))
            }
            Deed::Drop => request.defer(drop),
            Deed::Block(key, reply) => {
                self.gate.block(key);
                reply.into()
            }
            Deed::Panic => panic!("as you wish"),
        }
    }

    fn watch(&mut self, arriving: Partial<'_>) -> Watch {
        watch(arriving)
    }
}

impl Later for Responder {
    fn answer(self: Box<Self>, reply: Reply) {
        self.reply(reply);
    }

    fn is_cancelled(&self) -> bool {
        Self::is_cancelled(self)
    }

    fn cancelled(&self) -> Option<Cancelled> {
        Self::reason(self)
    }
}

/// A server that serves on a thread of its own.
pub(crate) struct OnThread {
    address: String,
    handle: ServerHandle,
    swap: Swap<Play>,
    gate: Gate,
    ended: mpsc::Receiver<io::Result<()>>,
}

impl OnThread {
    /// A server of one TCP listener, without TLS: what the examples of `spop-server` are.
    pub(crate) fn over_tcp(
        plan: Plan,
        serve: impl FnOnce(TcpListener, &Arc<Agent>, Option<&Arc<Entrance>>, Swap<Play>) -> io::Result<()>
        + Send
        + 'static,
    ) -> Result<Box<dyn Running>> {
        ensure!(plan.path.is_none() && plan.tls.is_none(), "it has TCP only");
        let swap = Swap::new(Play { gate: plan.gate.clone(), generation: 0 });
        let entrance = Arc::new(Entrance::new(plan.accept)?);
        let agent = Agent::new(plan.config, Clock::start())?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (address, handle, handler) = (listener.local_addr()?.to_string(), agent.handle(), swap.clone());
        let serve = move || serve(listener, &agent, Some(&entrance), handler);
        Ok(Self::start(address, handle, swap, plan.gate, serve))
    }

    pub(crate) fn start(
        address: String,
        handle: ServerHandle,
        swap: Swap<Play>,
        gate: Gate,
        serve: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Box<dyn Running> {
        let (end, ended) = mpsc::channel();
        thread::spawn(move || {
            // The test may be over.
            let _ = end.send(serve());
        });
        Box::new(Self { address, handle, swap, gate, ended })
    }
}

impl Running for OnThread {
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

    fn connections(&self) -> Vec<ConnectionInfo> {
        self.handle.connections()
    }

    fn swap(&self, generation: u64) {
        self.swap.replace(Play { gate: self.gate.clone(), generation });
    }
}

impl Drop for OnThread {
    fn drop(&mut self) {
        self.handle.stop();
        // Within a second or so; a test that waits for more says so.
        let _ = self.ended.recv_timeout(PATIENCE);
    }
}
