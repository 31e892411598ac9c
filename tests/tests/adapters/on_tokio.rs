//! Servers of `spop-tokio`.

use std::time::Duration;

use anyhow::{Context as _, Result};
use spop_tests::wait::PATIENCE;
use spop_tokio::{
    Cancellation, Cancelled, ConnectionInfo, Endpoint, Handler, Partial, Reply, Request, Responder, Server,
    ServerHandle, Stats, Swap, Watch,
};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::script::{Deed, Facts, Gate, Later, deed, watch};
use super::stage::{Adapter, Plan, Running};

pub(crate) struct OnTokio;

struct Play {
    gate: Gate,
    generation: u64,
}

impl Handler for Play {
    type Output = Reply;

    async fn handle(&self, request: Request) -> Reply {
        let facts = Facts {
            source: request.source(),
            destination: request.destination(),
            engine: request.engine_id().map(<[u8]>::to_vec),
            certificates: request.tls().map(|tls| tls.certificates.len()),
            generation: self.generation,
        };
        match deed(request.messages(), &facts) {
            Deed::Say(reply) => reply,
            Deed::Hold(key, reply) => {
                let (responder, response) = Responder::new();
                let waits = Waits { responder, cancellation: request.cancellation() };
                self.gate.keep(key, Box::new(waits), reply);
                response.await
            }
            Deed::Drop => {
                let (responder, response) = Responder::new();
                drop(responder);
                response.await
            }
            Deed::Block(key, reply) => {
                self.gate.block(key);
                reply
            }
            Deed::Panic => panic!("as you wish"),
        }
    }

    fn watch(&self, arriving: Partial<'_>) -> Watch {
        watch(arriving)
    }
}

/// A handler that waits for its answer, which ends with its future, and what it would have been told.
struct Waits {
    responder: Responder,
    cancellation: Cancellation,
}

impl Later for Waits {
    fn answer(self: Box<Self>, reply: Reply) {
        self.responder.reply(reply);
    }

    fn is_cancelled(&self) -> bool {
        self.responder.is_cancelled()
    }

    fn cancelled(&self) -> Option<Cancelled> {
        self.cancellation.reason()
    }
}

struct OfTokio {
    runtime: Option<Runtime>,
    address: String,
    handle: ServerHandle,
    swap: Swap<Play>,
    gate: Gate,
    task: Option<JoinHandle<std::io::Result<()>>>,
}

impl Adapter for OnTokio {
    fn start(&self, plan: Plan) -> Result<Box<dyn Running>> {
        let runtime =
            Builder::new_multi_thread().worker_threads(plan.workers.unwrap_or(2)).enable_all().build()?;
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
        let server = Server::with_config(swap.clone(), plan.config)?;
        let server = runtime.block_on(server.bind(endpoint))?;
        let address = server.addresses()?.first().context("no address")?.to_string();
        let handle = server.handle();
        let task = Some(runtime.spawn(server.serve()));
        Ok(Box::new(OfTokio { runtime: Some(runtime), address, handle, swap, gate, task }))
    }
}

impl Running for OfTokio {
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
        let (task, runtime) = (self.task.take().context("it has ended")?, self.runtime.as_ref());
        let ended = async { timeout(PATIENCE, task).await };
        Ok(runtime.context("no runtime")?.block_on(ended).context("the server does not end")???)
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

impl Drop for OfTokio {
    fn drop(&mut self) {
        self.handle.stop();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}
