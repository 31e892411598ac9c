//! The memory of a server with the default limits under all attacks at once: first those that take memory, so that they are
//! not held up, then the others as well.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use spop_tests::bystander::Bystander;
use spop_tests::process::{peak_resident, resident};
use spop_tests::stage::Verdict;
use spop_tests::wait::PATIENCE;

use super::attack::{ALL, Attack, Resource};
use super::attackers::{Attackers, Options};
use super::server::{Server, each};

const MIB: u64 = 1 << 10;

/// What the process may have at any time, in KiB: three quarters of a machine with 1 GiB.
const BOUND: u64 = 768 * MIB;

/// What the process may have more when the attackers have left, in KiB.
const REMAINDER: u64 = 64 * MIB;

/// How much more the process may have in the last quarter of the time than in the one before, in KiB: the limits have struck
/// long ago, and what still grows grows without end.
const FLAT: u64 = 32 * MIB;

/// All attackers together.
const CONNECTIONS: usize = 1_000;

const TIME: Duration = Duration::from_secs(16);

/// When memory of connections that are gone must be free. Longer than a handler of the attacks waits.
const RELEASED: Duration = Duration::from_secs(10);

/// What no answer for the bystander must exceed.
const SLOWEST: Duration = Duration::from_millis(250);

fn under(attacks: &[&'static Attack]) -> Verdict {
    each(|name| {
        let server = Server::start(name, &[])?;
        let address = server.address()?;
        // What is made once is made: threads, and their arenas.
        let warm = attacks.iter().map(|attack| (*attack, 1)).collect::<Vec<_>>();
        let attackers = Attackers::start(address, &warm, Options::default())?;
        sleep(Duration::from_millis(500));
        attackers.finish()?;
        let before = at_most(&server, 0, Duration::from_secs(3))?;

        let bystander = Bystander::start(&address.to_string())?;
        let each = CONNECTIONS / attacks.len();
        let (start, mut quarters) = (Instant::now(), [0; 4]);
        let those = |resource| {
            let attacks = attacks.iter().filter(|attack| attack.exhausts == resource);
            let attacks: Vec<_> = attacks.map(|attack| (*attack, each)).collect();
            Attackers::start(address, &attacks, Options::default())
        };
        let of_memory = those(Resource::Memory)?;
        let mut of_time = None;
        while start.elapsed() < TIME {
            let memory = resident(server.id()).context("the server is gone")?;
            let quarter = (start.elapsed().as_millis() * 4 / TIME.as_millis()) as usize;
            if let Some(most) = quarters.get_mut(quarter) {
                *most = memory.max(*most);
            }
            ensure!(memory < 4 * BOUND, "{memory} KiB after {:?}", start.elapsed());
            if of_time.is_none() && start.elapsed() >= TIME / 4 {
                of_time = Some(those(Resource::Time)?);
            }
            sleep(Duration::from_millis(20));
        }
        let mut tallies = of_memory.finish()?;
        if let Some(of_time) = of_time {
            tallies.extend(of_time.finish()?);
        }
        let served = bystander.finish(Duration::MAX);
        let peak = peak_resident(server.id())?;
        let after = at_most(&server, before + REMAINDER, RELEASED)?;
        // One that was not served at all waited for as long as it has patience.
        let slowest = served.as_ref().map_or(PATIENCE, |served| served.slowest);
        let served = served.map_or_else(|error| format!("{error:#}"), |served| format!("{served:?}"));
        let figures =
            format!("{before} KiB -> {quarters:?}, peak {peak}, {RELEASED:?} later {after} KiB; {served}");
        println!("{name}: {figures}");
        for (attack, tally) in tallies {
            println!("  {attack}: {tally:?}");
        }
        let [_, _, third, fourth] = quarters;
        let wrong: Vec<_> = [
            (peak > BOUND, "it has more memory than the bound"),
            (fourth > third + FLAT, "its memory grows on"),
            (after > before + REMAINDER, "it does not give its memory back"),
            (slowest >= SLOWEST, "the bystander was kept waiting"),
        ]
        .into_iter()
        .filter_map(|(is_so, what)| is_so.then_some(what))
        .collect();
        ensure!(wrong.is_empty(), "{}: {figures}", wrong.join(", "));
        Ok(())
    })
}

/// The memory of the process as soon as it is as little, or after this time.
fn at_most(server: &Server, memory: u64, time: Duration) -> Result<u64> {
    let end = Instant::now() + time;
    loop {
        let now = resident(server.id())?;
        if now <= memory || Instant::now() >= end {
            return Ok(now);
        }
        sleep(Duration::from_millis(50));
    }
}

#[test]
fn all_attacks_at_once_have_the_memory_that_the_limits_allow() -> Verdict {
    under(ALL)
}
