//! A server: listeners, and a thread for each worker.

use std::{fmt, io, num::NonZeroUsize, panic, sync::Arc, thread, time::Duration};

use mio::{Poll, Waker};
use spop_core::{
    AgentConfig, Clock,
    config::{Checked, ConfigError},
    hub::Hub,
};
use spop_server::{
    Address, Endpoint, InFlight, Level, Listening, LogLimits, Metrics, NameWarnings, Sources, Unfinished,
};

use tracing::warn;

use crate::{
    Handler,
    app::App,
    control::{Control, ServerHandle},
    listen::Bound,
    mail::Mailbox,
    pending::Pending,
    shared::Shared,
    tally::Tally,
    worker::{MAIL, Start, Worker},
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
    config: Checked<AgentConfig>,
    listeners: Vec<Listening>,
    workers: usize,
    max_connections: usize,
    sources: Sources,
    in_flight: InFlight,
    unfinished: Unfinished,
    control: Arc<Control>,
}

impl<H: Handler + Clone> Server<H> {
    /// A server that listens nowhere yet, with the default configuration. Each worker gets a clone of the handler.
    pub fn new(handler: H) -> Self {
        Self::with_checked(handler, Checked::default())
    }

    /// A server that listens nowhere yet.
    ///
    /// # Errors
    /// The configuration cannot work: of the kind [`InvalidInput`](io::ErrorKind::InvalidInput), with the
    /// [`ConfigError`](spop_core::config::ConfigError) inside, whose text names the field.
    pub fn with_config(handler: H, config: AgentConfig) -> io::Result<Self> {
        Ok(Self::with_checked(handler, config.checked()?))
    }

    fn with_checked(handler: H, config: Checked<AgentConfig>) -> Self {
        Self {
            handler,
            config,
            listeners: Vec::new(),
            workers: thread::available_parallelism().map_or(1, NonZeroUsize::get),
            max_connections: 10_000,
            sources: Sources::default(),
            in_flight: InFlight::default(),
            unfinished: Unfinished::default(),
            control: Arc::default(),
        }
    }

    /// How many threads serve, one at least. Default as many as there are processors.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// How many connections may be open; more are closed as soon as they come, and counted. Default 10000.
    pub const fn max_connections(mut self, max: usize) -> Self {
        self.max_connections = max;
        self
    }

    /// How many connections may be open from one address; more are closed as soon as they come, and counted. It is the
    /// peer's address that counts, and unix sockets have none. Default: as many as
    /// [`max_connections`](Self::max_connections).
    pub fn max_connections_per_source(mut self, max: usize) -> Self {
        self.sources.limit(max);
        self
    }

    /// How many requests may be worked on, on all connections together. One more gets at once what
    /// [`AgentConfig::on_failure`] says, and its handler is not called. Default: no limit but that of each connection.
    /// Only with a limit do the workers share a counter.
    pub fn max_in_flight(self, max: usize) -> Self {
        self.in_flight.limit(max);
        self
    }

    /// How many bytes of requests that have not arrived whole all connections together may hold: fragments, and long frames.
    /// The connection that exceeds it is disconnected with [`Status::RESOURCE`](spop_core::Status::RESOURCE). Counted in
    /// steps of 16 KiB for each connection. Default 256 MiB.
    pub fn max_unfinished_bytes(self, max: usize) -> Self {
        self.unfinished.limit(max);
        self
    }

    /// Length of the lame duck stage of a shutdown: health checks (HAProxy's `option spop-check`) and monitors are refused,
    /// everything else is served. Then the drain begins. Default zero.
    ///
    /// HAProxy takes a server out after `fall` failed checks, `inter` apart: use more than `fall` × `inter` plus one check. A
    /// plain `check` only connects and does not notice. Without this stage HAProxy 3.1 and later lose requests in a restart: a
    /// request whose connection is refused waits a second before its next attempt. Leave it at zero where another process
    /// listens on the same socket.
    pub fn lame_duck(self, time: Duration) -> Self {
        self.control.set_lame_duck(time);
        self
    }

