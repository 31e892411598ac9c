//! The profile of each HAProxy version: what it sends and when, as a relay between HAProxy and the agent sees it. `tests/haproxy.md`
//! has the list.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use spop_tests::agent::Agent;
use spop_tests::haproxy::{Config, Engine};
use spop_tests::http::Request;
use spop_tests::load::concurrently;
use spop_tests::relay::{Relay, Way};
use spop_tests::stage::{Stage, Verdict, everywhere, with_engine};
use spop_tests::wait::{PATIENCE, until, until_true};

use super::inside;

fn start(stage: &Stage, args: &[&str]) -> Result<(Agent, Relay, Config)> {
    let agent = stage.agent(args)?;
    let relay = Relay::start(agent.address())?;
    let config = Config::new(&relay.address()).message("echo", "v=url_param(v)").show("echo.v");
    Ok((agent, relay, config))
}

/// The value of a key in a sentence.
fn key<'a>(sentence: &'a str, key: &str) -> Option<&'a str> {
    sentence.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

/// What begins with these words among all that has passed, once there is something.
fn said(relay: &Relay, way: Way, words: &str) -> Result<Vec<String>> {
    until(&format!("somebody says {words}"), PATIENCE, || {
        let all: Vec<_> = relay.pipes().iter().flat_map(|pipe| pipe.sentences(way)).collect();
        let found: Vec<_> = all.into_iter().filter(|sentence| sentence.starts_with(words)).collect();
        Ok((!found.is_empty()).then_some(found))
    })
}

/// Checks how many engines two threads are to the agent, and how they greet.
fn expect_greetings(stage: &Stage, number: usize, capabilities: &str) -> Result<()> {
    let (_agent, relay, config) = start(stage, &[])?;
    let haproxy = stage.haproxy(&config.threads(2))?;
    let engines = || -> Vec<String> {
        let hellos = relay.pipes().into_iter().flat_map(|pipe| pipe.sentences(Way::ToAgent));
        let mut engines: Vec<_> =
            hellos.filter_map(|hello| key(&hello, "engine-id").map(ToOwned::to_owned)).collect();
        engines.sort();
        engines.dedup();
        engines
    };
    until_true("both threads have asked", PATIENCE, || {
        concurrently(10, |_| haproxy.get("/?v=1")?.expect(&[("echo.v", "1")]))?;
        Ok(engines().len() == number)
    })?;
    concurrently(50, |_| haproxy.get("/?v=1")?.expect(&[("echo.v", "1")]))?;
    ensure!(engines().len() == number, "{:?}", engines());
    for hello in said(&relay, Way::ToAgent, "HAPROXY-HELLO")? {
        ensure!(hello.starts_with("HAPROXY-HELLO fin 0 0 "), "{hello}");
        ensure!(key(&hello, "supported-versions") == Some("string:2.0"), "{hello}");
        ensure!(key(&hello, "max-frame-size") == Some("uint32:16380"), "{hello}");
        ensure!(key(&hello, "capabilities") == Some(&format!("string:{capabilities}")), "{hello}");
        let engine = key(&hello, "engine-id").and_then(|id| id.strip_prefix("string:"));
        ensure!(engine.is_some_and(|id| id.len() == 36), "{hello}");
    }
    Ok(())
}

#[test]
fn each_thread_greets_as_an_engine_of_its_own() -> Verdict {
    with_engine(Engine::Applet, |stage| expect_greetings(stage, 2, "pipelining,async"))
}

#[test]
fn all_threads_greet_as_one_engine_since_3_1() -> Verdict {
    with_engine(Engine::Multiplexer, |stage| expect_greetings(stage, 1, "pipelining"))
}

