//! Which HAProxy binaries this machine has.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

const HOW_TO_GET: &str =
    "run tests/run, which installs what is missing, or name another binary in the environment";

/// An HAProxy that can be run.
#[derive(Clone, Debug)]
pub struct Binary {
    pub(super) program: PathBuf,
    version: String,
}

impl Binary {
    /// Every HAProxy that scenarios must pass on: the system's own (2.6 on Debian bookworm; `HAPROXY` names another one),
    /// and 3.0 once `tests/run` has put it under the target directory (`HAPROXY_3_0` names another place).
    ///
    /// # Errors
    /// One of them cannot be run. A suite that skips in silence what it could not find proves nothing.
    pub fn all() -> Result<Vec<Self>> {
        let mut all =
            vec![Self::at(&system_haproxy()).context("no HAProxy: set HAPROXY or install haproxy 2.6")?];
        if let Some(program) = haproxy_3_0()? {
            let binary =
                Self::at(&program).context("no HAProxy 3.0: HAPROXY_3_0 or target/haproxy-3.0 is broken")?;
            ensure!(binary.version.starts_with("3.0"), "{} is HAProxy {}", program.display(), binary.version);
            all.push(binary);
        }
        Ok(all)
    }

    /// The version, such as `2.6.12`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Starts it with a configuration file as it is. It runs until it is killed.
    ///
    /// # Errors
    /// It does not start.
    pub fn run(&self, config: &Path, log: File) -> Result<Child> {
        let mut command = Command::new(&self.program);
        command.arg("-db").arg("-f").arg(config).stdin(Stdio::null());
        Ok(command.stdout(log.try_clone()?).stderr(log).spawn()?)
    }

    fn at(program: &Path) -> Result<Self> {
        let run = Command::new(program).arg("-v").output();
        let run = run.with_context(|| format!("cannot run {}; {HOW_TO_GET}", program.display()))?;
        let text = String::from_utf8_lossy(&run.stdout);
        let version = text.strip_prefix("HAProxy version ").and_then(|rest| rest.split(['-', ' ']).next());
        let version = version.with_context(|| format!("{} is not HAProxy: {text}", program.display()))?;
        Ok(Self { program: program.to_owned(), version: version.to_owned() })
    }
}

fn system_haproxy() -> PathBuf {
    if let Some(program) = env_path("HAPROXY") {
        return program;
    }
    // Debian leaves /usr/sbin out of the PATH of ordinary users.
    let path = env::var_os("PATH").unwrap_or_default();
    let mut found =
        env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]).map(|dir| dir.join("haproxy"));
    found.find(|program| program.is_file()).unwrap_or_else(|| "haproxy".into())
}

fn haproxy_3_0() -> Result<Option<PathBuf>> {
    if let Some(program) = env_path("HAPROXY_3_0") {
        return Ok(Some(program));
    }
    // The tests run as target/PROFILE/deps/NAME.
    let test = env::current_exe()?;
    let dir =
        test.ancestors().nth(3).context("the test runs outside a target directory")?.join("haproxy-3.0");
    Ok(dir.is_dir().then(|| dir.join("haproxy")))
}

fn env_path(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| *value != OsString::new()).map(PathBuf::from)
}
