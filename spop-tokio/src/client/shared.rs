//! The pool, its callers and its timer.

use std::{
    cell::Cell,
    collections::HashMap,
    future::poll_fn,
    hash::{BuildHasherDefault, Hasher},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;
use spop_core::{
    Clock, CloseReason, ConnectionId, MessageList, Timestamp,
    accept::OpenConfig,
    config::Checked,
    engine::{
        EngineError,
        pool::{AgentFailure, AskError, Pool, PoolAction, PoolConfig, RequestId},
    },
    excerpt::Shortened,
    frame::Ids,
};
use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
    task::AbortHandle,
};
use tracing::{debug, warn};

use super::{Answer, EngineStats, Target, connection};
#[cfg(feature = "tls")]
use crate::tls::ClientTls;
use crate::{alarm::Alarm, log::Limit, transport};

type Outcome = Result<Answer, EngineError>;

/// What the callers, the connections and the timer of an engine share.
pub(super) struct Shared {
    state: Mutex<State>,
    pub(super) clock: Clock,
    pub(super) open: Checked<OpenConfig>,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<ClientTls>,
    agents: Vec<Target>,
    runtime: Handle,
    /// The task of the timer, to be woken when a deadline is earlier than those before.
    timer: AtomicWaker,
    ended: watch::Sender<bool>,
    unreachable: Limit,
    backoff: Limit,
}

/// What an engine is made of.
pub(super) struct Parts {
    pub(super) pool: Checked<PoolConfig>,
    pub(super) open: Checked<OpenConfig>,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<ClientTls>,
    pub(super) agents: Vec<Target>,
}

struct State {
    pool: Pool,
    waiters: Numbered<RequestId, oneshot::Sender<Outcome>>,
    connections: Numbered<ConnectionId, Task>,
    timer: Option<AbortHandle>,
    /// When the timer goes off, as far as it was told.
    alarm: Option<Timestamp>,
    stopped: bool,
    /// Those that only grow.
    counts: EngineStats,
}

/// Entries by a number that the pool gives. No peer chooses it, so a multiplication is hash enough.
type Numbered<K, V> = HashMap<K, V, BuildHasherDefault<ByNumber>>;

#[derive(Default)]
struct ByNumber(u64);

impl Hasher for ByNumber {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0 ^ u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// What to do once the lock is released: a woken thread would wait for it, and so would all while a line of the log is written.
enum Later {
    Wake(Arc<AtomicWaker>),
    Settle(oneshot::Sender<Outcome>, Outcome),
    Log(Line),
}

/// A line of the log about an agent.
enum Line {
    Backoff(usize, AgentFailure),
    Health(usize, bool),
}

thread_local! {
    /// The memory for what follows an event.
    static LATER: Cell<Vec<Later>> = const { Cell::new(Vec::new()) };
}

/// The task of a connection.
struct Task {
    waker: Arc<AtomicWaker>,
    handle: AbortHandle,
}

impl Shared {
    pub(super) fn new(parts: Parts, runtime: Handle) -> Self {
        let clock = transport::clock();
        let state = State {
            pool: Pool::new(parts.pool, transport::now(&clock)),
            waiters: Numbered::default(),
            connections: Numbered::default(),
            timer: None,
            alarm: None,
            stopped: false,
            counts: EngineStats::default(),
        };
        Self {
            state: Mutex::new(state),
            clock,
            open: parts.open,
            #[cfg(feature = "tls")]
            tls: parts.tls,
            agents: parts.agents,
            runtime,
            timer: AtomicWaker::new(),
            ended: watch::Sender::new(false),
            unreachable: Limit::default(),
            backoff: Limit::default(),
        }
    }

    pub(super) fn started(&self, timer: AbortHandle) {
        self.lock().timer = Some(timer);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the pool.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Pool) -> T) -> T {
        look(&self.lock().pool)
    }

    /// Tells the pool something, and has done what follows.
    pub(super) fn tell<T>(self: &Arc<Self>, tell: impl FnOnce(&mut Pool, Timestamp) -> T) -> T {
        self.tell_at(transport::now(&self.clock), tell)
    }

    /// As [`tell`](Self::tell), at a time that the caller has read.
    pub(super) fn tell_at<T>(
        self: &Arc<Self>,
        now: Timestamp,
        tell: impl FnOnce(&mut Pool, Timestamp) -> T,
    ) -> T {
        self.tell_state(|state| tell(&mut state.pool, now))
    }

