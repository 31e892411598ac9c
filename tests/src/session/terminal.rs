//! A shell command that runs as from a terminal.

use std::io::{BufRead as _, BufReader, pipe};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::wait::{PATIENCE, until};

/// A running command; killed on drop.
#[derive(Debug)]
pub(super) struct Terminal {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
    /// How many of its lines have been compared.
    pub(super) read: usize,
}

impl Terminal {
    /// Starts a command. `path` is where its programs are found.
    pub(super) fn start(command: &str, dir: &Path, path: &str) -> Result<Self> {
        let (output, input) = pipe()?;
        // A shell in the background has its programs ignore ^C, and what ignores it passes that on.
        let child = Command::new("env")
            .args(["--default-signal=INT", "sh", "-c", command])
            .current_dir(dir)
            // No proxy, and no settings of whoever runs the tests.
            .env_clear()
            .env("PATH", path)
            .env("HOME", dir)
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .stdout(input.try_clone()?)
            .stderr(input)
            // ^C is for all processes of a pipeline.
            .process_group(0)
            .spawn()?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&lines);
        let reader = thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                shared.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        Ok(Self { child, lines, reader: Some(reader), read: 0 })
    }

    /// What it has printed since the lines that were compared.
    pub(super) fn unread(&self) -> Vec<String> {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.get(self.read..).unwrap_or_default().to_vec()
    }

    /// Its exit status, if it has ended.
    pub(super) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Presses ^C, and waits for its end.
    pub(super) fn interrupt(&mut self) -> Result<()> {
        // As a person would: after what went before has arrived everywhere.
        thread::sleep(Duration::from_millis(200));
        if self.ended()?.is_none() {
            kill_process_group(Pid::from_child(&self.child), Signal::INT)?;
        }
        self.wait()
    }

    /// Waits until it has ended and its output is complete.
    pub(super) fn wait(&mut self) -> Result<()> {
        until("the command has ended", 6 * PATIENCE, || Ok(self.child.try_wait()?)).context("a command")?;
        if let Some(reader) = self.reader.take() {
            ensure!(reader.join().is_ok(), "its output was not read");
        }
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // Both fail only if it is gone already.
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}
