//! A connection in memory, and the agent's end of it as a stream.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use spop_core::{
    Clock, EngineConfig, Step, Timestamp,
    config::Checked,
    testing::{
        Conditions, Inbox,
        engine_side::EngineSide,
        wire::{Arrival, Wire},
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use crate::transport;

/// A connection in memory.
#[derive(Clone, Debug)]
pub(super) struct Link {
    state: Arc<Mutex<State>>,
    clock: Clock,
}

#[derive(Debug)]
pub(super) struct State {
    /// HAProxy's side, with the bytes to the agent.
    pub(super) engine: EngineSide,
    /// The bytes of the agent.
    pub(super) out: Wire,
    /// What a read of the agent returned, and its buffer did not hold.
    inbox: Inbox,
    agent: Wakers,
    /// Of HAProxy's side.
    pub(super) waker: Option<Waker>,
}

#[derive(Debug, Default)]
struct Wakers {
    reads: Option<Waker>,
    writes: Option<Waker>,
}

impl State {
    pub(super) fn is_lost(&mut self) -> bool {
        self.engine.out().is_lost() || self.out.is_lost()
    }

    /// The agent has read all.
    pub(super) fn is_read(&mut self) -> bool {
        self.inbox.is_empty() && self.engine.out().next_arrival().is_none()
    }

    /// Wakes the agent.
    pub(super) fn wake_agent(&mut self) {
        let Wakers { reads, writes } = &mut self.agent;
        reads.take().into_iter().chain(writes.take()).for_each(Waker::wake);
    }

    fn wake_engine(&mut self) {
        self.waker.take().into_iter().for_each(Waker::wake);
    }
}

impl Link {
    pub(super) fn new(engine: Checked<EngineConfig>, conditions: Conditions) -> Self {
        let state = State {
            engine: EngineSide::new(engine, conditions.clone()),
            out: Wire::new(conditions, 1),
            inbox: Inbox::new(),
            agent: Wakers::default(),
            waker: None,
        };
        Self { state: Arc::new(Mutex::new(state)), clock: transport::clock() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Timestamp {
        transport::now(&self.clock)
    }

    pub(super) fn instant(&self, at: Timestamp) -> Option<Instant> {
        self.clock.instant(at).map(Instant::from_std)
    }

    /// The agent's end.
    pub(super) fn stream(&self) -> Stream {
        Stream { link: self.clone(), arrival: None }
    }
}

/// The agent's end of a connection.
#[derive(Debug)]
pub(super) struct Stream {
    link: Link,
    /// When the next bytes arrive.
    arrival: Option<Pin<Box<Sleep>>>,
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        space: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { link, arrival } = self.get_mut();
        loop {
            let now = link.now();
            let mut state = link.lock();
            if state.is_lost() {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            let State { engine, inbox, agent, .. } = &mut *state;
            if inbox.is_empty() && engine.out().receive(now, inbox) == Arrival::Nothing {
                agent.reads = Some(cx.waker().clone());
                let next = engine.out().next_arrival();
                drop(state);
                let Some(at) = next.and_then(|at| link.instant(at)) else { return Poll::Pending };
                let sleep = arrival.insert(Box::pin(sleep_until(at)));
                if sleep.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                continue;
            }
            let len = inbox.len().min(space.remaining());
            inbox.feed(|input| {
                space.put_slice(input.get(..len).unwrap_or_default());
                Step { consumed: len, action: () }
            });
            // Its buffer has space.
            state.wake_engine();
            return Poll::Ready(Ok(()));
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let now = self.link.now();
        let mut state = self.link.lock();
        if state.is_lost() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let sent = state.out.send(now, bytes);
        state.wake_engine();
        if sent == 0 && !bytes.is_empty() {
            state.agent.writes = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(sent))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let now = self.link.now();
        let mut state = self.link.lock();
        state.out.shut(now);
        state.wake_engine();
        Poll::Ready(Ok(()))
    }
}

/// It is closed: HAProxy reads the end.
impl Drop for Stream {
    fn drop(&mut self) {
        let now = self.link.now();
        let mut state = self.link.lock();
        state.out.shut(now);
        state.wake_engine();
    }
}
