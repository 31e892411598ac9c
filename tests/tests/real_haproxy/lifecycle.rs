//! HAProxy and agents start, stop, and find each other again.

use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use spop_core::frame::FrameType;
use spop_tests::agent::Agent;
use spop_tests::haproxy::{Config, Haproxy};
use spop_tests::load::{Load, Tally, concurrently};
use spop_tests::relay::{Pipe, Relay, Way};
use spop_tests::stage::{Verdict, everywhere};
use spop_tests::wait::{PATIENCE, until_true};

const CLIENTS: usize = 4;

fn config(address: &str) -> Config {
    Config::new(address).message("echo", "v=url_param(v)").show("echo.v")
}

#[test]
fn the_health_check_sees_the_agent_come_and_go() -> Verdict {
    everywhere(|stage| {
        let mut agent = stage.agent(&[])?;
        let config = config(agent.address())
            .server_options("check inter 100ms fastinter 100ms fall 2 rise 2")
            .backend("option spop-check")
            .backend("timeout check 5s")
            .backend("option log-health-checks");
        let haproxy = stage.haproxy(&config)?;
        let checked = || haproxy.log().map(|log| log.matches("check for server agents/a0 succeeded").count());
        until_true("a health check succeeded", PATIENCE, || Ok(checked()? > 0))?;
        haproxy.wait_for_server("UP")?;
        haproxy.get("/?v=1")?.expect(&[("echo.v", "1")])?;
        agent.terminate()?;
        agent.wait_for_end(PATIENCE)?;
        haproxy.wait_for_server("DOWN")?;
        let _agent = stage.successor(&agent, &[])?;
        haproxy.wait_for_server("UP")?;
        haproxy.get("/?v=2")?.expect(&[("echo.v", "2")])
    })
}

/// What HAProxy is told here: `timeout processing 8s`.
const PATIENT: [&str; 2] = ["--processing", "8000"];

#[test]
fn a_soft_stop_of_haproxy_loses_no_request_in_flight() -> Verdict {
    const IN_FLIGHT: usize = 30;
    everywhere(|stage| {
        let agent = stage.agent(&PATIENT)?;
        let config = config(agent.address()).message("sleep", "ms=int(3000)");
        let mut haproxy = stage.haproxy(&config)?;
        std::thread::scope(|scope| {
            let requests = scope.spawn(|| {
                concurrently(IN_FLIGHT, |client| {
                    haproxy.get(&format!("/?v={client}"))?.expect(&[("echo.v", &client.to_string())])
                })
            });
            haproxy.wait_for_requests(IN_FLIGHT as u64)?;
            haproxy.soft_stop()?;
            requests.join().map_err(|_| anyhow!("it panicked"))?
        })?;
        let status = haproxy.wait_for_end()?;
        ensure!(status.success(), "HAProxy ended with {status}");
        Ok(())
    })
}

/// Replaces the agent in the midst of requests and sees them through.
fn under_load(haproxy: &Haproxy, replace: impl FnOnce() -> Result<Agent>) -> Result<Tally> {
    let load = Load::start(haproxy.address(), CLIENTS, "echo.v");
    load.run_for(200)?;
    let _new = replace()?;
    load.run_for(200)?;
    let tally = load.finish()?;
    println!("{} served, {} failed, slowest {:?}", tally.served, tally.failures.len(), tally.slowest);
    // All is well again.
    let load = Load::start(haproxy.address(), CLIENTS, "echo.v");
    load.run_for(100)?;
    let after = load.finish()?;
    ensure!(after.failures.is_empty(), "with the new agent: {:?}", after.failures);
    Ok(tally)
}

/// What the end of one connection may cost: HAProxy sends on until it has read the DISCONNECT, or sees that the agent is
/// gone, and each client is waiting for one answer at most. HAProxy 3.0 can also leave what it has queued waiting beside
/// idle connections until the processing timeout (8 s), though no agent has seen it: that counts as failed, too.
fn expect_one_cut(tally: &Tally) -> Result<()> {
    ensure!(
        tally.failures.len() <= CLIENTS,
        "{} requests failed: {:?}",
        tally.failures.len(),
        tally.failures
    );
    ensure!(tally.slowest < Duration::from_secs(15), "a request took {:?}", tally.slowest);
    Ok(())
}

#[test]
fn a_draining_agent_answers_everything_it_owes() -> Verdict {
    const IN_FLIGHT: usize = 30;
    everywhere(|stage| {
        let mut agent = stage.agent(&PATIENT)?;
        let relay = Relay::start(agent.address())?;
        let haproxy = stage.haproxy(&config(&relay.address()).message("sleep", "ms=int(3000)"))?;
        std::thread::scope(|scope| {
            let requests = scope.spawn(|| {
                concurrently(IN_FLIGHT, |client| {
                    haproxy.get(&format!("/?v={client}"))?.expect(&[("echo.v", &client.to_string())])
                })
            });
            until_true("the requests have left for the agent", PATIENCE, || {
                let notifies = |pipe: &Pipe| pipe.frames(Way::ToAgent, FrameType::Notify);
                Ok(relay.pipes().iter().map(|pipe| notifies(pipe)).sum::<usize>() == IN_FLIGHT)
            })?;
            // Time for the last of them to be read; they are owed for much longer.
            std::thread::sleep(Duration::from_millis(500));
            agent.terminate()?;
            requests.join().map_err(|_| anyhow!("it panicked"))?
        })?;
        let status = agent.wait_for_end(PATIENCE)?;
        ensure!(status.success(), "the agent ended with {status}");
        Ok(())
    })
}

#[test]
fn an_agent_drains_under_load_while_another_takes_over() -> Verdict {
    everywhere(|stage| {
        let mut old = stage.agent(&[])?;
        let other = stage.agent(&[])?;
        // Where nobody listens, the connection goes to the other agent at once.
        let config =
            config(old.address()).server(other.address()).backend("option redispatch 1").backend("retries 3");
        let haproxy = stage.haproxy(&config)?;
        let tally = under_load(&haproxy, || {
            old.terminate()?;
            let status = old.wait_for_end(PATIENCE)?;
            ensure!(status.success(), "the agent ended with {status}");
            Ok(other)
        })?;
        expect_one_cut(&tally)
    })
}

#[test]
fn an_agent_restarts_on_its_port_under_load() -> Verdict {
    everywhere(|stage| {
        let mut old = stage.agent(&[])?;
        // HAProxy tries again after a second when nobody listens.
        let haproxy = stage.haproxy(&config(old.address()).one_connection())?;
        let tally = under_load(&haproxy, || {
            old.terminate()?;
            let new = stage.successor(&old, &[])?;
            let status = old.wait_for_end(PATIENCE)?;
            ensure!(status.success(), "the agent ended with {status}");
            Ok(new)
        })?;
        expect_one_cut(&tally)
    })
}

#[test]
fn service_resumes_after_an_agent_was_killed() -> Verdict {
    everywhere(|stage| {
        let mut old = stage.agent(&[])?;
        let haproxy = stage.haproxy(&config(old.address()).one_connection())?;
        let tally = under_load(&haproxy, || {
            old.kill()?;
            stage.successor(&old, &[])
        })?;
        expect_one_cut(&tally)
    })
}
