//! What happens to an agent in its working life, under load: every request is counted.

use anyhow::{Result, ensure};
use spop_tests::haproxy::Config;
use spop_tests::stage::{Stage, Verdict, everywhere};
use spop_tests::wait::PATIENCE;
use spop_tests::wrk::{Counted, Wrk, checked};

use super::inside::{Agent, Entrance};

/// Restarts each of two agents in turn, ten times, and lets requests pass in between to have both in use again.
fn rolling_restarts(stage: &Stage, capabilities: &str, between: u64) -> Result<Counted> {
    let args = ["--capabilities", capabilities];
    let mut agents = [stage.agent(&args)?, stage.agent(&args)?];
    // Where nobody listens, the connection goes to the other agent at once.
    let config = checked(Config::new(agents[0].address()).server(agents[1].address()))
        .backend("option redispatch 1")
        .backend("retries 3");
    let haproxy = stage.haproxy(&config)?;
    let load = Wrk::start(haproxy.address(), 16)?;
    for _round in 0..10 {
        for agent in &mut agents {
            load.run_for(&haproxy, between)?;
            agent.terminate()?;
            let new = stage.successor(agent, &args)?;
            let status = agent.wait_for_end(PATIENCE)?;
            ensure!(status.success(), "the agent ended with {status}");
            *agent = new;
        }
    }
    load.run_for(&haproxy, between)?;
    let counted = load.finish()?;
    let connections = haproxy.agent_connections()?;
    println!("{stage}, {capabilities:?}: {counted:?}, {connections} connections to one agent");
    Ok(counted)
}

#[test]
fn rolling_restarts_lose_nothing_without_pipelining() -> Verdict {
    everywhere(|stage| {
        let counted = rolling_restarts(stage, "", 1_000)?;
        ensure!(counted.failed == 0, "{counted:?}");
        Ok(())
    })
}

// What is lost is what HAProxy has sent when it reads a DISCONNECT: all that its clients wait for, if at that moment it was
// kept from running for longer than the agent waits. On a busy machine it may happen once in some hundred restarts.
#[test]
fn rolling_restarts_with_pipelining_lose_next_to_nothing() -> Verdict {
    everywhere(|stage| {
        let counted = rolling_restarts(stage, "fragmentation,pipelining", 10_000)?;
        ensure!(counted.failed * 10_000 <= counted.requests, "{counted:?}");
        Ok(())
    })
}

#[test]
fn a_hundred_new_handlers_lose_nothing() -> Verdict {
    everywhere(|stage| {
        let agent = Agent::start(stage, Entrance::default())?;
        let config = checked(Config::new(&agent.address)).show("echo.handler");
        let haproxy = stage.haproxy(&config)?;
        let load = Wrk::start(haproxy.address(), 16)?;
        for number in 1..=100 {
            load.run_for(&haproxy, 100)?;
            agent.replace(number);
            haproxy.get("/?v=1")?.expect(&[("echo.handler", &number.to_string())])?;
        }
        let counted = load.finish()?;
        println!("{stage}: {counted:?}");
        ensure!(counted.failed == 0, "{counted:?}");
        Ok(())
    })
}
