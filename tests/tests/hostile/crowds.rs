//! Many connections: idle, half open, in a storm, or more than there are descriptors.

use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use spop_tests::bystander::Bystander;
use spop_tests::peer::{Peer, bytes};
use spop_tests::process::limit_descriptors;
use spop_tests::stage::Verdict;
use spop_tests::wait::{PATIENCE, until_true};

use super::arena::{Arena, PATIENT, Target, each_alone};

/// What memory may grow by in a storm, in KiB: as many connections as wait to be accepted may be open at once, and an
/// allocator keeps what they took. Less than a kilobyte for each that came and went.
const CALM: u64 = 8 << 10;

/// Addresses of this machine to connect from: each has its own ports.
fn source(index: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, 2 + (index % 8) as u8)
}

/// How many connections the largest crowd has; the variable `SPOP_CROWD` says otherwise.
fn crowd() -> usize {
    std::env::var("SPOP_CROWD").ok().and_then(|count| count.parse().ok()).unwrap_or(10_000)
}

/// How many lines may be logged in this time: each kind of event has a burst and then one a second, in each thread.
fn log_bound(threads: usize, time: Duration) -> usize {
    threads * 3 * (10 + 1 + time.as_secs() as usize)
}

#[test]
fn ten_thousand_connections_a_tenth_of_them_half_open() -> Verdict {
    each_alone(|arena| {
        let all = crowd();
        let target = arena.start(&["--hello-timeout", "600000", "--frame-timeout", "600000"])?;
        let before = target.holds()?;
        let mut peaks = Vec::new();
        for _ in 0..2 {
            let bystander = Bystander::start(target.address())?;
            let start = Instant::now();
            let mut sessions = Vec::new();
            let mut halves = Vec::new();
            // Each with the rest of what it says.
            let dripped = bytes("HAPROXY-HELLO fin 0 0 supported-versions=string:2.0")?;
            let long = [0, 0, 1, 0, 3];
            for index in 0..all - 1 {
                let mut peer = target.connect_from(source(index))?;
                match index % 20 {
                    // Silent, or with half a frame, before the handshake or after it.
                    0 if index % 40 == 0 => halves.push((peer, dripped.iter())),
                    0 => {
                        let (said, rest) = dripped.split_at(9);
                        peer.send_bytes(said)?;
                        halves.push((peer, rest.iter()));
                    }
                    1 => {
                        peer.greet()?;
                        peer.send_bytes(&[0, 0])?;
                        halves.push((peer, long[2..].iter()));
                    }
                    _ => {
                        peer.greet()?;
                        sessions.push(peer);
                    }
                }
            }
            let opened = start.elapsed();
            target.until_open(all)?;
            let peak = target.holds()?;
            // All of them are served, also while the others drip.
            for (index, peer) in sessions.iter_mut().enumerate().step_by(50) {
                for (half, rest) in halves.iter_mut().skip(index / 50).step_by(10).take(5) {
                    half.send_bytes(rest.next().map_or(&[], std::slice::from_ref))?;
                }
                peer.ask("NOTIFY fin 5 1 m a=int32:1", "ACK fin 5 1 set txn m.a=int32:1")?;
            }
            let start = Instant::now();
            let served = bystander.finish(PATIENT)?;
            let (open, half) = (sessions.len(), halves.len());
            drop((sessions, halves));
            target.until_open(0)?;
            let after = target.holds()?;
            println!(
                "{}: {open} sessions and {half} half open in {opened:?}; memory {} -> {} -> {} KiB, {} B for each; \
                 gone after {:?}; {served:?}",
                arena.name,
                before.memory,
                peak.memory,
                after.memory,
                (peak.memory - before.memory) * 1024 / all as u64,
                start.elapsed(),
            );
            ensure!((peak.memory - before.memory) * 1024 / (all as u64) < 8 << 10, "{before:?} -> {peak:?}");
            peaks.push(peak.memory);
        }
        // The second crowd takes the memory of the first.
        ensure!(
            peaks.iter().all(|peak| *peak <= peaks.iter().min().map_or(0, |min| min + min / 4)),
            "{peaks:?}"
        );
        target.expect_alive()
    })
}

