//! What goes wrong.

use std::time::Duration;

use spop_server::Stage;

use crate::{
    hostile::{HOSTILE, Hostile},
    ledger::Decision,
    node::Node,
    wire::{AGENT, ENGINE, Wire},
    world::{Weather, WireId, World},
};

impl World {
    /// Perhaps something goes wrong now.
    pub fn disturb(&mut self) {
        if self.rng.permille(150) {
            self.stall();
        }
        if self.hostile
            && self.rng.permille(100)
            && let Some(id) = self.any_node()
        {
            self.attack(id);
        }
        if matches!(self.weather, Weather::Restarts | Weather::Storm) && self.rng.permille(20) {
            self.restart();
        }
        if self.weather == Weather::Losses {
            match self.rng.below(100) {
                0..4 => self.reset(None),
                4..6 => self.half_close(),
                6..9 => self.drop_connection(),
                9..12 => self.burst(),
                12..17 => self.crowd(),
                _ => {}
            }
        }
        if let Some(id) = self.surprised.take() {
            if self.rng.permille(500) { self.jump() } else { self.stop(id) }
        }
        if self.weather == Weather::Storm {
            match self.rng.below(250) {
                0..4 => self.reset(None),
                4..6 => self.half_close(),
                6..9 => self.partition(),
                9..11 => self.drop_connection(),
                11..14 => {
                    if let Some(id) = self.any_node() {
                        self.stop(id);
                    }
                }
                14..18 => self.jump(),
                _ => {}
            }
        }
    }

    fn any_wire(&mut self) -> Option<(usize, spop_core::ConnectionId)> {
        let index = self.rng.below(self.wires.len());
        self.wires.keys().nth(index).copied()
    }

    fn any_node(&mut self) -> Option<usize> {
        let index = self.rng.below(self.nodes.len());
        self.nodes.keys().nth(index).copied()
    }

    /// Many answers are given at once, and a connection is lost before.
    fn burst(&mut self) {
        let Some(id) = self.any_node() else { return };
        let until = self.now + Duration::from_millis(100);
        self.wires.iter_mut().filter(|((node, _), _)| *node == id).for_each(|(_, wire)| wire.block(until));
        let mut pending = self.nodes[&id].app.pending.iter();
        let disconnect = pending.find(|it| it.decision == Decision::Disconnect);
        let home = disconnect.map(|it| (id, it.responder.connection().id()));
        self.reset(home);
        self.run_for(Duration::from_millis(5));
        let now = self.now;
        if let Some(node) = self.nodes.get_mut(&id) {
            node.app.burst(now);
        }
    }

    /// A connection is lost, and its siblings have the queues full of their own long answers when they get those of its requests.
    fn crowd(&mut self) {
        let Some(id) = self.any_node() else { return };
        if let Some(node) = self.nodes.get_mut(&id) {
            node.app.crowded = true;
        }
        (0..30).for_each(|_| self.ask());
        self.run_for(Duration::from_millis(20));
        let until = self.now + Duration::from_millis(100);
        self.wires.iter_mut().filter(|((node, _), _)| *node == id).for_each(|(_, wire)| wire.block(until));
        let home = self.nodes.get(&id).and_then(|node| node.app.busiest());
        self.reset(home.map(|home| (id, home)));
        self.run_for(Duration::from_millis(5));
        let now = self.now;
        if let Some(node) = self.nodes.get_mut(&id) {
            node.app.burst(now);
        }
        self.ledger.borrow_mut().crowd(id);
        self.run_for(Duration::ZERO);
        if let Some(node) = self.nodes.get_mut(&id) {
            node.app.crowded = false;
        }
    }

    /// A hostile peer connects.
    fn attack(&mut self, id: usize) {
        let Some(node) = self.nodes.get_mut(&id).filter(|node| node.listens()) else { return };
        let Some(conn) = node.accept(self.now, HOSTILE) else { return };
        let proxy = node.entrance.is_some();
        let mut wire = Wire::wide(&mut self.rng);
        let begin = self.now + self.rng.up_to(Duration::from_millis(200));
        let end = begin + Duration::from_secs(1) + self.rng.up_to(Duration::from_secs(3));
        if self.rng.permille(500) {
            // Everything arrives at once.
            wire.stall(AGENT, begin + Duration::from_millis(50));
        }
        self.wires.insert((id, conn), wire);
        self.hostiles.push(Hostile::new(&mut self.rng, (id, conn), proxy, begin, end));
    }

    /// A side does not read for a while: no fault, everything is late only.
    fn stall(&mut self) {
        let until = self.now + self.rng.up_to(Duration::from_millis(300));
        let side = self.rng.pick(&[AGENT, ENGINE, ENGINE]);
        if let Some(wire) = self.any_wire() {
            tell!("{} stall {wire:?} of side {side} until {until}", self.now);
            let blocks = side == ENGINE && self.rng.permille(300);
            let wire = self.wires.get_mut(&wire).unwrap();
            if blocks { wire.block(until) } else { wire.stall(side, until) }
        }
    }

