//! Servers of `spop-mio`.

use std::sync::mpsc;
use std::thread;

use anyhow::{Context as _, Result, anyhow, ensure};
use spop_mio::{
    Endpoint, Handler, Outcome, Partial, Reply, Request, Responder, Server, ServerHandle, Stats, Watch,
};
use spop_tests::wait::PATIENCE;

use super::script::{Deed, Facts, Gate, Later, deed, watch};
use super::stage::{Adapter, Over, Plan, Running};

pub(crate) struct OnMio;

#[derive(Clone)]
struct Play {
    gate: Gate,
    generation: u64,
}

impl Handler for Play {
    fn handle(&mut self, request: Request<'_>) -> Outcome {
        let facts = Facts {
            engine: request.engine_id().map(<[u8]>::to_vec),
            generation: self.generation,
            ..Facts::default()
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
}

struct OfMio {
    address: String,
    handle: ServerHandle,
    ended: mpsc::Receiver<std::io::Result<()>>,
}

impl Adapter for OnMio {
    fn kinds(&self) -> &'static [Over] {
        &[Over::Tcp, Over::Unix]
    }

    fn start(&self, plan: Plan) -> Result<Box<dyn Running>> {
        ensure!(plan.accept.steps().is_empty() && plan.tls.is_none(), "not yet");
        let play = Play { gate: plan.gate, generation: 0 };
        let endpoint = match plan.path {
            Some(path) => Endpoint::from(path),
            None => Endpoint::from("127.0.0.1:0"),
        };
        let mut server = Server::with_config(play, plan.config).workers(2);
        if let Some(max) = plan.max_connections {
            server = server.max_connections(max);
        }
        let server = server.bind(endpoint)?;
        let address = server.addresses()?.first().context("no address")?.to_string();
        let handle = server.handle();
        let (end, ended) = mpsc::channel();
        thread::spawn(move || {
            // The test may be over.
            let _ = end.send(server.serve());
        });
        Ok(Box::new(OfMio { address, handle, ended }))
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

    fn swap(&self, _generation: u64) {
        panic!("not yet");
    }
}

impl Drop for OfMio {
    fn drop(&mut self) {
        self.handle.stop();
        // Within a second or so; a test that waits for more says so.
        let _ = self.ended.recv_timeout(PATIENCE);
    }
}
