//! Health checks of agents.

use alloc::vec::Vec;

use super::{Kind, Pool, PoolAction};

impl Pool {
    /// Starts the health checks that are due.
    pub(super) fn check_health(&mut self) {
        let Some(every) = self.config.check_every.filter(|_| !self.is_draining()) else { return };
        let now = self.now;
        let mut due = Vec::new();
        for (number, agent) in self.agents.iter_mut().enumerate() {
            if agent.check_at.is_some_and(|at| at <= now) {
                agent.check_at = Some(now + every);
                due.push(number);
            }
        }
        for agent in due {
            if self.agents.get(agent).is_some_and(|agent| !agent.checking) {
                self.open_one(agent, Kind::HealthCheck);
            }
        }
    }

    /// A health check has ended.
    pub(super) fn checked(&mut self, number: usize, passed: bool) {
        let Some(agent) = self.agents.get_mut(number) else { return };
        agent.contrary = if passed == agent.up { 0 } else { agent.contrary + 1 };
        if agent.contrary >= if passed { self.config.rise } else { self.config.fall } {
            agent.up = passed;
            agent.contrary = 0;
            self.actions.push_back(PoolAction::Health { agent: number, up: passed });
        }
    }
}
