//! What a server tells the service manager that has started it. Without the feature `systemd` these functions do nothing.

use std::io;

/// The server listens, on so many listeners.
///
/// # Errors
/// The message cannot be sent. The server goes on: log it.
#[cfg_attr(not(all(feature = "systemd", unix)), allow(clippy::unnecessary_wraps))]
pub(crate) fn tell_ready(listeners: usize) -> io::Result<()> {
    let _ = listeners;
    #[cfg(all(feature = "systemd", unix))]
    crate::systemd::ready(&format!("serving, {listeners} listener(s)"))?;
    Ok(())
}

/// The server has begun to shut down, with so many connections open.
///
/// # Errors
/// As [`tell_ready`].
#[cfg_attr(not(all(feature = "systemd", unix)), allow(clippy::unnecessary_wraps))]
pub(crate) fn tell_stopping(connections: u64) -> io::Result<()> {
    let _ = connections;
    #[cfg(all(feature = "systemd", unix))]
    crate::systemd::stopping(&format!("shutting down, {connections} connection(s) open"))?;
    Ok(())
}
