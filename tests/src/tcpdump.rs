//! What passes on the loopback interface, captured by the program `tcpdump`.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait::{PATIENCE, until};

/// A running `tcpdump`; killed on drop.
#[derive(Debug)]
pub struct Tcpdump {
    child: Child,
    log: PathBuf,
}

impl Tcpdump {
    /// Captures the packets of this port to a file, and waits until it does.
    ///
    /// # Errors
    /// `tcpdump` is not installed, or may not capture.
    pub fn start(port: &str, file: &Path) -> Result<Self> {
        let log = file.with_extension("log");
        // Debian has it where only root looks.
        let mut path = env::var_os("PATH").unwrap_or_default();
        path.push(OsString::from(":/usr/sbin"));
        // As the user who runs it: the one that it changes to by itself may not write to the directory of a test.
        let user = if rustix::process::geteuid().is_root() { &["-Z", "root"][..] } else { &[] };
        let child = Command::new("tcpdump")
            .env("PATH", path)
            // In this mode each packet has room for the longest, a power of two: here 64 KiB, and so for 2048 packets.
            .args(["-i", "lo", "-n", "-s", "65000", "-U", "--immediate-mode", "-B", "131072", "-w"])
            .arg(file)
            .args(user)
            .args(["tcp", "port", port])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .context("cannot run tcpdump; tests/run installs it")?;
        let mut tcpdump = Self { child, log };
        until("tcpdump captures", PATIENCE, || {
            if let Some(status) = tcpdump.child.try_wait()? {
                bail!("tcpdump, which needs the right to capture, ended with {status}:\n{}", tcpdump.log()?);
            }
            Ok(tcpdump.log()?.contains("listening on lo").then_some(()))
        })?;
        Ok(tcpdump)
    }

    /// Ends the capture.
    ///
    /// # Errors
    /// It has lost packets.
    pub fn finish(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::INT)?;
        until("tcpdump has ended", PATIENCE, || Ok(self.child.try_wait()?))?;
        let log = self.log()?;
        ensure!(log.lines().any(|line| line == "0 packets dropped by kernel"), "packets are missing:\n{log}");
        Ok(())
    }

    fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.log)?)
    }
}

impl Drop for Tcpdump {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
