//! `spop bench`.

mod failures;
mod latency;
mod transports;

use std::{collections::HashSet, fs};

use serde_json::Value;

use crate::support::{Listen, spop, write_frames};

/// The result of a run in JSON.
pub(super) fn bench(args: &[&str]) -> (crate::support::Run, Value) {
    let run = spop(["bench"].iter().chain(args).copied().chain(["--json"]));
    let [result] = &run.events("run")[..] else { panic!("{run:?}") };
    let result = result.clone();
    (run, result)
}

/// The latency that this part of the answers did not exceed, in milliseconds.
pub(super) fn percentile(result: &Value, percentile: f64) -> f64 {
    let found = result["percentiles"].as_array().unwrap().iter();
    let [found] = found.filter(|found| found["percentile"] == percentile).collect::<Vec<_>>()[..] else {
        panic!("{result}")
    };
    found["ms"].as_f64().unwrap()
}

/// The answers that took no longer than so many milliseconds, one of the steps of the histogram.
pub(super) fn answers_up_to(result: &Value, ms: f64) -> u64 {
    let bars = result["histogram"].as_array().unwrap().iter();
    bars.filter(|bar| bar["up_to_ms"].as_f64().unwrap() <= ms).map(|bar| bar["count"].as_u64().unwrap()).sum()
}

/// Runs it until it is on time, three times at most: a busy machine is late in one run and not in the next,
/// and a wrong figure is in each.
pub(super) fn tries(run: impl Fn() -> (bool, Value)) {
    let late: Vec<_> = (0..3).map(|_| run()).take_while(|(on_time, _)| !on_time).collect();
    assert!(late.len() < 3, "late: {late:?}");
}

#[test]
fn a_closed_loop_sends_each_request_once() {
    let agent = Listen::start(&["--set", "txn score=int32:42"]);
    let args = ["a n=int64:{n}", "b n=int64:{n}", "--requests", "201", "-c", "3", "--threads", "2"];
    let (run, result) = bench(&[&[agent.address.as_str()][..], &args].concat());
    assert_eq!((run.code, run.err.as_str()), (Some(0), ""), "{run:?}");
    for (name, count) in
        [("sent", 201), ("answered", 201), ("failed", 0), ("unfinished", 0), ("malformed", 0)]
    {
        assert_eq!(result[name], count, "{name}: {result}");
    }
    assert_eq!(answers_up_to(&result, f64::INFINITY), 201);
    assert!(result["per_second"].as_f64().unwrap() > 1.0 && result["gone"].is_null(), "{result}");
    assert!((0.001..1e4).contains(&percentile(&result, 50.0)), "{result}");

    let shown = agent.interrupt().out;
    let notifys: Vec<_> = shown.lines().filter_map(|line| line.split_once("> NOTIFY ")).collect();
    let numbers: HashSet<_> = notifys.iter().map(|(_, notify)| notify.rsplit(':').next().unwrap()).collect();
    assert_eq!((notifys.len(), numbers.len()), (201, 201));
    let count = |message: &str| notifys.iter().filter(|(_, notify)| notify.contains(message)).count();
    assert_eq!((count(" a n="), count(" b n=")), (101, 100));
}

#[test]
fn the_result_is_text_without_json() {
    let agent = Listen::start(&[]).without_output();
    let run = spop(["bench", &agent.address, "a", "--requests", "50", "--color", "never"]);
    assert_eq!((run.code, run.err.as_str()), (Some(0), ""));
    for text in [
        "asked as HAProxy 3.4\n",
        "10 connections, at most 1 in flight on each, ",
        "50 answers in ",
        "Latency, from when a request was sent (mean ",
        "     99 %  ",
        "  UP TO      ANSWERS\n",
        "█\n",
        "Processor time of this side: ",
    ] {
        assert!(run.out.contains(text), "{text}: {}", run.out);
    }
    assert!(!run.out.contains("failed"), "{}", run.out);
}

