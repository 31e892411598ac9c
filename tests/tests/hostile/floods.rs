//! Peers that send without end, or begin without end, or do not read: they hold what the limits say, and no more.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use spop_tests::bystander::Bystander;
use spop_tests::peer::{Peer, bytes};
use spop_tests::stage::Verdict;

use super::arena::{PATIENT, Target, each, each_alone};

/// What a connection may hold of itself beside its payloads, in KiB.
const ITSELF: u64 = 64;

/// Sends as much as is taken: what the sockets hold, and what the limits of the agent allow. How much that is.
fn fill(peer: &mut Peer, input: &[u8]) -> Result<usize> {
    let (mut sent, mut since) = (0, Instant::now());
    while since.elapsed() < Duration::from_millis(500) {
        match peer.send_some(input.get(sent..).unwrap_or_default())? {
            0 => std::thread::sleep(Duration::from_millis(5)),
            n => (sent, since) = (sent + n, Instant::now()),
        }
    }
    Ok(sent)
}

#[test]
fn who_never_reads_is_not_read_from_and_loses_nothing() -> Verdict {
    each(|arena| {
        let target = arena.start(&[])?;
        let before = target.holds()?;
        let bystander = Bystander::start(target.address())?;
        let mut peer = target.session()?;
        let count = 100_000;
        let lines: Vec<_> = (0..count).map(|id| format!("NOTIFY fin {id} 1 m a=string:\"x\"*200")).collect();
        let input = bytes(&lines.join("\n"))?;
        let mut sent = fill(&mut peer, &input)?;
        let during = target.holds()?;
        ensure!(
            sent < input.len() / 2,
            "it has taken {sent} of {} bytes from somebody who reads nothing",
            input.len()
        );
        ensure!(during.memory <= before.memory + (4 << 10), "{before:?} -> {during:?}");
        // Now it reads.
        let mut received = 0;
        while received < count {
            if sent < input.len() {
                sent += peer.send_some(input.get(sent..).unwrap_or_default())?;
            }
            for _ in 0..100.min(count - received) {
                peer.expect(&format!("ACK fin {received} 1 set txn m.a=string:\"x\"*200"))?;
                received += 1;
            }
        }
        let (after, served) = (target.holds()?, bystander.finish(PATIENT)?);
        println!(
            "{}: memory {} -> {} -> {} KiB; all of {count} answered in order; {served:?}",
            arena.name, before.memory, during.memory, after.memory
        );
        ensure!(after.memory <= before.memory + (4 << 10), "{before:?} -> {after:?}");
        Ok(())
    })
}

#[test]
fn who_never_reads_is_given_up_when_the_agent_drains() -> Verdict {
    each(|arena| {
        let mut target = arena.start(&["--drain-timeout", "500"])?;
        let mut peer = target.session()?;
        let lines: Vec<_> =
            (0..2_000).map(|id| format!("NOTIFY fin {id} 1 m a=string:\"x\"*16000")).collect();
        let input = bytes(&lines.join("\n"))?;
        let sent = fill(&mut peer, &input)?;
        ensure!(sent < input.len(), "it has taken all from somebody who reads nothing");
        let start = Instant::now();
        target.expect_end()?;
        let took = start.elapsed();
        println!("{}: ended after {took:?}", arena.name);
        ensure!(took >= Duration::from_millis(300), "it left its answers behind after {took:?}");
        Ok(())
    })
}

/// How many connections begin payloads and leave them.
const LEAVING: usize = 12;

/// What all unfinished payloads of a connection may have together, in KiB.
const PAYLOADS: u64 = 4 << 10;