#[test]
fn two_thousand_idle_connections_cost_nobody_anything() -> Verdict {
    each_alone(|arena| {
        let target = arena.start(&["--idle-timeout", "3000"])?;
        let before = target.holds()?;
        let bystander = Bystander::start(target.address())?;
        let mut idle = Vec::new();
        for index in 0..2_000 {
            let mut peer = target.connect_from(source(index))?;
            peer.greet()?;
            idle.push(peer);
        }
        let during = target.holds()?;
        // Each is told that it was idle for too long, in time.
        for peer in &mut idle {
            peer.expect_status(2)?;
        }
        drop(idle);
        let served = bystander.finish(PATIENT)?;
        target.until_open(0)?;
        let after = target.holds()?;
        println!(
            "{}: memory {} -> {} -> {} KiB; {} ms of processor time; {served:?}",
            arena.name,
            before.memory,
            during.memory,
            after.memory,
            after.time - before.time
        );
        ensure!(during.memory - before.memory < 2_000 * 8, "{before:?} -> {during:?}");
        Ok(())
    })
}

#[test]
fn without_descriptors_it_serves_whom_it_has_and_goes_on() -> Verdict {
    each_alone(|arena| {
        let target = arena.start(&["--workers", "2"])?;
        let before = target.holds()?;
        let room = 50;
        limit_descriptors(target.agent.id(), (before.descriptors + room) as u64)?;
        let start = Instant::now();
        let mut served: Vec<Peer> = Vec::new();
        for _ in 0..room {
            served.push(target.session()?);
        }
        // These wait: the system has taken them, nobody has accepted them.
        let hello = "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 \
                     capabilities=string:pipelining,async";
        let mut waiting = Vec::new();
        for _ in 0..30 {
            let mut peer = target.connect()?;
            peer.send(hello)?;
            waiting.push(peer);
        }
        let time = Duration::from_millis(1500);
        let (end, mut turns) = (Instant::now() + time, 0);
        while Instant::now() < end {
            for peer in &mut served {
                peer.ask("NOTIFY fin 1 1 m", "ACK fin 1 1")?;
            }
            turns += 1;
            thread::sleep(Duration::from_millis(100));
        }
        let during = target.holds()?;
        ensure!(during.descriptors >= before.descriptors + room, "{before:?} -> {during:?}");
        drop(served);
        for peer in &mut waiting {
            let hello = peer.receive().context("one that has waited")?;
            ensure!(hello.starts_with("AGENT-HELLO "), "{hello}");
            peer.ask("NOTIFY fin 1 1 m", "ACK fin 1 1")?;
        }
        drop(waiting);
        let lines = target.log_lines()?.len();
        println!(
            "{}: {room} served {turns} times in {time:?} for {} ms of processor time; 30 waited; {lines} lines",
            arena.name,
            during.time - before.time
        );
        // It does not ask for a descriptor again and again.
        ensure!(during.time - before.time < 1_000, "{before:?} -> {during:?}");
        ensure!(lines > 0 && lines <= log_bound(2, start.elapsed()), "{lines} lines");
        target.until_open(0)?;
        target.expect_alive()
    })
}

