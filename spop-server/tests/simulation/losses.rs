//! What is lost with a connection, and what siblings can still answer.

use std::time::Duration;

use spop_core::{
    CloseReason, Status,
    link::{Phase, Timer},
};
use spop_server::Stage;

use crate::{
    hostile::HOSTILE,
    world::{WireId, World},
};

impl World {
    /// Sessions that agents have ended: what was lost with them.
    pub fn see_ends(&mut self) {
        let dropped = self.nodes.values_mut().flat_map(|node| {
            let id = node.id;
            std::mem::take(&mut node.dropped).into_iter().map(move |conn| (id, conn))
        });
        for id in dropped.collect::<Vec<_>>() {
            self.drop_now(id);
        }
        let mut lost = Vec::new();
        for node in self.nodes.values_mut() {
            for conn in node.app.disconnects.drain(..) {
                lost.push(((node.id, conn), true));
            }
            for (id, link) in &mut node.conns {
                let Some(closed) = link.driver.protocol().closed().filter(|_| !link.ended) else { continue };
                link.ended = true;
                tell!("{} agent {} ends {id:?}: {closed}", self.now, node.id);
                let by_handler = closed.reason == CloseReason::Disconnect(Status(42));
                assert!(
                    !by_handler || node.app.disconnected.contains(id),
                    "{id:?} was disconnected for another"
                );
                let jumped = self.now.since(self.jumped) < Duration::from_secs(1);
                // After a jump only what has arrived whole is in time.
                let wire = self.wires.get(&(node.id, *id));
                let wire = wire.filter(|it| !it.faulty && !it.partitioned && (it.is_wide || !jumped));
                let in_time = closed.reason != CloseReason::Timeout(Timer::Hello);
                assert!(in_time || wire.is_none() || link.engine == HOSTILE, "{id:?} sent its HELLO in time");
                let by_time = match closed.reason {
                    CloseReason::Timeout(Timer::Drain) => true,
                    CloseReason::Timeout(_) => jumped,
                    _ => false,
                };
                // After a refusal HAProxy sends no more on a connection; this engine does.
                let by_refusal = closed.reason == CloseReason::Drained && node.stage < Stage::Drain;
                if by_time || by_refusal || closed.reason == CloseReason::Disconnect(Status::RESOURCE) {
                    lost.push(((node.id, *id), true));
                }
            }
        }
        for (wire, flushed) in lost {
            self.lost(wire, flushed);
        }
    }

    /// A connection is lost, or was ended without its requests. `flushed`: answers that were given before still arrive.
    pub fn lost(&mut self, wire: WireId, flushed: bool) {
        let (node, conn) = wire;
        let link = self.nodes.get(&node).and_then(|node| node.conns.get(&conn));
        if link.is_some_and(|link| link.engine == HOSTILE) {
            return;
        }
        let last_turn = link.map_or(self.now, |link| link.last_turn);
        let engine = self.nodes.get(&node).and_then(|node| Some(node.conns.get(&conn)?.engine));
        let sibling = self.has_sibling(wire);
        tell!("{} lost {wire:?} of engine {engine:?}, sibling {sibling}", self.now);
        if let Some(wire) = self.wires.get_mut(&wire) {
            wire.faulty = true;
        }
        let mut ledger = self.ledger.borrow_mut();
        ledger.trouble = Some(self.now);
        ledger.excuse(|asked| {
            let Some(handled) = asked.handled else {
                return engine.is_none_or(|engine| asked.engine == engine);
            };
            let home = (handled.node, handled.conn);
            // The answer may be on its way on any connection of the engine that has had a turn since.
            let on_its_way = handled.replied.is_some_and(|at| at <= last_turn)
                && !flushed
                && handled.node == node
                && engine == Some(asked.engine);
            // An orphan that waited for this connection to send its answer.
            let orphan = engine == Some(asked.engine) && self.wires.get(&home).is_none_or(|wire| wire.faulty);
            on_its_way || !sibling && (home == wire || orphan)
        });
    }

    /// Whether a connection of the same engine to the same agent can send the answers of this one, with async.
    fn has_sibling(&self, (node, conn): WireId) -> bool {
        let Some(found) = self.nodes.get(&node) else { return false };
        let Some(link) = found.conns.get(&conn) else { return false };
        let engine = &self.engines[link.engine];
        let established = |id: WireId| {
            let of_engine = engine.lines.iter().find(|(_, line)| line.wire == id);
            let seen = of_engine.and_then(|(connection, _)| engine.pool.connection(*connection));
            let (Some(seen), Some(wire)) = (seen, self.wires.get(&id)) else { return false };
            seen.phase() == Phase::Established && !wire.faulty
        };
        engine.asynchronous
            && found.stage < Stage::Stop
            && found.conns.iter().any(|(id, other)| {
                let reactor = other.driver.protocol().reactor();
                *id != conn
                    && other.engine == link.engine
                    && reactor.is_some_and(|it| {
                        it.phase() == Phase::Established && it.send_backlog() < Some(1 << 20)
                    })
                    && established((node, *id))
            })
    }
}
