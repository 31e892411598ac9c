//! Ports for programs that are told where to listen.

use std::hash::{BuildHasher as _, RandomState};
use std::net::{SocketAddr, TcpListener};
use std::ops::Range;

use anyhow::{Context as _, Result};

/// Below the ephemeral ports, which another test may be given before the program binds its port. No file of the repository names one
/// of these.
const PORTS: Range<u16> = 21_000..32_000;

/// Free TCP ports of the loopback interface.
///
/// # Errors
/// Fewer are free.
pub fn free(count: usize) -> Result<Vec<SocketAddr>> {
    let skip = RandomState::new().hash_one(()) as usize % PORTS.len();
    let candidates = PORTS.cycle().skip(skip).take(PORTS.len());
    // Each is held until all are known, so that they differ.
    let held: Vec<_> =
        candidates.filter_map(|port| TcpListener::bind(("127.0.0.1", port)).ok()).take(count).collect();
    let addresses = held.iter().map(|held| Ok(held.local_addr()?)).collect::<Result<Vec<_>>>()?;
    (addresses.len() == count)
        .then_some(addresses)
        .with_context(|| format!("no {count} ports of {PORTS:?} are free"))
}
