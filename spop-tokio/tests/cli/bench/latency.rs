//! Latencies that are known.

use std::{
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use super::{answers_up_to, bench, percentile, tries};
use crate::support::{HELLO, Listen, read_frame, server, write_frames};

/// An agent that calls `answer` for each NOTIFY, with its identifiers and the time since the first on its connection. It serves one
/// connection at a time.
pub(super) fn agent(answer: impl Fn(&mut TcpStream, &str, Duration) + Send + 'static) -> String {
    server(move |socket, _| {
        write_frames(socket, &[HELLO]);
        let mut begun = None;
        while let Some(frame) = read_frame(socket) {
            let begun = *begun.get_or_insert_with(Instant::now);
            let words: Vec<_> = frame.split(' ').collect();
            if words[0] == "NOTIFY" {
                answer(socket, &words[2..4].join(" "), begun.elapsed());
            }
        }
    })
}

#[test]
fn percentiles_agree_with_the_delays_of_the_agent() {
    let agent = Listen::start(&["--on", "fast", "delay 2ms", "--on", "slow", "delay 20ms"]).without_output();
    let mut messages = ["fast"; 10];
    messages[4] = "slow";
    for load in [&["--rate", "500"][..], &[]] {
        // However late an answer is, it is measured.
        let common = ["--time", "2s", "-c", "20", "--timeout", "20s"];
        let args = [&[agent.address.as_str()][..], &messages, load, &common].concat();
        tries(|| {
            let (run, result) = bench(&args);
            assert_eq!(run.code, Some(0));
            let answered = result["answered"].as_u64().unwrap();
            assert!(answered > 0, "{result}");
            assert_eq!(answers_up_to(&result, 1.0), 0, "no answer comes before its delay: {result}");
            // 90 % at 2 ms, 10 % at 20 ms. The timers of the agent are up to 1.1 ms late.
            let fast = answers_up_to(&result, 10.0) * 1_000 / answered;
            let mut on_time = answered >= 900 && (800..=905).contains(&fast);
            for (at, least, most) in [(50.0, 2.0, 6.0), (75.0, 2.0, 12.0), (99.0, 20.0, 60.0)] {
                let found = percentile(&result, at);
                assert!(found >= least, "{at} %: {found} ms: {result}");
                on_time &= found < most;
            }
            (on_time, result)
        });
    }
}

/// An agent that stalls once, for half a second.
fn stalling() -> String {
    let stalled = std::sync::atomic::AtomicBool::new(false);
    agent(move |socket, ids, time| {
        if time > Duration::from_millis(500) && !stalled.swap(true, std::sync::atomic::Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(500));
        }
        write_frames(socket, &[&format!("ACK fin {ids}")]);
    })
}

#[test]
fn a_stall_is_seen_by_every_request_that_was_due_meanwhile() {
    tries(|| {
        let (_, rate) = bench(&[&stalling(), "a", "-c", "1", "--rate", "100", "--time", "2s"]);
        assert_eq!(rate["answered"], 200, "{rate}");
        // 50 of 200 requests were due during the stall; the first of them waited for 500 ms, the others for less.
        let [p50, p90, p99] = [50.0, 90.0, 99.0].map(|at| percentile(&rate, at));
        assert!(p90 > 200.0 && p99 >= 400.0, "{rate}");
        (p50 < 100.0 && p99 < 1_000.0, rate)
    });
    // A closed loop sends nothing during the stall: only one request sees it.
    tries(|| {
        let (_, closed) = bench(&[&stalling(), "a", "-c", "1", "--time", "2s"]);
        assert!(percentile(&closed, 100.0) >= 500.0, "{closed}");
        (percentile(&closed, 99.0) < 200.0, closed)
    });
}
