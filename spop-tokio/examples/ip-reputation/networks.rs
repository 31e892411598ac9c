//! A table of networks and their scores.

use std::{collections::HashMap, fmt, net::IpAddr};

use ipnet::IpNet;

/// What there is to know about an address: 0 is certainly bad, 100 totally safe.
pub(crate) type Score = u8;

/// Networks with a score each; the longest that contains an address counts.
#[derive(Debug, Default)]
pub(crate) struct Networks {
    scores: HashMap<IpNet, Score>,
    /// The prefix lengths that occur, the longest first: one look-up for each is all that a search takes.
    lengths: Vec<u8>,
}

impl Networks {
    /// Reads lines of `NETWORK SCORE`. `#` begins a comment; an address is a network of its own.
    pub(crate) fn parse(text: impl AsRef<[u8]>) -> Result<Self, BadLine> {
        let mut networks = Self::default();
        for (line, number) in text.as_ref().split(|byte| *byte == b'\n').zip(1..) {
            let bad = |reason| BadLine { number, reason };
            let line = str::from_utf8(line).map_err(|_| bad("it is not UTF-8".to_owned()))?;
            let line = line.split('#').next().unwrap_or_default().trim();
            if !line.is_empty() {
                networks.add(line).map_err(bad)?;
            }
        }
        networks.lengths = networks.scores.keys().map(IpNet::prefix_len).collect();
        networks.lengths.sort_unstable_by(|a, b| b.cmp(a));
        networks.lengths.dedup();
        Ok(networks)
    }

    fn add(&mut self, line: &str) -> Result<(), String> {
        let mut words = line.split_whitespace();
        let (Some(network), Some(score), None) = (words.next(), words.next(), words.next()) else {
            return Err(format!("expected NETWORK SCORE, found {line:?}"));
        };
        let network = parse_network(network)?;
        let score = score.parse().ok().filter(|score| *score <= 100);
        let score = score.ok_or_else(|| format!("the score of {network} is not a number from 0 to 100"))?;
        match self.scores.insert(network, score) {
            None => Ok(()),
            Some(_) => Err(format!("{network} was there before")),
        }
    }

    /// The score of the longest network that contains the address. A mapped IPv4 address (`::ffff:192.0.2.1`) must be IPv4, as
    /// `Message::arg` gives it.
    pub(crate) fn score(&self, address: IpAddr) -> Option<Score> {
        let networks = self.lengths.iter().filter_map(|length| IpNet::new(address, *length).ok());
        networks.map(|network| network.trunc()).find_map(|network| self.scores.get(&network).copied())
    }

    /// How many networks there are.
    pub(crate) fn len(&self) -> usize {
        self.scores.len()
    }
}

fn parse_network(text: &str) -> Result<IpNet, String> {
    let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let network = network.map_err(|_| format!("{text:?} is neither a network nor an address"))?;
    let trunc = network.trunc();
    if network.addr() != trunc.addr() {
        return Err(format!("{network} has bits beyond its prefix; {trunc} is meant, or a single address"));
    }
    match (network, network.addr().to_canonical()) {
        // No address would be found in it.
        (IpNet::V6(_), IpAddr::V4(v4)) => Err(format!("{network} is IPv4; write it as {v4} with its prefix")),
        _ => Ok(network),
    }
}

/// A line that makes no sense.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadLine {
    /// Which, from 1.
    pub(crate) number: usize,
    /// What about it.
    pub(crate) reason: String,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.number, self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(networks: &Networks, address: &str) -> Option<Score> {
        networks.score(address.parse().unwrap())
    }

    #[test]
    fn the_longest_prefix_counts_in_any_order() {
        let networks =
            Networks::parse("192.0.2.0/24 10\n192.0.2.7 20 # one\n0.0.0.0/0 50\n192.0.2.0/28 30").unwrap();
        assert_eq!(networks.len(), 4);
        for (address, expected) in [("192.0.2.7", 20), ("192.0.2.8", 30), ("192.0.2.16", 10), ("8.8.8.8", 50)]
        {
            assert_eq!(score(&networks, address), Some(expected), "{address}");
        }
        assert_eq!(score(&networks, "::1"), None, "an IPv4 network contains no IPv6 address");
    }

    #[test]
    fn ipv6_networks_are_networks_too() {
        let networks = Networks::parse("2001:db8::/32 1\n2001:db8:1::/48 2\n10.0.0.0/32 3").unwrap();
        assert_eq!(score(&networks, "2001:db8:2::1"), Some(1));
        assert_eq!(score(&networks, "2001:db8:1::1"), Some(2));
        assert_eq!(score(&networks, "2001:db9::1"), None);
    }

    #[test]
    fn errors_name_the_line_and_the_reason() {
        for (text, number, reason) in [
            ("# only\n10.0.0.0/8", 2, "expected NETWORK SCORE, found \"10.0.0.0/8\""),
            ("10.0.0.0/8 5 6", 1, "expected NETWORK SCORE, found \"10.0.0.0/8 5 6\""),
            ("10.0.0.0/33 5", 1, "\"10.0.0.0/33\" is neither a network nor an address"),
            ("::1 101", 1, "the score of ::1/128 is not a number from 0 to 100"),
            ("::1 -1", 1, "the score of ::1/128 is not a number from 0 to 100"),
            (
                "10.0.0.1/8 5",
                1,
                "10.0.0.1/8 has bits beyond its prefix; 10.0.0.0/8 is meant, or a single address",
            ),
            ("10.0.0.1 5\n10.0.0.1/32 6", 2, "10.0.0.1/32 was there before"),
            ("::ffff:10.0.0.0/104 5", 1, "::ffff:10.0.0.0/104 is IPv4; write it as 10.0.0.0 with its prefix"),
            ("\n\n010.0.0.1 5", 3, "\"010.0.0.1\" is neither a network nor an address"),
        ] {
            assert_eq!(Networks::parse(text).unwrap_err(), BadLine { number, reason: reason.into() });
        }
        let bad = Networks::parse(b"::1 5\r\n# \xff\n").unwrap_err();
        assert_eq!(bad.to_string(), "line 2: it is not UTF-8");
    }

    #[test]
    fn the_shipped_file_is_sound() {
        let networks = Networks::parse(include_str!("networks.txt")).unwrap();
        assert_eq!(score(&networks, "127.0.0.2"), Some(90));
        assert_eq!(score(&networks, "127.0.0.3"), Some(5));
    }
}
