//! The limit of the process on open files: each connection takes two.

use spop_server::{DescriptorLimit, raise_descriptor_limit};

use crate::exit;

/// Standard streams, the listener, the recording, pollers, signals.
const OTHERS: u64 = 24;

/// Raises the soft limit to what so many connections need. A warning says if that is not enough.
pub(super) fn raise_limit(max_connections: u32) {
    let needed = 2 * u64::from(max_connections) + OTHERS;
    let Some(DescriptorLimit { now, .. }) = raise_descriptor_limit(needed) else { return };
    if now < needed {
        let possible = now.saturating_sub(OTHERS) / 2;
        exit::warn(format_args!(
            "warning: {now} open files (ulimit -Hn) are enough for {possible} connections, and not for \
             --max-connections {max_connections}"
        ));
    }
}
