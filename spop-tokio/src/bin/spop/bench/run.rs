//! One run: threads with connections, which are opened here, also those that are opened again.

use std::{
    io,
    sync::{
        Arc, Barrier, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use mio::{Poll, Waker};
use spop_core::{Clock, EngineConfig, Timestamp};
use tokio::{
    sync::mpsc::{UnboundedSender, unbounded_channel},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    cpu,
    live::Live,
    shared::{Event, Opened, Progress, Shared},
    stats::Stats,
    supply::Load,
    template::Template,
    worker::{WAKER, Worker},
};
use crate::{
    address::{Bare, Connector},
    exit::{Failure, Interrupt},
    haproxy::Version,
};

/// How long there may be no session before the agent is given up.
const GIVE_UP: Duration = Duration::from_secs(3);

/// The pause before a connection is opened again, where the last one was of no use.
const PAUSE: Duration = Duration::from_millis(100);

/// Connections that are opened at a time.
const OPENING: usize = 64;

/// How often the counts of the threads are collected.
const TICK: Duration = Duration::from_millis(200);

/// What is done to an agent.
pub(super) struct Settings {
    pub(super) version: Version,
    pub(super) max_frame_size: u32,
    pub(super) connections: usize,
    pub(super) in_flight: usize,
    pub(super) threads: usize,
    pub(super) load: Load,
    pub(super) timeout: Duration,
    pub(super) seed: u64,
    pub(super) templates: Vec<Template>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    Done,
    Interrupted,
    /// The agent has gone.
    Gone(String),
}

/// What a run has measured.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) end: End,
    pub(super) stats: Stats,
    /// From the beginning to the last answer, or to the end if there is none.
    pub(super) elapsed: Duration,
    /// The processor time of the agent.
    pub(super) agent_cpu: Option<Duration>,
    /// That of this process.
    pub(super) own_cpu: Option<Duration>,
}

/// Measures an agent once.
pub(super) async fn run(
    connector: &Connector,
    pid: Option<u32>,
    settings: &Settings,
    interrupt: &mut Interrupt,
    live: &mut Live,
) -> Result<Outcome, Failure> {
    let opening = open_all(connector, settings.connections);
    let bares = tokio::select! {
        bares = opening => bares?,
        () = interrupt.pressed() => return Err(Failure::interrupted()),
    };
    let mut run = Run::start(connector, settings, bares)?;
    let end = run.watch(pid, interrupt, live).await?;
    run.finish(end, pid)
}

async fn open_all(connector: &Connector, count: usize) -> Result<Vec<Bare>, Failure> {
    stream::iter(0..count).map(|_| connector.open_bare()).buffer_unordered(OPENING).try_collect().await
}

struct Run {
    connector: Connector,
    shared: Arc<Shared>,
    threads: Vec<Thread>,
    events: tokio::sync::mpsc::UnboundedReceiver<Event>,
    /// Connections that are being opened again.
    opening: JoinSet<()>,
    /// Why the last one could not be opened.
    problem: Arc<Mutex<Option<String>>>,
    stats: Stats,
    last: Option<Timestamp>,
    /// When the threads have last reported.
    until: Option<Timestamp>,
    begun: Option<(Option<Duration>, Option<Duration>)>,
    down: Option<Instant>,
}

struct Thread {
    handle: JoinHandle<io::Result<()>>,
    waker: Arc<Waker>,
    opened: mpsc::Sender<Opened>,
    progress: Arc<Mutex<Progress>>,
}

impl Run {
    fn start(connector: &Connector, settings: &Settings, bares: Vec<Bare>) -> Result<Self, Failure> {
        let threads = settings.threads;
        let shared = Arc::new(Shared {
            clock: Clock::start(),
            templates: settings.templates.clone(),
            load: settings.load,
            in_flight: settings.in_flight,
            timeout: settings.timeout,
            seed: settings.seed,
            threads,
            connections: bares.len(),
            stop: AtomicBool::new(false),
            open: AtomicUsize::new(0),
            barrier: Barrier::new(threads),
            begin: OnceLock::new(),
        });
        let (sender, events) = unbounded_channel();
        let mut parts: Vec<Vec<Bare>> = (0..threads).map(|_| Vec::new()).collect();
        for (index, bare) in bares.into_iter().enumerate() {
            if let Some(part) = parts.get_mut(index % threads) {
                part.push(bare);
            }
        }
        let common = settings.config();
        let workers = parts.into_iter().enumerate().map(|(index, bares)| {
            // HAProxy up to 3.0 has an engine-id for each of its threads.
            let config = if settings.version.is_old() { settings.config() } else { common.clone() };
            Thread::prepare(&shared, index, config, bares, &sender)
        });
        let workers: Vec<_> = workers.collect::<Result<_, _>>()?;
        let mut threads = Vec::new();
        for (worker, waker, opened, progress) in workers {
            let spawned = thread::Builder::new().name("spop-bench".into()).spawn(|| worker.run());
            // The threads that run already wait for this one, and end with the process.
            let handle = spawned.map_err(|error| Failure::io_of("a thread", &error))?;
            threads.push(Thread { handle, waker, opened, progress });
        }
        Ok(Self {
            connector: connector.clone(),
            shared,
            threads,
            events,
            opening: JoinSet::new(),
            problem: Arc::default(),
            stats: Stats::new(),
            last: None,
            until: None,
            begun: None,
            down: None,
        })
    }

    /// Serves the threads until they have ended.
    async fn watch(
        &mut self,
        pid: Option<u32>,
        interrupt: &mut Interrupt,
        live: &mut Live,
    ) -> Result<End, Failure> {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut end = End::Done;
        loop {
            tokio::select! {
                event = self.events.recv() => match event {
                    None => return Ok(end),
                    Some(Event::Begun) => {
                        self.begun = Some((pid.map(cpu::of).transpose()?, cpu::own()));
                    }
                    Some(Event::Open { thread, slot, pause }) => self.open(thread, slot, pause),
                },
                _ = self.opening.join_next(), if !self.opening.is_empty() => {}
                () = interrupt.pressed(), if end == End::Done => {
                    end = End::Interrupted;
                    self.stop();
                }
                _ = tick.tick() => {
                    let part = self.collect();
                    let begin = self.shared.begin.get();
                    let elapsed = begin.zip(self.until).map(|(begin, until)| until.since(*begin));
                    let open = self.shared.open.load(Ordering::Relaxed);
                    live.show(&self.stats, &part, elapsed.unwrap_or_default(), open);
                    if end == End::Done && let Some(problem) = self.gone() {
                        end = End::Gone(problem);
                        self.stop();
                    }
                }
            }
        }
    }

    /// Why the agent is given up.
    fn gone(&mut self) -> Option<String> {
        if self.shared.open.load(Ordering::Relaxed) > 0 || self.shared.begin.get().is_none() {
            self.down = None;
            return None;
        }
        if self.down.get_or_insert_with(Instant::now).elapsed() < GIVE_UP {
            return None;
        }
        let problem = self.problem.lock().unwrap_or_else(PoisonError::into_inner).take();
        let reasons = self.stats.ends.iter().max_by_key(|(_, count)| **count);
        let reason =
            problem.or_else(|| reasons.map(|(reason, _)| format!("{}: {reason}", self.connector.address())));
        Some(reason.unwrap_or_else(|| format!("{}: it accepts no session", self.connector.address())))
    }

    fn stop(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in &self.threads {
            // It looks at the time itself as well.
            let _ = thread.waker.wake();
        }
    }

    /// Opens a connection for a thread, again and again if need be.
    fn open(&mut self, thread: usize, slot: usize, pause: bool) {
        let Some(thread) = self.threads.get(thread) else { return };
        let (connector, problem) = (self.connector.clone(), Arc::clone(&self.problem));
        let (opened, waker) = (thread.opened.clone(), Arc::clone(&thread.waker));
        self.opening.spawn(async move {
            if pause {
                sleep(PAUSE).await;
            }
            loop {
                match connector.open_bare().await {
                    Ok(bare) => {
                        // A thread that has ended needs none.
                        let _ = opened.send(Opened { slot, bare }).map(|()| waker.wake());
                        return;
                    }
                    Err(failure) => {
                        *problem.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure.to_string());
                    }
                }
                sleep(PAUSE).await;
            }
        });
    }

    /// What the threads have counted since the last call.
    fn collect(&mut self) -> Stats {
        let mut part = Stats::new();
        for thread in &self.threads {
            let mut progress = thread.progress.lock().unwrap_or_else(PoisonError::into_inner);
            part.take(&mut progress.stats);
            self.last = self.last.max(progress.last);
            self.until = self.until.max(progress.until);
        }
        self.stats.add(&part);
        part
    }

    fn finish(mut self, end: End, pid: Option<u32>) -> Result<Outcome, Failure> {
        let now = self.shared.clock.now();
        // An agent that is gone has no processor time any more.
        let (agent, own) = self.begun.unwrap_or_default();
        let agent_cpu = match (agent, pid) {
            (Some(before), Some(pid)) => cpu::of(pid).ok().map(|after| after.saturating_sub(before)),
            _ => None,
        };
        let own_cpu = own.zip(cpu::own()).map(|(before, after)| after.saturating_sub(before));
        self.collect();
        for thread in self.threads {
            let result = thread.handle.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")));
            result.map_err(|error| Failure::io_of("the event loop", &error))?;
        }
        let begin = self.shared.begin.get().copied().unwrap_or(now);
        let elapsed = self.last.unwrap_or(now).since(begin);
        Ok(Outcome { end, stats: self.stats, elapsed, agent_cpu, own_cpu })
    }
}

