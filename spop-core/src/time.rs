//! Time for the reactors: nanoseconds since an epoch that the caller chooses.

use core::{fmt, ops, time::Duration};

/// A point in time, as nanoseconds since an epoch that the caller chooses.
///
/// The reactors read no clock: each input carries the current time. All inputs of one connection must use the same epoch. A
/// timestamp before an earlier one is harmless: the time of a reactor never goes back.
///
/// ```
/// use core::time::Duration;
/// use spop_core::Timestamp;
///
/// let start = Timestamp::from_millis(1_500);
/// assert_eq!(start + Duration::from_secs(2), Timestamp::from_millis(3_500));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The epoch.
    pub const ZERO: Self = Self(0);

    /// `nanos` nanoseconds after the epoch.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// `millis` milliseconds after the epoch. Saturates at the largest timestamp (584 years).
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Nanoseconds since the epoch.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The duration from `earlier` to this timestamp; zero if it is not later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
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
        Self(self.0.saturating_add(u64::try_from(after.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.0 / 1_000_000_000, self.0 / 1_000_000 % 1_000)
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
        self.0.checked_add(Duration::from_nanos(at.0))
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
        assert_eq!(Timestamp::ZERO.since(Timestamp::from_millis(5)), Duration::ZERO);
        assert_eq!(Timestamp::from_millis(7).since(Timestamp::from_millis(5)), Duration::from_millis(2));
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
