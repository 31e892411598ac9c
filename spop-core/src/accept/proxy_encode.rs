//! Encodes the PROXY header.

use alloc::format;
use core::net::{IpAddr, SocketAddr};

use super::{Addresses, Peer, ProxyVersion};
use crate::wire::Sink;

/// The signature of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The length of a unix socket's path in version 2.
const PATH_LEN: usize = 108;

/// Appends the PROXY header of a proxied connection, or of one on the proxy's own behalf (`None`).
///
/// Version 1 has TCP over IPv4 and IPv6, and UNKNOWN for the rest. Version 2 also has unix sockets, LOCAL for the proxy's own
/// connections, and UNSPEC for the rest: a unix socket at one end only, or a path of more than 108 bytes. If only one address is
/// IPv6, the other is written as an IPv4-mapped address.
///
/// ```
/// use spop_core::accept::{Addresses, ProxyVersion, encode_proxy_header};
///
/// let peer = |text: &str| text.parse::<std::net::SocketAddr>().unwrap().into();
/// let addresses = Addresses { source: peer("203.0.113.9:4711"), destination: peer("192.0.2.1:12345") };
/// let mut out = Vec::new();
/// encode_proxy_header(ProxyVersion::V1, Some(&addresses), &mut out);
/// assert_eq!(out, b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 12345\r\n");
/// ```
pub fn encode_proxy_header(
    version: ProxyVersion,
    addresses: Option<&Addresses>,
    out: &mut (impl Sink + ?Sized),
) {
    let family = addresses.map_or(Family::Unspecified, family);
    match version {
        ProxyVersion::V1 => put_v1(&family, out),
        ProxyVersion::V2 => put_v2(addresses.is_none(), &family, out),
    }
}

/// The addresses of both ends in one address family.
enum Family<'a> {
    Inet([IpAddr; 2], [u16; 2]),
    Inet6([IpAddr; 2], [u16; 2]),
    Unix([&'a [u8]; 2]),
    Unspecified,
}

fn family(addresses: &Addresses) -> Family<'_> {
    match (&addresses.source, &addresses.destination) {
        (Peer::Ip(source), Peer::Ip(destination)) => {
            let ips = [source, destination].map(|end| end.ip().to_canonical());
            let ports = [source, destination].map(SocketAddr::port);
            if ips.iter().all(IpAddr::is_ipv4) {
                return Family::Inet(ips, ports);
            }
            let v6 = ips.map(|ip| match ip {
                IpAddr::V4(v4) => v4.to_ipv6_mapped().into(),
                v6 @ IpAddr::V6(_) => v6,
            });
            Family::Inet6(v6, ports)
        }
        (Peer::Unix(source), Peer::Unix(destination))
            if source.len() <= PATH_LEN && destination.len() <= PATH_LEN =>
        {
            Family::Unix([source, destination])
        }
        _ => Family::Unspecified,
    }
}

fn put_v1(family: &Family<'_>, out: &mut (impl Sink + ?Sized)) {
    let (name, [source, destination], [source_port, destination_port]) = match family {
        Family::Inet(ips, ports) => ("TCP4", ips, ports),
        Family::Inet6(ips, ports) => ("TCP6", ips, ports),
        Family::Unix(_) | Family::Unspecified => return out.put(b"PROXY UNKNOWN\r\n"),
    };
    out.put(format!("PROXY {name} {source} {destination} {source_port} {destination_port}\r\n").as_bytes());
}

fn put_v2(local: bool, family: &Family<'_>, out: &mut (impl Sink + ?Sized)) {
    // The address family in the high nibble, the transport in the low one (1: stream).
    let (family_byte, len) = match family {
        Family::Unspecified => (0, 0_u16),
        Family::Inet(..) => (0x11, 2 * (4 + 2)),
        Family::Inet6(..) => (0x21, 2 * (16 + 2)),
        Family::Unix(_) => (0x31, 2 * PATH_LEN as u16),
    };
    out.put(SIGNATURE);
    out.put(&[if local { 0x20 } else { 0x21 }, family_byte]);
    out.put(&len.to_be_bytes());
    match family {
        Family::Unspecified => {}
        Family::Inet(ips, ports) | Family::Inet6(ips, ports) => {
            for ip in ips {
                match ip {
                    IpAddr::V4(v4) => out.put(&v4.octets()),
                    IpAddr::V6(v6) => out.put(&v6.octets()),
                }
            }
            for port in ports {
                out.put(&port.to_be_bytes());
            }
        }
        Family::Unix(paths) => {
            for path in paths {
                out.put(path);
                out.put([0; PATH_LEN].get(path.len()..).unwrap_or_default());
            }
        }
    }
}
