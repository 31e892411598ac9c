//! Agents that are killed, that run out of descriptors, and that are told to end.

use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure};
use spop_tests::haproxy::Config;
use spop_tests::load::Load;
use spop_tests::process::{cpu_millis, descriptors, limit_descriptors};
use spop_tests::relay::{Pipe, Relay, Way};
use spop_tests::stage::{Verdict, everywhere};
use spop_tests::wait::{PATIENCE, until_true};

fn config(address: &str) -> Config {
    Config::new(address).message("echo", "v=url_param(v)").show("echo.v")
}

#[test]
fn after_an_agent_was_killed_the_next_serves_and_nothing_is_answered_twice() -> Verdict {
    everywhere(|stage| {
        let mut agent = stage.agent(&[])?;
        let relay = Relay::start(agent.address())?;
        let haproxy = stage.haproxy(&config(&relay.address()))?;
        let (mut served, mut failed) = (0, 0);
        // On a busy machine an agent may be killed when nobody asks, which shows nothing.
        for round in 0..20 {
            if round >= 3 && failed > 0 {
                break;
            }
            let load = Load::start(haproxy.address(), 8, "echo.v");
            load.run_for(200)?;
            agent.kill()?;
            agent = stage.successor(&agent, &[])?;
            load.run_for(200)?;
            let tally = load.finish()?;
            served += tally.served;
            failed += tally.failures.len();
            ensure!(tally.slowest < Duration::from_secs(15), "a request took {:?}", tally.slowest);
            let load = Load::start(haproxy.address(), 8, "echo.v");
            load.run_for(100)?;
            let after = load.finish()?;
            ensure!(after.failures.is_empty(), "with the new agent: {:?}", after.failures);
        }
        let answers = relay.check_answers()?;
        println!("{stage}: {served} served, {failed} failed, {answers} answers");
        ensure!(failed > 0, "nothing failed: the agent was killed when nobody asked");
        Ok(())
    })
}

#[test]
fn an_agent_out_of_descriptors_serves_those_it_has_and_the_others_when_some_are_free() -> Verdict {
    everywhere(|stage| {
        let agent = stage.agent(&[])?;
        let config = config(agent.address()).agent("timeout hello 4s").agent("timeout processing 4s");
        let haproxy = stage.haproxy(&config)?;
        let get = |value: &str| haproxy.get(&format!("/?v={value}"))?.expect(&[("echo.v", value)]);
        get("before")?;
        let limit = descriptors(agent.id())? + 5;
        limit_descriptors(agent.id(), limit as u64)?;
        let guests: Vec<_> =
            (0..30).map(|_| TcpStream::connect(agent.address())).collect::<Result<_, _>>()?;
        until_true("the agent has no descriptors left", PATIENCE, || Ok(descriptors(agent.id())? >= limit))?;
        let (cpu, start) = (cpu_millis(agent.id())?, Instant::now());
        // HAProxy has a connection, and may want another that it does not get.
        let served = (0..3).filter(|_| get("meanwhile").is_ok()).count();
        ensure!(served > 0, "nothing was served meanwhile");
        thread::sleep(Duration::from_secs(1));
        let (cpu, time) = (cpu_millis(agent.id())? - cpu, start.elapsed());
        println!("{stage}: {served} of 3 served meanwhile; {cpu} ms of processor time in {time:?}");
        ensure!(u128::from(cpu) * 2 < time.as_millis(), "it used {cpu} ms of processor time in {time:?}");
        drop(guests);
        until_true("the agent has descriptors again", PATIENCE, || Ok(descriptors(agent.id())? < limit))?;
        until_true("a request is answered", PATIENCE, || Ok(get("after").is_ok()))?;
        // Connections of their own for all of them. The agent takes those of the guests first, a few at a time.
        until_true("four clients are served", 3 * PATIENCE, || {
            let clients = Load::start(haproxy.address(), 4, "echo.v");
            clients.run_for(100)?;
            Ok(clients.finish()?.failures.is_empty())
        })
    })
}

#[test]
fn either_signal_drains_and_a_second_one_ends_it_at_once() -> Verdict {
    everywhere(|stage| {
        for first_is_term in [true, false] {
            let mut agent = stage.agent(&["--drain-timeout", "60000"])?;
            let relay = Relay::start(agent.address())?;
            let config = config(&relay.address())
                .agent("timeout processing 10s")
                .message("sleep", "ms=url_param(ms),add(0)");
            let haproxy = stage.haproxy(&config)?;
            thread::scope(|scope| {
                let slow = scope.spawn(|| haproxy.get("/?v=slow&ms=60000"));
                let quick = haproxy.get("/?v=quick&ms=0")?;
                quick.expect(&[("echo.v", "quick")])?;
                until_true("the slow request has left for the agent", PATIENCE, || {
                    let asked =
                        |pipe: &Pipe| pipe.sentences(Way::ToAgent).iter().any(|one| one.contains("60000"));
                    Ok(relay.pipes().iter().any(|pipe| asked(pipe)))
                })?;
                thread::sleep(Duration::from_millis(500));
                if first_is_term {
                    agent.terminate()?;
                } else {
                    agent.interrupt()?;
                }
                until_true("it listens no more", PATIENCE, || {
                    Ok(TcpStream::connect(agent.address()).is_err())
                })?;
                ensure!(!slow.is_finished(), "the drain did not wait for the answer");
                let start = Instant::now();
                if first_is_term {
                    agent.interrupt()?;
                } else {
                    agent.terminate()?;
                }
                let status = agent.wait_for_end(PATIENCE)?;
                ensure!(status.success(), "the agent ended with {status}");
                ensure!(start.elapsed() < Duration::from_secs(5), "it took {:?}", start.elapsed());
                let error = stage.binary().error_of_disconnect(0);
                slow.join().map_err(|_| anyhow!("it panicked"))??.expect_error(error)
            })?;
        }
        Ok(())
    })
}
