//! `spop explain`.

use crate::support::{json, spop, spop_with_input};

const LINE: &str = "<133>Nov 29 12:00:00 haproxy[7]: SPOE: [iprep] <EVENT:on-client-session> sid=7 st=1 0/2/-1/-1/500 1/2 0/1 1/42";

#[test]
fn a_number_is_explained() {
    let run = spop(["explain", "258"]);
    assert_eq!(run.code, Some(0));
    assert_eq!(
        run.out,
        "error 258: a timeout occurred (the session ended with status 2)\n\
         \x20 The session ended with a timeout while the request was in flight.\n\
         \x20 Who: the side whose timeout ended: the agent, or HAProxy by `timeout hello` or `timeout idle`\n\
         \x20 - The agent disconnected: its own timeout ended.\n\
         \x20   Raise the agent's timeout; see its log.\n\
         \x20 - `timeout hello` or `timeout idle` ended: the latter also runs while requests are in flight. (HAProxy up to 3.0)\n\
         \x20   Set `timeout idle` well above `timeout processing`.\n"
    );
    assert_eq!(spop(["explain", "st=258"]).out, run.out);
}

#[test]
fn numbers_are_objects_in_json() {
    let run = spop(["explain", "2", "st=1", "--json"]);
    let objects = json(&run.out);
    let kinds: Vec<_> =
        objects.iter().map(|object| (object["kind"].as_str(), object["number"].as_u64())).collect();
    assert_eq!(kinds, [(Some("error"), Some(2)), (Some("status"), Some(2)), (Some("error"), Some(1))]);
    assert_eq!(objects[2]["name"], "timeout");
    let mut remedies = objects[2]["causes"].as_array().unwrap().iter().map(|cause| cause["remedy"].as_str());
    assert!(remedies.any(|remedy| remedy.unwrap().contains("timeout processing")));
}

#[test]
fn a_log_line_is_taken_apart() {
    let run = spop(["explain", LINE]);
    assert_eq!(run.code, Some(0));
    for text in [
        "A log line of SPOE, of HAProxy up to 3.0\n",
        "\n  agent      iprep              the section `spoe-agent`\n",
        "\n  wT         -1 (not reached)   time until the answer came: the agent, and the network\n",
        "\n  pT         500 ms             all in all: the delay of the stream by SPOE\n",
        "\nerror 1: timeout\n  No answer arrived within `timeout processing`.\n",
    ] {
        assert!(run.out.contains(text), "{text}: {}", run.out);
    }
    let [object] = &json(&spop(["explain", LINE, "--json"]).out)[..] else { panic!() };
    assert_eq!(
        (object["sid"].as_u64(), object["st"].as_u64(), object["processing_ms"].as_u64()),
        (Some(7), Some(1), Some(500))
    );
    assert!(object["wait_ms"].is_null() && object["number"]["name"] == "timeout");
    // HAProxy 3.1 and later has fewer fields. Nothing is wrong here.
    let run = spop(["explain", "SPOE: [a] <GROUP:g> sid=1 st=0 3 0/42"]);
    assert!(run.out.contains("HAProxy 3.1 and later") && !run.out.contains("error 0"), "{}", run.out);
}

#[test]
fn a_log_is_read_from_standard_input() {
    let log = [
        b"haproxy[7]: Proxy web started.\n\xff\xfe no text\n",
        LINE.as_bytes(),
        b"\n\nSPOE: [x] <EVENT:e> sid=1 st=0 3 0/1",
    ]
    .concat();
    let run = spop_with_input(["explain", "-", "--json"], &log);
    assert_eq!((run.code, run.events("log-line").len()), (Some(0), 2), "{run:?}");
    let run = spop_with_input(["explain", "-"], b"SPOE: [x] <EVENT:e> sid=1");
    run.expect_error(
        1,
        "spop: line 1: the log line does not end as HAProxy's do: sid=N st=N and the times and counts",
    );
    let run = spop_with_input(["explain", "-"], b"nothing\n");
    run.expect_error(
        1,
        "spop: standard input has no log line of SPOE: they contain `SPOE: [AGENT] <EVENT:NAME>`",
    );
}

#[test]
fn what_means_nothing_is_an_error() {
    spop(["explain", "77"]).expect_error(
        1,
        "spop: no HAProxy reports the error 77: there are 0 to 5, 255, and 256 + the status of a DISCONNECT",
    );
    let run = spop(["explain", "nonsense"]);
    run.expect_error(
        1,
        "spop: \"nonsense\" is neither a number nor a log line of SPOE: see `spop explain --help`",
    );
}
