//! Durations of the command line, and times for people.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Parses a duration as HAProxy writes it: `500ms`, `2s`, `100us`, `1m`, `1h`; a bare number is milliseconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, u64); 5] =
        [("us", 1), ("ms", 1_000), ("s", 1_000_000), ("m", 60_000_000), ("h", 3_600_000_000)];
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = if unit.is_empty() { "ms" } else { unit };
    let micros = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, micros)| *micros);
    let micros = micros.zip(number.parse::<u64>().ok()).and_then(|(unit, number)| number.checked_mul(unit));
    micros.map(Duration::from_micros).ok_or_else(|| {
        "expected a number of milliseconds, or one with a unit: 100us, 500ms, 2s, 1m, 1h".to_owned()
    })
}

/// As [`duration`], and longer than zero.
pub(crate) fn timeout(text: &str) -> Result<Duration, String> {
    duration(text).and_then(|limit| if limit.is_zero() { Err("must not be zero".into()) } else { Ok(limit) })
}

/// A duration with three digits behind the point, in milliseconds.
pub(crate) fn millis(duration: Duration) -> f64 {
    // Microseconds, so that JSON has no digits that mean nothing.
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// A point in time, in UTC. Displayed as the time of the day; the alternate form is that of RFC 3339.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Utc(Duration);

impl Utc {
    pub(crate) fn now() -> Self {
        Self(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
    }

    /// So long after the begin of 1970.
    pub(crate) const fn at(since_1970: Duration) -> Self {
        Self(since_1970)
    }

    /// So long after the begin of 1970, in whole microseconds.
    pub(crate) fn since_1970(self) -> Duration {
        Duration::from_micros(self.0.as_micros() as u64)
    }

    /// As in RFC 3339.
    pub(crate) fn rfc_3339(self) -> String {
        format!("{self:#}")
    }
}

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, micros) = (self.0.as_secs(), self.0.subsec_micros());
        let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
        if f.alternate() {
            let (year, month, day) = date(seconds / 86_400);
            write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
        } else {
            write!(f, "{hour:02}:{minute:02}:{second:02}.{micros:06}")
        }
    }
}

/// The date of a day since 1970-01-01.
const fn date(days: u64) -> (u64, u64, u64) {
    // Years begin in March, so that the leap day is the last; eras of 400 years have 146,097 days.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + (month <= 2) as u64, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_haproxy() {
        for (text, micros) in [
            ("250", Some(250_000)),
            ("100us", Some(100)),
            ("5ms", Some(5_000)),
            ("2s", Some(2_000_000)),
            ("1m", Some(60_000_000)),
            ("1h", Some(3_600_000_000)),
            ("0", Some(0)),
            ("", None),
            ("s", None),
            ("-1s", None),
            ("1.5s", None),
            ("1 s", None),
            ("99999999999999999999", None),
            ("18446744073709551615s", None),
        ] {
            assert_eq!(duration(text).ok(), micros.map(Duration::from_micros), "{text}");
        }
        assert!(timeout("0").is_err() && timeout("1us").is_ok());
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000001Z"),
            (951_782_399, "2000-02-28T23:59:59.000001Z"),
            (951_782_400, "2000-02-29T00:00:00.000001Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000001Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000001Z"),
        ] {
            let time = Utc(Duration::new(seconds, 1_999));
            assert_eq!(time.rfc_3339(), text);
            assert_eq!(time.to_string(), text[11..26]);
        }
    }
}
