//! Waiting for other processes, always with an end.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long anything that ought to happen at once may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(10);

const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Polls until `probe` yields a value; an error if it yields none within `limit`.
///
/// # Errors
/// What `probe` fails with, or that `what` did not happen in time.
pub fn until<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = probe().with_context(|| format!("waiting until {what}"))? {
            return Ok(value);
        }
        if Instant::now() >= end {
            bail!("not within {limit:?}: {what}");
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// Polls until `probe` is true; an error if it is not within `limit`.
///
/// # Errors
/// What `probe` fails with, or that `what` did not happen in time.
pub fn until_true(what: &str, limit: Duration, mut probe: impl FnMut() -> Result<bool>) -> Result<()> {
    until(what, limit, || Ok(probe()?.then_some(())))
}
