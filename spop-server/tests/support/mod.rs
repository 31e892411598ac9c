//! What tests wait with.

use std::{
    thread,
    time::{Duration, Instant},
};

/// How long what happens at once may take on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// Waits until something is so that no event announces. Whether it came to be so in time.
#[must_use]
pub(crate) fn soon(mut is: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !is() {
        if start.elapsed() > SOON {
            return false;
        }
        thread::sleep(Duration::from_millis(2));
    }
    true
}
