//! Answers whose connection is lost, with async.
//!
//! HAProxy 2.6 and 3.0 tie such a request to no connection: if one is lost, they wait for the answer on another. Later versions
//! do not know async.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use spop_core::frame::FrameType;
use spop_tests::agent::Agent;
use spop_tests::haproxy::{Config, Engine, Haproxy};
use spop_tests::load::concurrently;
use spop_tests::relay::{Fault, Pipe, Relay, Way};
use spop_tests::stage::{Stage, Verdict, everywhere, with_engine};
use spop_tests::wait::{PATIENCE, until_true};

const REQUESTS: usize = 20;

fn start(stage: &Stage, capabilities: &str, threads: usize) -> Result<(Agent, Relay, Haproxy)> {
    let agent = stage.agent(&["--capabilities", capabilities, "--processing", "8000"])?;
    let relay = Relay::start(agent.address())?;
    let config = Config::new(&relay.address())
        .threads(threads)
        .agent("timeout processing 8s")
        .agent("timeout hello 10s")
        .message("sleep", "ms=url_param(ms),add(0)")
        .message("echo", "v=url_param(v)")
        .show("echo.v");
    let haproxy = stage.haproxy(&config)?;
    Ok((agent, relay, haproxy))
}

fn notifies(pipe: &Pipe) -> usize {
    pipe.frames(Way::ToAgent, FrameType::Notify)
}

/// Asks all at once; when so many requests have passed to the agent, resets the connection that has brought the most of them, and
/// returns how many failed and how many that connection had brought.
fn lose_one(relay: &Relay, haproxy: &Haproxy, passed: usize) -> Result<(usize, usize)> {
    let before: Vec<usize> = relay.pipes().iter().map(|pipe| notifies(pipe)).collect();
    thread::scope(|scope| {
        let requests = scope.spawn(|| {
            concurrently(REQUESTS, |value| {
                let reply = haproxy.get(&format!("/?v={value}&ms=3000"))?;
                match reply.error() {
                    Some(_) => Ok(1),
                    None => reply.expect(&[("echo.v", &value.to_string())]).map(|()| 0),
                }
            })
        });
        let asked = before.iter().sum::<usize>() + passed;
        let all = || relay.pipes().iter().map(|pipe| notifies(pipe)).sum::<usize>();
        until_true("the requests have passed", PATIENCE, || Ok(all() >= asked))?;
        // They have left for the agent, and it reads them in far less time than their answers take.
        thread::sleep(Duration::from_millis(500));
        let before = before.into_iter().chain(std::iter::repeat(0));
        let brought: Vec<(usize, Arc<Pipe>)> = relay
            .pipes()
            .into_iter()
            .zip(before)
            .map(|(pipe, before)| (notifies(&pipe) - before, pipe))
            .collect();
        let (lost, pipe) = brought.into_iter().max_by_key(|(count, _)| *count).context("no connection")?;
        pipe.reset();
        let failed = requests.join().map_err(|_| anyhow!("it panicked"))??;
        relay.check_answers()?;
        Ok((failed.into_iter().sum(), lost))
    })
}

/// Connections are lost, but no answers. Returns how many requests the lost connections had brought.
fn answers_take_another(stage: &Stage, capabilities: &str) -> Result<usize> {
    let (_agent, relay, haproxy) = start(stage, capabilities, 1)?;
    // Several connections that both sides know.
    concurrently(REQUESTS, |value| haproxy.get(&format!("/?v={value}&ms=50"))?.expect(&[]))?;
    let mut brought = 0;
    for _round in 0..3 {
        let (failed, lost) = lose_one(&relay, &haproxy, REQUESTS)?;
        ensure!(failed == 0, "{failed} requests failed, and {lost} were of the lost connection");
        ensure!(lost > 0, "the lost connection had brought nothing");
        brought += lost;
    }
    Ok(brought)
}

#[test]
fn answers_of_a_lost_connection_arrive_on_another() -> Verdict {
    with_engine(Engine::Applet, |stage| {
        answers_take_another(stage, "fragmentation,pipelining,async").map(drop)
    })
}

// Requests overlap as with pipelining.
#[test]
fn answers_of_a_lost_connection_arrive_on_another_with_async_alone() -> Verdict {
    with_engine(Engine::Applet, |stage| {
        let brought = answers_take_another(stage, "fragmentation,async")?;
        ensure!(brought > 3, "a connection brought one request at a time");
        Ok(())
    })
}

