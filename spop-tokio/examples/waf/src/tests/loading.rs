//! Rules that are replaced, and more messages than can be inspected.

use std::{
    fs,
    time::{Duration, Instant},
};

use clap::Parser as _;

use super::{request, response, waf};
use crate::{agent::Waf, options::Options};

#[tokio::test]
async fn rules_are_replaced_if_the_new_ones_are_sound() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rules");
    fs::write(&path, "path 1 a contains a\nstatus 1 s regex ^5\n").unwrap();
    let options = Options::try_parse_from(["waf", "--rules", path.to_str().unwrap()]).unwrap();
    let waf = Waf::new(options).unwrap();
    let mut message = request();
    message.path = "/ab";
    assert_eq!(message.found(&waf).await, "1 a");
    fs::write(&path, "path 2 b contains b\n\npath x\n").unwrap();
    let error = format!("{:#}", waf.reload().unwrap_err());
    assert!(
        error.ends_with("rules: line 3: the score of path is not a number from -1000 to 1000"),
        "{error}"
    );
    assert_eq!(message.found(&waf).await, "1 a");
    // A file that is just being written.
    for (text, error) in [
        ("", "there is no rule in it"),
        ("# a comment\n", "there is no rule in it"),
        ("path 2 b contains b\npath 2 c contains c", "the last line has no end: it may be a part of a file"),
    ] {
        fs::write(&path, text).unwrap();
        let found = format!("{:#}", waf.reload().unwrap_err());
        assert!(found.ends_with(error), "{found}");
        assert_eq!(message.found(&waf).await, "1 a");
    }
    fs::remove_file(&path).unwrap();
    assert!(format!("{:#}", waf.reload().unwrap_err()).contains("No such file"));
    fs::write(&path, "path 2 b contains b\nstatus 1 s regex ^5\n").unwrap();
    waf.reload().unwrap();
    // A response still has the score of a request that came before.
    assert_eq!(response(200).found(&waf).await, "1 a");
    assert_eq!(message.found(&waf).await, "2 b");
}

/// A rule that takes a long time for a long body: wherever it is, any of 500 states is possible.
const SLOW: &str = "body 1 slow regex a[ab]{500}c";

fn long() -> super::Message {
    let mut message = request();
    let mut state = 1_u32;
    let letters = (0..100_000).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if state >> 31 == 0 { b'a' } else { b'b' }
    });
    message.body = letters.collect();
    message
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_takes_too_long_fails_in_time() {
    let waf = waf(SLOW, &["--timeout", "20ms", "--workers", "1"]);
    let message = long();
    let start = Instant::now();
    let outcome = message.ask(&waf).await;
    assert_eq!(outcome.failure(), Some("timed_out: message \"check-request\": no answer within 20ms"));
    assert_eq!(outcome.sentence(), "set txn request.block=bool:true ; set txn request.failed=bool:true");
    // It still takes its worker: what comes next fails in time as well, and does not begin.
    let outcome = request().ask(&waf).await;
    assert!(outcome.failure().unwrap().starts_with("timed_out"), "{outcome:?}");
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_messages_than_the_limit_fail_at_once() {
    let waf = waf(SLOW, &["--timeout", "100ms", "--workers", "1", "--max-in-flight", "2"]);
    let message = long();
    let (one, two, three) = tokio::join!(message.ask(&waf), message.ask(&waf), message.ask(&waf));
    let kinds = [one, two, three]
        .map(|outcome| outcome.failure().unwrap_or("none").split(':').next().unwrap().to_owned());
    assert_eq!(kinds, ["timed_out", "timed_out", "overloaded"]);
}