#[test]
fn a_health_check_is_answered_with_a_hello_and_nothing_more() -> Verdict {
    everywhere(|stage| {
        let (_agent, relay, config) = start(stage, &[])?;
        let config = config
            .server_options("check inter 100ms fastinter 100ms")
            .backend("option spop-check")
            .backend("timeout check 5s");
        let haproxy = stage.haproxy(&config)?;
        let checks = || relay.pipes().into_iter().filter(|pipe| pipe.bytes(Way::ToAgent) > 0);
        until_true("the check succeeds again and again", PATIENCE, || Ok(checks().count() > 5))?;
        haproxy.wait_for_server("UP")?;
        for check in checks().take(5) {
            ensure!(check.bytes(Way::ToAgent) == 82, "{} bytes", check.bytes(Way::ToAgent));
            let (asked, answered) = (check.sentences(Way::ToAgent), check.sentences(Way::ToHaproxy));
            let [hello] = &asked[..] else { anyhow::bail!("{asked:?}") };
            ensure!(key(hello, "healthcheck") == Some("bool:true"), "{hello}");
            ensure!(key(hello, "capabilities") == Some("string:\"\""), "{hello}");
            ensure!(key(hello, "engine-id").is_none(), "{hello}");
            ensure!(answered.len() == 1, "{answered:?}");
            until_true("it is closed", PATIENCE, || Ok(!check.is_open()))?;
        }
        Ok(())
    })
}

#[test]
fn an_idle_connection_is_closed_by_haproxy_with_2_and_the_agent_repeats_it() -> Verdict {
    with_engine(Engine::Applet, |stage| {
        let (_agent, relay, config) = start(stage, &[])?;
        let haproxy = stage.haproxy(&config.agent("timeout idle 2s"))?;
        haproxy.get("/?v=1")?.expect(&[("echo.v", "1")])?;
        let said_by_haproxy = said(&relay, Way::ToAgent, "HAPROXY-DISCONNECT")?;
        let first = said_by_haproxy.first().context("nothing")?;
        ensure!(key(first, "status-code") == Some("uint32:2"), "{first}");
        let said_by_agent = said(&relay, Way::ToHaproxy, "AGENT-DISCONNECT")?;
        let first = said_by_agent.first().context("nothing")?;
        ensure!(key(first, "status-code") == Some("uint32:2"), "{first}");
        until_true("all connections are closed", PATIENCE, || {
            Ok(!relay.pipes().iter().any(|pipe| pipe.is_open()))
        })?;
        haproxy.get("/?v=2")?.expect(&[("echo.v", "2")])
    })
}

// And the agent says nothing of it: there is nothing wrong.
#[test]
fn an_idle_connection_is_closed_without_a_disconnect_since_3_1() -> Verdict {
    with_engine(Engine::Multiplexer, |stage| {
        let (_agent, relay, config) = start(stage, &[])?;
        let haproxy = stage.haproxy(&config.server_options("pool-purge-delay 100ms"))?;
        haproxy.get("/?v=1")?.expect(&[("echo.v", "1")])?;
        until_true("all connections are closed", PATIENCE, || {
            Ok(!relay.pipes().iter().any(|pipe| pipe.is_open()))
        })?;
        for pipe in relay.pipes() {
            let asked = pipe.sentences(Way::ToAgent);
            ensure!(!asked.iter().any(|sentence| sentence.starts_with("HAPROXY-DISCONNECT")), "{asked:?}");
        }
        expect_no_warning(stage)?;
        haproxy.get("/?v=2")?.expect(&[("echo.v", "2")])
    })
}

fn expect_no_warning(stage: &Stage) -> Result<()> {
    let log = std::fs::read_to_string(stage.dir().join("agent-0.log"))?;
    ensure!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
    Ok(())
}

#[test]
fn a_soft_stop_disconnects_with_0_when_the_answers_have_come() -> Verdict {
    everywhere(|stage| {
        let (_agent, relay, config) = start(stage, &[])?;
        let mut haproxy = stage.haproxy(&config.message("sleep", "ms=int(300)"))?;
        thread::scope(|scope| {
            let request = scope.spawn(|| haproxy.get("/?v=1")?.expect(&[("echo.v", "1")]));
            said(&relay, Way::ToAgent, "NOTIFY")?;
            haproxy.soft_stop()?;
            request.join().map_err(|_| anyhow!("it panicked"))?
        })?;
        ensure!(haproxy.wait_for_end()?.success(), "HAProxy failed");
        match stage.binary().engine() {
            Engine::Applet => {
                for disconnect in said(&relay, Way::ToAgent, "HAPROXY-DISCONNECT")? {
                    ensure!(key(&disconnect, "status-code") == Some("uint32:0"), "{disconnect}");
                }
            }
            // It just closes.
            Engine::Multiplexer => expect_no_warning(stage)?,
        }
        for pipe in relay.pipes() {
            let (asked, answered) = (pipe.sentences(Way::ToAgent), pipe.sentences(Way::ToHaproxy));
            let notifies = asked.iter().filter(|sentence| sentence.starts_with("NOTIFY")).count();
            let acks = answered.iter().filter(|sentence| sentence.starts_with("ACK")).count();
            ensure!(notifies == acks, "{asked:?} {answered:?}");
        }
        Ok(())
    })
}

