//! How long a bystander waits for its answers while its neighbours send what they want, with all of them on one worker.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use spop_tests::bystander::{Bystander, Served};
use spop_tests::stage::Verdict;

use super::attack::{self, Attack};
use super::attackers::{Attackers, Options};
use super::server::{Allocator, Server, each};

/// What 99 of 100 answers must not exceed.
const P99: Duration = Duration::from_millis(25);

/// What no answer must exceed.
const SLOWEST: Duration = Duration::from_millis(250);

/// Flooders at once.
const NEIGHBOURS: [usize; 3] = [1, 8, 32];

/// How long the bystander asks.
const TIME: Duration = Duration::from_millis(800);

/// The machine may be busy with other things once, the server is slow each time.
const TRIES: usize = 3;

/// How long the server may work on what a flood has left behind.
const AT_REST: Duration = Duration::from_secs(3);

/// Until the neighbours have connected and are in full flood.
const LEAD: Duration = Duration::from_millis(300);

fn neighbours(attack: &'static Attack) -> Verdict {
    each(|name| {
        let server = Server::start(name, &["--workers", "1"], Allocator::Default)?;
        let mut slow = Vec::new();
        for count in NEIGHBOURS {
            for turn in 1..=TRIES {
                server.at_rest(AT_REST)?;
                let (opened, served) = beside(&server, attack, count)
                    .with_context(|| format!("{name}, {count} × {}", attack.name))?;
                let stalled = served.slowest.max(opened).mul_f64(P99.div_duration_f64(SLOWEST));
                let line = format!("{count} × {}: session after {opened:?}, {served:?}", attack.name);
                println!("{name}: {line}");
                if served.p99.max(stalled) < P99 {
                    break;
                }
                if turn == TRIES {
                    slow.push(line);
                }
            }
        }
        ensure!(slow.is_empty(), "the bystander was kept waiting:\n  {}", slow.join("\n  "));
        Ok(())
    })
}

/// How long a bystander took to open its session beside so many attackers, and how it was served then.
fn beside(server: &Server, attack: &'static Attack, count: usize) -> Result<(Duration, Served)> {
    let address = server.address()?;
    // One that does not read begins again, or its flood ends when the buffers are full.
    let options = Options { renew: Some(Duration::from_millis(50)), bytes: None };
    let attackers = Attackers::start(address, &[(attack, count)], options)?;
    sleep(LEAD);
    let start = Instant::now();
    let bystander = Bystander::start(&address.to_string())?;
    let opened = start.elapsed();
    sleep(TIME);
    let served = bystander.finish(Duration::MAX)?;
    let tallies = attackers.finish()?;
    let sent: u64 = tallies.values().map(|tally| tally.sent).sum();
    ensure!(sent > 1 << 20, "that is no flood: {tallies:?}");
    Ok((opened, served))
}

#[test]
fn empty_fragments() -> Verdict {
    neighbours(&attack::EMPTY_FRAGMENTS)
}

#[test]
fn small_requests() -> Verdict {
    neighbours(&attack::SMALL_REQUESTS)
}

#[test]
fn unread_answers() -> Verdict {
    neighbours(&attack::UNREAD_ANSWERS)
}

#[test]
fn unknown_frames() -> Verdict {
    neighbours(&attack::UNKNOWN_FRAMES)
}

#[test]
fn superseding_ids() -> Verdict {
    neighbours(&attack::SUPERSEDING_IDS)
}

#[test]
fn long_payloads() -> Verdict {
    neighbours(&attack::LONG_PAYLOADS)
}
