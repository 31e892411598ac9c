//! The processor time of processes, from /proc.

use std::{fs, time::Duration};

use crate::exit::Failure;

/// `USER_HZ`, in which the kernel reports times: 100 on every architecture that Rust has for Linux.
const TICKS_PER_SECOND: u64 = 100;

/// The processor time of a process so far, in user and kernel mode, of all its threads.
pub(super) fn of(pid: u32) -> Result<Duration, Failure> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).map_err(|error| {
        Failure::io_of(format_args!("the processor time of process {pid}: {path}"), &error)
    })?;
    parse(&stat).ok_or_else(|| Failure::io(format_args!("{path}: no processor time in it")))
}

/// That of this process.
pub(super) fn own() -> Option<Duration> {
    of(std::process::id()).ok()
}

fn parse(stat: &str) -> Option<Duration> {
    // The name of the program is in parentheses, and may contain spaces and parentheses.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    let ticks = ticks()?.checked_add(ticks()?)?;
    Some(Duration::from_millis(ticks.checked_mul(1_000 / TICKS_PER_SECOND)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_system_time_are_added() {
        let stat = "42 (a) (b c) S 1 42 42 0 -1 4194560 1 2 3 4 150 25 7 8 20 0 3 0 100 0 0";
        assert_eq!(parse(stat), Some(Duration::from_millis(1_750)));
        assert_eq!(parse("42 (a) S 1"), None);
        assert_eq!(parse(""), None);
    }
}
