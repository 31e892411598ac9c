//! Time for the reactors: nanoseconds since an epoch that the caller chooses.

use core::{fmt, num::NonZeroU64, ops, time::Duration};

/// A point in time, as nanoseconds since an epoch that the caller chooses.
///
/// The reactors read no clock: each input carries the current time. All inputs of one connection must use the same epoch. A
/// timestamp before an earlier one is harmless: the time of a reactor never goes back.
///
/// The largest timestamp is 2^64 - 2 nanoseconds after the epoch (584 years); later ones saturate there. An
/// `Option<Timestamp>` takes no more memory than a `Timestamp`.
///
/// ```
/// use core::time::Duration;
/// use spop_core::Timestamp;
///
/// let start = Timestamp::from_millis(1_500);
/// assert_eq!(start + Duration::from_secs(2), Timestamp::from_millis(3_500));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(
    /// The nanoseconds plus one: zero is left for `None`.
    NonZeroU64,
);

impl Timestamp {
    /// The epoch.
    pub const ZERO: Self = Self(NonZeroU64::MIN);

    /// `nanos` nanoseconds after the epoch.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(nanos))
    }

    /// `millis` milliseconds after the epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self::from_nanos(millis.saturating_mul(1_000_000))
    }

    /// Nanoseconds since the epoch.
    pub const fn as_nanos(self) -> u64 {
        self.0.get() - 1
    }

    /// The duration from `earlier` to this timestamp; zero if it is not later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.nanos_since(earlier))
    }

    /// As [`since`](Self::since), in nanoseconds.
    pub(crate) const fn nanos_since(self, earlier: Self) -> u64 {
        self.0.get().saturating_sub(earlier.0.get())
    }
}

impl Default for Timestamp {
    fn default() -> Self {
        Self::ZERO
    }
}

impl From<Duration> for Timestamp {
    fn from(since_epoch: Duration) -> Self {
        Self::ZERO + since_epoch
    }
}

impl ops::Add<Duration> for Timestamp {
    type Output = Self;

    /// Saturates at the largest timestamp, so that an endless timeout never expires.
    fn add(self, after: Duration) -> Self {
        let nanos = after.as_secs().saturating_mul(1_000_000_000).saturating_add(after.subsec_nanos().into());
        Self(self.0.saturating_add(nanos))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Timestamp").field(&self.as_nanos()).finish()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.as_nanos();
        write!(f, "{}.{:03}s", nanos / 1_000_000_000, nanos / 1_000_000 % 1_000)
    }
}

/// Converts between [`std::time::Instant`] and [`Timestamp`]. The epoch is the time of its creation, or the instant that it is
/// made [from](Self::from), for a runtime whose clock can be paused.
#[cfg(feature = "std")]
#[derive(Clone, Copy, Debug)]
pub struct Clock(std::time::Instant);

#[cfg(feature = "std")]
impl Clock {
    /// A clock whose epoch is now.
    #[must_use]
    pub fn start() -> Self {
        Self(std::time::Instant::now())
    }

    /// The current time.
    pub fn now(&self) -> Timestamp {
        self.at(std::time::Instant::now())
    }

    /// The timestamp of an instant; [`Timestamp::ZERO`] for instants before the epoch.
    pub fn at(&self, instant: std::time::Instant) -> Timestamp {
        instant.saturating_duration_since(self.0).into()
    }

    /// The instant of a timestamp; `None` if the platform cannot represent it.
    pub fn instant(&self, at: Timestamp) -> Option<std::time::Instant> {
        self.0.checked_add(Duration::from_nanos(at.as_nanos()))
    }
}

#[cfg(feature = "std")]
impl From<std::time::Instant> for Clock {
    fn from(epoch: std::time::Instant) -> Self {
        Self(epoch)
    }
}

#[cfg(feature = "std")]
impl Default for Clock {
    fn default() -> Self {
        Self::start()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_at_both_ends() {
        assert_eq!(Timestamp::from_nanos(u64::MAX) + Duration::from_secs(1), Timestamp::from_nanos(u64::MAX));
        assert_eq!(Timestamp::ZERO + Duration::MAX, Timestamp::from_nanos(u64::MAX));
        assert_eq!(Timestamp::from_nanos(u64::MAX).as_nanos(), u64::MAX - 1);
        assert_eq!(Timestamp::ZERO.since(Timestamp::from_millis(5)), Duration::ZERO);
        assert_eq!(Timestamp::from_millis(7).since(Timestamp::from_millis(5)), Duration::from_millis(2));
    }

    #[test]
    fn the_epoch_is_zero_and_none_takes_no_memory() {
        assert_eq!((Timestamp::ZERO, Timestamp::default()), (Timestamp::from_nanos(0), Timestamp::ZERO));
        assert_eq!(Timestamp::ZERO.as_nanos(), 0);
        assert_eq!(std::format!("{:?}", Timestamp::from_nanos(7)), "Timestamp(7)");
        assert_eq!(size_of::<Option<Timestamp>>(), size_of::<u64>());
    }

    #[cfg(feature = "std")]
    #[test]
    fn a_clock_turns_instants_into_timestamps_and_back() {
        let start = std::time::Instant::now();
        let clock = Clock::from(start);
        let later = start + Duration::from_millis(250);
        assert_eq!(clock.at(later), Timestamp::from_millis(250));
        assert_eq!(clock.instant(Timestamp::from_millis(250)), Some(later));
    }
}