#[test]
fn a_rate_is_kept_and_a_ramp_has_half_of_it() {
    let agent = Listen::start(&[]).without_output();
    tries(|| {
        let (_, result) = bench(&[&agent.address, "a", "--rate", "400", "--time", "1s"]);
        assert_eq!(result["answered"], 400, "{result}");
        let seconds = result["seconds"].as_f64().unwrap();
        assert!(seconds >= 0.99, "{result}");
        (seconds < 3.0, result)
    });
    let (_, result) = bench(&[&agent.address, "a", "--rate", "400", "--ramp", "1s", "--time", "1s"]);
    assert_eq!(result["answered"], 200, "{result}");
    let (_, result) = bench(&[&agent.address, "a", "--rate", "100..300", "--time", "1s"]);
    assert_eq!(result["answered"], 200, "{result}");
}

#[test]
fn a_closed_loop_begins_on_one_connection_after_another() {
    let agent = Listen::start(&["--delay", "50ms"]).without_output();
    let args = ["a", "-c", "10", "--ramp", "1s", "--time", "1s", "--threads", "2"];
    tries(|| {
        let (_, result) = bench(&[&[agent.address.as_str()][..], &args].concat());
        let answered = result["answered"].as_u64().unwrap();
        // 20 on the first connection, 18 on the second and so on; without a ramp there are 200.
        assert!(answered <= 115, "{result}");
        (answered >= 10, result)
    });
}

#[test]
fn pipelining_has_several_requests_in_flight() {
    let agent = Listen::start(&["--delay", "50ms"]).without_output();
    let args = [&agent.address, "a", "-c", "1", "--in-flight", "8", "--requests", "80"];
    tries(|| {
        let (run, result) = bench(&[&args[..], &["--engine", "3.0"]].concat());
        assert_eq!((run.code, run.err.as_str()), (Some(0), ""));
        // One after another takes 4 s.
        (result["seconds"].as_f64().unwrap() < 3.0, result)
    });
    let (run, result) = bench(&[&args[..6], &["16", "--requests", "4"]].concat());
    assert!(
        run.err.contains("offers HAProxy 3.4 no pipelining: one request in flight on each"),
        "{}",
        run.err
    );
    assert!(result["seconds"].as_f64().unwrap() >= 0.2, "{result}");
}

#[test]
fn messages_come_from_files_and_recordings() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (file, recording) = (path("messages"), path("recording"));
    fs::write(&file, "# two\n\none x=string:{n}\n  two\n").unwrap();
    let hello = "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 capabilities=string:\"\"";
    let frames = [hello, "NOTIFY fin 8 3 three", "NOTIFY fin 9 3 four"]
        .map(|frame| spop_core::notation::parse_bytes(frame).unwrap());
    fs::write(&recording, frames.concat()).unwrap();
    let agent = Listen::start(&[]);
    let args = [
        &agent.address,
        "zero",
        "--messages-from",
        &file,
        "--capture",
        &recording,
        "--requests",
        "5",
        "--threads",
        "1",
    ];
    let (run, _) = bench(&args);
    assert_eq!(run.code, Some(0), "{run:?}");
    let shown = agent.interrupt().out;
    for message in [" zero\n", " one x=string:1\n", " two\n", " three\n", " four\n"] {
        assert!(shown.contains(message), "{message}: {shown}");
    }

    fs::write(&file, "one\ntwo x=int32:{m}\n").unwrap();
    let unused = ["bench", "127.0.0.1:1"];
    spop(unused.into_iter().chain(["--messages-from", &file])).expect_error(
        1,
        &format!("spop: {file}: line 2: column 13: there is no placeholder `{{m}}`: see --help; \\x7b in a quoted text is a brace"),
    );
    spop(unused.into_iter().chain(["--capture", &file]))
        .expect_error(1, &format!("spop: {file}: byte 0: no frame begins there"));
    fs::write(&file, "").unwrap();
    for option in ["--messages-from", "--capture"] {
        let run = spop(unused.into_iter().chain([option, &file]));
        assert!(run.code == Some(1) && run.err.contains(" in it"), "{run:?}");
        let run = spop(unused.into_iter().chain([option, "/nonexistent"]));
        assert_eq!(
            (run.code, run.err.as_str()),
            (Some(3), "spop: /nonexistent: no such file or directory\n")
        );
    }
}

