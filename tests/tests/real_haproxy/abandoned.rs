//! Requests that HAProxy gives up while their handlers still run. Nothing tells the agent, and with HAProxy 3.1 and later
//! the next requests come on the same connections.

use std::io::{self, Write as _};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use spop_tests::agent::Agent;
use spop_tests::haproxy::{Config, Haproxy};
use spop_tests::load::concurrently;
use spop_tests::stage::{Stage, Verdict, everywhere};

/// Longer than any of this takes.
const SLOW: &str = "/?v=slow&ms=20000";

/// An agent that reaches its own limit with every connection.
const PIPELINING: &[&str] =
    &["--capabilities", "fragmentation,pipelining", "--max-in-flight", "20", "--processing", "1000"];

fn start(stage: &Stage, args: &[&str]) -> Result<(Agent, Haproxy)> {
    let agent = stage.agent(args)?;
    let config = Config::new(agent.address())
        // Quick requests on a busy machine take less.
        .agent("timeout processing 1s")
        .message_on(
            "on-frontend-http-request if { url_param(ms) -m found }",
            "sleep",
            "ms=url_param(ms),add(0)",
        )
        .message("echo", "v=url_param(v)")
        .show("echo.v");
    let haproxy = stage.haproxy(&config)?;
    // A connection that HAProxy knows is the one that it uses.
    quick(&haproxy, 0)?;
    Ok((agent, haproxy))
}

fn quick(haproxy: &Haproxy, value: usize) -> Result<()> {
    haproxy.get(&format!("/?v={value}"))?.expect(&[("echo.v", &value.to_string())])
}

/// Fails with how many have failed, and why the first did.
fn expect_all(results: &[Result<()>]) -> Result<()> {
    let failures: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    let (failed, all) = (failures.len(), results.len());
    let first = failures.first().map(|error| format!("{error:#}"));
    ensure!(failed == 0, "{failed} of {all} quick requests failed: {first:?}");
    Ok(())
}

/// A quick request has a second. Where the machine stood still for that long, it does not so twice: then a few fail, of one play.
fn twice(play: impl Fn() -> Result<Vec<Result<()>>>) -> Result<()> {
    let results = play()?;
    let Err(error) = expect_all(&results) else { return Ok(()) };
    let failed = results.iter().filter(|result| result.is_err()).count();
    if failed * 10 > results.len() {
        return Err(error);
    }
    writeln!(io::stderr(), "once more: {error:#}")?;
    expect_all(&play()?)
}

fn after_many(stage: &Stage, args: &[&str]) -> Result<Vec<Result<()>>> {
    let (_agent, haproxy) = start(stage, args)?;
    // No more at once than HAProxy sends on one connection.
    concurrently(10, |_| (0..7).try_for_each(|_| haproxy.get(SLOW)?.expect_error(1)))?;
    let results = concurrently(10, |client| {
        Ok((0..10).map(|round| quick(&haproxy, client * 10 + round)).collect::<Vec<_>>())
    })?;
    Ok(results.into_iter().flatten().collect())
}

#[test]
fn after_many_abandoned_requests_every_quick_one_is_answered() -> Verdict {
    everywhere(|stage| twice(|| after_many(stage, &[])))
}

#[test]
fn after_many_abandoned_requests_every_quick_one_is_answered_with_pipelining() -> Verdict {
    everywhere(|stage| twice(|| after_many(stage, PIPELINING)))
}

/// Slow requests come faster than their handlers end, so the agent is always at some limit.
fn beside_a_steady_load(stage: &Stage, args: &[&str]) -> Result<Vec<Result<()>>> {
    const SECONDS: usize = 8;
    /// Milliseconds from one round to the next: one slow request and two quick ones.
    const ROUND: usize = 50;
    let (_agent, haproxy) = start(stage, args)?;
    let (haproxy, start) = (&haproxy, Instant::now());
    Ok(thread::scope(|scope| {
        let mut threads = Vec::new();
        for round in 0..SECONDS * 1000 / ROUND {
            let due = Duration::from_millis((round * ROUND) as u64);
            thread::sleep(due.saturating_sub(start.elapsed()));
            scope.spawn(|| haproxy.get(SLOW));
            for value in [2 * round, 2 * round + 1] {
                threads.push(scope.spawn(move || quick(haproxy, value)));
            }
        }
        let panicked = |_| Err(anyhow!("it panicked"));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
    }))
}

// 2.6 and 3.0 count twenty unanswered requests on a connection as its end, also those that they gave up, and do not always open
// another in time: the oldest gives way there.
#[test]
fn beside_a_steady_load_of_abandoned_requests_every_quick_one_is_answered() -> Verdict {
    everywhere(|stage| twice(|| beside_a_steady_load(stage, &[])))
}

#[test]
fn beside_a_steady_load_of_abandoned_requests_every_quick_one_is_answered_with_pipelining() -> Verdict {
    everywhere(|stage| twice(|| beside_a_steady_load(stage, PIPELINING)))
}
