//! Time as the reactors see it: a number of nanoseconds since an epoch that the caller chose.

use core::{fmt, ops, time::Duration};

/// A moment, as the time that has passed since an epoch the caller chose.
///
/// The reactors read no clock; each input carries the time it is. Any epoch does as long as one connection keeps to one.
/// A timestamp that lies before an earlier one is harmless: a reactor never moves back.
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
    /// The epoch itself.
    pub const ZERO: Self = Self(0);

    /// The moment `nanos` nanoseconds after the epoch.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The moment `millis` milliseconds after the epoch; the end of time (584 years) where that is later.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Nanoseconds since the epoch.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero when it is not after it.
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

    /// Saturates at the end of time, so that an endless timeout never fires.
    fn add(self, after: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(after.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.0 / 1_000_000_000, self.0 / 1_000_000 % 1_000)
    }
}

/// Converts [`std::time::Instant`]s to [`Timestamp`]s of one epoch: the moment the clock was made.
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

    /// The time it is.
    pub fn now(&self) -> Timestamp {
        self.at(std::time::Instant::now())
    }

    /// The timestamp of an instant; the epoch for instants before it.
    pub fn at(&self, instant: std::time::Instant) -> Timestamp {
        instant.saturating_duration_since(self.0).into()
    }

    /// The instant of a timestamp; `None` past the end of the platform's time.
    pub fn instant(&self, at: Timestamp) -> Option<std::time::Instant> {
        self.0.checked_add(Duration::from_nanos(at.0))
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
        let clock = Clock(start);
        let later = start + Duration::from_millis(250);
        assert_eq!(clock.at(later), Timestamp::from_millis(250));
        assert_eq!(clock.instant(Timestamp::from_millis(250)), Some(later));
    }
}
