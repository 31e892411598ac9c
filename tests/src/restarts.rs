//! Rolling restarts: two agents behind HAProxy are restarted in turn, under load, as an operator would do it.

use anyhow::{Result, ensure};

use crate::agent::Agent;
use crate::haproxy::Config;
use crate::stage::Stage;
use crate::wait::PATIENCE;
use crate::wrk::{Counted, Wrk, checked};

/// How it is done.
#[derive(Clone, Debug)]
pub struct Rolling<'a> {
    /// How many restarts, of either agent in turn.
    pub restarts: usize,
    /// Clients, each of which asks again as soon as it has a reply.
    pub clients: usize,
    /// Requests between one restart and the next.
    pub between: u64,
    /// Arguments of the agents.
    pub args: &'a [&'a str],
    /// HAProxy checks the agents every 100 ms, and one that is lost is used again only when it is up.
    pub checks: bool,
}

/// What became of the requests.
#[derive(Clone, Copy, Debug)]
pub struct Lost {
    /// All of them.
    pub counted: Counted,
    /// How many failed by the restart that cost most.
    pub worst: u64,
}

impl Rolling<'_> {
    /// Restarts the agents and counts what became of the requests. A restart is over when the old agent has ended and the
    /// new one listens; with health checks, when HAProxy has found the new one up.
    ///
    /// # Errors
    /// An agent does not start, or ends with a failure.
    pub fn run(&self, stage: &Stage) -> Result<Lost> {
        let mut agents = [stage.agent(self.args)?, stage.agent(self.args)?];
        // Where no agent listens, the connection goes to the other one at once.
        let mut config = checked(Config::new(agents[0].address()).server(agents[1].address()))
            .backend("option redispatch 1")
            .backend("retries 3");
        if self.checks {
            config = config
                .backend("option spop-check")
                .backend("timeout check 5s")
                .server_options("check inter 100ms fall 1 rise 1");
        }
        let haproxy = stage.haproxy(&config)?;
        let up = |index: usize| {
            if self.checks { haproxy.wait_for_server_number(index, "UP") } else { Ok(()) }
        };
        up(0)?;
        up(1)?;
        let load = Wrk::start(haproxy.address(), self.clients)?;
        // Until now, and by the restart that cost most, with the requests that followed it.
        let (mut failed, mut worst) = (haproxy.refused()?, 0);
        for restart in 0..self.restarts {
            let index = restart % agents.len();
            load.run_for(&haproxy, self.between)?;
            let until_now = haproxy.refused()?;
            (failed, worst) = (until_now, worst.max(until_now - failed));
            if let Some(agent) = agents.get_mut(index) {
                agent.terminate()?;
                if self.checks {
                    // Until then HAProxy holds it for up, whether it listens or not.
                    haproxy.wait_for_server_number(index, "DOWN")?;
                }
                *agent = self.replace(stage, agent)?;
            }
            up(index)?;
        }
        load.run_for(&haproxy, self.between)?;
        worst = worst.max(haproxy.refused()? - failed);
        let lost = Lost { counted: load.finish()?, worst };
        println!("{stage}, {:?}: {lost:?}", self.args);
        Ok(lost)
    }

    /// Waits for the end of an agent and starts another on its address: without health checks as soon as the old one listens no
    /// more, so that HAProxy finds none there for as short a time as can be.
    fn replace(&self, stage: &Stage, old: &mut Agent) -> Result<Agent> {
        let early = if self.checks { None } else { Some(stage.successor(old, self.args)?) };
        let status = old.wait_for_end(PATIENCE)?;
        ensure!(status.success(), "the agent ended with {status}");
        match early {
            Some(new) => Ok(new),
            None => stage.successor(old, self.args),
        }
    }
}
