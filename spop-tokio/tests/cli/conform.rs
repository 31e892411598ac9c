//! `spop conform`: a good agent passes all cases, and each fault of a faulty one is found by the cases that are about it.

mod agent;
mod fault;

use std::{
    fs,
    io::Write as _,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use quick_junit::{NonSuccessKind, TestCaseStatus};

use self::fault::{CRASHES, FOUND, Fault, LEGAL};
use crate::support::{Listen, PATIENT, Run, command, finish, interrupt, read_to_end, server, spop};

/// How many faults are tried at once: most of the time is spent waiting.
const THREADS: usize = 8;

fn conform(address: &str, args: &[&str]) -> Run {
    spop(["conform", address].into_iter().chain(args.iter().copied()))
}

/// The titles of the cases with this result.
fn titles(run: &Run, result: &str) -> Vec<String> {
    let cases = run.events("case").into_iter().filter(|case| case["result"] == result);
    cases.map(|case| case["title"].as_str().unwrap().to_owned()).collect()
}

/// A fault, and what it does to the cases of its filter.
fn run_with(fault: Fault, only: &str, quiet: &str) -> Run {
    let agent = agent::start(Some(fault));
    conform(&agent, &["--json", "--timeout", PATIENT, "--quiet", quiet, "--only", only])
}

/// Listens for a short time where nothing may come. On a busy machine that can be too short for some faults:
/// they are looked for again, for longer.
fn find(fault: Fault, found: impl Fn(&Run) -> Result<(), String>, only: &str) -> Result<(), String> {
    let mut result = found(&run_with(fault, only, "60ms"));
    for quiet in ["500ms", "1s"] {
        if result.is_err() && fault.needs_time() {
            result = found(&run_with(fault, only, quiet));
        }
    }
    result
}

/// Calls `check` with each element, several at once, and panics with all that it complains of.
fn for_each<T: Sync>(all: &[T], check: impl Fn(&T) -> Result<(), String> + Sync) {
    let left = Mutex::new(all.iter());
    let wrong = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let next = left.lock().unwrap().next();
                    let Some(next) = next else { break };
                    // Not while it is locked: the others would wait.
                    let error = check(next).err();
                    wrong.lock().unwrap().extend(error);
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_good_agent_passes_all_cases() {
    let agent = agent::start(None);
    let dir = tempfile::tempdir().unwrap();
    let junit = dir.path().join("report.xml");
    let run = conform(&agent, &["--junit", junit.to_str().unwrap(), "--strict"]);
    assert_eq!((run.code, run.err.as_str()), (Some(0), ""), "{run:?}");
    assert!(run.out.ends_with(&format!("{agent}: conforms\n")), "{}", run.out);
    assert!(run.out.starts_with(&format!(
        "{agent}: version 2.0, max-frame-size 16380, capabilities \"fragmentation,pipelining,async\"\n"
    )));
    let ok = run.out.lines().filter(|line| line.starts_with("  ok ")).count();
    let rest: Vec<_> = run.out.lines().filter(|line| line.starts_with("  not applicable ")).collect();
    assert_eq!(
        rest,
        ["  not applicable  should    Fragments are status 10 where the agent does not support them \
             (the agent announces fragmentation)"]
    );
    let report = quick_junit::Report::deserialize_from_str(&fs::read_to_string(junit).unwrap()).unwrap();
    assert_eq!((report.tests, report.failures, report.errors), (ok + 1, 0, 0));
    assert_eq!(report.test_suites.len(), 7);
}

#[test]
fn each_fault_is_found() {
    for_each(&FOUND, |(fault, only, expected)| {
        let found = |run: &Run| {
            let failed = titles(run, "failed");
            let right = failed.len() == expected.len()
                && failed.iter().zip(*expected).all(|(title, begin)| title.starts_with(begin));
            let levels: Vec<_> =
                run.events("case").into_iter().filter(|case| case["result"] == "failed").collect();
            let status = i32::from(levels.iter().any(|case| case["level"] != "should"));
            if right && run.code == Some(status) && run.err.is_empty() {
                return Ok(());
            }
            Err(format!("{fault:?}: {:?} {} {failed:#?}", run.code, run.err))
        };
        find(*fault, found, only)
    });
}

#[test]
fn what_is_legal_is_no_fault() {
    for_each(&LEGAL, |(habit, only)| {
        let run = run_with(*habit, only, "60ms");
        let failed = titles(&run, "failed");
        if run.code == Some(0) && failed.is_empty() { Ok(()) } else { Err(format!("{habit:?}: {failed:#?}")) }
    });
}

#[test]
fn a_crash_is_blamed_on_its_case_and_ends_the_run() {
    for_each(&CRASHES, |(fault, only, blamed)| {
        let found = |run: &Run| {
            let cases = run.events("case");
            let failed: Vec<_> = cases.iter().filter(|case| case["result"] == "failed").collect();
            let before = titles(run, "passed").len();
            let [only] = failed[..] else { return Err(format!("{fault:?}: {failed:#?}")) };
            if run.code == Some(1)
                && only["title"].as_str().unwrap().starts_with(blamed)
                && only["serves"] == false
                && titles(run, "not-run").len() + before + 1 == cases.len()
            {
                return Ok(());
            }
            Err(format!("{fault:?}: {run:#?}"))
        };
        find(*fault, found, only)
    });
}

#[test]
fn a_failure_shows_what_was_sent_and_what_came() {
    let agent = agent::start(Some(Fault::WrongFrameId));
    let run = conform(&agent, &["--only", "does not know", "--message", "known"]);
    assert_eq!(run.code, Some(1));
    let expected = format!(
        "{agent}: version 2.0, max-frame-size 16380, capabilities \"fragmentation,pipelining,async\"
requests
  FAILED          must      A message that the agent does not know is acknowledged
      (section 3.2.6 of the specification)
      > HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 capabilities=string:pipelining,async \
         engine-id=string:ID
      < AGENT-HELLO fin 0 0 version=string:2.0 max-frame-size=uint32:16380 capabilities=string:fragmentation,pipelining,async
      > NOTIFY fin 5 1 spop-conform-unknown surprise=int64:-1
      < ACK fin 5 2 set txn x=int32:1
      expected: < ACK fin 5 1 *
      came: another frame: the stream-id and the frame-id are 5 and 2
      HAProxy: the request waits for `timeout processing`
LEVEL     PASSED  FAILED  NOT APPLICABLE  NOT RUN
must      0       1       0               0
should    0       0       0               0
survives  0       0       0               0
{agent}: does not conform: 1 must failed
"
    );
    let (before, after) = run.out.split_once("engine-id=string:").unwrap();
    assert_eq!(format!("{before}engine-id=string:ID{}", &after[36..]), expected);
}

/// The names of the attributes of the first line that begins so.
fn attributes<'a>(xml: &'a str, begin: &str) -> Vec<&'a str> {
    let line = xml.lines().find(|line| line.trim_start().starts_with(begin)).unwrap();
    let parts: Vec<_> = line.split("=\"").collect();
    parts[..parts.len() - 1].iter().map(|part| part.rsplit(' ').next().unwrap()).collect()
}