    fn tell_state<T>(self: &Arc<Self>, tell: impl FnOnce(&mut State) -> T) -> T {
        let mut later = LATER.take();
        let mut state = self.lock();
        let told = tell(&mut state);
        while let Some(action) = state.pool.next_action() {
            self.carry_out(&mut state, action, &mut later);
        }
        let deadline = state.pool.deadline();
        let earlier = deadline.is_some_and(|at| state.alarm.is_none_or(|alarm| at < alarm));
        let wakes_timer = earlier || state.is_over();
        if wakes_timer {
            state.alarm = deadline;
        }
        drop(state);
        if wakes_timer {
            self.timer.wake();
        }
        let mut to_log = Vec::new();
        for later in later.drain(..) {
            match later {
                Later::Wake(waker) => waker.wake(),
                // A caller that has gone since is about to withdraw.
                Later::Settle(caller, outcome) => drop(caller.send(outcome)),
                Later::Log(line) => to_log.push(line),
            }
        }
        LATER.set(later);
        for line in to_log {
            match line {
                Line::Backoff(agent, failure) => self.log_backoff(agent, &failure),
                Line::Health(agent, up) => self.log_health(agent, up),
            }
        }
        told
    }

    fn carry_out(self: &Arc<Self>, state: &mut State, action: PoolAction, later: &mut Vec<Later>) {
        match action {
            PoolAction::Open { connection, agent } => self.open(state, connection, agent),
            PoolAction::Answered { request, payload, times } => {
                state.counts.answered += 1;
                let took = times.processing.unwrap_or_default();
                later.extend(state.settle(request, Ok(Answer { payload, took })));
            }
            PoolAction::Failed { request, error, .. } => {
                state.counts.failed.count(error);
                later.extend(state.settle(request, Err(error)));
            }
            PoolAction::Drive(connection) => {
                if let Some(task) = state.connections.get(&connection) {
                    later.push(Later::Wake(Arc::clone(&task.waker)));
                }
            }
            PoolAction::Backoff { agent, failure } => later.push(Later::Log(Line::Backoff(agent, failure))),
            PoolAction::Health { agent, up } => later.push(Later::Log(Line::Health(agent, up))),
            _ => {}
        }
    }

    /// Has a connection opened, by a task of its own.
    fn open(self: &Arc<Self>, state: &mut State, id: ConnectionId, agent: usize) {
        let Some(target) = self.agents.get(agent).filter(|_| !state.stopped).cloned() else { return };
        let waker = Arc::new(AtomicWaker::new());
        let task = self.runtime.spawn(connection::run(Arc::clone(self), id, target, Arc::clone(&waker)));
        state.connections.insert(id, Task { waker, handle: task.abort_handle() });
    }

    /// A connection was opened.
    pub(super) fn connected(&self) {
        self.lock().counts.connects += 1;
    }

    /// A connection that was opened has ended.
    pub(super) fn disconnected(&self) {
        self.lock().counts.disconnects += 1;
    }

    /// A connection is no more, and so is its task.
    pub(super) fn closed(self: &Arc<Self>, id: ConnectionId) {
        let now = transport::now(&self.clock);
        self.tell_state(|state| {
            state.connections.remove(&id);
            state.pool.on_closed(now, id);
        });
    }

    /// An agent cannot be reached.
    pub(super) fn unreachable(&self, target: &Target, error: &std::io::Error) {
        self.lock().counts.failed_connects += 1;
        if let Some(suppressed) = self.unreachable.pass() {
            warn!(name: "agent_unreachable", %target, error = %Shortened(error), suppressed, "agent unreachable");
        }
    }

    /// An agent is left alone for a while. One that cannot be reached is in the log already.
    fn log_backoff(&self, agent: usize, failure: &AgentFailure) {
        if failure.reason == CloseReason::Transport && failure.error == EngineError::Timeout {
            return;
        }
        if let Some(suppressed) = self.backoff.pass() {
            let target = self.agents.get(agent).map(tracing::field::display);
            let (reason, attempts) = (&failure.reason, failure.attempts);
            let retry_in = failure.retry_at.since(transport::now(&self.clock));
            warn!(
                name: "agent_answers_nothing", agent, target, %reason, attempts, ?retry_in, suppressed,
                "agent ends its connections before it has answered a request"
            );
        }
    }