// To the agent, each thread is an engine of its own.
#[test]
fn answers_of_a_lost_connection_arrive_at_the_thread_that_asked() -> Verdict {
    with_engine(Engine::Applet, |stage| {
        let (_agent, relay, haproxy) = start(stage, "fragmentation,pipelining,async", 2)?;
        until_true("both threads have several connections", PATIENCE, || {
            concurrently(2 * REQUESTS, |value| haproxy.get(&format!("/?v={value}&ms=50"))?.expect(&[]))?;
            let engines: Vec<_> = relay.pipes().iter().filter_map(|pipe| pipe.engine()).collect();
            let of_first = engines.iter().filter(|engine| engines.first() == Some(engine)).count();
            Ok(of_first > 2 && engines.len() - of_first > 2)
        })?;
        let (failed, lost) = lose_one(&relay, &haproxy, REQUESTS)?;
        ensure!(failed == 0, "{failed} requests failed, and {lost} were of the lost connection");
        let crossed = relay.check_engines()?;
        ensure!(crossed >= lost, "{crossed} answers took another connection, and {lost} had lost theirs");
        Ok(())
    })
}

#[test]
fn without_async_answers_are_lost_with_their_connection_and_haproxy_knows() -> Verdict {
    everywhere(|stage| {
        let (_agent, relay, haproxy) = start(stage, "fragmentation,pipelining", 1)?;
        concurrently(REQUESTS, |value| haproxy.get(&format!("/?v={value}&ms=50"))?.expect(&[]))?;
        let (failed, lost) = lose_one(&relay, &haproxy, REQUESTS)?;
        ensure!(failed == lost, "{failed} requests failed, and {lost} were of the lost connection");
        Ok(())
    })
}

// HAProxy reports the code only when it has no other connection left; otherwise the answer may still come on another.
#[test]
fn a_disconnect_of_the_agent_leaves_its_request_waiting_where_there_are_siblings() -> Verdict {
    with_engine(Engine::Applet, |stage| {
        let agent = stage.agent(&["--capabilities", "fragmentation,pipelining,async"])?;
        let config = Config::new(agent.address())
            .agent("timeout processing 3s")
            .message_on(
                "on-frontend-http-request if { url_param(code) -m found }",
                "disconnect",
                "code=url_param(code),add(0)",
            )
            .message("sleep", "ms=url_param(ms),add(0)")
            .message("echo", "v=url_param(v)")
            .show("echo.v");
        let haproxy = stage.haproxy(&config)?;
        concurrently(REQUESTS, |value| haproxy.get(&format!("/?v={value}&ms=50"))?.expect(&[]))?;
        ensure!(haproxy.agent_connections()? > 1, "there is one connection only");
        let reply = haproxy.get("/?v=1&ms=0&code=7")?;
        reply.expect_error(1)?;
        ensure!(reply.took >= Duration::from_secs(3), "it took {:?}", reply.took);
        haproxy.get("/?v=2&ms=0")?.expect(&[("echo.v", "2")])
    })
}

// HAProxy goes on waiting because it is opening other connections. The agent has not heard of them when it loses the only one
// that it knows, and to it the engine is gone. This is what such a moment costs.
#[test]
fn answers_have_nowhere_to_go_while_other_connections_are_only_being_opened() -> Verdict {
    with_engine(Engine::Applet, |stage| {
        let (_agent, relay, haproxy) = start(stage, "fragmentation,pipelining,async", 1)?;
        haproxy.get("/?v=1&ms=0")?.expect(&[("echo.v", "1")])?;
        for _ in 0..2 * REQUESTS {
            relay.fail_next(Fault { way: Way::ToAgent, after: 0, stall: true });
        }
        // HAProxy may keep some in its queue, for connections that never come.
        let (failed, lost) = lose_one(&relay, &haproxy, REQUESTS / 2)?;
        ensure!(failed == REQUESTS, "{failed} requests failed, and {lost} were of the lost connection");
        // It was their own timeout that ended them.
        let log = haproxy.log()?;
        let timeouts = log.lines().filter(|line| line.contains(" st=1 ")).count();
        ensure!(timeouts == REQUESTS, "{timeouts} timeouts");
        Ok(())
    })
}