#[test]
fn a_report_for_junit_has_the_attributes_that_the_schema_of_jenkins_has() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("report.xml");
    let agent = agent::start(None);
    let args = ["--junit", path.to_str().unwrap(), "--only", "fragments are", "--only", "answered once"];
    assert_eq!(conform(&agent, &args).code, Some(0));
    let xml = fs::read_to_string(path).unwrap();
    assert_eq!(attributes(&xml, "<testsuites "), ["name", "tests", "failures", "errors"]);
    assert_eq!(attributes(&xml, "<testsuite "), ["name", "tests", "skipped", "errors", "failures"]);
    assert_eq!(attributes(&xml, "<testcase "), ["name", "classname", "time"]);
    assert_eq!(attributes(&xml, "<skipped "), ["message"]);
}

#[test]
fn a_report_for_junit_has_failures_errors_and_what_was_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("report.xml");
    let agent = agent::start(Some(Fault::CrashesOnUnknownType));
    let run = conform(
        &agent,
        &["--junit", path.to_str().unwrap(), "--only", "unknown type", "--only", "fragments are status 10"],
    );
    assert_eq!(run.code, Some(1));
    let report = quick_junit::Report::deserialize_from_str(&fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!((report.tests, report.errors), (3, 3), "{report:?}");
    let first = &report.test_suites[0].test_cases[0];
    assert_eq!(first.classname.as_ref().unwrap().as_str(), "should.requests");
    let TestCaseStatus::NonSuccess { kind, description, .. } = &first.status else { panic!("{first:?}") };
    assert_eq!(*kind, NonSuccessKind::Error);
    assert!(description.as_ref().unwrap().as_str().contains("> TYPE:99 fin 5 1 raw:\"what is this\""));
    let good = agent::start(None);
    let path = dir.path().join("skipped.xml");
    let run = conform(&good, &["--junit", path.to_str().unwrap(), "--only", "fragments are status 10"]);
    assert_eq!(run.code, Some(0));
    let report = quick_junit::Report::deserialize_from_str(&fs::read_to_string(path).unwrap()).unwrap();
    assert!(matches!(report.test_suites[0].test_cases[0].status, TestCaseStatus::Skipped { .. }));
    let run = conform(&good, &["--junit", "/nonexistent/report.xml", "--only", "is answered once"]);
    assert!(run.code == Some(3) && run.err.starts_with("spop: /nonexistent/report.xml: "), "{run:?}");
}

