//! When requests are due.

use std::{str::FromStr, time::Duration};

/// More than any machine sends, and few enough to skip those that are overdue.
const RATE_MAX: f64 = 1e7;

/// `--rate`: requests per second, or two numbers between which the rate changes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rate {
    pub(super) from: Option<f64>,
    pub(super) to: f64,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| {
            let number = text.trim().parse::<f64>().ok().filter(|number| (0.0..=RATE_MAX).contains(number));
            number.ok_or_else(|| {
                "expected requests per second, up to 10000000, or FROM..TO, such as 100..5000".to_owned()
            })
        };
        let rate = match text.split_once("..") {
            Some((from, to)) => Self { from: Some(number(from)?), to: number(to)? },
            None => Self { from: None, to: number(text)? },
        };
        if rate.from.unwrap_or_default() + rate.to > 0.0 { Ok(rate) } else { Err("must not be zero".into()) }
    }
}

/// A rate over time: it changes evenly during the ramp, and is constant behind it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Schedule {
    from: f64,
    to: f64,
    /// Seconds.
    ramp: f64,
}

impl Schedule {
    /// Without `from` in the rate, the ramp begins at 0. A rate that changes does so over the whole `time` unless there is a
    /// `ramp`.
    pub(super) fn new(rate: Rate, ramp: Option<Duration>, time: Option<Duration>) -> Self {
        let ramp = match rate.from {
            Some(_) => ramp.or(time),
            None => ramp,
        };
        let ramp = ramp.unwrap_or_default().as_secs_f64();
        Self { from: rate.from.unwrap_or_default(), to: rate.to, ramp }
    }

    /// When the request with this number, from 0, is due. `None`: never.
    pub(super) fn due(&self, number: u64) -> Option<Duration> {
        // Exact up to 2^53 requests.
        #[allow(clippy::cast_precision_loss)]
        let number = number as f64;
        let Self { from, to, ramp } = *self;
        let in_ramp = f64::midpoint(from, to) * ramp;
        let seconds = if number < in_ramp {
            // from·t + (to − from)/ramp·t²/2 = number, in the form that does not cancel where both rates are equal.
            let slope = (to - from) / ramp;
            2.0 * number
                / (from + (from * from + 2.0 * slope * number).max(0.0).sqrt()).max(f64::MIN_POSITIVE)
        } else if to > 0.0 {
            ramp + (number - in_ramp) / to
        } else {
            return None;
        };
        Duration::try_from_secs_f64(seconds).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(rate: &str, ramp: Option<u64>, time: Option<u64>, numbers: &[u64]) -> Vec<Option<u128>> {
        let secs = |secs: Option<u64>| secs.map(Duration::from_secs);
        let schedule = Schedule::new(rate.parse().unwrap(), secs(ramp), secs(time));
        numbers.iter().map(|number| schedule.due(*number).map(|due| due.as_micros())).collect()
    }

    #[test]
    fn a_constant_rate_is_even() {
        assert_eq!(due("1000", None, Some(9), &[0, 1, 5_000]), [Some(0), Some(1_000), Some(5_000_000)]);
        assert_eq!(due("0.5", None, None, &[3]), [Some(6_000_000)]);
    }

    #[test]
    fn a_ramp_has_the_area_of_a_trapezium() {
        // 0 to 100 in 2 s: 25 requests in the first second, 100 in both, then 100 a second.
        assert_eq!(
            due("100", Some(2), Some(9), &[0, 25, 100, 200]),
            [Some(0), Some(1_000_000), Some(2_000_000), Some(3_000_000)]
        );
        // 100 to 300 in 2 s: 150 in the first second, 400 in both.
        assert_eq!(due("100..300", None, Some(2), &[150, 400]), [Some(1_000_000), Some(2_000_000)]);
        assert_eq!(due("100..100", None, Some(2), &[150]), [Some(1_500_000)]);
        // Down to nothing: 100 in all.
        assert_eq!(due("100..0", None, Some(2), &[75, 99, 100]), [Some(1_000_000), Some(1_800_000), None]);
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for text in ["", "x", "-1", "0", "0..0", "1..", "..1", "inf", "nan", "10000001"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
        assert_eq!("2..0".parse(), Ok(Rate { from: Some(2.0), to: 0.0 }));
    }
}
