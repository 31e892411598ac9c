//! Networks in CIDR notation.

use alloc::string::String;
use core::{fmt, net::IpAddr, str::FromStr};

use ipnet::IpNet;

/// A network of IPv4 or IPv6 addresses, such as `10.0.0.0/8`.
///
/// An address without a prefix length is a network of one address. Bits after the prefix are cleared. A dual-stack socket
/// reports IPv4 peers as IPv4-mapped addresses (`::ffff:10.1.2.3`); they count as IPv4 addresses, here and in
/// [`contains`](Self::contains), so that they cannot bypass a rule for an IPv4 network. `0.0.0.0/0` and `::/0` contain the
/// addresses of one family each.
///
/// ```
/// use spop_core::accept::Network;
///
/// let network: Network = "10.1.2.3/8".parse()?;
/// assert_eq!(network.to_string(), "10.0.0.0/8");
/// assert!(network.contains("10.200.0.1".parse()?));
/// assert!(network.contains("::ffff:10.200.0.1".parse()?));
/// assert!(!network.contains("11.0.0.1".parse()?));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network(IpNet);

impl Network {
    /// The network of the first `prefix` bits of `address`; `None` when the address has fewer bits.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let net = match (address, address.to_canonical()) {
            (IpAddr::V6(_), v4 @ IpAddr::V4(_)) if prefix >= 96 => IpNet::new(v4, prefix - 96),
            _ => IpNet::new(address, prefix),
        };
        net.ok().map(|net| Self(net.trunc()))
    }

    /// The first address.
    pub fn address(&self) -> IpAddr {
        self.0.addr()
    }

    /// The prefix length: the number of bits that all addresses have in common.
    pub fn prefix(&self) -> u8 {
        self.0.prefix_len()
    }

    /// Whether the network contains `address`.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl From<IpAddr> for Network {
    /// The network of this address alone.
    fn from(address: IpAddr) -> Self {
        Self(address.to_canonical().into())
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let network = match text.split_once('/') {
            None => text.parse::<IpAddr>().ok().map(Self::from),
            Some((address, prefix)) => match (address.parse(), prefix.parse()) {
                (Ok(address), Ok(prefix)) => Self::new(address, prefix),
                _ => None,
            },
        };
        network.ok_or_else(|| NetworkError(text.into()))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A text that is not a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no network: it takes an address such as 10.1.2.3, or one with a prefix such as 10.0.0.0/8")]
pub struct NetworkError(String);

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn text_and_back() {
        for (text, shown) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("2001:db8::1", "2001:db8::1/128"),
            ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
            ("::ffff:10.1.2.3", "10.1.2.3/32"),
            ("::ffff:0:0/95", "::fffe:0:0/95"),
        ] {
            assert_eq!(network(text).to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_network_is_named() {
        for text in
            ["", "/", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0/8", "10.0.0.0/-1", "localhost", "1/2/3"]
        {
            let error = text.parse::<Network>().unwrap_err();
            assert!(error.to_string().starts_with(&alloc::format!("{text:?} is no network")), "{error}");
        }
    }

    #[test]
    fn each_family_has_its_own_networks() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(network("0.0.0.0/0").contains(address("::ffff:192.0.2.1")));
        assert!(!network("::/0").contains(address("192.0.2.1")));
        assert!(!network("0.0.0.0/0").contains(address("2001:db8::1")));
        assert!(network("2001:db8::/33").contains(address("2001:db8:7fff::1")));
        assert!(!network("2001:db8::/33").contains(address("2001:db8:8000::1")));
    }
}