#[test]
fn cases_of_should_count_when_they_are_told_to() {
    let agent = agent::start(Some(Fault::DisconnectsWith0));
    let args = ["--only", "is repeated", "--json"];
    let run = conform(&agent, &args);
    assert_eq!(run.code, Some(0));
    let summary = &run.events("summary")[0];
    assert_eq!((summary["conforms"].as_bool(), summary["should"]["failed"].as_u64()), (Some(true), Some(1)));
    assert_eq!(conform(&agent, &[&args[..], &["--strict"]].concat()).code, Some(1));
    let text = conform(&agent, &args[..2]).out;
    assert!(text.ends_with(": conforms, but for 1 should\n"), "{text}");
}

#[test]
fn the_agent_of_this_program_conforms() {
    let listen = Listen::start(&[]).without_output();
    let run = conform(&listen.address, &[]);
    assert_eq!(run.code, Some(0), "{}", run.out);
    assert!(run.out.ends_with(": conforms\n"), "{}", run.out);
}

#[test]
fn cases_are_listed_and_selected() {
    let all = spop(["conform", "--list", "--json"]);
    assert_eq!(all.code, Some(0));
    let all = all.events("listed").len();
    assert!(all > 150, "{all}");
    let of = |args: &[&str]| spop(["conform", "--list", "--json"].into_iter().chain(args.iter().copied()));
    let levels = ["must", "should", "survives"].map(|level| of(&["--level", level]).events("listed").len());
    assert_eq!(levels.iter().sum::<usize>(), all);
    assert_eq!(of(&["--level", "must", "--level", "should"]).events("listed").len(), levels[0] + levels[1]);
    let found = of(&["--only", "BYTE BY byte"]);
    assert!(
        found.events("listed").iter().all(|case| case["title"].as_str().unwrap().contains("byte by byte"))
    );
    assert_eq!(found.events("listed").len(), 3);
    let text = spop(["conform", "--list", "--only", "is answered once"]).out;
    assert_eq!(
        text,
        "TOPIC     LEVEL  REFERENCE  TITLE\nrequests  must   3.2.7      A NOTIFY is answered once\n"
    );
    spop(["conform", "--list", "--only", "no such case"])
        .expect_error(2, "spop: no case has this text and this level: see --list");
}

