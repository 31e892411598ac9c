//! Counts the repetitions of loops whose number a peer chooses, for tests that bound them. It does nothing outside of tests.

#[cfg(all(test, feature = "std"))]
mod counted {
    use core::cell::Cell;

    std::thread_local! {
        static STEPS: Cell<usize> = const { Cell::new(0) };
    }

    /// One repetition.
    pub(crate) fn step() {
        STEPS.set(STEPS.get() + 1);
    }

    /// The number of repetitions in `work`, on this thread.
    pub(crate) fn steps_of(work: impl FnOnce()) -> usize {
        STEPS.set(0);
        work();
        STEPS.get()
    }
}

#[cfg(all(test, feature = "std"))]
pub(crate) use counted::{step, steps_of};

/// One repetition.
#[cfg(not(all(test, feature = "std")))]
#[inline]
pub(crate) const fn step() {}
