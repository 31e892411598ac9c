//! More requests than [`Load`](crate::load::Load) can make: the program `wrk`, which asks as fast as it is answered.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::haproxy::{Config, Haproxy};
use crate::wait::until_true;

/// The configuration for it: each request carries a number of its own to the agent and has status 200 if exactly that
/// number came back, otherwise 500.
#[must_use]
pub fn checked(config: Config) -> Config {
    config
        .frontend("tcp-request content set-var(txn.asked) rand(1000000000)")
        .message("echo", "v=var(txn.asked)")
        .frontend("http-request return status 500 unless { var(txn.e.echo.v),sub(txn.asked) -m int 0 }")
}

/// A running `wrk`; killed on drop.
#[derive(Debug)]
pub struct Wrk(Child);

/// What became of its requests.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    /// All of them.
    pub requests: u64,
    /// Those that had any status but 200.
    pub failed: u64,
}

impl Wrk {
    /// Starts with so many connections, each of which asks again as soon as it has a reply.
    ///
    /// # Errors
    /// `wrk` is not installed.
    pub fn start(haproxy: SocketAddr, connections: usize) -> Result<Self> {
        let child = Command::new("wrk")
            .args(["-t", "1", "-d", "3600s", "--timeout", "30s", "-c", &connections.to_string()])
            .arg(format!("http://{haproxy}/"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run wrk; tests/run installs it")?;
        Ok(Self(child))
    }

    /// Waits until this many more requests were sent.
    ///
    /// # Errors
    /// They were not in time.
    pub fn run_for(&self, haproxy: &Haproxy, requests: u64) -> Result<()> {
        let goal = haproxy.requests()? + requests;
        until_true("wrk asked on", Duration::from_secs(60), || Ok(haproxy.requests()? >= goal))
    }

    /// Ends it, and counts.
    ///
    /// # Errors
    /// It has failed itself.
    pub fn finish(mut self) -> Result<Counted> {
        kill_process(Pid::from_child(&self.0), Signal::INT)?;
        let mut said = String::new();
        let mut stdout = self.0.stdout.take().context("wrk has no stdout")?;
        std::io::Read::read_to_string(&mut stdout, &mut said)?;
        ensure!(self.0.wait()?.success(), "wrk failed: {said}");
        ensure!(!said.contains("Socket errors"), "{said}");
        let count = |line: &str, number: usize| -> Option<u64> {
            let line = said.lines().find(|text| text.contains(line))?;
            line.split_whitespace().nth(number)?.parse().ok()
        };
        let requests = count(" requests in ", 0).with_context(|| format!("wrk says {said}"))?;
        Ok(Counted { requests, failed: count("Non-2xx or 3xx responses:", 4).unwrap_or(0) })
    }
}

impl Drop for Wrk {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
