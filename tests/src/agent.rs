//! An agent run as a program of its own.

use std::env;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait::{PATIENCE, until};

/// The agents that every scenario must pass with; each is an example of the workspace with the same command line.
pub const AGENTS: &[&str] = &["echo-tokio", "echo-mio"];

/// The examples that are neither: other loops around the core, or around the shared server.
pub const DRIVERS: &[&str] = &["blocking", "foreign-poll", "io-uring", "thread-per-connection", "threads"];

/// `cargo test` makes only the programs of the package that is tested.
const BUILD: &str = "run cargo build --workspace --all-features --examples --bins";
/// The same for the echo agents that are attacked.
const BUILD_OPTIMIZED: &str = "run tests/run optimized";

/// A running agent; killed on drop.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    addresses: Vec<String>,
}

/// The environment of an agent whose allocator, if it is glibc's, gives back each block that is longer than 16 KiB as soon as it is free:
/// the process has about what the agent holds.
pub const NOTHING_KEPT: [(&str, &str); 2] =
    [("MALLOC_MMAP_THRESHOLD_", "16384"), ("MALLOC_TRIM_THRESHOLD_", "16384")];

impl Agent {
    /// Starts the example `name`, or the program that is an example and a package of its own, and waits until it listens, once for
    /// each `--listen` among `args`.
    ///
    /// # Errors
    /// It is not built, does not start, or says nothing.
    pub fn start(name: &str, args: &[&str], log: &Path) -> Result<Self> {
        Self::start_with(name, args, log, [])
    }

    /// The same, with these variables in its environment.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with<const N: usize>(
        name: &str,
        args: &[&str],
        log: &Path,
        variables: [(&str, &str); N],
    ) -> Result<Self> {
        Self::start_program(&example(name)?, args, log, &variables)
    }

    /// The same for a program that is none of these.
    ///
    /// # Errors
    /// It does not start, or says nothing.
    pub fn start_program(
        program: &Path,
        args: &[&str],
        log: &Path,
        variables: &[(&str, &str)],
    ) -> Result<Self> {
        let listeners = args.iter().filter(|arg| **arg == "--listen").count();
        Self::launch(Command::new(program).args(args).envs(variables.iter().copied()), log, listeners)
    }

    /// Starts an example that takes nothing but addresses, on free ports, and waits until it listens on the first.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_driver(name: &str, log: &Path) -> Result<Self> {
        Self::launch(Command::new(example(name)?).args(["127.0.0.1:0"; 2]), log, 1)
    }

    /// Starts an example on a socket that is open, as systemd does for a `.socket` unit.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_on(socket: &TcpListener, name: &str, args: &[&str], log: &Path) -> Result<Self> {
        Self::launch_with(activate(socket)?.arg(example(name)?).args(args), log, 1)
    }

    fn launch(command: &mut Command, log: &Path, listeners: usize) -> Result<Self> {
        Self::launch_with(command.stdin(Stdio::null()), log, listeners)
    }

    fn launch_with(command: &mut Command, log: &Path, listeners: usize) -> Result<Self> {
        command.stdout(Stdio::piped()).stderr(File::create(log)?);
        let mut child = command.spawn().with_context(|| format!("cannot run {command:?}"))?;
        let stdout = child.stdout.take().context("the agent has no stdout")?;
        // From here on an error ends the child.
        let mut agent = Self { child, addresses: Vec::new() };
        let (said, heard) = mpsc::channel();
        // To its end, whether anybody listens or not: an agent whose stdout is closed may end.
        thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).for_each(|line| drop(said.send(line)));
        });
        let end = Instant::now() + PATIENCE;
        while agent.addresses.len() < listeners {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(line) = heard.recv_timeout(left) else {
                bail!("{command:?} does not listen: {}", fs::read_to_string(log)?);
            };
            let address = line.strip_prefix("listening on ");
            agent.addresses.push(address.with_context(|| format!("{command:?} says {line:?}"))?.to_owned());
        }
        Ok(agent)
    }

    /// The first address that the agent listens on.
    pub fn address(&self) -> &str {
        self.addresses.first().map_or("", String::as_str)
    }

    /// All addresses that the agent listens on, in the order of its command line.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// The number of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks the agent to drain: finish what it owes, then end.
    ///
    /// # Errors
    /// There is no such process.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// There is no such process.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// The same, as from a keyboard.
    ///
    /// # Errors
    /// There is no such process.
    pub fn interrupt(&self) -> Result<()> {
        self.signal(Signal::INT)
    }

    /// Ends the agent without letting it do anything more.
    ///
    /// # Errors
    /// There is no such process.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// How the agent has ended, if it has.
    ///
    /// # Errors
    /// The system does not say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits until the agent has ended.
    ///
    /// # Errors
    /// It has not within `limit`.
    pub fn wait_for_end(&mut self, limit: Duration) -> Result<ExitStatus> {
        until("the agent has ended", limit, || self.ended())
    }
}

/// Runs the example `name`, which ends by itself.
///
/// # Errors
/// It is not built, or does not start.
pub fn run(name: &str, args: &[&str]) -> Result<Output> {
    Ok(Command::new(example(name)?).args(args).stdin(Stdio::null()).output()?)
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts what its arguments name on a socket that is open, as systemd does for a `.socket` unit: the first socket is descriptor 3, and
/// the process is told its own number.
///
/// # Errors
/// There is no descriptor left.
pub fn activate(socket: &TcpListener) -> Result<Command> {
    const ACTIVATE: &str = r#"exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@""#;
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(ACTIVATE).stdin(OwnedFd::from(socket.try_clone()?));
    Ok(shell)
}

/// The path of an example of the workspace, which is newer than its sources.
///
/// # Errors
/// It is not built, or older than a source.
pub fn example(name: &str) -> Result<PathBuf> {
    let folder = built()?;
    newest(name, &[folder.join("examples"), folder], BUILD)
}

/// The path of an echo agent that is compiled with `opt-level = 1`, whatever the test is: without, it is slower than anybody's.
///
/// # Errors
/// As [`example`].
pub fn optimized(name: &str) -> Result<PathBuf> {
    // With a target triple the folder is one deeper.
    let places: Vec<_> = built()?.ancestors().map(|above| above.join("optimized/debug/examples")).collect();
    newest(name, &places, BUILD_OPTIMIZED)
}

/// Where the programs of this build are: the tests run as target/PROFILE/deps/TEST.
fn built() -> Result<PathBuf> {
    let test = env::current_exe()?;
    Ok(test.ancestors().nth(2).context("the test runs outside a target directory")?.to_owned())
}

/// The program in the first of these folders that has it. `build` says what builds it.
fn newest(name: &str, folders: &[PathBuf], build: &str) -> Result<PathBuf> {
    let mut places = folders.iter().map(|folder| folder.join(name));
    let program = places.find(|program| program.is_file());
    let program = program.with_context(|| format!("{name} is missing: {build}"))?;
    let built = program.metadata()?.modified()?;
    // What cargo has noted for make: the program, a colon, and all that it was made of.
    let sources = fs::read_to_string(program.with_extension("d"))?;
    for source in sources.lines().flat_map(|line| line.split(' ').skip(1)) {
        let newer =
            Path::new(source).metadata().is_ok_and(|source| source.modified().is_ok_and(|at| at > built));
        ensure!(!newer, "{} is older than {source}: {build}", program.display());
    }
    Ok(program)
}
