//! The processor time that a byte of an attack costs the server.

use std::time::Duration;

use anyhow::{Result, ensure};
use spop_tests::stage::Verdict;

use super::attack::{ALL, Attack, ORDINARY};
use super::attackers::{Attackers, Options};
use super::server::{Allocator, Server, each};

/// What a byte may cost, by what a byte of an ordinary request costs.
const FACTOR: u64 = 10;

/// The bytes of one measurement.
const BYTES: u64 = 2 << 20;

/// How long one measurement may take.
const PATIENT: Duration = Duration::from_secs(20);

/// Picoseconds for each byte, the least of some runs: whatever else the machine does adds to it.
fn cost(server: &Server, attack: &'static Attack) -> Result<u64> {
    let mut least = u64::MAX;
    for _ in 0..3 {
        let before = server.at_rest(PATIENT)?;
        let options = Options { renew: None, bytes: Some(BYTES) };
        let attackers = Attackers::start(server.address()?, &[(attack, 1)], options)?;
        attackers.until_sent(PATIENT)?;
        least = least.min((server.at_rest(PATIENT)? - before) * 1000 / BYTES);
        attackers.finish()?;
    }
    Ok(least)
}

#[test]
fn no_byte_costs_more_than_ten_of_ordinary_requests() -> Verdict {
    each(|name| {
        let server = Server::start(name, &["--workers", "1"], Allocator::Default)?;
        let ordinary = cost(&server, &ORDINARY)?;
        println!("{name}: a byte of {} costs {ordinary} ps", ORDINARY.name);
        let mut dear = Vec::new();
        // Those that do not read are not read from for long.
        for attack in ALL.iter().filter(|attack| attack.is_endless() && attack.reads) {
            let cost = cost(&server, attack)?;
            let line = format!("a byte of {} costs {cost} ps instead of {ordinary}", attack.name);
            println!("{name}: {line}");
            if cost > FACTOR * ordinary {
                dear.push(format!("{line} ({})", attack.aim));
            }
        }
        ensure!(dear.is_empty(), "{}", dear.join("\n"));
        Ok(())
    })
}
