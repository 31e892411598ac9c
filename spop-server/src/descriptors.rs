//! The limit of the process on open file descriptors: each connection takes one.

#[cfg(unix)]
use std::io;

/// Descriptors besides those of connections and listeners: standard streams, pollers, log files, what a handler opens.
#[cfg(unix)]
const OTHERS: usize = 64;

/// The limit on open files that was too low: as it was and as it is.
#[cfg(unix)]
#[derive(Debug)]
pub struct DescriptorLimit {
    /// The soft limit before.
    pub before: u64,
    /// The soft limit now.
    pub now: u64,
    /// The hard limit.
    pub hard: u64,
    /// Why it could not be raised.
    pub error: Option<io::Error>,
}

/// Raises the soft limit (`RLIMIT_NOFILE`, usually 1024) to `needed` descriptors, up to the hard limit. `None` if it is high enough,
/// or unknown.
#[cfg(unix)]
pub fn raise_descriptor_limit(needed: u64) -> Option<DescriptorLimit> {
    use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    let needed = rlim_t::try_from(needed).unwrap_or(rlim_t::MAX);
    if soft >= needed {
        return None;
    }
    let raised = needed.min(hard);
    let set = if soft < raised { setrlimit(Resource::RLIMIT_NOFILE, raised, hard) } else { Ok(()) };
    let now = if set.is_ok() { raised } else { soft };
    #[allow(clippy::useless_conversion)] // Of 64 bits on most systems.
    let [before, now, hard] = [soft, now, hard].map(u64::from);
    Some(DescriptorLimit { before, now, hard, error: set.err().map(io::Error::from) })
}

/// Raises the soft limit to what the server's connections need. A warning says if that is not enough.
#[cfg(unix)]
pub(crate) fn raise_limit(max_connections: usize, listeners: usize) {
    use tracing::{debug, warn};

    let besides = OTHERS.saturating_add(listeners);
    let needed = max_connections.saturating_add(besides) as u64;
    let Some(DescriptorLimit { before, now, hard, error }) = raise_descriptor_limit(needed) else { return };
    debug!(name: "descriptor_limit_raised", soft = before, limit = now, "soft limit on open files");
    if now < needed {
        let possible = now.saturating_sub(besides as u64);
        warn!(
            name: "descriptor_limit", limit = now, hard, needed, max_connections, error = error.map(tracing::field::display),
            "the limit on open files is too low for max_connections: raise the hard limit (systemd: LimitNOFILE=, docker: --ulimit \
             nofile=, shell: ulimit -Hn), or set max_connections to {possible} at most"
        );
    }
}

/// This system has no such limit.
#[cfg(not(unix))]
pub(crate) const fn raise_limit(_: usize, _: usize) {}