    /// An agent is shut down gracefully; another takes its place before or after it has ended.
    fn restart(&mut self) {
        let slot = self.rng.below(self.slots.len());
        let Some(id) = self.slots[slot] else { return };
        self.summary.restarts += 1;
        tell!("{} restart {id}", self.now);
        if self.hostile && self.rng.permille(500) {
            self.attack(id);
        }
        let node = &self.nodes[&id];
        node.agent.handle().drain();
        if self.rng.permille(400) {
            node.agent.handle().drain();
            assert!(
                node.agent.poll_shutdown(self.now) >= Stage::Drain,
                "a second drain ends the lame duck stage"
            );
        }
        if self.rng.permille(500) {
            // On the same socket.
            self.slots[slot] = None;
            self.starting.push((self.now, slot));
        }
    }

    /// This connection is lost, or any.
    fn reset(&mut self, id: Option<WireId>) {
        let Some(id) = id.filter(|id| self.wires.contains_key(id)).or_else(|| self.any_wire()) else {
            return;
        };
        tell!("{} reset {id:?}", self.now);
        self.lost(id, false);
        self.wires.get_mut(&id).unwrap().reset();
    }

    /// The engine shuts its write side, and still reads.
    fn half_close(&mut self) {
        if let Some(id) = self.any_wire() {
            tell!("{} half-close {id:?}", self.now);
            self.lost(id, true);
            let now = self.now;
            self.wires.get_mut(&id).unwrap().shut(ENGINE, now);
        }
    }

    /// Nothing arrives for a while; then everything does, or the connection is lost.
    fn partition(&mut self) {
        if let Some(id) = self.any_wire() {
            let time = self.rng.up_to(Duration::from_secs(3));
            let until = self.now + time;
            tell!("{} partition {id:?} until {until}", self.now);
            self.wires.get_mut(&id).unwrap().partition(until);
            // What waits behind it for so long may time out anywhere.
            self.ledger.borrow_mut().excuse(|_| true);
            self.run_for(time);
            self.ledger.borrow_mut().excuse(|_| true);
            self.ledger.borrow_mut().trouble = Some(self.now);
            if self.rng.permille(500)
                && let Some(wire) = self.wires.get_mut(&id)
            {
                wire.reset();
            }
        }
    }

    /// The task of a connection is dropped.
    fn drop_connection(&mut self) {
        let Some(id) = self.any_wire() else { return };
        if self.rng.permille(600) {
            // When something was sent to it that it has not taken.
            if let Some(node) = self.nodes.get_mut(&id.0) {
                node.doomed.push(id.1);
            }
        } else {
            self.drop_now(id);
        }
    }

    pub fn drop_now(&mut self, id: WireId) {
        tell!("{} drop {id:?}", self.now);
        self.lost(id, false);
        let (node, conn) = id;
        self.ledger.borrow_mut().excuse(|asked| {
            asked
                .handled
                .is_some_and(|handled| (handled.node, handled.conn) == id && handled.replied.is_none())
        });
        let now = self.now;
        if let Some(wire) = self.wires.get_mut(&id) {
            wire.reset();
            wire.close(AGENT, now);
        }
        if let Some(found) = self.nodes.get_mut(&node) {
            found.conns.remove(&conn);
        }
    }

    /// An agent stops at once, perhaps in the middle of a drain. What it was about to send arrives.
    fn stop(&mut self, id: usize) {
        if !self.nodes.contains_key(&id) {
            return;
        }
        if self.rng.permille(600) {
            let (now, node) = (self.now, self.nodes.get_mut(&id).unwrap());
            (0..2).for_each(|_| node.agent.handle().drain());
            node.app.burst(now + Duration::from_millis(1));
            self.run_for(Duration::from_millis(3));
        }
        let Some(node) = self.nodes.get(&id) else { return };
        let mut wires = self.wires.iter().filter(|((of, _), _)| *of == id);
        let quiet = self.engines.iter().all(|engine| engine.pool.queued() == 0)
            && wires.all(|((_, conn), wire)| {
                let reactor = node.conns.get(conn).and_then(|link| link.driver.protocol().reactor());
                reactor.is_some_and(|it| wire.is_quiet(it.outgoing_bytes() + 200))
            });
        let now = self.now;
        self.ledger.borrow_mut().excuse(|asked| {
            asked.handled.is_none_or(|handled| {
                handled.node == id && !(quiet && handled.replied.is_some_and(|at| at < now))
            })
        });
        self.ledger.borrow_mut().trouble = Some(self.now);
        tell!("{} stop {id}, quiet {quiet}", self.now);
        node.agent.handle().stop();
        // What is sent to it from now on is lost.
        self.wires.iter_mut().filter(|((node, _), _)| *node == id).for_each(|(_, wire)| wire.faulty = true);
    }

    /// The machine was suspended, with input that is unread.
    fn jump(&mut self) {
        let until = self.now + Duration::from_millis(15);
        self.wires.values_mut().for_each(|wire| wire.stall(AGENT, until));
        self.run_for(Duration::from_millis(10));
        self.ledger.borrow_mut().excuse(|_| true);
        tell!("{} jump", self.now);
        self.now = self.now + Duration::from_secs(1 + self.rng.below(7_200) as u64);
        self.jumped = self.now;
        self.nodes.values_mut().for_each(Node::jumped);
        self.run_for(Duration::ZERO);
        self.ledger.borrow_mut().excuse(|_| true);
        self.ledger.borrow_mut().trouble = Some(self.now);
    }
}
