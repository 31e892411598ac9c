//! Requests that HAProxy gives up while their handlers still run. Nothing tells the agent, and with HAProxy 3.1 and later
//! the next requests come on the same connections.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use spop_tests::agent::Agent;
use spop_tests::haproxy::{Config, Haproxy};
use spop_tests::load::concurrently;
use spop_tests::stage::{Stage, Verdict, everywhere};

/// Longer than any of this takes.
const SLOW: &str = "/?v=slow&ms=20000";

fn start(stage: &Stage) -> Result<(Agent, Haproxy)> {
    let agent = stage.agent(&[])?;
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

#[test]
fn after_many_abandoned_requests_every_quick_one_is_answered() -> Verdict {
    everywhere(|stage| {
        let (_agent, haproxy) = start(stage)?;
        // No more at once than HAProxy sends on one connection.
        concurrently(10, |_| (0..7).try_for_each(|_| haproxy.get(SLOW)?.expect_error(1)))?;
        let results = concurrently(10, |client| {
            Ok((0..10).map(|round| quick(&haproxy, client * 10 + round)).collect::<Vec<_>>())
        })?;
        expect_all(&results.into_iter().flatten().collect::<Vec<_>>())
    })
}

// Slow requests come faster than their handlers end, so the agent is always at some limit.
#[test]
fn beside_a_steady_load_of_abandoned_requests_every_quick_one_is_answered() -> Verdict {
    const SECONDS: usize = 8;
    /// Milliseconds from one round to the next: one slow request and two quick ones.
    const ROUND: usize = 50;
    everywhere(|stage| {
        let (_agent, haproxy) = start(stage)?;
        let start = Instant::now();
        let results = thread::scope(|scope| {
            let mut threads = Vec::new();
            for round in 0..SECONDS * 1000 / ROUND {
                let due = Duration::from_millis((round * ROUND) as u64);
                thread::sleep(due.saturating_sub(start.elapsed()));
                scope.spawn(|| haproxy.get(SLOW));
                for value in [2 * round, 2 * round + 1] {
                    let haproxy = &haproxy;
                    threads.push(scope.spawn(move || quick(haproxy, value)));
                }
            }
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("it panicked"))))
                .collect::<Vec<_>>()
        });
        expect_all(&results)
    })
}
