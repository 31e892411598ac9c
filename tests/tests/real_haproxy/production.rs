//! What happens to an agent in its working life, under load: every request is counted.

use anyhow::{Result, ensure};
use spop_tests::haproxy::{Config, Engine};
use spop_tests::restarts::{Lost, Rolling};
use spop_tests::stage::{Stage, Verdict, everywhere, with_engine};
use spop_tests::wrk::{Wrk, checked};

use super::inside::{Agent, Entrance};

/// Each of them waits for one answer at most.
const CLIENTS: usize = 16;

/// Twenty restarts without health checks.
fn rolling_restarts(stage: &Stage, capabilities: &str, between: u64) -> Result<Lost> {
    let args = &["--capabilities", capabilities];
    Rolling { restarts: 20, clients: CLIENTS, between, args, checks: false }.run(stage)
}

// Captured: HAProxy used a connection that had been idle for 220 ms, 38 µs after its DISCONNECT had left, in the turn of its event loop
// that had begun before. Of 29,000 restarts, 7 lost a request or two.
#[test]
fn rolling_restarts_without_pipelining_lose_next_to_nothing() -> Verdict {
    with_engine(Engine::Applet, |stage| {
        let Lost { counted, .. } = rolling_restarts(stage, "", 1_000)?;
        ensure!(counted.failed * 10_000 <= counted.requests, "{counted:?}");
        Ok(())
    })
}

// What is lost is what HAProxy has sent when it reads a DISCONNECT: all that its clients wait for, if at that moment it was
// kept from running for longer than the agent waits. On a busy machine it may happen once in some hundred restarts: one of the twenty
// may.
#[test]
fn rolling_restarts_with_pipelining_lose_next_to_nothing() -> Verdict {
    with_engine(Engine::Applet, |stage| {
        let Lost { counted, worst } = rolling_restarts(stage, "fragmentation,pipelining", 4_000)?;
        ensure!(worst <= CLIENTS as u64, "{worst} by one restart");
        ensure!(
            counted.failed.saturating_sub(worst) * 10_000 <= counted.requests,
            "{counted:?}, {worst} of them by one restart"
        );
        Ok(())
    })
}

// Later versions try no request again whose connection was closed with a DISCONNECT, or that was sent just then. Only health
// checks tell them early enough, see the next test.
#[test]
fn rolling_restarts_without_health_checks_lose_little_since_3_1() -> Verdict {
    with_engine(Engine::Multiplexer, |stage| {
        for capabilities in ["", "fragmentation,pipelining"] {
            let Lost { counted, .. } = rolling_restarts(stage, capabilities, 2_000)?;
            ensure!(counted.failed * 1_000 <= counted.requests, "{counted:?}");
        }
        Ok(())
    })
}

// The agent fails its health checks first, and serves on until HAProxy has taken it out. Up to 3.0 HAProxy keeps the connections
// of a server that is down. When it is kept from running just as the last of them is closed, all that its clients wait for fails:
// once in some hundred restarts on a busy machine, health checks or not.
#[test]
fn rolling_restarts_with_a_lame_duck_stage_lose_nothing() -> Verdict {
    everywhere(|stage| {
        // A check is due every 100 ms. HAProxy and the agent have to run for it.
        let args = &["--lame-duck", "3000"];
        let Lost { counted, .. } =
            Rolling { restarts: 3, clients: CLIENTS, between: 1_000, args, checks: true }.run(stage)?;
        let may_fail = match stage.binary().engine() {
            Engine::Applet => CLIENTS as u64,
            Engine::Multiplexer => 0,
        };
        ensure!(counted.failed <= may_fail, "{counted:?}");
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
