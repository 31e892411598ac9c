//! What goes wrong.

use std::time::Duration;

use crate::{
    wire::{AGENT, ENGINE},
    world::{Weather, World},
};

impl World {
    /// Perhaps something goes wrong now.
    pub fn disturb(&mut self) {
        if self.rng.permille(150) {
            self.stall();
        }
        if matches!(self.weather, Weather::Restarts | Weather::Storm) && self.rng.permille(10) {
            self.restart();
        }
        if self.weather == Weather::Losses {
            match self.rng.below(100) {
                0..4 => self.reset(),
                4..6 => self.half_close(),
                6 => self.drop_connection(),
                _ => {}
            }
        }
        if self.weather == Weather::Storm {
            match self.rng.below(250) {
                0..4 => self.reset(),
                4..6 => self.half_close(),
                6..9 => self.partition(),
                9..11 => self.drop_connection(),
                11 => self.stop(),
                12 => self.jump(),
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

    /// A side does not read for a while: no fault, everything is late only.
    fn stall(&mut self) {
        let until = self.now + self.rng.up_to(Duration::from_millis(300));
        let side = self.rng.pick(&[AGENT, ENGINE, ENGINE]);
        if let Some(wire) = self.any_wire() {
            tell!("{} stall {wire:?} of side {side} until {until}", self.now);
            self.wires.get_mut(&wire).unwrap().stall(side, until);
        }
    }

    /// An agent is shut down gracefully; another takes its place before or after it has ended.
    fn restart(&mut self) {
        let slot = self.rng.below(self.slots.len());
        let Some(id) = self.slots[slot] else { return };
        self.summary.restarts += 1;
        tell!("{} restart {id}", self.now);
        let node = &self.nodes[&id];
        node.agent.handle().drain();
        if self.rng.permille(200) {
            node.agent.handle().drain();
        }
        if self.rng.permille(500) {
            // On the same socket.
            self.slots[slot] = None;
            self.starting.push((self.now, slot));
        }
    }

    fn reset(&mut self) {
        if let Some(id) = self.any_wire() {
            tell!("{} reset {id:?}", self.now);
            self.lost(id, false);
            self.wires.get_mut(&id).unwrap().reset();
        }
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
            self.wires.get_mut(&id).unwrap().freeze(until);
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
        tell!("{} drop {id:?}", self.now);
        self.lost(id, false);
        let (node, conn) = id;
        self.ledger.borrow_mut().excuse(|asked| {
            asked.handled.is_some_and(|handled| (handled.node, handled.conn) == id && !handled.replied)
        });
        let now = self.now;
        let wire = self.wires.get_mut(&id).unwrap();
        wire.reset();
        wire.close(AGENT, now);
        if let Some(found) = self.nodes.get_mut(&node) {
            found.conns.remove(&conn);
        }
    }

    /// An agent stops at once.
    fn stop(&mut self) {
        let Some(id) = self.any_node() else { return };
        self.ledger.borrow_mut().excuse(|asked| asked.handled.is_none_or(|handled| handled.node == id));
        self.ledger.borrow_mut().trouble = Some(self.now);
        tell!("{} stop {id}", self.now);
        // What is sent to it from now on is lost.
        self.wires.iter_mut().filter(|((node, _), _)| *node == id).for_each(|(_, wire)| wire.faulty = true);
        self.nodes[&id].agent.handle().stop();
    }

    /// The machine was suspended.
    fn jump(&mut self) {
        self.ledger.borrow_mut().excuse(|_| true);
        tell!("{} jump", self.now);
        self.now = self.now + Duration::from_secs(1 + self.rng.below(7_200) as u64);
        self.jumped = self.now;
        self.nodes.values_mut().for_each(|node| node.jumped = true);
        self.run_for(Duration::ZERO);
        self.ledger.borrow_mut().excuse(|_| true);
        self.ledger.borrow_mut().trouble = Some(self.now);
    }
}
