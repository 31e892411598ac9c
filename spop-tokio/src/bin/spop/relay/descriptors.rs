//! The limit of the process on open files: each connection takes two.

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

use crate::exit;

/// Standard streams, the listener, the recording, pollers, signals.
const OTHERS: rlim_t = 24;

/// Raises the soft limit, usually 1024, to what so many connections need, up to the hard limit. A warning says if that is not enough.
pub(super) fn raise_limit(max_connections: u32) {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let needed = 2 * rlim_t::from(max_connections) + OTHERS;
    if soft >= needed {
        return;
    }
    let raised = needed.min(hard);
    let is_raised = soft < raised && setrlimit(Resource::RLIMIT_NOFILE, raised, hard).is_ok();
    let limit = if is_raised { raised } else { soft };
    if limit < needed {
        let possible = limit.saturating_sub(OTHERS) / 2;
        exit::warn(format_args!(
            "warning: {limit} open files (ulimit -Hn) are enough for {possible} connections, and not for \
             --max-connections {max_connections}"
        ));
    }
}
