//! Limits, as the command line has them.

use std::{str::FromStr, sync::atomic::AtomicU64, time::Duration};

use crate::{
    key::Keys,
    rate::Rate,
    table::{Table, WhenFull},
};

/// A limit: `NAME=TOKENS/PERIOD`, and options behind commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spec {
    pub(crate) name: String,
    rate: Rate,
    keys: usize,
    when_full: WhenFull,
    ipv6_prefix: u32,
}

/// A limit with the buckets of its keys.
pub(crate) struct Limit {
    pub(crate) name: String,
    pub(crate) rate: Rate,
    pub(crate) keys: Keys,
    pub(crate) table: Table,
    /// When the log may say again that the table is full.
    pub(crate) warn_at: AtomicU64,
}

impl From<Spec> for Limit {
    fn from(spec: Spec) -> Self {
        let Spec { name, rate, keys, when_full, ipv6_prefix } = spec;
        let (keys, table) = (Keys::new(ipv6_prefix), Table::new(keys, when_full));
        Self { name, rate, keys, table, warn_at: AtomicU64::new(0) }
    }
}

impl FromStr for Spec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, rest) = text.split_once('=').ok_or("write NAME=TOKENS/PERIOD")?;
        if name.is_empty() || name.chars().any(char::is_whitespace) {
            return Err(format!("{name:?} cannot be the name of a message"));
        }
        let mut words = rest.split(',');
        let quantity = words.next().unwrap_or_default();
        let (tokens, period) = quantity
            .split_once('/')
            .ok_or_else(|| format!("{quantity:?} is not TOKENS/PERIOD, such as 5/10s"))?;
        let tokens = number("the number of tokens", tokens)?;
        let period = duration(period)?;
        let (mut burst, mut keys) = (tokens, 250_000);
        let (mut when_full, mut ipv6_prefix) = (WhenFull::default(), 64);
        for word in words {
            match word.split_once('=') {
                Some(("burst", value)) => burst = number("burst", value)?,
                Some(("keys", value)) => {
                    keys = number("keys", value)?;
                    if !(1..=MAX_KEYS).contains(&keys) {
                        return Err(format!("keys is {keys}: use 1 to {MAX_KEYS}"));
                    }
                }
                Some(("full", "open")) => when_full = WhenFull::Open,
                Some(("full", "closed")) => when_full = WhenFull::Closed,
                Some(("ipv6", value)) => {
                    ipv6_prefix = number("ipv6", value)?;
                    if ipv6_prefix > 128 {
                        return Err(format!("ipv6 is {ipv6_prefix}: use 0 to 128"));
                    }
                }
                _ => {
                    return Err(format!(
                        "{word:?} is none of burst=TOKENS, keys=N, full=open, full=closed, ipv6=PREFIX"
                    ));
                }
            }
        }
        Ok(Self {
            name: name.to_owned(),
            rate: Rate::new(tokens, period, burst)?,
            keys,
            when_full,
            ipv6_prefix,
        })
    }
}

/// A table for more has more than 3 GB.
const MAX_KEYS: usize = 100_000_000;

fn number<T: FromStr>(what: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{what} is {text:?}, and not a number"))
}

/// A time such as `10s`; without a number, one of the unit.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (count, unit) = text.split_at(digits);
    let unit = match unit {
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(3_600),
        "d" => Duration::from_secs(86_400),
        _ => return Err(format!("{text:?} is not a time, such as 500ms, 10s, 1m, 1h, 1d")),
    };
    let count = if count.is_empty() { 1 } else { number("the time", count)? };
    unit.checked_mul(count).ok_or_else(|| format!("{text:?} is too long"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(tokens: u64, seconds: u64, burst: u64) -> Rate {
        Rate::new(tokens, Duration::from_secs(seconds), burst).unwrap()
    }

    #[test]
    fn a_limit_is_a_name_a_rate_and_options() {
        let spec = Spec {
            name: "login".into(),
            rate: rate(5, 10, 5),
            keys: 250_000,
            when_full: WhenFull::Open,
            ipv6_prefix: 64,
        };
        assert_eq!("login=5/10s".parse(), Ok(spec.clone()));
        assert_eq!("login=5/10s,full=open,ipv6=64,keys=250000,burst=5".parse(), Ok(spec));
        let spec = Spec {
            name: "a.b".into(),
            rate: rate(1, 3_600, 7),
            keys: 9,
            when_full: WhenFull::Closed,
            ipv6_prefix: 56,
        };
        assert_eq!("a.b=1/h,burst=7,keys=9,full=closed,ipv6=56".parse(), Ok(spec));
    }

    #[test]
    fn times_have_units() {
        for (text, millis) in
            [("250ms", 250), ("s", 1_000), ("2m", 120_000), ("1h", 3_600_000), ("1d", 86_400_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "1x", "-1s", "1.5s", "99999999999s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        for (text, why) in [
            ("login", "write NAME=TOKENS/PERIOD"),
            ("=5/s", "\"\" cannot be the name of a message"),
            ("a b=5/s", "\"a b\" cannot be the name of a message"),
            ("login=5", "\"5\" is not TOKENS/PERIOD, such as 5/10s"),
            ("login=x/s", "the number of tokens is \"x\", and not a number"),
            ("login=5/x", "\"x\" is not a time, such as 500ms, 10s, 1m, 1h, 1d"),
            ("login=0/s", "0 tokens in 1s: use 1 or more, and at most one in a nanosecond"),
            ("login=5/s,burst=0", "the burst is 0: use 1 or more, and at most what a year brings"),
            ("login=5/s,burst=-1", "burst is \"-1\", and not a number"),
            ("login=5/s,keys=0", "keys is 0: use 1 to 100000000"),
            ("login=5/s,ipv6=129", "ipv6 is 129: use 0 to 128"),
            (
                "login=5/s,full=ajar",
                "\"full=ajar\" is none of burst=TOKENS, keys=N, full=open, full=closed, ipv6=PREFIX",
            ),
            ("login=5/s,", "\"\" is none of burst=TOKENS, keys=N, full=open, full=closed, ipv6=PREFIX"),
        ] {
            assert_eq!(text.parse::<Spec>().unwrap_err(), why, "{text}");
        }
    }
}