/// Peers that come again as fast as they can, `each` times in each of four threads. How many a second.
fn storm(target: &Target, each: usize, visit: impl Fn(Peer) -> Result<()> + Sync) -> Result<u128> {
    let start = Instant::now();
    thread::scope(|scope| {
        let visit = &visit;
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                scope.spawn(move || {
                    for turn in 0..each {
                        visit(target.connect_from(source(thread * 2 + turn % 2))?)?;
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)
    })?;
    Ok(4_000 * each as u128 / start.elapsed().as_millis().max(1))
}

/// A storm of 12,000 connections, seen from outside.
fn weather(
    arena: &Arena,
    args: &[&str],
    what: &str,
    open: usize,
    visit: impl Fn(Peer) -> Result<()> + Sync,
) -> Result<()> {
    let target = arena.start(args)?;
    let workers = 2;
    let bystander = Bystander::start(target.address())?;
    let mut others = Vec::new();
    for _ in 1..open {
        others.push(target.session()?);
    }
    // The first of them makes what is made once. How many are open at a time is up to the system.
    storm(&target, 300, &visit)?;
    target.until_open(open.max(1))?;
    let (before, start) = (target.holds()?, Instant::now());
    let rate = storm(&target, 3_000, &visit)?;
    target.until_open(open.max(1))?;
    let after = target.holds()?;
    // The server logs how many events it has suppressed with the first event after a second. A storm may be shorter, so a
    // connection after it causes that event.
    let left_out = |line: &String| line.contains("suppressed=") && !line.contains("suppressed=0");
    until_true("a line says how many were left out", PATIENCE, || {
        visit(target.connect_from(source(0))?)?;
        Ok(target.log_lines()?.iter().any(left_out))
    })?;
    let watched = start.elapsed();
    drop(others);
    let served = bystander.finish(PATIENT)?;
    let lines = target.log_lines()?;
    println!(
        "{}, {what}: {rate} a second; {} us of processor time each; memory {} -> {} KiB; {} lines; {served:?}",
        arena.name,
        (after.time - before.time) * 1000 / 12_000,
        before.memory,
        after.memory,
        lines.len()
    );
    ensure!(after.memory <= before.memory + CALM, "{before:?} -> {after:?}");
    let bound = log_bound(workers, watched + PATIENT);
    ensure!(lines.len() <= bound, "{} lines, more than {bound}", lines.len());
    target.until_open(0)?;
    target.expect_alive()
}

#[test]
fn a_storm_of_refused_handshakes_is_cheap_and_calm() -> Verdict {
    let hello = bytes(
        "HAPROXY-HELLO fin 0 0 supported-versions=string:1.0 max-frame-size=uint32:16380 capabilities=string:\"\"",
    )?;
    each_alone(|arena| {
        weather(arena, &["--workers", "2"], "refused handshakes", 1, |mut peer| {
            peer.send_bytes(&hello)?;
            peer.expect_status(8)
        })
    })
}

#[test]
fn a_storm_of_broken_connections_is_cheap_and_calm() -> Verdict {
    let input = bytes("NOTIFY fin 1 1 m")?;
    each_alone(|arena| {
        weather(arena, &["--workers", "2"], "resets in the middle of everything", 1, |mut peer| {
            peer.send_bytes(&input)?;
            peer.reset();
            Ok(())
        })
    })
}

#[test]
fn connections_above_the_limit_are_refused_cheaply() -> Verdict {
    each_alone(|arena| {
        let args = ["--workers", "2", "--max-connections", "10"];
        weather(arena, &args, "above the limit", 10, |mut peer| {
            // It may be refused before it has said anything.
            let _ = peer.send_bytes(b"\0\0");
            peer.expect_end().map(drop)
        })
    })
}

#[test]
fn a_storm_that_never_says_a_word_leaves_nothing_behind() -> Verdict {
    each_alone(|arena| {
        let target = arena.start(&["--workers", "2"])?;
        let before = target.holds()?;
        let rate = storm(&target, 2_000, |peer| {
            drop(peer);
            Ok(())
        })?;
        target.until_open(0)?;
        let after = target.holds()?;
        println!("{}: {rate} a second; memory {} -> {} KiB", arena.name, before.memory, after.memory);
        ensure!(after.memory <= before.memory + CALM, "{before:?} -> {after:?}");
        // The end of a connection is nothing to write home about.
        let lines = target.log_lines()?;
        ensure!(lines.is_empty(), "{lines:?}");
        until_true("it rests", PATIENCE, || {
            let time = target.holds()?.time;
            thread::sleep(Duration::from_millis(300));
            Ok(target.holds()?.time - time < 50)
        })?;
        target.expect_alive()
    })
}
