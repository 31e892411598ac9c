//! Keys: a request takes the tokens of one.

use std::{
    hash::{BuildHasher, Hasher as _, RandomState},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use spop_mio::Value;

/// Hashes the parts of a key, with a secret of the process: a client cannot choose keys that have the same hash, or fill one set of slots.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    secret: RandomState,
    ipv6_mask: u128,
}

/// A key that is put together from the arguments of a message.
pub(crate) struct Key<'a> {
    keys: &'a Keys,
    hasher: <RandomState as BuildHasher>::Hasher,
    /// A part of it is not NULL.
    found: bool,
}

impl Keys {
    /// An IPv6 address counts with so many bits: one host can use all addresses of a network.
    pub(crate) fn new(ipv6_prefix: u32) -> Self {
        let mask = u128::MAX.checked_shl(128 - ipv6_prefix).unwrap_or(0);
        Self { secret: RandomState::new(), ipv6_mask: mask }
    }

    /// A key without parts.
    #[inline]
    pub(crate) fn begin(&self) -> Key<'_> {
        Key { keys: self, hasher: self.secret.build_hasher(), found: false }
    }
}

impl Key<'_> {
    /// Adds a part. Its type counts, and where it ends.
    #[inline]
    pub(crate) fn add(&mut self, part: Value<'_>) {
        self.found |= !part.is_null();
        let hasher = &mut self.hasher;
        if let Some(bytes) = part.as_bytes() {
            hasher.write_u8(b'b');
            hasher.write_usize(bytes.len());
            hasher.write(bytes);
        } else if let Some(ip) = part.as_ip() {
            match embedded(ip) {
                IpAddr::V4(ip) => {
                    hasher.write_u8(b'4');
                    hasher.write_u32(ip.to_bits());
                }
                IpAddr::V6(ip) => {
                    hasher.write_u8(b'6');
                    hasher.write_u128(self.keys.masked(ip));
                }
            }
        } else if let Some(number) = part.as_integer() {
            hasher.write_u8(b'n');
            hasher.write_i128(number);
        } else {
            hasher.write_u8(match part.as_bool() {
                Some(true) => b't',
                Some(false) => b'f',
                None => b'-',
            });
        }
    }

    /// Its hash. `None` if it has no parts, or HAProxy could fetch none of them.
    #[inline]
    pub(crate) fn hash(&self) -> Option<u64> {
        self.found.then(|| self.hasher.finish())
    }
}

impl Keys {
    const fn masked(&self, ip: Ipv6Addr) -> u128 {
        ip.to_bits() & self.ipv6_mask
    }
}

/// The IPv4 address that a translator (NAT64, RFC 6052) has made an IPv6 address of: all of them are in one network.
fn embedded(ip: IpAddr) -> IpAddr {
    const PREFIX: u128 = 0x64_ff9b << 96;
    match ip {
        IpAddr::V6(v6) => u32::try_from(v6.to_bits() ^ PREFIX).map_or(ip, |bits| Ipv4Addr::from(bits).into()),
        IpAddr::V4(_) => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(keys: &Keys, parts: &[Value<'_>]) -> Option<u64> {
        let mut key = keys.begin();
        for part in parts {
            key.add(*part);
        }
        key.hash()
    }

    fn ip(text: &str) -> Value<'static> {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn different_keys_have_different_hashes() {
        let keys = Keys::new(64);
        let different: &[&[Value<'_>]] = &[
            &[Value::String(b"ab")],
            &[Value::String(b"a"), Value::String(b"b")],
            &[Value::String(b"b"), Value::String(b"a")],
            &[Value::String(b"")],
            &[Value::String(b""), Value::Null],
            &[Value::Null, Value::String(b"")],
            &[Value::Bool(true)],
            &[Value::Bool(false)],
            &[Value::Int64(1)],
            &[Value::Int64(-1)],
            &[Value::Uint64(u64::MAX)],
            &[ip("192.0.2.1")],
            &[ip("192.0.2.2")],
            &[ip("64:ff9b::198.51.100.1")],
            &[ip("64:ff9b::198.51.100.2")],
            &[ip("64:ff9b::1:c633:6402")],
            &[ip("2001:db8::1")],
            &[ip("2001:db8:0:1::1")],
        ];
        let mut hashes: Vec<_> = different.iter().map(|parts| hash(&keys, parts).unwrap()).collect();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), different.len());
        assert_ne!(hash(&keys, &[Value::Int64(1)]), hash(&Keys::new(64), &[Value::Int64(1)]), "no secret");
    }

    #[test]
    fn the_same_key_in_another_form_has_the_same_hash() {
        let keys = Keys::new(64);
        for (one, other) in [
            (Value::String(b"a"), Value::Binary(b"a")),
            (Value::Int64(5), Value::Uint32(5)),
            (ip("192.0.2.1"), ip("::ffff:192.0.2.1")),
            (ip("192.0.2.1"), ip("64:ff9b::192.0.2.1")),
            (ip("2001:db8::1"), ip("2001:db8::ffff:0:0:1")),
        ] {
            assert_eq!(hash(&keys, &[one]), hash(&keys, &[other]), "{one:?}");
        }
        let (all, none) = (Keys::new(128), Keys::new(0));
        let (one, other) = (ip("2001:db8::1"), ip("2001:db8::2"));
        assert_ne!(hash(&all, &[one]), hash(&all, &[other]));
        assert_eq!(hash(&none, &[one]), hash(&none, &[ip("2001:db9::")]));
    }

    #[test]
    fn a_key_that_is_not_there_has_no_hash() {
        assert_eq!(hash(&Keys::new(64), &[]), None);
        assert_eq!(hash(&Keys::new(64), &[Value::Null, Value::Null]), None);
    }
}