    /// Listens there too. A socket file that nobody serves is replaced; it is removed when the server ends.
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
    /// When the system does not say.
    pub fn addresses(&self) -> io::Result<Vec<Address>> {
        self.listeners.iter().map(Listening::address).collect()
    }

    /// What ends the server from outside, and tells how it is.
    pub fn handle(&self) -> ServerHandle {
        ServerHandle { control: Arc::clone(&self.control) }
    }

    /// Serves until [`ServerHandle::drain`] or [`ServerHandle::stop`] is called and the last connection has ended. The
    /// calling thread is one of the workers.
    ///
    /// # Errors
    /// When the system cannot wait for readiness, or give more threads, or when there are no workers. Nothing that a
    /// connection does.
    pub fn serve(self) -> io::Result<()> {
        let control = Arc::clone(&self.control);
        let listeners = self.listeners.len();
        let mut workers = self.start()?.into_iter();
        if let Err(error) = spop_server::tell_ready(listeners) {
            warn!(name: "service_manager", %error, "the service manager was not told");
        }
        let run = |worker: Worker<H>| -> io::Result<()> {
            let failing = EndAll(&control);
            worker.run()?;
            std::mem::forget(failing);
            Ok(())
        };
        let run = &run;
        thread::scope(|scope| {
            let failing = EndAll(&control);
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
            std::mem::forget(failing);
            Ok(())
        })
    }

    fn start(self) -> io::Result<Vec<Worker<H>>> {
        let Self {
            handler,
            config,
            listeners,
            workers,
            max_connections,
            sources,
            in_flight,
            unfinished,
            control,
        } = self;
        if workers == 0 {
            return Err(ConfigError::new("workers", 0, "at least 1").into());
        }
        let mut polls = Vec::new();
        let mut everybody = Vec::new();
        for _ in 0..workers {
            let poll = Poll::new()?;
            let (mailbox, letters) = Mailbox::new(Waker::new(poll.registry(), MAIL)?);
            polls.push((poll, letters));
            everybody.push(Arc::new(mailbox));
        }
        control.set_workers(&everybody);
        // The first takes the listeners as they are; the others have theirs on the addresses that can have several.
        let mut shares = Vec::new();
        for _ in 1..workers {
            let siblings = listeners.iter().filter_map(|listening| listening.sibling().transpose());
            shares.push(siblings.collect::<io::Result<Vec<_>>>()?);
        }
        shares.insert(0, listeners);
        let shared = Arc::new(Shared {
            config: Arc::new(config),
            clock: Clock::start(),
            control,
            max_connections,
            sources,
            in_flight,
            unfinished,
            metrics: Metrics::new(),
            names: NameWarnings::default(),
            everybody,
        });
        let parts = polls.into_iter().zip(shares).zip(&shared.everybody).enumerate();
        parts
            .map(|(index, (((poll, letters), listeners), mailbox))| {
                let app = App {
                    handler: handler.clone(),
                    shared: Arc::clone(&shared),
                    mailbox: Arc::clone(mailbox),
                    tally: Tally::default(),
                    hub: Hub::default(),
                    pending: Pending::default(),
                    logs: LogLimits::default(),
                    superseded: Vec::new(),
                    joined: false,
                };
                let listeners = listeners.into_iter().map(Bound::from).collect();
                Worker::new(Start { shared: Arc::clone(&shared), index, app, poll, letters, listeners })
            })
            .collect()
    }
}

impl<H> fmt::Debug for Server<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("listeners", &self.listeners)
            .field("workers", &self.workers)
            .field("max_connections", &self.max_connections)
            .finish_non_exhaustive()
    }
}

/// Ends the whole server when it is dropped: on the way of an error or a panic.
struct EndAll<'a>(&'a Control);

impl Drop for EndAll<'_> {
    fn drop(&mut self) {
        self.0.raise(Level::Stop);
    }
}
