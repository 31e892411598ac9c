//! What can be seen of the connections that are open.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU8, AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use bytes::Bytes;
use spop_core::{AgentReactor, link::Phase};
use spop_server::ConnectionInfo;

use crate::Peer;

/// What a connection shows of itself: a few numbers that it writes when it comes to rest, and that nobody else touches.
#[derive(Debug)]
pub(crate) struct Live {
    peer: Peer,
    since: Instant,
    engine: OnceLock<Option<Bytes>>,
    phase: AtomicU8,
    in_flight: AtomicUsize,
    outgoing: AtomicUsize,
}

impl Live {
    pub(crate) fn new(peer: Peer) -> Self {
        let (engine, phase) = (OnceLock::new(), AtomicU8::new(0));
        let (in_flight, outgoing) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { peer, since: Instant::now(), engine, phase, in_flight, outgoing }
    }

    #[inline]
    pub(crate) fn update(&self, reactor: &AgentReactor) {
        self.phase.store(reactor.phase() as u8, Relaxed);
        self.in_flight.store(reactor.in_flight(), Relaxed);
        self.outgoing.store(reactor.outgoing_bytes(), Relaxed);
        if self.engine.get().is_none()
            && let Some(session) = reactor.session()
        {
            // Only this connection sets it.
            let _ = self.engine.set(session.engine_id.clone());
        }
    }

    pub(crate) fn show(&self, id: u64) -> Option<ConnectionInfo> {
        let phase = self.phase.load(Relaxed);
        let phases = [Phase::Connected, Phase::Greeted, Phase::Established, Phase::Closing];
        Some(ConnectionInfo {
            id,
            peer: self.peer.clone(),
            engine_id: self.engine.get().cloned().flatten(),
            phase: phases.into_iter().find(|known| *known as u8 == phase)?,
            in_flight: self.in_flight.load(Relaxed),
            outgoing: self.outgoing.load(Relaxed),
            age: self.since.elapsed(),
        })
    }
}
