//! Rules on where a connection comes from.

use alloc::vec::Vec;

use super::{Network, Peer};

/// What is to become of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Policy {
    /// It goes on.
    Allow,
    /// It is refused.
    Deny,
}

/// Rules on the source address: the first whose network holds it decides.
///
/// They judge whom the connection is known to come from at their place in the list: before a PROXY header, the other end
/// of the transport; after it, the client that it announced. One list may have both.
///
/// The peer of a unix socket has no address. Who may open the socket's file has decided already, so it is allowed unless
/// [`unix`](Self::unix) says otherwise.
///
/// ```
/// use spop_core::accept::{Policy, SourceRules};
///
/// let rules = SourceRules::new(Policy::Deny).deny("10.6.6.0/24".parse()?).allow("10.0.0.0/8".parse()?);
/// assert_eq!(rules.judge(&"10.6.6.6:1024".parse::<std::net::SocketAddr>()?.into()).0, Policy::Deny);
/// assert_eq!(rules.judge(&"10.6.7.6:1024".parse::<std::net::SocketAddr>()?.into()).0, Policy::Allow);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceRules {
    /// In the order in which they are tried.
    pub rules: Vec<(Policy, Network)>,
    /// For an address that no rule names.
    pub otherwise: Policy,
    /// For the peer of a unix socket.
    pub unix: Policy,
}

impl SourceRules {
    /// No rules yet, and what to do where none applies.
    #[must_use]
    pub const fn new(otherwise: Policy) -> Self {
        Self { rules: Vec::new(), otherwise, unix: Policy::Allow }
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

    /// What becomes of a connection from `source`, and the network whose rule said so.
    pub fn judge(&self, source: &Peer) -> (Policy, Option<Network>) {
        let Some(address) = source.ip() else { return (self.unix, None) };
        match self.rules.iter().find(|(_, network)| network.contains(address)) {
            Some((policy, network)) => (*policy, Some(*network)),
            None => (self.otherwise, None),
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
        assert_eq!(rules.judge(&from("10.6.1.1")), (Policy::Allow, Some(inner)));
        assert_eq!(rules.judge(&from("10.7.1.1")), (Policy::Deny, Some(outer)));
        assert_eq!(rules.judge(&from("::ffff:10.7.1.1")), (Policy::Deny, Some(outer)));
        assert_eq!(rules.judge(&from("2001:db8::1")), (Policy::Deny, Some(v6)));
        assert_eq!(rules.judge(&from("2001:db9::1")), (Policy::Allow, None));
        let turned = SourceRules::new(Policy::Deny).deny(outer).allow(inner);
        assert_eq!(turned.judge(&from("10.6.1.1")), (Policy::Deny, Some(outer)));
        assert_eq!(turned.judge(&from("192.0.2.1")), (Policy::Deny, None));
    }

    #[test]
    fn a_unix_peer_is_allowed_unless_told_otherwise() {
        let mut rules = SourceRules::new(Policy::Deny).deny("0.0.0.0/0".parse().unwrap());
        assert_eq!(rules.judge(&Peer::unnamed()), (Policy::Allow, None));
        rules.unix = Policy::Deny;
        assert_eq!(rules.judge(&Peer::unnamed()), (Policy::Deny, None));
    }
}