/// Connections begin as many payloads as they may, fill them beyond the limit, and leave them; then they begin again, which
/// drops what was there. The most memory that the agent had meanwhile, and how many payloads it refused.
fn begin_and_leave(target: &Target) -> Result<(u64, usize)> {
    let all = |line: fn(usize) -> String| bytes(&(0..16).map(line).collect::<Vec<_>>().join("\n"));
    let starts = all(|id| format!("NOTIFY - {id} 1 raw:x"))?;
    let mores = all(|id| format!("UNSET - {id} 1 raw:\"x\"*16000"))?;
    let mut peers = (0..LEAVING).map(|_| target.session()).collect::<Result<Vec<_>>>()?;
    let (mut peak, mut refused) = (0, 0);
    for round in 0..3 {
        for peer in &mut peers {
            peer.send_bytes(&starts)?;
            // 5 MB in all.
            for _ in 0..20 {
                peer.send_bytes(&mores)?;
            }
            peer.send(&format!("NOTIFY fin {round} 9 m"))?;
            let before = refused;
            loop {
                match peer.receive()? {
                    line if line.starts_with("ACK fin,abort ") => refused += 1,
                    line => {
                        ensure!(line == format!("ACK fin {round} 9"), "{line}");
                        break;
                    }
                }
            }
            ensure!(refused > before, "it took more than its limit");
        }
        peak = peak.max(target.holds()?.memory);
    }
    drop(peers);
    Ok((peak, refused))
}

#[test]
fn payloads_that_are_begun_and_left_hold_the_limit() -> Verdict {
    each_alone(|arena| {
        let target = arena.start(&["--max-payload", "1048576", "--frame-timeout", "600000"])?;
        let before = target.holds()?.memory;
        let bystander = Bystander::start(target.address())?;
        let (first, refused) = begin_and_leave(&target)?;
        target.until_open(1)?;
        let between = target.holds()?.memory;
        let (second, _) = begin_and_leave(&target)?;
        let served = bystander.finish(PATIENT)?;
        target.until_open(0)?;
        let bound = LEAVING as u64 * (PAYLOADS + ITSELF) + (4 << 10);
        println!(
            "{}: {LEAVING} connections take {} KiB of {bound}, {refused} payloads refused; {between} KiB after \
             them; others like them {} KiB; {served:?}",
            arena.name,
            first - before,
            second - before,
        );
        ensure!(first - before <= bound, "{before} -> {first} KiB: more than {bound}");
        ensure!(
            first - before >= LEAVING as u64 * PAYLOADS / 3,
            "{before} -> {first} KiB: nowhere near the limit"
        );
        ensure!(
            between <= before + (8 << 10),
            "{before} -> {first} -> {between} KiB: it keeps what was left"
        );
        ensure!(second <= first + (8 << 10), "{before} -> {first} -> {between} -> {second} KiB");
        Ok(())
    })
}

#[test]
fn who_aborts_and_starts_again_holds_one_payload() -> Verdict {
    each(|arena| {
        let target = arena.start(&[])?;
        let before = target.holds()?;
        let bystander = Bystander::start(target.address())?;
        let mut peer = target.session()?;
        let aborted = bytes(
            "NOTIFY - 5 1 raw:\"x\"*16000
             UNSET - 5 1 raw:\"x\"*16000
             UNSET fin,abort 5 1",
        )?;
        // The same id without end: each drops the one before.
        let superseded = bytes("NOTIFY - 5 1 raw:\"x\"*16000")?;
        for round in 0..1_500 {
            peer.send_bytes(if round % 2 == 0 { &aborted } else { &superseded })?;
        }
        peer.ask("UNSET fin,abort 5 1\nNOTIFY fin 7 1 m", "ACK fin 7 1")?;
        // The same id in flight without end: one is worked on, and only the last is answered.
        for _ in 0..20_000 {
            peer.send("NOTIFY fin 9 1 sleep ms=int32:600000")?;
        }
        peer.ask("NOTIFY fin 9 1 m", "ACK fin 9 1")?;
        let (after, served) = (target.holds()?, bystander.finish(PATIENT)?);
        println!("{}: memory {} -> {} KiB; {served:?}", arena.name, before.memory, after.memory);
        ensure!(after.memory <= before.memory + (8 << 10), "{before:?} -> {after:?}");
        Ok(())
    })
}