// HAProxy takes whatever comes under these identifiers for the answer to the later event.
#[test]
fn with_continue_on_error_a_late_answer_is_not_taken_for_that_of_the_next_event() -> Verdict {
    everywhere(|stage| {
        let agent = stage.agent(&[])?;
        let relay = Relay::start(agent.address())?;
        let send = |ms: u32, v: &str| {
            let set = format!("http-request set-var(txn.ms) int({ms})");
            [
                set,
                format!("http-request set-var(txn.v) str({v})"),
                "http-request send-spoe-group e g".to_owned(),
            ]
        };
        // The first times out after six seconds. Its answer is ready before that of the second.
        let config = [send(8000, "first"), send(3500, "second")].iter().flatten().fold(
            Config::new(&relay.address())
                .agent("option continue-on-error")
                .agent("timeout processing 6s")
                .message_of_group("sleep", "ms=var(txn.ms)")
                .message_of_group("echo", "v=var(txn.v)")
                .show("echo.v"),
            |config, line| config.frontend(line),
        );
        let haproxy = stage.haproxy(&config)?;
        let reply = haproxy.get("/")?;
        reply.expect_error(1)?;
        ensure!(reply.var("echo.v") == Some("second"), "it is {:?}", reply.var("echo.v"));
        let asked = said(&relay, Way::ToAgent, "NOTIFY")?;
        let ids: Vec<_> = asked.iter().map(|sentence| sentence.split(" sleep").next()).collect();
        // Later versions count anew on each connection.
        if stage.binary().engine() == Engine::Applet {
            let again = ids.len() == 2 && ids.first() == ids.last();
            ensure!(again, "the identifiers do not come again: {ids:?}");
        }
        Ok(())
    })
}

#[test]
fn without_fragmentation_what_is_too_large_fails_and_the_next_request_is_served() -> Verdict {
    everywhere(|stage| {
        let (_agent, relay, config) =
            start(stage, &["--capabilities", "pipelining", "--max-frame-size", "512"])?;
        let config = config.frontend("option http-buffer-request").agent("timeout processing 3s").message_on(
            "on-frontend-http-request if { method POST }",
            "large",
            "b=req.body",
        );
        let haproxy = stage.haproxy(&config)?;
        haproxy.get("/?v=1")?.expect(&[("echo.v", "1")])?;
        let reply = haproxy.send(&Request::post("/?v=2", vec![b'x'; 5000]))?;
        println!("{stage}: {:?} after {:?}", reply.error(), reply.took);
        ensure!(reply.error().is_some(), "it was answered");
        reply.expect_within(Duration::from_secs(8))?;
        until_true("a request is answered", PATIENCE, || Ok(haproxy.get("/?v=3")?.error().is_none()))?;
        haproxy.get("/?v=4")?.expect(&[("echo.v", "4")])?;
        relay.check_answers()?;
        Ok(())
    })
}

// 3.1 and the first of 3.2 send a NOTIFY without messages then; others send nothing.
#[test]
fn when_no_condition_holds_no_handler_is_called() -> Verdict {
    everywhere(|stage| {
        let agent = inside::Agent::start(stage, inside::Entrance::default())?;
        let relay = Relay::start(&agent.address)?;
        let config = Config::new(&relay.address())
            .message_on("on-frontend-http-request if { path /yes }", "echo", "v=path")
            .show("echo.v")
            .show("echo.handler");
        let haproxy = stage.haproxy(&config)?;
        for _ in 0..3 {
            let reply = haproxy.get("/no")?;
            reply.expect_unset(&["echo.v", "echo.handler"])?;
            reply.expect_within(Duration::from_secs(2))?;
        }
        haproxy.get("/yes")?.expect(&[("echo.v", "/yes"), ("echo.handler", "0")])?;
        let empty = said(&relay, Way::ToAgent, "NOTIFY")?.len() - 1;
        println!("{stage}: {empty} NOTIFYs without messages");
        relay.check_answers()?;
        Ok(())
    })
}