    fn log_health(&self, agent: usize, up: bool) {
        let target = self.agents.get(agent).map(tracing::field::display);
        if up {
            debug!(name: "agent_up", agent, target, "agent is up");
        } else {
            warn!(name: "agent_down", agent, target, "agent is down");
        }
    }

    pub(super) async fn ask(self: &Arc<Self>, ids: Option<Ids>, messages: &MessageList) -> Outcome {
        let now = transport::now(&self.clock);
        let asked = self.tell_state(|state| {
            state.counts.asked += 1;
            let request = state.pool.ask(now, ids, messages)?;
            let (sender, receiver) = oneshot::channel();
            state.waiters.insert(request, sender);
            Ok((request, receiver))
        });
        let (request, answer) = asked.map_err(|error| {
            let error = match error {
                AskError::QueueFull | AskError::TooManyErrors | AskError::NoAgent => EngineError::Resources,
                _ => EngineError::Interrupted,
            };
            self.lock().counts.failed.count(error);
            error
        })?;
        let withdraw = Withdraw { shared: self, request };
        let outcome = answer.await;
        // The request has ended: there is nothing to withdraw, and no lock to take.
        mem::forget(withdraw);
        outcome.unwrap_or(Err(EngineError::Interrupted))
    }

    pub(super) fn drain(self: &Arc<Self>) {
        self.tell(Pool::drain);
    }

    /// Ends everything where it stands.
    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        state.pool.drain(transport::now(&self.clock));
        state.counts.failed.interrupted += state.waiters.len() as u64;
        state.waiters.clear();
        let tasks = state.connections.drain().map(|(_, task)| task.handle);
        let tasks: Vec<_> = tasks.collect();
        for task in tasks.into_iter().chain(state.timer.take()) {
            task.abort();
        }
        self.ended.send_replace(true);
    }

    /// Waits for the end.
    pub(super) async fn ended(&self) {
        // The sender is here.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    pub(super) fn is_up(&self, agent: usize) -> bool {
        self.look(|pool| pool.is_up(agent))
    }

    pub(super) fn failure(&self, agent: usize) -> Option<AgentFailure> {
        self.look(|pool| pool.failure(agent).cloned())
    }

    pub(super) fn stats(&self) -> EngineStats {
        let state = self.lock();
        EngineStats {
            connections: state.pool.connections(),
            idle: state.pool.idles(),
            queued: state.pool.queued(),
            waiting: state.pool.waiting(),
            ..state.counts
        }
    }
}

impl State {
    fn settle(&mut self, request: RequestId, outcome: Outcome) -> Option<Later> {
        self.waiters.remove(&request).map(|caller| Later::Settle(caller, outcome))
    }

    /// Whether nothing more will happen.
    fn is_over(&self) -> bool {
        self.stopped
            || self.pool.is_draining()
                && self.pool.connections() == 0
                && self.pool.queued() == 0
                && self.pool.waiting() == 0
    }
}

/// Gives a request up, unless it has ended.
struct Withdraw<'a> {
    shared: &'a Arc<Shared>,
    request: RequestId,
}

impl Drop for Withdraw<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let waits = state.waiters.remove(&self.request).is_some();
        state.counts.withdrawn += u64::from(waits);
        drop(state);
        if waits {
            self.shared.tell(|pool, now| pool.withdraw(now, self.request));
        }
    }
}

/// The timer of an engine, until its end.
pub(super) async fn timer(shared: Arc<Shared>) {
    let mut alarm = Alarm::default();
    poll_fn(|cx| poll_timer(&shared, &mut alarm, cx)).await;
    shared.ended.send_replace(true);
}

fn poll_timer(shared: &Arc<Shared>, alarm: &mut Alarm, cx: &mut Context<'_>) -> Poll<()> {
    shared.timer.register(cx.waker());
    loop {
        {
            let mut state = shared.lock();
            if state.is_over() {
                return Poll::Ready(());
            }
            state.alarm = state.pool.deadline();
            alarm.set(&shared.clock, state.alarm);
        }
        if !alarm.went_off(cx) {
            return Poll::Pending;
        }
        shared.tell(Pool::on_timeout);
    }
}