#[test]
fn a_server_that_is_no_agent_is_a_clear_line_within_a_bounded_time() {
    let begun = Instant::now();
    let of = |address: &str, line: &str| {
        conform(address, &[]).expect_error(1, &format!("spop: {address}: {line}"));
    };
    let http = server(|socket, _| drop(socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")));
    of(&http, "this is no SPOP agent but an HTTP server");
    let closes = server(|_, _| ());
    of(&closes, "the agent closed the connection without an AGENT-HELLO: is it an agent?");
    let silent = server(|socket, _| read_to_end(socket));
    conform(&silent, &["--timeout", "300ms"])
        .expect_error(1, &format!("spop: {silent}: no AGENT-HELLO came within 300ms: is it an agent?"));
    let refuses = server(|socket, _| {
        crate::support::write_frames(
            socket,
            &["AGENT-DISCONNECT fin 0 0 status-code=uint32:99 message=string:no"],
        );
    });
    of(
        &refuses,
        "the agent refuses the session: AGENT-DISCONNECT with status 99 (an unknown error occurred), \"no\"",
    );
    let plain = agent::start(None);
    let why = "TLS failed: received corrupt message of type InvalidContentType: does the agent use TLS?";
    conform(&plain, &["--tls", "--tls-insecure"]).expect_error(3, &format!("spop: {plain}: {why}"));
    let mut hello = spop_core::notation::parse_bytes(crate::support::HELLO).unwrap();
    let len = u32::try_from(hello.len()).unwrap();
    hello[..4].copy_from_slice(&len.to_be_bytes());
    let counts_all = hello.clone();
    let counting = server(move |socket, _| {
        socket.write_all(&counts_all).unwrap();
        read_to_end(socket);
    });
    let why = format!("{} of the {len} bytes of a frame (a length does not count its own 4 bytes)", len - 4);
    of(&counting, &format!("no whole AGENT-HELLO came within {PATIENT}, but {why}"));
    hello[..4].copy_from_slice(&(len - 4).to_le_bytes());
    let little = server(move |socket, _| socket.write_all(&hello).unwrap());
    let why = format!("in little-endian this length is {}: it must be in network byte order", len - 4);
    of(&little, &format!("its answer begins with \"C\\x00\\x00\\x00\": {why}"));
    let half = server(|socket, _| socket.write_all(&[0, 0, 0, 9, 101]).unwrap());
    of(&half, "the agent closed the connection after 5 bytes of an AGENT-HELLO");
    // One of them is waited for.
    assert!(begun.elapsed() < Duration::from_secs(15));
}

#[test]
fn lengths_that_are_wrong_are_told_in_cases() {
    let agent = server(|socket, _| {
        crate::support::write_frames(socket, &[crate::support::HELLO]);
        crate::support::read_frame(socket);
        // 22 bytes, whose length counts itself.
        let mut ack = spop_core::notation::parse_bytes("ACK fin 5 1 set txn score=int32:42").unwrap();
        ack[3] += 4;
        let _ = socket.write_all(&ack);
        read_to_end(socket);
    });
    let run = conform(&agent, &["--only", "is answered once"]);
    assert_eq!(run.code, Some(1), "{run:?}");
    let why = "18 of the 22 bytes of a frame (a length does not count its own 4 bytes)";
    let came = format!("came: no whole frame within {PATIENT}: {why}");
    assert!(run.out.contains(&came), "{}", run.out);
}

#[test]
fn an_agent_that_answers_no_message_is_told_at_once() {
    let agent = agent::start(Some(Fault::IgnoresUnknownMessages));
    let run = conform(&agent, &["--only", "unknown capabilities"]);
    let line = "no frame answers a NOTIFY with spop-conform text=string:hello: if the agent must know it, see --message\n";
    assert!(run.code == Some(0) && run.out.contains(line), "{run:?}");
    let run = conform(&agent, &["--only", "unknown capabilities", "--message", "known", "--json"]);
    assert_eq!(run.events("agent")[0]["answers"], true);
}

#[test]
fn many_failures_begin_with_a_hint_and_a_crash_counts_what_was_not_run() {
    let hint = "One cause can fail many cases: begin with the first that failed.\n";
    let agent = agent::start(Some(Fault::WrongFrameId));
    let run = conform(&agent, &["--only", "requests:"]);
    assert!(run.out.contains(hint), "{}", run.out);
    let agent = agent::start(Some(Fault::CrashesOnUnknownType));
    let run = conform(&agent, &["--only", "unknown type"]);
    assert!(!run.out.contains(hint), "{}", run.out);
    assert!(run.out.ends_with(": does not conform: 1 should failed, and 1 were not run\n"), "{}", run.out);
}

#[test]
fn an_agent_that_sends_without_end_does_not_keep_the_run() {
    let agent = server(|socket, _| {
        let hello =
            "AGENT-HELLO fin 0 0 version=string:2.0 max-frame-size=uint32:256 capabilities=string:\"\"";
        crate::support::write_frames(socket, &[hello]);
        let ack = spop_core::notation::parse_bytes("ACK fin 1 1").unwrap();
        while socket.write_all(&ack).is_ok() {}
    });
    let run = conform(&agent, &["--only", "closing:", "--only", "A HAPROXY-HELLO", "--json"]);
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.events("summary")[0]["should"]["failed"].as_u64().unwrap() > 0);
}

#[test]
fn an_interrupt_ends_a_run_whose_output_nobody_reads() {
    let agent = agent::start(Some(Fault::WrongFrameId));
    let message = format!("known text=string:{}", "x".repeat(250));
    let mut child = command(["conform", &agent, "--json", "--message", &message]).spawn().unwrap();
    let out = child.stdout.take().unwrap();
    // The pipe is full by then.
    thread::sleep(Duration::from_secs(6));
    interrupt(&child);
    let run = finish(child);
    assert_eq!((run.code, run.err.as_str()), (Some(130), "spop: interrupted\n"));
    drop(out);
}
