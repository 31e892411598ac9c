//! What the network does to the bytes between HAProxy and the agent.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use spop_tests::haproxy::{Config, Engine, Haproxy};
use spop_tests::http::{Client, Request};
use spop_tests::load::concurrently;
use spop_tests::relay::{Fault, Manner, Relay, Way};
use spop_tests::stage::{Verdict, everywhere};
use spop_tests::wait::{PATIENCE, until_true};

/// HAProxy's timeouts: `processing`, `hello` and `idle`.
type Timeouts = [&'static str; 3];

/// For requests that wait until one of them is over.
const SHORT: Timeouts = ["1s", "500ms", "500ms"];
const SHORT_LIMIT: Duration = Duration::from_secs(5);

/// Where none of them decides.
const LONG: Timeouts = ["8s"; 3];
const LONG_LIMIT: Duration = Duration::from_secs(12);

fn config(relay: &Relay, [processing, hello, idle]: Timeouts) -> Config {
    Config::new(&relay.address())
        .agent(&format!("timeout processing {processing}"))
        .agent(&format!("timeout hello {hello}"))
        .agent(&format!("timeout idle {idle}"))
        .message("echo", "v=url_param(v)")
        .show("echo.v")
}

fn ask(haproxy: &Haproxy, value: usize) -> Result<()> {
    haproxy.get(&format!("/?v={value}"))?.expect(&[("echo.v", &value.to_string())])
}

/// Service has come back when a request is answered.
fn expect_service(haproxy: &Haproxy) -> Result<()> {
    until_true("a request is answered", PATIENCE, || Ok(ask(haproxy, 1).is_ok()))
}

#[test]
fn bytes_that_come_late_and_one_by_one_make_no_difference() -> Verdict {
    everywhere(|stage| {
        let agent = stage.agent(&[])?;
        let relay = Relay::start(agent.address())?;
        let haproxy = stage.haproxy(&config(&relay, LONG))?;
        for manner in [
            Manner { piece: 1, ..Manner::default() },
            Manner { delay: Duration::from_millis(20), ..Manner::default() },
            Manner { piece: 7, delay: Duration::from_millis(5) },
        ] {
            relay.pass(manner);
            relay.reset_all()?;
            expect_service(&haproxy)?;
            concurrently(30, |value| ask(&haproxy, value))?;
        }
        let answers = relay.check_answers()?;
        ensure!(answers >= 90, "{answers} answers went through the relay");
        Ok(())
    })
}

/// Asks three times, and returns how many failed.
fn converse(haproxy: &Haproxy, limit: Duration) -> Result<usize> {
    let mut client = Client::connect(haproxy.address())?;
    let mut failed = 0;
    for value in ["1", "2", "3"] {
        let reply = client.send(&Request::get(&format!("/?v={value}")))?;
        match reply.error() {
            None => reply.expect(&[("echo.v", value)])?,
            Some(_) => failed += 1,
        }
        // HAProxy's own timeout, and no more.
        reply.expect_within(limit)?;
    }
    Ok(failed)
}

/// How many bytes pass each way when nothing goes wrong.
fn conversation(relay: &Relay, haproxy: &Haproxy) -> Result<[usize; 2]> {
    until_true("three requests in a row are answered without a fault", PATIENCE, || {
        Ok(converse(haproxy, PATIENCE)? == 0)
    })?;
    // HAProxy 3.0 opens another connection and leaves it idle.
    let longest = |way| relay.pipes().iter().map(|pipe| pipe.bytes(way)).max().unwrap_or_default();
    Ok([Way::ToAgent, Way::ToHaproxy].map(longest))
}

#[test]
fn a_reset_at_any_byte_of_a_conversation_harms_nothing_after_it() -> Verdict {
    everywhere(|stage| {
        let agent = stage.agent(&[])?;
        let relay = Relay::start(agent.address())?;
        // Since 3.1 a request whose connection is lost before the end of the handshake waits a second for another try.
        let haproxy = stage.haproxy(&config(&relay, LONG).backend("retries 0"))?;
        let lengths = conversation(&relay, &haproxy)?;
        let (mut failed, mut tried) = (0, 0);
        for (way, length) in [Way::ToAgent, Way::ToHaproxy].into_iter().zip(lengths) {
            for after in 0..=length {
                let mut attempt = || {
                    tried += 1;
                    relay.reset_all()?;
                    haproxy.wait_for_no_agent_connections()?;
                    relay.fail_next(Fault { way, after, stall: false });
                    converse(&haproxy, LONG_LIMIT)
                };
                let mut lost = attempt()?;
                if lost > 1 {
                    // HAProxy may hear of the reset late, but not twice.
                    println!(
                        "{stage}: {lost} requests failed by a reset {way:?} after {after} bytes; once more"
                    );
                    lost = attempt()?;
                }
                // A reset takes with it what is on its way, and here that is one request.
                ensure!(lost <= 1, "{lost} requests failed by a reset {way:?} after {after} bytes");
                failed += lost;
            }
        }
        let (resets, answers) = (relay.faults(), relay.check_answers()?);
        println!("{stage}: {resets} resets, {failed} requests failed, {answers} answers");
        ensure!(resets * 10 >= tried * 9, "only {resets} of {tried} resets have happened");
        ensure!(failed <= resets, "{failed} requests failed by {resets} resets");
        expect_service(&haproxy)
    })
}

// 2.6 and 3.0 leave it when the first request has waited too long; later versions go on asking there until they purge idle
// connections.
#[test]
fn a_connection_that_stalls_is_left_behind() -> Verdict {
    everywhere(|stage| {
        let agent = stage.agent(&["--frame-timeout", "300"])?;
        let relay = Relay::start(agent.address())?;
        let (config, pause) = match stage.binary().engine() {
            Engine::Applet => (config(&relay, SHORT), Duration::ZERO),
            Engine::Multiplexer => {
                (config(&relay, SHORT).server_options("pool-purge-delay 100ms"), Duration::from_millis(600))
            }
        };
        let haproxy = stage.haproxy(&config)?;
        let [to_agent, to_haproxy] = conversation(&relay, &haproxy)?;
        // In the HELLO, in the last NOTIFY and in its answer.
        let places = [
            (Way::ToAgent, 30),
            (Way::ToAgent, to_agent - 3),
            (Way::ToHaproxy, 10),
            (Way::ToHaproxy, to_haproxy - 3),
        ];
        for (number, (way, after)) in (1..).zip(places) {
            relay.reset_all()?;
            haproxy.wait_for_no_agent_connections()?;
            relay.fail_next(Fault { way, after, stall: true });
            converse(&haproxy, SHORT_LIMIT)?;
            ensure!(relay.faults() == number, "{way:?} {after}: nothing stalled");
            until_true("three requests in a row are answered", PATIENCE, || {
                thread::sleep(pause);
                Ok(converse(&haproxy, SHORT_LIMIT)? == 0)
            })?;
        }
        relay.check_answers()?;
        Ok(())
    })
}
