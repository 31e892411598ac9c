//! Faults are what was asked for, and are shown.

use std::time::{Duration, Instant};

use super::{agent, session};
use crate::support::{Listen, PATIENT, json, read_frame, read_to_end, spop, write_frames};

#[test]
fn a_slow_agent_is_rehearsed() {
    let agent = Listen::start(&[]).without_output();
    let relay = Listen::relay(&agent.address, &["--json", "--delay", "200ms type=ACK every=2"]);
    let begun = Instant::now();
    let sent = spop(["send", &relay.address, "a", "--repeat", "4"]);
    assert_eq!(sent.code, Some(0), "{sent:?}");
    assert!(begun.elapsed() >= Duration::from_millis(400));
    let run = relay.interrupt();
    let acks: Vec<_> = run.events("frame").into_iter().filter(|frame| frame["type"] == "ACK").collect();
    let latencies: Vec<_> = acks.iter().map(|ack| ack["latency_ms"].as_f64().unwrap()).collect();
    assert!(latencies[1] >= 200.0 && latencies[3] >= 200.0, "{latencies:?}");
    // The others were not delayed, however late they are.
    let faults = run.events("fault");
    let texts: Vec<_> = faults.iter().map(|fault| fault["text"].as_str().unwrap()).collect();
    let expected = ["ACK 3/1, 11 bytes: delayed by 200ms", "ACK 7/1, 11 bytes: delayed by 200ms"];
    assert_eq!(texts, expected, "{run:?}");
    assert_eq!(run.events("end")[0]["faults"]["delay"], 2);
}

#[test]
fn requests_can_be_lost_as_well_as_answers() {
    let agent = agent(&["ACK fin 1 1"]);
    let relay = Listen::relay(&agent, &["--drop", "to=agent type=NOTIFY times=1"]);
    let mut socket = session(&relay);
    write_frames(&mut socket, &["NOTIFY fin 1 1 a", "NOTIFY fin 1 1 b"]);
    assert_eq!(read_frame(&mut socket).as_deref(), Some("ACK fin 1 1"));
    drop(socket);
    let run = relay.interrupt();
    assert!(run.out.contains("#1 ~ > NOTIFY 1/1, 14 bytes: dropped\n"), "{run:?}");
    assert!(run.out.contains(", frames dropped: 1\n"), "{run:?}");
}

#[test]
fn faults_strike_behind_a_proxy_header() {
    let agent = Listen::start(&["--proxy"]).without_output();
    for version in ["--proxy=v1", "--proxy=v2"] {
        let relay = Listen::relay(&agent.address, &["--drop", "to=agent type=NOTIFY after=1 times=1"]);
        let sent = spop(["send", &relay.address, "a", "b", "--timeout", PATIENT, version]);
        assert_eq!(sent.code, Some(1), "{sent:?}");
        let run = relay.interrupt();
        assert!(run.out.contains("#1 ~ > NOTIFY 3/1, 14 bytes: dropped\n"), "{run:?}");
        assert!(run.out.contains("requests: 2, answered: 1, "), "{run:?}");
    }
}

#[test]
fn an_agent_dies_in_the_middle_of_a_frame() {
    for (option, how) in [("--close", "closed"), ("--reset", "reset")] {
        let agent = Listen::start(&["--set", "txn a=int32:1"]).without_output();
        let relay = Listen::relay(&agent.address, &[option, "type=ACK after=1 byte=9 times=1"]);
        let sent = spop(["send", &relay.address, "a", "--repeat", "3"]);
        assert_eq!(sent.code, Some(1), "{sent:?}");
        let run = relay.signal("TERM");
        let fault = format!("#1 ~ < ACK 3/1: the connection is {how} after 9 of 18 bytes\n");
        assert!(run.out.contains(&fault), "{run:?}");
        assert!(run.out.contains(", connections ended by a fault: 1\n"), "{run:?}");
        // It is what HAProxy sees.
        assert!(run.out.contains(": the connection is closed after 9 bytes of a frame\n"), "{run:?}");
        let reason = if how == "reset" { "reset by a fault" } else { "by a fault" };
        assert!(
            run.out.contains(&format!("#1 * closed: {reason}, 1 request without an answer\n")),
            "{run:?}"
        );
        assert!(run.out.contains(" #2 * session: "), "the next one is fine: {run:?}");
        assert_eq!(run.code, Some(1), "{run:?}");
    }
}

#[test]
fn a_rehearsal_is_repeated_by_its_seed() {
    let agent = Listen::start(&["--set", "txn a=int32:1"]).without_output();
    let struck = |args: &[&str]| {
        let args: Vec<_> = ["--json", "--drop", "type=ACK share=40%"].iter().chain(args).copied().collect();
        let relay = Listen::relay(&agent.address, &args);
        for _ in 0..2 {
            let mut socket = session(&relay);
            for id in 1..=40 {
                write_frames(&mut socket, &[&format!("NOTIFY fin {id} 1 a")]);
            }
            write_frames(
                &mut socket,
                &["HAPROXY-DISCONNECT fin 0 0 status-code=uint32:0 message=string:\"\""],
            );
            read_to_end(&mut socket);
        }
        let faults = relay.interrupt().events("fault");
        faults
            .iter()
            .map(|fault| (fault["connection"].as_u64().unwrap(), fault["stream"].as_u64().unwrap()))
            .collect::<Vec<_>>()
    };
    let first = struck(&["--seed", "7"]);
    assert!((10..70).contains(&first.len()), "{first:?}");
    assert_eq!(struck(&["--seed", "7"]), first);
    assert_ne!(struck(&["--seed", "8"]), first);
}

#[test]
fn a_seed_that_was_chosen_is_shown() {
    let agent = Listen::start(&[]).without_output();
    let mut relay = Listen::relay(&agent.address, &["--drop", "share=0.5%"]);
    let line = relay.wait_for("--seed ");
    assert!(line.ends_with(" repeats what is random\n"), "{line}");
    let run = Listen::relay(&agent.address, &["--drop", "every=2"]).interrupt();
    assert!(!run.out.contains("--seed") && json("").is_empty(), "{run:?}");
}
