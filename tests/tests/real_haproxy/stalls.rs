//! Many answers at once: HAProxy 3.1 and later stops reading from a connection for good when what waits there fills its
//! buffer, so an agent must never have that much underway on one.

use anyhow::{Context, Result};
use spop_tests::clients::{Clients, Limits};
use spop_tests::haproxy::Config;
use spop_tests::stage::{Stage, Verdict, everywhere};

/// Asks for answers of a size from several clients at once, then for small ones.
fn expect_all(stage: &Stage, args: &[&str], size: usize, clients: usize) -> Result<()> {
    let agent = stage.agent(args)?;
    let config = Config::new(agent.address())
        // A request that stalls is seen to soon; no other takes as long.
        .agent("timeout processing 4s")
        .message("blob", "size=url_param(size),add(0)")
        .show("blob,length");
    let haproxy = stage.haproxy(&config)?;
    let ask = |size: usize, clients: usize| {
        let limits = Limits { lost: 20, ..Limits::requests(60) };
        let outcome = Clients::connect(haproxy.address(), clients)?.run(
            &format!("/?size={size}"),
            ("blob", &size.to_string()),
            limits,
        )?;
        outcome.expect_all().with_context(|| format!("{size} bytes for {clients} clients"))
    };
    let large = ask(size, clients);
    let small = ask(10, clients).context("afterwards");
    match (large, small) {
        (Err(large), Err(small)) => Err(large.context(format!("{small:#}"))),
        (large, small) => large.and(small),
    }
}

#[test]
fn large_answers_to_two_clients_stall_no_connection() -> Verdict {
    everywhere(|stage| expect_all(stage, &[], 12_000, 2))
}

#[test]
fn answers_of_5000_bytes_to_five_clients_stall_no_connection() -> Verdict {
    everywhere(|stage| expect_all(stage, &[], 5_000, 5))
}

#[test]
fn answers_of_3000_bytes_to_ten_clients_stall_no_connection() -> Verdict {
    everywhere(|stage| expect_all(stage, &[], 3_000, 10))
}

#[test]
fn answers_of_4000_bytes_to_twenty_clients_stall_no_connection() -> Verdict {
    everywhere(|stage| expect_all(stage, &[], 4_000, 20))
}
