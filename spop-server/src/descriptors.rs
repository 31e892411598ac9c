//! The limit of the process on open file descriptors: each connection takes one.

/// Descriptors besides those of connections and listeners: standard streams, pollers, log files, what a handler opens.
#[cfg(unix)]
const OTHERS: usize = 64;

/// Raises the soft limit (`RLIMIT_NOFILE`, usually 1024) to what the server's connections need, up to the hard limit. A warning says
/// if that is not enough.
#[cfg(unix)]
pub(crate) fn raise_limit(max_connections: usize, listeners: usize) {
    use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
    use tracing::{debug, warn};

    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let besides = OTHERS.saturating_add(listeners);
    let needed = rlim_t::try_from(max_connections.saturating_add(besides)).unwrap_or(rlim_t::MAX);
    if soft >= needed {
        return;
    }
    let raised = needed.min(hard);
    let set = if soft < raised { setrlimit(Resource::RLIMIT_NOFILE, raised, hard) } else { Ok(()) };
    let limit = if set.is_ok() { raised } else { soft };
    debug!(name: "descriptor_limit_raised", soft, limit, "soft limit on open files");
    if limit < needed {
        let possible = limit.saturating_sub(besides as rlim_t);
        warn!(
            name: "descriptor_limit", limit, hard, needed, max_connections, error = set.err().map(tracing::field::display),
            "the limit on open files is too low for max_connections: raise the hard limit (systemd: LimitNOFILE=, docker: --ulimit \
             nofile=, shell: ulimit -Hn), or set max_connections to {possible} at most"
        );
    }
}

/// This system has no such limit.
#[cfg(not(unix))]
pub(crate) const fn raise_limit(_: usize, _: usize) {}
