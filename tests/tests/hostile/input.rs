//! What is no SPOP, or no good SPOP.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustls::ClientConnection;
use spop_tests::bystander::Bystander;
use spop_tests::peer::{Authority, Peer, bytes, trusting};
use spop_tests::random::Random;
use spop_tests::stage::Verdict;

use super::arena::{PATIENT, Target, each};

/// How often each thing is tried.
const TIMES: usize = 100;

/// What memory may grow by however often something is tried, in KiB: the noise of an allocator. A peer that could make
/// the agent keep, or reserve, what it announces would be far beyond.
const FLAT: u64 = 4 << 10;

/// Each peer sends this, after a handshake or without, and gets this status. Nobody else notices.
fn refused(target: &Target, what: &str, input: &[u8], status: u32) -> Result<()> {
    let bystander = Bystander::start(target.address())?;
    let before = target.holds()?;
    for turn in 0..TIMES {
        let mut peer = if turn % 2 == 0 { target.connect()? } else { target.session()? };
        peer.send_bytes(input)?;
        peer.expect_status(status).with_context(|| what.to_owned())?;
    }
    let (after, served) = (target.holds()?, bystander.finish(PATIENT)?);
    println!("{what}: status {status}; memory {} -> {} KiB; {served:?}", before.memory, after.memory);
    ensure!(after.memory <= before.memory + FLAT, "{what}: {before:?} -> {after:?}");
    target.until_open(0)
}

#[test]
fn what_is_no_spop_has_its_status_and_costs_nothing() -> Verdict {
    let mut hello = Vec::new();
    let config = trusting(&Authority::new("any")?, None)?;
    let mut tls = ClientConnection::new(Arc::clone(&config), "agent.example".try_into().unwrap()).unwrap();
    tls.write_tls(&mut hello).unwrap();
    each(|arena| {
        let target = arena.start(&[])?;
        refused(&target, "4 GiB announced", b"\xff\xff\xff\xff", 3)?;
        refused(&target, "4 GiB announced, and begun", &[&[0xff; 4][..], &[0; 8_000]].concat(), 3)?;
        refused(&target, "one byte more than agreed", &16_385_u32.to_be_bytes(), 3)?;
        refused(&target, "a length of 0", &[0; 4], 4)?;
        refused(&target, "a frame of 2 bytes", b"\0\0\0\x02ab", 4)?;
        refused(&target, "HTTP", b"GET / HTTP/1.1\r\nHost: agent\r\nUser-Agent: curl\r\n\r\n", 3)?;
        refused(&target, "HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 3)?;
        refused(&target, "TLS", &hello, 3)?;
        refused(&target, "a PROXY header", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", 3)?;
        refused(&target, "an agent's own frame", &bytes("ACK fin 1 1")?, 4)?;
        target.expect_alive()
    })
}

/// Receives what comes, up to the end: answers and at most one DISCONNECT, which is the last.
fn until_end(peer: &mut Peer) -> Result<Option<String>> {
    let rest = peer.rest()?;
    let mut rest = &rest[..];
    let mut last = None;
    while let Some((length, more)) = rest.split_first_chunk() {
        let Some((frame, more)) = more.split_at_checked(u32::from_be_bytes(*length) as usize) else {
            bail!("it ends in a frame");
        };
        ensure!(last.is_none(), "a frame follows {last:?}");
        let line = spop_core::notation::print(spop_core::frame::Frame::decode(frame)?).to_string();
        if line.starts_with("AGENT-DISCONNECT ") {
            last = Some(line);
        }
        rest = more;
    }
    ensure!(rest.is_empty(), "it ends in a length");
    Ok(last)
}

#[test]
fn random_bytes_get_a_status_or_an_end() -> Verdict {
    each(|arena| {
        let target = arena.start(&["--hello-timeout", "2000", "--frame-timeout", "1000"])?;
        let bystander = Bystander::start(target.address())?;
        let before = target.holds()?;
        let mut random = Random::seeded(7);
        let mut statuses = std::collections::BTreeMap::new();
        for turn in 0..600 {
            let noise: Vec<u8> = (0..random.below(2_000)).map(|_| random.below(256) as u8).collect();
            let mut peer = if turn % 2 == 0 { target.connect()? } else { target.session()? };
            let input = match turn % 3 {
                0 => noise,
                // With a length that is believed.
                1 => [&(noise.len() as u32).to_be_bytes()[..], &noise].concat(),
                // With a header too.
                _ => {
                    let length = noise.len() as u32 + 7;
                    let kind = [1, 2, 3, 0, 42].get(turn / 3 % 5).copied().unwrap_or_default();
                    [&length.to_be_bytes()[..], &[kind, 0, 0, 0, 1, 0, 0], &noise].concat()
                }
            };
            // It may be told to go before it is done.
            let _ = peer.send_bytes(&input).and_then(|()| peer.shut());
            let last = until_end(&mut peer)?;
            let status = last.as_deref().and_then(|line| line.split("uint32:").nth(1)?.split(' ').next());
            *statuses.entry(status.unwrap_or("an end").to_owned()).or_insert(0) += 1;
        }
        let (after, served) = (target.holds()?, bystander.finish(PATIENT)?);
        println!("{}: {statuses:?}; {before:?} -> {after:?}; {served:?}", arena.name);
        ensure!(
            statuses
                .keys()
                .all(|status| ["an end", "0", "3", "4", "5", "10", "12"].contains(&status.as_str())),
            "{statuses:?}"
        );
        ensure!(statuses.len() > 3, "{statuses:?}");
        ensure!(after.memory <= before.memory + FLAT, "{before:?} -> {after:?}");
        target.until_open(0)?;
        target.expect_alive()
    })
}

#[test]
fn a_frame_that_drips_is_given_up_in_time() -> Verdict {
    each(|arena| {
        let target = arena.start(&["--frame-timeout", "2500", "--hello-timeout", "2500"])?;
        let bystander = Bystander::start(target.address())?;
        let frame = bytes("NOTIFY fin 1 1 m a=string:abcdefghijklmnopqrstuvwxyz")?;
        let hello = bytes("HAPROXY-HELLO fin 0 0 supported-versions=string:2.0")?;
        let mut peers = Vec::new();
        for turn in 0..100 {
            let greeted = turn % 2 == 0;
            peers.push((if greeted { target.session()? } else { target.connect()? }, greeted));
        }
        let start = Instant::now();
        // A byte a second, for longer than there is time.
        for second in 0..3 {
            for (peer, greeted) in &mut peers {
                let bytes = if *greeted { &frame } else { &hello };
                let byte = bytes.get(second..=second).context("no more bytes")?;
                // Who has been told already does not listen.
                let _ = peer.send_bytes(byte);
            }
            std::thread::sleep((start + Duration::from_secs(second as u64 + 1)) - Instant::now());
        }
        for (peer, _) in &mut peers {
            peer.expect_disconnect(2)?;
        }
        let took = start.elapsed();
        ensure!(took < Duration::from_secs(6), "they were given up after {took:?}");
        drop(peers);
        let served = bystander.finish(PATIENT)?;
        println!("{}: 100 peers that drip were given up within {took:?}; {served:?}", arena.name);
        target.until_open(0)
    })
}
