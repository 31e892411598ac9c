//! Servers of `spop-mio`.

use anyhow::{Context as _, Result};
use spop_mio::{Endpoint, Server, Swap};

use super::plain::{OnThread, Play};
use super::stage::{Adapter, Plan, Running};

pub(crate) struct OnMio;

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
        Ok(OnThread::start(address, handle, swap, gate, move || server.serve()))
    }
}
