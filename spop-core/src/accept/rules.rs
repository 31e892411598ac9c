//! Rules on source addresses.

use alloc::vec::Vec;

use super::{Network, Peer};

/// What a rule decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Policy {
    /// The connection passes on to the next handler.
    Allow,
    /// The connection is refused.
    Deny,
}

/// Rules on the source address: the first whose network contains it decides, as in a firewall.
///
/// Before `ExpectProxy` in the list of handlers, the source address is the peer's; after it, that of the client which the PROXY
/// header announces ([`Origin::client`](super::Origin::client)). A list may have rules at both places.
///
/// The peer of a unix socket has no IP address. The permissions of the socket file apply, so it is allowed unless
/// [`unix`](Self::unix) is [`Policy::Deny`].
///
/// ```
/// use spop_core::accept::{Policy, SourceRules};
///
/// let rules = SourceRules::new(Policy::Deny).deny("10.6.6.0/24".parse()?).allow("10.0.0.0/8".parse()?);
/// assert_eq!(rules.evaluate(&"10.6.6.6:1024".parse::<std::net::SocketAddr>()?.into()).0, Policy::Deny);
/// assert_eq!(rules.evaluate(&"10.6.7.6:1024".parse::<std::net::SocketAddr>()?.into()).0, Policy::Allow);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceRules {
    /// The rules, in the order of evaluation.
    pub rules: Vec<(Policy, Network)>,
    /// For an address that no rule matches.
    pub default_policy: Policy,
    /// For the peer of a unix socket. Default: allow.
    pub unix: Policy,
}

impl SourceRules {
    /// No rules, and the policy for addresses that no rule matches.
    #[must_use]
    pub const fn new(default_policy: Policy) -> Self {
        Self { rules: Vec::new(), default_policy, unix: Policy::Allow }
    }

    /// Allows a network, unless an earlier rule denied it.
    #[must_use]
    pub fn allow(mut self, network: Network) -> Self {
        self.rules.push((Policy::Allow, network));
        self
    }

    /// Denies a network, unless an earlier rule allowed it.
    #[must_use]
    pub fn deny(mut self, network: Network) -> Self {
        self.rules.push((Policy::Deny, network));
        self
    }

    /// The policy for `source`, and the network of the rule that matched.
    pub fn evaluate(&self, source: &Peer) -> (Policy, Option<Network>) {
        let Some(address) = source.ip() else { return (self.unix, None) };
        match self.rules.iter().find(|(_, network)| network.contains(address)) {
            Some((policy, network)) => (*policy, Some(*network)),
            None => (self.default_policy, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(address: &str) -> Peer {
        Peer::Ip(core::net::SocketAddr::new(address.parse().unwrap(), 1))
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let net = |text: &str| text.parse::<Network>().unwrap();
        let (inner, outer, v6) = (net("10.6.0.0/16"), net("10.0.0.0/8"), net("2001:db8::/32"));
        let rules = SourceRules::new(Policy::Allow).allow(inner).deny(outer).deny(v6);
        assert_eq!(rules.evaluate(&from("10.6.1.1")), (Policy::Allow, Some(inner)));
        assert_eq!(rules.evaluate(&from("10.7.1.1")), (Policy::Deny, Some(outer)));
        assert_eq!(rules.evaluate(&from("::ffff:10.7.1.1")), (Policy::Deny, Some(outer)));
        assert_eq!(rules.evaluate(&from("2001:db8::1")), (Policy::Deny, Some(v6)));
        assert_eq!(rules.evaluate(&from("2001:db9::1")), (Policy::Allow, None));
        let turned = SourceRules::new(Policy::Deny).deny(outer).allow(inner);
        assert_eq!(turned.evaluate(&from("10.6.1.1")), (Policy::Deny, Some(outer)));
        assert_eq!(turned.evaluate(&from("192.0.2.1")), (Policy::Deny, None));
    }

    #[test]
    fn a_unix_peer_is_allowed_unless_told_otherwise() {
        let mut rules = SourceRules::new(Policy::Deny).deny("0.0.0.0/0".parse().unwrap());
        assert_eq!(rules.evaluate(&Peer::unnamed()), (Policy::Allow, None));
        rules.unix = Policy::Deny;
        assert_eq!(rules.evaluate(&Peer::unnamed()), (Policy::Deny, None));
    }
}
