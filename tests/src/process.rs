//! What a process holds, as the system counts it.

use std::fs;

use anyhow::{Context, Result};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

/// Memory of the process in RAM, in KiB.
///
/// # Errors
/// There is no such process.
pub fn resident(process: u32) -> Result<u64> {
    memory(process, "VmRSS:")
}

/// The most memory that the process has had in RAM at any time, in KiB.
///
/// # Errors
/// There is no such process.
pub fn peak_resident(process: u32) -> Result<u64> {
    memory(process, "VmHWM:")
}

fn memory(process: u32, key: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(key)).context("it has no memory")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// How many file descriptors the process has open.
///
/// # Errors
/// There is no such process.
pub fn descriptors(process: u32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{process}/fd"))?.count())
}

/// Processor time that the process has used, in milliseconds, user and system.
///
/// # Errors
/// There is no such process.
pub fn cpu_millis(process: u32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name may have spaces; what follows it has none.
    let (_, rest) = stat.rsplit_once(')').context("no name")?;
    let mut fields = rest.split_whitespace().skip(11).map(str::parse::<u64>);
    let (user, system) = (fields.next().context("no user time")??, fields.next().context("no system time")??);
    let ticks = rustix::param::clock_ticks_per_second();
    Ok((user + system) * 1000 / ticks)
}

/// Processor time that the process has used, in nanoseconds, of all its threads that still run. Exact while it waits.
///
/// # Errors
/// There is no such process.
pub fn cpu_nanos(process: u32) -> Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let stat = fs::read_to_string(task?.path().join("schedstat"))?;
        let nanos = stat.split(' ').next().context("an empty schedstat")?;
        sum += nanos.parse::<u64>()?;
    }
    Ok(sum)
}

/// Lets this process, and those that it starts, have as many file descriptors as the system allows. How many that is.
///
/// # Errors
/// The system refuses.
pub fn raise_descriptor_limit() -> Result<u64> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    Ok(maximum.unwrap_or(u64::MAX))
}

/// Sets the soft limit of a process on open file descriptors.
///
/// # Errors
/// There is no such process.
pub fn limit_descriptors(process: u32, limit: u64) -> Result<()> {
    let pid = Pid::from_raw(i32::try_from(process)?).context("no process has the number 0")?;
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    prlimit(Some(pid), Resource::Nofile, Rlimit { current: Some(limit), maximum })?;
    Ok(())
}
