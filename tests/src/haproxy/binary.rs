//! Which HAProxy binaries this machine has.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

/// The versions that every scenario must pass on: the oldest that is supported, and three long-term versions after it.
pub const VERSIONS: &[&str] = &["2.6", "3.0", "3.2", "3.4"];

/// An HAProxy that can be run.
#[derive(Clone, Debug)]
pub struct Binary {
    program: PathBuf,
    version: String,
    release: (u32, u32),
}

/// How HAProxy implements SPOP: what it sends differs more between these two than between versions of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Up to 3.0. It sends payloads in fragments to agents that announce fragmentation, knows `async`, closes with
    /// HAPROXY-DISCONNECT (`timeout idle`, soft-stop), and has one engine-id per thread.
    Applet,
    /// Since 3.1, `mode spop`: no fragments, no `async`, no HAPROXY-DISCONNECT in the ordinary course of things, one
    /// engine-id per agent section.
    Multiplexer,
}

impl Binary {
    /// Every HAProxy of [`VERSIONS`]: 2.6 from the system (Debian bookworm has it; `HAPROXY` names another place), the newer
    /// ones from the target directory, where `tests/run` puts them (`HAPROXY_3_0` and so on name other places).
    ///
    /// # Errors
    /// One is missing, or is another version: a suite that skips what it could not find proves nothing.
    pub fn all() -> Result<Vec<Self>> {
        VERSIONS.iter().map(|version| Self::of(version)).collect()
    }

    /// The HAProxy of one of [`VERSIONS`].
    ///
    /// # Errors
    /// It is missing, or is another version.
    pub fn of(version: &str) -> Result<Self> {
        let variable = match version {
            "2.6" => "HAPROXY".to_owned(),
            _ => format!("HAPROXY_{}", version.replace('.', "_")),
        };
        let program = match env::var_os(&variable).filter(|value| *value != OsString::new()) {
            Some(program) => PathBuf::from(program),
            None if version == "2.6" => system_haproxy(),
            None => target_directory()?.join(format!("haproxy-{version}/haproxy")),
        };
        Self::at(&program, version).with_context(|| {
            format!(
                "no HAProxy {version}: run tests/run, which installs what is missing, or name one in the environment: \
                 {variable}=/path/to/haproxy"
            )
        })
    }

    /// The version, such as `2.6.12`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The file.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Whether it is this release or a later one.
    pub fn is_at_least(&self, major: u32, minor: u32) -> bool {
        self.release >= (major, minor)
    }

    /// How it implements SPOP.
    pub fn engine(&self) -> Engine {
        if self.is_at_least(3, 1) { Engine::Multiplexer } else { Engine::Applet }
    }

    /// Starts it with a configuration file as it is. It runs until it is killed.
    ///
    /// # Errors
    /// It does not start. That the configuration is wrong, or that HAProxy warns of it, is in the log.
    pub fn run(&self, config: &Path, log: File) -> Result<Child> {
        let mut command = self.command(true);
        command.arg("-f").arg(config).stdin(Stdio::null());
        Ok(command.stdout(log.try_clone()?).stderr(log).spawn()?)
    }

    /// What HAProxy reports (`set-on-error`) for a request whose connection the agent closes with a DISCONNECT of this status:
    /// 256 more. Since 3.1 a request that ends without an answer has an error also where the status is 0: 1, an I/O error.
    pub fn error_of_disconnect(&self, status: u64) -> u64 {
        match (self.engine(), status) {
            (Engine::Multiplexer, 0) => 257,
            _ => 256 + status,
        }
    }

    /// In the foreground.
    pub(super) fn command(&self, warnings_are_errors: bool) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("-db").args(warnings_are_errors.then_some("-dW"));
        command
    }

    fn at(program: &Path, wanted: &str) -> Result<Self> {
        let name = program.display();
        let run = Command::new(program).arg("-v").output().with_context(|| format!("cannot run {name}"))?;
        let text = String::from_utf8_lossy(&run.stdout);
        let version = text.strip_prefix("HAProxy version ").and_then(|rest| rest.split(['-', ' ']).next());
        let version = version.with_context(|| format!("{name} is not HAProxy: {text}"))?.to_owned();
        let mut numbers = version.split('.').map_while(|number| number.parse().ok());
        let release = numbers.next().zip(numbers.next());
        let release = release.with_context(|| format!("{name} has the version {version}"))?;
        ensure!(wanted == format!("{}.{}", release.0, release.1), "{name} is HAProxy {version}");
        Ok(Self { program: program.to_owned(), version, release })
    }
}

fn system_haproxy() -> PathBuf {
    // Debian leaves /usr/sbin out of the PATH of ordinary users.
    let path = env::var_os("PATH").unwrap_or_default();
    let mut found =
        env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]).map(|dir| dir.join("haproxy"));
    found.find(|program| program.is_file()).unwrap_or_else(|| "haproxy".into())
}

/// Tests run as target/PROFILE/deps/NAME, programs as target/PROFILE/NAME.
fn target_directory() -> Result<PathBuf> {
    let program = env::current_exe()?;
    let mut above = program.ancestors().skip(1);
    let profile = above.find(|dir| dir.file_name().is_some_and(|name| name != "deps"));
    let target = profile.and_then(Path::parent);
    Ok(target.context("the test runs outside a target directory")?.to_owned())
}
