//! A server: listeners, and a thread for each worker.

use std::{fmt, io, num::NonZeroUsize, panic, sync::Arc, thread};

use mio::{Poll, Waker};
use spop_core::{Clock, config::ConfigError};
use spop_server::{Address, Agent, Endpoint, Listening, ServerConfig, ServerHandle};

use crate::{
    Handler,
    messages::{MessageQueue, Workers},
    worker::{MESSAGES, Worker},
};

/// An agent on any number of sockets.
///
/// ```no_run
/// use spop_mio::{Actions, Request, Scope, Server};
///
/// # fn main() -> std::io::Result<()> {
/// let server = Server::new(|request: Request<'_>| {
///     let mut actions = Actions::new();
///     actions.set_var(Scope::Transaction, "messages", request.messages().len() as u64);
///     actions
/// });
/// server.workers(4).bind("127.0.0.1:12345")?.bind("/run/agent.sock")?.serve()
/// # }
/// ```
#[must_use = "a server does nothing before `serve`"]
pub struct Server<H> {
    handler: H,
    agent: Arc<Agent>,
    listeners: Vec<Listening>,
    workers: usize,
}

impl<H: Handler + Clone + Send + 'static> Server<H> {
    /// A server that listens nowhere yet, with the default configuration. Each worker gets a clone of the handler.
    pub fn new(handler: H) -> Self {
        Self::with_agent(handler, Agent::with_defaults(Clock::start()))
    }

    /// A server that listens nowhere yet. An [`AgentConfig`](spop_core::AgentConfig) is a configuration as well, with the
    /// default limits over all connections.
    ///
    /// # Errors
    /// The configuration cannot work: of the kind [`InvalidInput`](io::ErrorKind::InvalidInput), with the
    /// [`ConfigError`] inside, whose text names the field.
    pub fn with_config(handler: H, config: impl Into<ServerConfig>) -> io::Result<Self> {
        Ok(Self::with_agent(handler, Agent::new(config, Clock::start())?))
    }

    fn with_agent(handler: H, agent: Arc<Agent>) -> Self {
        let workers = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self { handler, agent, listeners: Vec::new(), workers }
    }

    /// How many threads serve, at least one. Default: as many as there are processors.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Listens on an endpoint. A socket file that no process serves is replaced; it is removed when the server ends.
    ///
    /// # Errors
    /// Says where it cannot listen, and why.
    pub fn bind(mut self, endpoint: impl Into<Endpoint>) -> io::Result<Self> {
        self.listeners.push(endpoint.into().listen(true)?);
        Ok(self)
    }

    /// Where the server listens, in the order of [`bind`](Self::bind).
    ///
    /// # Errors
    /// Of the system.
    pub fn addresses(&self) -> io::Result<Vec<Address>> {
        self.listeners.iter().map(Listening::address).collect()
    }

    /// Ends the server from outside, and returns its counters.
    pub fn handle(&self) -> ServerHandle {
        self.agent.handle()
    }

    /// Serves until [`ServerHandle::drain`] or [`ServerHandle::stop`] is called and the last connection has ended, and what goes on in
    /// the [background](spop_server::Background), if that takes no longer than the drain may. The calling thread is one of the
    /// workers.
    ///
    /// # Errors
    /// The system cannot report readiness or start threads, or `workers` is zero. Connections cause none.
    pub fn serve(self) -> io::Result<()> {
        let agent = Arc::clone(&self.agent);
        let entrances: Vec<_> = self.listeners.iter().map(|one| Arc::clone(&one.entrance)).collect();
        let mut workers = self.start()?.into_iter();
        agent.ready(&entrances);
        let run = |worker: Worker<H>| -> io::Result<()> {
            let stop = StopOnDrop(&agent);
            worker.run()?;
            std::mem::forget(stop);
            Ok(())
        };
        let run = &run;
        thread::scope(|scope| {
            let stop = StopOnDrop(&agent);
            let first = workers.next();
            let mut threads = Vec::new();
            for (number, worker) in workers.enumerate() {
                let builder = thread::Builder::new().name(format!("spop-{}", number + 1));
                threads.push(builder.spawn_scoped(scope, move || run(worker))?);
            }
            first.map_or(Ok(()), run)?;
            for thread in threads {
                thread.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked))?;
            }
            std::mem::forget(stop);
            agent.wait_until_ended();
            agent.ended(agent.clock().now());
            Ok(())
        })
    }

    fn start(self) -> io::Result<Vec<Worker<H>>> {
        let Self { handler, agent, listeners, workers: count } = self;
        if count == 0 {
            return Err(ConfigError::new("workers", 0, "at least 1").into());
        }
        let (mut loops, mut queues) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let poll = Poll::new()?;
            let (queue, messages) = MessageQueue::new(Waker::new(poll.registry(), MESSAGES)?);
            queues.push(Arc::clone(&queue));
            loops.push((poll, queue, messages));
        }
        // The first worker gets the listeners as they are. The others get listeners on the same addresses, where the system
        // spreads connections over them.
        let mut shares = Vec::new();
        for _ in 1..count {
            let siblings = listeners.iter().filter_map(|listening| listening.sibling().transpose());
            shares.push(siblings.collect::<io::Result<Vec<_>>>()?);
        }
        shares.insert(0, listeners);
        let workers = Arc::new(Workers::new(queues));
        let parts = loops.into_iter().zip(shares).enumerate();
        let worker =
            |(index, (own, share))| Worker::new(&agent, &workers, index, handler.clone(), own, share);
        parts.map(worker).collect()
    }
}

impl<H> fmt::Debug for Server<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("agent", &self.agent)
            .field("listeners", &self.listeners)
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}

/// Stops the whole server when it is dropped: after an error or a panic of a worker.
struct StopOnDrop<'a>(&'a Arc<Agent>);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.handle().stop();
    }
}
