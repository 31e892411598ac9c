//! The examples that drive the core without a server, seen from outside: a drain, a half-close, fragments, a peer that does
//! not read, and time. The echo agents, which have servers, pass the same scenarios.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use spop_tests::agent::{AGENTS, Agent, DRIVERS};
use spop_tests::peer::{Peer, bytes};
use spop_tests::stage::Failures;
use spop_tests::wait::{until, until_true};

/// What happens at once, on a busy machine; far below the drain timeout of ten seconds.
const SOON: Duration = Duration::from_secs(3);

/// Plays a scenario with every program at the same time.
fn with_each(scenario: fn(&mut Agent) -> Result<()>) -> Result<(), Failures> {
    let dir = Arc::new(tempfile::tempdir().map_err(anyhow::Error::from)?);
    let threads: Vec<_> = DRIVERS
        .iter()
        .chain(AGENTS)
        .map(|name| {
            let dir = Arc::clone(&dir);
            let play = move || {
                let log = dir.path().join(format!("{name}.log"));
                let mut agent = if AGENTS.contains(name) {
                    Agent::start(name, &["--listen", "127.0.0.1:0"], &log)
                } else {
                    Agent::start_driver(name, &log)
                }?;
                scenario(&mut agent).map_err(|error| {
                    anyhow!("{error:#}\n-- log\n{}", fs::read_to_string(log).unwrap_or_default())
                })
            };
            (name, thread::spawn(play))
        })
        .collect();
    let mut failures = String::new();
    for (name, thread) in threads {
        let result = thread.join().unwrap_or_else(|_| Err(anyhow!("panicked")));
        if let Err(error) = result {
            // Writing to a string cannot fail.
            let _ = writeln!(failures, "{name}: {error:#}\n");
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(anyhow!(failures).into()) }
}

fn expect_ended(agent: &mut Agent) -> Result<()> {
    let status = agent.wait_for_end(SOON)?;
    ensure!(status.success(), "it has ended with {status}");
    Ok(())
}

/// A session with pipelining.
fn session(agent: &Agent) -> Result<Peer> {
    let mut peer = Peer::connect(agent.address())?;
    peer.greet_with("capabilities=string:pipelining,async")?;
    Ok(peer)
}

fn within<T>(limit: Duration, what: &str, act: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let done = act().with_context(|| what.to_owned())?;
    ensure!(start.elapsed() < limit, "{what} took {:?}, and not less than {limit:?}", start.elapsed());
    Ok(done)
}

/// Receives the DISCONNECT, sees that the agent waits for this side to close first, and closes it.
fn close_first(peer: &mut Peer) -> Result<()> {
    peer.expect_disconnect(0)?;
    peer.expect_silence(Duration::from_millis(200)).context("after the DISCONNECT")?;
    peer.shut()?;
    peer.expect_eof()
}

#[test]
fn a_drain_finishes_what_is_under_way_and_disconnects_at_once() -> Result<(), Failures> {
    with_each(|agent| {
        let (mut busy, mut cut, mut idle) = (session(agent)?, session(agent)?, session(agent)?);
        let mut unknown = Peer::connect(agent.address())?;
        // Under way are a payload in fragments and a part of a frame.
        busy.send("NOTIFY - 5 1 messages[..2] m a=int32:5")?;
        let frame = bytes("NOTIFY fin 7 1 m a=int32:7")?;
        let (front, back) = frame.split_at(9);
        cut.send_bytes(front)?;
        for peer in [&mut busy, &mut cut] {
            peer.expect_silence(Duration::from_millis(20))?;
        }
        agent.terminate()?;
        within(SOON, "the DISCONNECT of an idle connection", || idle.expect_disconnect(0))?;
        within(SOON, "the DISCONNECT before the HELLO", || unknown.expect_disconnect(0))?;
        until_true("it listens no more", SOON, || Ok(Peer::connect(agent.address()).is_err()))?;
        // Requests are served on until the last answer.
        busy.expect_silence(Duration::from_millis(200)).context("something is under way")?;
        for id in [9, 11] {
            let (ask, answer) = (format!("NOTIFY fin {id} 1 m a=int32:9"), format!("ACK fin {id} 1"));
            within(SOON, "an answer in the drain", || {
                busy.ask(&ask, &format!("{answer} set txn m.a=int32:9"))
            })?;
        }
        // A driver with threads may hear late that an answer was written; one that is queued before is not held.
        busy.expect_silence(Duration::from_millis(500))?;
        within(SOON, "the end of one that is busy", || {
            busy.send("UNSET fin 5 1 messages[2..] m a=int32:5")?;
            busy.expect("ACK fin 5 1 set txn m.a=int32:5")?;
            // HAProxy must not have sent a request in between: both are in one write.
            ensure!(busy.has_more(), "the DISCONNECT was not written with the last answer");
            close_first(&mut busy)
        })?;
        within(SOON, "the end of one with a part of a frame", || {
            cut.send_bytes(back)?;
            cut.expect("ACK fin 7 1 set txn m.a=int32:7")?;
            ensure!(cut.has_more(), "the DISCONNECT was not written with the last answer");
            close_first(&mut cut)
        })?;
        for peer in [&mut idle, &mut unknown] {
            peer.shut()?;
            peer.expect_end()?;
        }
        expect_ended(agent)
    })
}

#[test]
fn a_drain_disconnects_as_soon_as_a_read_finds_nothing() -> Result<(), Failures> {
    /// Answers wait for 5 ms of silence. A driver that does not read then is waited for another 20 ms.
    const LIMIT: Duration = Duration::from_millis(20);
    with_each(|agent| {
        let mut peers = (0..48).map(|_| session(agent)).collect::<Result<Vec<_>>>()?;
        for peer in &mut peers {
            peer.send("NOTIFY - 5 1 messages[..2] m a=int32:5")?;
            peer.ask("NOTIFY fin 7 1 m a=int32:7", "ACK fin 7 1 set txn m.a=int32:7")?;
        }
        agent.terminate()?;
        until_true("it no longer listens", SOON, || Ok(Peer::connect(agent.address()).is_err()))?;
        // A busy machine may be late for some of them.
        let mut fastest = Duration::MAX;
        for mut peer in peers {
            let start = Instant::now();
            peer.send("UNSET fin 5 1 messages[2..] m a=int32:5")?;
            peer.expect("ACK fin 5 1 set txn m.a=int32:5")?;
            peer.expect_disconnect(0)?;
            fastest = fastest.min(start.elapsed());
            peer.shut()?;
            peer.expect_eof()?;
        }
        ensure!(fastest < LIMIT, "the fastest DISCONNECT took {fastest:?}");
        expect_ended(agent)
    })
}

#[test]
fn a_peer_that_shuts_its_side_gets_what_it_is_owed() -> Result<(), Failures> {
    with_each(|agent| {
        for count in [0, 1, 1_000] {
            let mut peer = session(agent)?;
            let mut asked = String::new();
            for id in 1..=count {
                writeln!(asked, "NOTIFY fin {id} 1 m a=int32:{id}")?;
            }
            // Neither the half of a payload nor of a frame holds up the end.
            peer.send(&format!("{asked}NOTIFY - 5000 1 messages[..2] m a=int32:5"))?;
            peer.send_bytes(&[0, 0, 0])?;
            peer.shut()?;
            let answer = |id| format!("ACK fin {id} 1 set txn m.a=int32:{id}");
            receive_owed(&mut peer, &mut (1..=count).map(answer).collect(), count)?;
            within(SOON, "the end", || peer.expect_eof())?;
        }
        Ok(())
    })
}

/// Receives so many of the answers that are owed, in any order and each once.
fn receive_owed(peer: &mut Peer, owed: &mut HashSet<String>, count: usize) -> Result<()> {
    for _ in 0..count {
        let answer = peer.receive().with_context(|| format!("{} answers are missing", owed.len()))?;
        ensure!(owed.remove(&answer), "not asked for, or answered before: {answer}");
    }
    Ok(())
}

#[test]
fn fragments_are_put_together_and_aborts_are_final() -> Result<(), Failures> {
    with_each(|agent| {
        let mut peer = session(agent)?;
        let steps = [
            "NOTIFY - 5 1 messages[..2] one a=int32:1",
            "NOTIFY - 7 1 messages[..3] two a=int32:2",
            "NOTIFY fin 9 1 three a=int32:3",
            "UNSET - 7 1 messages[3..4] two a=int32:2",
            "NOTIFY - 11 1 messages[..2] four a=int32:4",
            "UNSET fin,abort 11 1",
            "NOTIFY fin 13 1 five a=int32:5",
            "UNSET fin 5 1 messages[2..] one a=int32:1",
            "UNSET fin 7 1 messages[4..] two a=int32:2",
        ];
        let answers = [(9, "three", 3), (13, "five", 5), (5, "one", 1), (7, "two", 2)]
            .map(|(id, name, n)| format!("ACK fin {id} 1 set txn {name}.a=int32:{n}"))
            .join("\n");
        peer.send(&steps.join("\n"))?;
        peer.expect(&answers)?;
        // The same byte by byte, and nothing for what was aborted.
        for byte in bytes(&steps.join("\n"))? {
            peer.send_bytes(&[byte])?;
        }
        peer.expect(&answers)?;
        peer.expect_silence(Duration::from_millis(60))?;
        peer.ask("NOTIFY fin 11 1 m a=int32:6", "ACK fin 11 1 set txn m.a=int32:6")
    })
}

#[test]
fn a_peer_that_reads_nothing_is_not_read_from_and_gets_all_answers_later() -> Result<(), Failures> {
    /// Far more than what sockets hold on both sides.
    const MOST: usize = 64 << 20;
    with_each(|agent| {
        let mut peer = session(agent)?;
        let (before, mut sent, mut count) = (resident(agent)?, 0, 0);
        let mut rest = Vec::new();
        loop {
            if rest.is_empty() {
                count += 1;
                rest = bytes(&format!(r#"NOTIFY fin {count} 1 m a=string:"x"*8000"#))?;
            }
            let taken =
                until("more is taken", SOON, || Ok(Some(peer.send_some(&rest)?).filter(|taken| *taken > 0)));
            let Ok(taken) = taken else { break };
            rest.drain(..taken);
            sent += taken;
            ensure!(sent < MOST, "it reads on although the peer reads no answer");
        }
        let grown = resident(agent)?.saturating_sub(before);
        ensure!(grown < 16 << 20, "it took {grown} bytes of memory for {sent} bytes of input");
        ensure!(count > 256, "only {count} requests were sent");
        // What could not be sent is sent once answers are read.
        let answer = |id| format!(r#"ACK fin {id} 1 set txn m.a=string:"x"*8000"#);
        let mut owed = (1..=count).map(answer).collect();
        receive_owed(&mut peer, &mut owed, count / 2)?;
        peer.send_bytes(&rest)?;
        peer.shut()?;
        receive_owed(&mut peer, &mut owed, count - count / 2)?;
        peer.expect_eof()
    })
}

#[test]
fn time_passes_without_polling_and_a_silent_peer_is_disconnected() -> Result<(), Failures> {
    with_each(|agent| {
        let start = Instant::now();
        let mut silent = Peer::connect(agent.address())?;
        let mut idle = session(agent)?;
        idle.ask("NOTIFY fin 1 1 m a=int32:1", "ACK fin 1 1 set txn m.a=int32:1")?;
        // The timer for the memory of an idle connection goes off after a second.
        thread::sleep(Duration::from_millis(1_500));
        let before = switches(agent)?;
        // How often the kernel wakes its threads meanwhile.
        thread::sleep(Duration::from_millis(1_500));
        let woken = switches(agent)? - before;
        ensure!(woken <= 3, "it woke {woken} times in 1.5 s, and nothing happened");
        silent.expect_disconnect(2)?;
        let after = start.elapsed();
        ensure!(after >= Duration::from_secs(5), "disconnected after {after:?}");
        ensure!(after < Duration::from_secs(5) + SOON, "disconnected after {after:?}");
        silent.shut()?;
        silent.expect_eof()?;
        idle.ask("NOTIFY fin 3 1 m a=int32:3", "ACK fin 3 1 set txn m.a=int32:3")
    })
}

/// Bytes of memory that a process has.
fn resident(agent: &Agent) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.id()))?;
    Ok(number(&status, "VmRSS:")? * 1024)
}

/// How often the threads of a process have waited and gone on.
fn switches(agent: &Agent) -> Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{}/task", agent.id()))? {
        sum += number(&fs::read_to_string(task?.path().join("status"))?, "voluntary_ctxt_switches:")?;
    }
    Ok(sum)
}

fn number(status: &str, key: &str) -> Result<u64> {
    let Some(value) = status.lines().find_map(|line| line.strip_prefix(key)) else { bail!("no {key}") };
    Ok(value.split_whitespace().next().context("empty")?.parse()?)
}
