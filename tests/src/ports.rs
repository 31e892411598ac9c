//! Ports for programs that are told where to listen.

use std::hash::{BuildHasher as _, RandomState};
use std::net::{SocketAddr, TcpListener};
use std::ops::Range;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};

use anyhow::{Context as _, Result};

/// Below the ephemeral ports, which another test may be given before the program binds its port. No file of the repository names one
/// of these.
const PORTS: Range<u16> = 21_000..32_000;

/// A TCP port of the loopback interface that no other test is given while this lives, whether or not a program listens on it.
#[derive(Debug)]
pub struct Port {
    address: SocketAddr,
    /// Its name is known in all processes of the network namespace, as the port is, and is gone with the process.
    _claim: UnixListener,
}

impl Port {
    /// None if a test has it or a program listens there.
    fn claim(port: u16) -> Option<Self> {
        let name = UnixAddr::from_abstract_name(format!("spop-tests/port/{port}")).ok()?;
        let claim = UnixListener::bind_addr(&name).ok()?;
        let address = TcpListener::bind(("127.0.0.1", port)).ok()?.local_addr().ok()?;
        Some(Self { address, _claim: claim })
    }

    /// The port, of 127.0.0.1.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Free ports.
///
/// # Errors
/// Fewer are free.
pub fn free(count: usize) -> Result<Vec<Port>> {
    let skip = RandomState::new().hash_one(()) as usize % PORTS.len();
    let candidates = PORTS.cycle().skip(skip).take(PORTS.len());
    let free: Vec<_> = candidates.filter_map(Port::claim).take(count).collect();
    (free.len() == count).then_some(free).with_context(|| format!("no {count} ports of {PORTS:?} are free"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_to_one_at_a_time() -> Result<()> {
        let port = free(1)?.pop().context("none")?;
        let number = port.address().port();
        assert!(Port::claim(number).is_none(), "nothing listens on {number}, but it was given away");
        drop(TcpListener::bind(port.address())?);
        drop(port);
        // A test beside this one may have been given it.
        if let Some(again) = Port::claim(number) {
            let _listening = TcpListener::bind(again.address())?;
            drop(again);
            assert!(Port::claim(number).is_none(), "a program listens on {number}");
        }
        Ok(())
    }
}