#[test]
fn what_haproxy_has_sent_is_sent_again() {
    let capture = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/captures/2.6.12");
    let found = fs::read_dir(capture).unwrap().map(|scenario| scenario.unwrap().path().join("conn-1.in.bin"));
    let mut sent = 0;
    for file in found.filter(|file| file.exists()) {
        let agent = Listen::start(&[]).without_output();
        let run = spop([
            "bench",
            &agent.address,
            "--capture",
            file.to_str().unwrap(),
            "--requests",
            "20",
            "--engine",
            "2.6",
        ]);
        // Some have no whole NOTIFY.
        if !run.err.contains("no NOTIFY in it") {
            assert!(run.code == Some(0) && run.out.contains("20 answers in "), "{}: {run:?}", file.display());
            sent += 1;
        }
    }
    assert!(sent > 5, "{sent}");
}

#[test]
fn two_agents_are_measured_in_turns() {
    let (fast, slow) = (
        Listen::start(&["--delay", "2ms"]).without_output(),
        Listen::start(&["--delay", "20ms"]).without_output(),
    );
    let args = ["a", "--rounds", "3", "--requests", "100", "--compare", &slow.address];
    let run = spop(["bench", &fast.address].into_iter().chain(args).chain(["--json"]));
    assert_eq!(run.code, Some(0), "{run:?}");
    let turns: Vec<_> =
        run.events("run").iter().map(|turn| turn["address"].as_str().unwrap().to_owned()).collect();
    let (a, b) = (&fast.address, &slow.address);
    assert_eq!(turns.iter().collect::<Vec<_>>(), [a, b, b, a, a, b]);
    let ratios = run.events("ratio");
    let ratio = |metric: &str| ratios.iter().find(|ratio| ratio["metric"] == metric).unwrap().clone();
    let (rate, p50) = (ratio("rate"), ratio("p50"));
    assert!(rate["ratio"].as_f64().unwrap() < 0.7, "{rate}");
    assert!(p50["ratio"].as_f64().unwrap() > 1.5, "{p50}");
    for ratio in [rate, p50] {
        let [lowest, middle, highest] =
            ["lowest", "ratio", "highest"].map(|name| ratio[name].as_f64().unwrap());
        assert!(lowest <= middle && middle <= highest && ratio["rounds"] == 3, "{ratio}");
    }
    let run = spop(["bench", &fast.address].into_iter().chain(args));
    assert!(
        run.out.contains("Medians of 3 rounds; A is ") && run.out.contains("B / A  LOWEST  HIGHEST\n"),
        "{}",
        run.out
    );
}

#[test]
fn the_processor_time_of_the_agent_is_measured() {
    let agent = Listen::start(&[]).without_output();
    let pid = agent.pid().to_string();
    let (run, result) = bench(&[&agent.address, "a", "--time", "1s", "--pid", &pid]);
    assert_eq!(run.code, Some(0));
    assert!(result["agent_cpu_ms"].as_f64().unwrap() > 0.0, "{result}");
    let run = spop(["bench", &agent.address, "a", "--pid", "4294967295"]);
    assert!(run.code == Some(3) && run.err.contains("the processor time of process 4294967295: "), "{run:?}");
}

#[test]
fn answers_that_haproxy_ignores_in_part_are_counted() {
    let agent = latency::agent(|socket, ids, _| {
        write_frames(socket, &[&format!("ACK fin {ids} set txn a=int32:1 ; hex:09")]);
    });
    let (run, result) = bench(&[&agent, "a", "--requests", "7", "-c", "1"]);
    assert_eq!(
        (run.code, result["malformed"].as_u64(), result["answered"].as_u64()),
        (Some(1), Some(7), Some(7))
    );
}
