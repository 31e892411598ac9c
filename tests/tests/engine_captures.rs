//! What a recorded agent really sent goes into the engine's reactor, which takes HAProxy's place: it asks what HAProxy
//! asked when HAProxy asked it, and has to come to the same verdicts.

#![allow(clippy::match_same_arms, clippy::unwrap_used)] // It is a test.

use std::collections::BTreeMap;

use spop_core::frame::FrameType;
use spop_tests::{
    captures::Capture,
    driver::Cuts,
    random::Random,
    replay::{Circumstances, Replay, summary},
};

#[test]
fn engines_do_what_haproxy_did() {
    let all = Capture::all().unwrap();
    let mut scenarios: BTreeMap<&str, Vec<&Capture>> = BTreeMap::new();
    for capture in &all {
        scenarios.entry(capture.name.rsplit_once('/').unwrap().0).or_default().push(capture);
    }
    assert!(scenarios.len() > 60, "{}", scenarios.len());
    let mut compared = 0;
    for (name, captures) in scenarios {
        let random = (0..4).map(|seed| Cuts::Random(Random::seeded(seed)));
        for cuts in [Cuts::AsSent, Cuts::Bytes].into_iter().chain(random) {
            let mut replay = Replay::new(&captures, circumstances(name), cuts.clone()).unwrap();
            replay.run().unwrap();
            for (capture, log) in replay.logs() {
                let verdicts = verdicts(capture, matches!(cuts, Cuts::AsSent));
                assert_eq!(log, verdicts, "{} {cuts:?}", capture.name);
            }
            for (capture, sent) in replay.sent() {
                let Some(recorded) = &capture.input else { continue };
                let mut recorded = summary(recorded).unwrap();
                // It was on its way when the ACK came that ended the session.
                let more = usize::from(capture.name == "3.5-dev5/async-ack-on-other-connection/conn-6");
                recorded.truncate(recorded.len() - more);
                assert_eq!(summary(sent).unwrap(), recorded, "{} {cuts:?}", capture.name);
                compared += 1;
            }
        }
    }
    assert!(compared > 6 * 120, "{compared} connections compared");
}

/// What HAProxy was configured with, and told, in these scenarios.
fn circumstances(scenario: &str) -> Circumstances {
    let (version, scenario) = scenario.split_once('/').unwrap();
    let processing = match scenario {
        "continue-on-error-id-reuse" => Some(200),
        "processing-timeout-mid-fragments" | "processing-timeout-sync-late-ack" => Some(600),
        "agent-ack-without-abort-mid-fragments" => Some(1_000),
        "ack-max-size-16380" | "async-ack-on-other-connection" | "pipelined-ack-burst-900" => Some(500),
        _ => None,
    };
    Circumstances {
        processing,
        idle: (scenario == "idle-timeout" && version.starts_with("2.")).then_some(600),
        stopped_at: (scenario == "soft-stop-inflight").then_some(200),
    }
}

/// What became of each request, and of the connection if HAProxy ended it or the agent did.
fn verdicts(capture: &Capture, as_sent: bool) -> Vec<String> {
    let (version, rest) = capture.name.split_once('/').unwrap();
    let (scenario, connection) = rest.split_once('/').unwrap();
    let old = version.starts_with("2.");
    let special: &[&str] = match (scenario, connection) {
        // The agent refuses a payload: error 4. An ACK without ABORT amid the fragments is ignored: error 1.
        ("agent-abort-fragment-2" | "agent-abort-mid-fragments", "conn-1") if old => {
            &["answered 1/1", "failed 3/1 4"]
        }
        ("agent-ack-without-abort-mid-fragments", "conn-1") if old => &["answered 1/1", "failed 3/1 1"],
        // 256 + 4.
        ("agent-disconnect-pending-4", "conn-1") => &[
            "failed 1/1 260",
            "closed: the peer disconnected with 4 (invalid frame received): \"agent says bye\"",
        ],
        // The late answer to the first request is that of the second, which has its identifiers; those after are late.
        ("continue-on-error-id-reuse", _) if old => &["failed 1/1 1", "answered 1/1", "failed 1/2 1"],
        ("continue-on-error-id-reuse", "conn-1") => &["failed 1/1 1", "failed 3/1 1"],
        ("continue-on-error-id-reuse", _) => &["failed 1/1 1"],
        ("processing-timeout-mid-fragments", "conn-1") if old => &["answered 1/1", "failed 3/1 1"],
        ("processing-timeout-sync-late-ack", "conn-1") if old => &["failed 1/1 1"],
        ("processing-timeout-sync-late-ack", "conn-2") => &["failed 3/1 1"],
        ("processing-timeout-sync-late-ack", _) => &["failed 1/1 1", "failed 3/1 1"],
        // The answers take another connection. 3.5 does not know of that: one such answer kills it silently.
        ("async-ack-on-other-connection", "conn-1") if !old => {
            return [String::from("answered 1/1")]
                .into_iter()
                .chain((3..=13).step_by(2).map(|stream| format!("failed {stream}/1 1")))
                .collect();
        }
        ("async-ack-on-other-connection", "conn-2") if !old => &["answered 1/1"],
        ("async-ack-on-other-connection", "conn-4") if !old => &["failed 1/1 1"],
        ("async-ack-on-other-connection", "conn-6") if !old => &[
            "closed: the peer broke the protocol: ACK 1/1: answers no NOTIFY; status 12 (frame-id not found)",
            "not asked 1/1",
        ],
        ("async-ack-on-other-connection", "conn-1") => {
            return [1, 2, 5, 6, 9, 10, 13, 14, 15].map(|stream| format!("answered {stream}/1")).into();
        }
        ("async-ack-on-other-connection", "conn-2") => {
            return [16, 17, 18].map(|stream| format!("answered {stream}/1")).into();
        }
        // One read fills 3.5's buffer: it never reads again, and goes on asking.
        ("ack-max-size-16380", _) if !old && as_sent => &["failed 1/1 1", "failed 3/1 1"],
        ("pipelined-ack-burst-900", _) if !old && as_sent => {
            let failed = (3..=81).step_by(2).map(|stream| format!("failed {stream}/1 1"));
            return [String::from("answered 1/1")].into_iter().chain(failed).collect();
        }
        ("hello-split-after-11", _) if !old && as_sent => {
            &["closed: the peer broke the protocol: AGENT-HELLO: did not arrive in one piece; \
             status 4 (invalid frame received)"]
        }
        ("healthcheck-hello-then-disconnect", _) if !old && as_sent => {
            &["closed: the peer broke the protocol: 38 bytes follow the answer to a health check; \
             status 4 (invalid frame received)"]
        }
        _ => &[],
    };
    if !special.is_empty() {
        return special.iter().map(|&line| line.into()).collect();
    }
    // Everything is answered, once.
    let mut verdicts: Vec<String> = Vec::new();
    for line in capture.lines(false).filter(|line| line.frame_type == FrameType::Ack) {
        let verdict = format!("answered {}/{}", line.ids.0, line.ids.1);
        if scenario != "ack-duplicate" || !verdicts.contains(&verdict) {
            verdicts.push(verdict);
        }
    }
    let closed = match scenario {
        "healthcheck-ok" | "healthcheck-hello-then-disconnect" => Some("a health check was answered"),
        "idle-timeout" if old => Some("the connection was idle too long"),
        "soft-stop-inflight" => Some("drained"),
        "frag-agent-no-fragmentation-cap" if old => {
            Some("disconnected by this side with 10 (payload fragmentation is not supported)")
        }
        _ => None,
    };
    verdicts.extend(closed.map(|reason| format!("closed: {reason}")));
    verdicts
}
