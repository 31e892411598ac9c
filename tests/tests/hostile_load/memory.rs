//! The memory of a server with the default limits: under each attack on memory alone, and under all attacks at once.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use spop_tests::bystander::Bystander;
use spop_tests::process::{peak_resident, resident};
use spop_tests::stage::Verdict;
use spop_tests::wait::PATIENCE;

use super::attack::{ALL, Attack, Resource};
use super::attackers::{Attackers, Options, Tallies};
use super::server::{Allocator, Server, each};

const MIB: u64 = 1 << 10;

/// What the process may have at any time, in KiB: half of a machine with 1 GiB.
const BOUND: u64 = 512 * MIB;

/// Where a run ends that is beyond all bounds: the machine is needed.
const HOPELESS: u64 = 4 * BOUND;

/// What the process may have more when the attackers have left, in KiB.
const REMAINDER: u64 = 64 * MIB;

/// How much more the process may have in the last quarter of the time than in the one before, in KiB: the limits have struck
/// long ago, and what still grows grows without end.
const FLAT: u64 = 32 * MIB;

/// Less than both totals: below this, limits may still be filling.
const FILLS: u64 = 256 * MIB;

/// All attackers together.
const CONNECTIONS: usize = 1_000;

/// When memory of connections that are gone must be free. Longer than a handler of the attacks waits.
const RELEASED: Duration = Duration::from_secs(10);

/// What no answer for the bystander must exceed, on a machine that may stand still for a second.
const SLOWEST: Duration = Duration::from_secs(3);

/// Starts attackers, so many of each kind.
fn attack(server: &Server, attacks: &[&'static Attack], count: usize) -> Result<Attackers> {
    let attacks: Vec<_> = attacks.iter().map(|attack| (*attack, count)).collect();
    Attackers::start(server.address()?, &attacks, Options::default())
}

/// Watches the memory for so long: the most of each quarter of the time.
fn watch(server: &Server, time: Duration, mut each: impl FnMut(Duration) -> Result<()>) -> Result<[u64; 4]> {
    let (start, mut quarters) = (Instant::now(), [0; 4]);
    while start.elapsed() < time {
        let memory = resident(server.id()).context("the server is gone")?;
        let quarter = (start.elapsed().as_millis() * 4 / time.as_millis()) as usize;
        if let Some(most) = quarters.get_mut(quarter) {
            *most = memory.max(*most);
        }
        ensure!(memory < HOPELESS, "{memory} KiB after {:?}", start.elapsed());
        each(start.elapsed())?;
        sleep(Duration::from_millis(20));
    }
    Ok(quarters)
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

fn print(tallies: &Tallies) {
    for (attack, tally) in tallies {
        println!("  {attack}: {tally:?}");
    }
}

/// Whether memory grows in the second half.
const fn grows(third: u64, fourth: u64) -> bool {
    fourth > FILLS && fourth > third + FLAT
}

#[test]
fn all_attacks_at_once_take_what_the_limits_allow_and_leave_nothing() -> Verdict {
    let time = Duration::from_secs(10);
    let those =
        |resource| ALL.iter().copied().filter(|attack| attack.exhausts == resource).collect::<Vec<_>>();
    let (on_memory, on_time) = (those(Resource::Memory), those(Resource::Time));
    each(|name| {
        let server = Server::start(name, &[], Allocator::Exact)?;
        // What is made once is made: threads, and their arenas.
        let first = attack(&server, ALL, 1)?;
        sleep(Duration::from_millis(500));
        first.finish()?;
        let before = at_most(&server, 0, Duration::from_secs(1))?;

        let bystander = Bystander::start(&server.address()?.to_string())?;
        let count = CONNECTIONS / ALL.len();
        let attackers = attack(&server, &on_memory, count)?;
        let mut others = None;
        let quarters = watch(&server, time, |elapsed| {
            // What takes time comes when what takes memory has had its share, so that it does not hold that up.
            if others.is_none() && elapsed >= time / 4 {
                others = Some(attack(&server, &on_time, count)?);
            }
            Ok(())
        })?;
        let mut tallies = attackers.finish()?;
        if let Some(others) = others {
            tallies.extend(others.finish()?);
        }
        let served = bystander.finish(Duration::MAX);
        let (peak, after) = (peak_resident(server.id())?, at_most(&server, before + REMAINDER, RELEASED)?);
        // One that was not served at all waited for as long as it has patience.
        let slowest = served.as_ref().map_or(PATIENCE, |served| served.slowest);
        let served = served.map_or_else(|error| format!("{error:#}"), |served| format!("{served:?}"));
        let figures = format!(
            "{before} KiB, by quarters of the time {quarters:?}, at most {peak}, afterwards {after} KiB; {served}"
        );
        println!("{name}: {figures}");
        print(&tallies);
        let [_, _, third, fourth] = quarters;
        let wrong: Vec<_> = [
            (peak > BOUND, "it has more memory than the bound"),
            (grows(third, fourth), "its memory grows on"),
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

/// With the allocator as it is: what it keeps counts.
#[test]
fn no_attack_alone_takes_more_than_the_limits_allow() -> Verdict {
    each(|name| {
        let mut wrong = Vec::new();
        for kind in ALL.iter().filter(|attack| attack.exhausts == Resource::Memory) {
            // Those that are timed out come again meanwhile.
            let args = ["--frame-timeout", "1000", "--hello-timeout", "1000"];
            let server = Server::start(name, &args, Allocator::Default)?;
            let attackers = attack(&server, &[kind], CONNECTIONS)?;
            let quarters = watch(&server, Duration::from_secs(5), |_| Ok(()));
            let tallies = attackers.finish()?;
            let peak = peak_resident(server.id())?;
            let figures = format!("{}: {quarters:?} KiB, at most {peak}", kind.name);
            println!("{name}: {figures}");
            print(&tallies);
            let grows = quarters.map_or(true, |[_, _, third, fourth]| grows(third, fourth));
            if peak > BOUND || grows {
                wrong.push(format!("{figures} ({})", kind.aim));
            }
        }
        ensure!(wrong.is_empty(), "more memory than the bound, or growing:\n  {}", wrong.join("\n  "));
        Ok(())
    })
}
