//! The command line `spop`, run as a program.

use std::env;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait::{PATIENCE, until};

const BUILD: &str = "run cargo build --workspace --all-features --bins";

/// Runs it to its end.
///
/// # Errors
/// It is not built, or does not start.
pub fn run(args: &[&str]) -> Result<Output> {
    Ok(Command::new(program()?).args(args).stdin(Stdio::null()).output()?)
}

/// A running `spop listen` or `spop relay`; killed on drop.
#[derive(Debug)]
pub struct Listen {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
    address: String,
}

impl Listen {
    /// Starts an agent, and waits until it listens.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(address: &str, args: &[&str]) -> Result<Self> {
        Self::command(&["listen", address], args)
    }

    /// Starts a relay to this agent on a free port, and waits until it listens.
    ///
    /// # Errors
    /// It does not start.
    pub fn relay(target: &str, args: &[&str]) -> Result<Self> {
        Self::command(&["relay", "127.0.0.1:0", target], args)
    }

    fn command(command: &[&str], args: &[&str]) -> Result<Self> {
        let mut child = Command::new(program()?)
            .args(command)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().context("it has no stdout")?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&lines);
        let reader = thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                shared.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        let mut listen = Self { child, lines, reader: Some(reader), address: String::new() };
        let first = until("spop listens", PATIENCE, || Ok(listen.lines().into_iter().next()))?;
        match first.strip_prefix("listening on ") {
            Some(address) => address.clone_into(&mut listen.address),
            None => bail!("it says {first:?}"),
        }
        Ok(listen)
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What it has shown so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends it as from a keyboard, and returns its exit status and all that it has shown.
    ///
    /// # Errors
    /// It does not end.
    pub fn interrupt(mut self) -> Result<(Option<i32>, Vec<String>)> {
        kill_process(Pid::from_child(&self.child), Signal::INT)?;
        let status = until("spop has ended", PATIENCE, || Ok(self.child.try_wait()?))?;
        if let Some(reader) = self.reader.take() {
            ensure!(reader.join().is_ok(), "its output was not read");
        }
        Ok((status.code(), self.lines()))
    }
}

impl Drop for Listen {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program.
///
/// # Errors
/// It is not built.
pub fn program() -> Result<PathBuf> {
    // The tests run as target/PROFILE/deps/TEST.
    let test = env::current_exe()?;
    let program = test.ancestors().nth(2).context("the test runs outside a target directory")?.join("spop");
    ensure!(program.is_file(), "{} is missing: {BUILD}", program.display());
    Ok(program)
}
