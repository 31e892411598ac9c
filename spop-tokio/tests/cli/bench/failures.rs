//! What goes wrong, and what is said about it.

use std::{
    io::Write as _,
    thread,
    time::{Duration, Instant},
};

use super::bench;
use crate::support::{Listen, PATIENT, Reserved, command, finish, interrupt, read_to_end, server, spop};

#[test]
fn failures_have_the_numbers_of_haproxy() {
    let agent = Listen::start(&["--on", "bye", "disconnect 5", "--on", "silent", "ignore"]).without_output();
    // All that are not answered are in flight at once, each on its connection.
    let load = ["--requests", "30", "--timeout", PATIENT, "-c", "12"];
    for engine in ["3.4", "2.6"] {
        let args = [&[agent.address.as_str(), "bye", "silent", "ok", "--engine", engine][..], &load].concat();
        let (run, result) = bench(&args);
        assert_eq!((run.code, run.err.as_str()), (Some(1), ""), "{run:?}");
        let errors = result["errors"].as_array().unwrap();
        let codes: Vec<_> = errors
            .iter()
            .map(|error| (error["code"].as_u64().unwrap(), error["count"].as_u64().unwrap()))
            .collect();
        assert_eq!(codes, [(1, 10), (261, 10)], "{result}");
        assert_eq!(
            (result["answered"].as_u64(), result["failed"].as_u64()),
            (Some(10), Some(20)),
            "{result}"
        );
        assert_eq!(errors[0]["name"], "timeout");
        let ended = &result["sessions_ended"][0];
        assert!(ended["reason"].as_str().unwrap().contains("disconnected with 5"), "{result}");
    }
    let run = spop(["bench", &agent.address, "bye"].into_iter().chain(load));
    assert_eq!(run.code, Some(1));
    for text in [
        "30 requests failed; their time is not in the latencies.\n",
        "error 261: version value not found (the session ended with status 5)\n",
        "  Who: the agent: its AGENT-HELLO",
        "Sessions that ended before the load did:\n  30 × the peer disconnected with 5",
    ] {
        assert!(run.out.contains(text), "{text}: {}", run.out);
    }
}

#[test]
fn requests_that_are_due_too_long_fail() {
    let agent = Listen::start(&["--delay", "150ms"]).without_output();
    let args = [&agent.address, "a", "-c", "1", "--rate", "100", "--time", "1s", "--timeout", PATIENT];
    let (run, result) = bench(&args);
    assert_eq!(run.code, Some(1));
    let [sent, answered, never_sent] =
        ["sent", "answered", "never_sent"].map(|name| result[name].as_u64().unwrap());
    // The agent answers 6 or 7 a second, in 5 seconds; each of the 100 that were due has one end.
    assert!((8..=36).contains(&sent) && sent == answered && never_sent == 100 - sent, "{result}");
    assert_eq!(result["failed"], never_sent);
}

#[test]
fn messages_that_do_not_fit_fail_without_being_sent() {
    let agent = Listen::start(&[]).without_output();
    let (run, result) =
        bench(&[&agent.address, "a x=string:\"x\"*20000", "ok", "--requests", "20", "-c", "2"]);
    assert_eq!(run.code, Some(1));
    assert_eq!((result["sent"].as_u64(), result["failed"].as_u64()), (Some(10), Some(10)), "{result}");
    assert_eq!(result["errors"][0]["code"], 3);
    let (run, _) =
        bench(&[&agent.address, "a x=string:\"x\"*20000", "--requests", "20", "-c", "2", "--engine", "3.0"]);
    assert_eq!(run.code, Some(0), "it is sent in fragments: {run:?}");
}

#[test]
fn a_server_that_is_no_agent_is_named() {
    let http = server(|socket, _| drop(socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")));
    spop(["bench", &http, "a"])
        .expect_error(1, &format!("spop: {http}: this is no SPOP agent but an HTTP server"));
    let silent = server(|socket, _| read_to_end(socket));
    spop(["bench", &silent, "a", "--timeout", "100ms"])
        .expect_error(1, &format!("spop: {silent}: no AGENT-HELLO came within 100ms: is it an agent?"));
}

#[test]
fn an_agent_that_dies_ends_the_run_with_what_was_measured() {
    for load in
        [&["--rate", "200"][..], &["--requests", "100000000"], &["--in-flight", "4", "--engine", "2.6"]]
    {
        let Reserved { address, .. } = &Reserved::new();
        let mut agent = Listen::start_at(address, &["--delay", "1ms"]);
        let args = ["bench", address, "a", "--time", "60s", "--json", "-c", "3"];
        let child = command(args.into_iter().chain(load.iter().copied())).spawn().unwrap();
        agent.wait_for_answers();
        drop(agent);
        let begun = Instant::now();
        let run = finish(child);
        assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
        run.expect_error(
            3,
            &format!("spop: the agent has gone: {address}: connection refused: is the agent running?"),
        );
        let result = &run.events("run")[0];
        assert!(result["answered"].as_u64().unwrap() > 0 && result["gone"].is_string(), "{result}");
        let reason = result["sessions_ended"][0]["reason"].as_str().unwrap();
        assert!(
            ["the peer closed the connection", "the connection broke: connection reset by peer"]
                .contains(&reason),
            "{result}"
        );
    }
}

#[test]
fn an_agent_that_comes_back_is_asked_again() {
    let Reserved { address, .. } = &Reserved::new();
    let mut agent = Listen::start_at(address, &[]);
    let args = ["bench", address, "a", "--time", "4s", "--rate", "100", "--json"];
    let child = command(args).spawn().unwrap();
    agent.wait_for_answers();
    drop(agent);
    thread::sleep(Duration::from_millis(300));
    let agent = Listen::start_at(address, &[]).without_output();
    let run = finish(child);
    let result = &run.events("run")[0];
    // What was due meanwhile is sent when the agent is back.
    assert!(run.code == Some(1) && result["answered"].as_u64().unwrap() > 350, "{run:?}");
    drop(agent);
}

#[test]
fn an_interrupt_ends_it_with_what_was_measured() {
    for load in [&["--rate", "200"][..], &[], &["--compare", "SECOND"]] {
        let (mut agent, second) = (Listen::start(&[]), Listen::start(&[]).without_output());
        let load = load.iter().map(|arg| if *arg == "SECOND" { second.address.as_str() } else { arg });
        let address = agent.address.clone();
        let args = ["bench", &address, "a", "--time", "60s", "--json"];
        let child = command(args.into_iter().chain(load)).spawn().unwrap();
        agent.wait_for_answers();
        let _agent = agent.without_output();
        interrupt(&child);
        let begun = Instant::now();
        let run = finish(child);
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        run.expect_error(130, "spop: interrupted");
        let result = &run.events("run")[0];
        assert!(result["answered"].as_u64().unwrap() > 0 && result["interrupted"] == true, "{result}");
    }
}

#[test]
fn an_agent_that_ends_every_session_does_not_keep_the_run() {
    // The handshake succeeds, and then the connection is closed.
    let agent = server(|socket, _| crate::support::write_frames(socket, &[crate::support::HELLO]));
    let begun = Instant::now();
    let run = spop(["bench", &agent, "a", "--requests", "100", "-c", "2", "--json"]);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert!(matches!(run.code, Some(1 | 3)), "{run:?}");
}
