//! Servers of `spop-mio`.

use std::sync::mpsc;
use std::thread;

use anyhow::{Context as _, Result, anyhow};
use spop_mio::{
    Cancelled, Endpoint, Handler, Outcome, Partial, Reply, Request, Responder, Server, ServerHandle, Stats,
    Swap, Watch,
};
use spop_tests::wait::PATIENCE;

use super::script::{Deed, Facts, Gate, Later, deed, watch};
use super::stage::{Adapter, Plan, Running};

pub(crate) struct OnMio;

/// The handler, for each adapter that calls plain functions.
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
        Self::cancelled(self)
    }
}

struct OfMio {
    address: String,
    handle: ServerHandle,
    swap: Swap<Play>,
    gate: Gate,
    ended: mpsc::Receiver<std::io::Result<()>>,
}

impl Adapter for OnMio {
    fn start(&self, plan: Plan) -> Result<Box<dyn Running>> {
        let Plan { gate, .. } = plan;
        let swap = Swap::new(Play { gate: gate.clone(), generation: 0 });
        let mut endpoint = match plan.path {
            Some(path) => Endpoint::from(path),
            None => Endpoint::from("127.0.0.1:0"),
        };
        endpoint = endpoint.accept(plan.accept);
        if let Some(tls) = &plan.tls {
            endpoint = endpoint.tls(tls);
        }
        let server = Server::with_config(swap.clone(), plan.config)?.workers(plan.workers.unwrap_or(2));
        let server = server.bind(endpoint)?;
        let address = server.addresses()?.first().context("no address")?.to_string();
        let handle = server.handle();
        let (end, ended) = mpsc::channel();
        thread::spawn(move || {
            // The test may be over.
            let _ = end.send(server.serve());
        });
        Ok(Box::new(OfMio { address, handle, swap, gate, ended }))
    }
}

impl Running for OfMio {
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

impl Drop for OfMio {
    fn drop(&mut self) {
        self.handle.stop();
        // Within a second or so; a test that waits for more says so.
        let _ = self.ended.recv_timeout(PATIENCE);
    }
}