type Prepared = (Worker, Arc<Waker>, mpsc::Sender<Opened>, Arc<Mutex<Progress>>);

impl Thread {
    fn prepare(
        shared: &Arc<Shared>,
        index: usize,
        config: EngineConfig,
        bares: Vec<Bare>,
        events: &UnboundedSender<Event>,
    ) -> Result<Prepared, Failure> {
        let config = Arc::new(config.checked().map_err(Failure::usage)?);
        let (opened, receiver) = mpsc::channel();
        let progress = Arc::new(Mutex::new(Progress { stats: Stats::new(), last: None, until: None }));
        let prepare = || {
            let poll = Poll::new()?;
            let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
            let (shared, progress) = (Arc::clone(shared), Arc::clone(&progress));
            let worker = Worker::new(shared, index, config, poll, bares, receiver, events.clone(), progress)?;
            Ok((worker, waker))
        };
        let (worker, waker) =
            prepare().map_err(|error: io::Error| Failure::io_of("the event loop", &error))?;
        Ok((worker, waker, opened, progress))
    }
}

impl Settings {
    /// The configuration of an engine, with an engine-id of its own.
    pub(super) fn config(&self) -> EngineConfig {
        let mut config = self.version.config();
        // More than HAProxy has in flight: how it stalls on a full receive buffer says nothing then.
        if self.in_flight > config.max_waiting_frames {
            config.profile.stalls_at = None;
        }
        config.max_waiting_frames = config.max_waiting_frames.max(self.in_flight);
        config.max_frame_size = self.max_frame_size;
        config.timeouts.hello = Some(self.timeout);
        config.timeouts.message = Some(self.timeout);
        config
    }
}
