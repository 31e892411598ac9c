//! Connections by the thousand.

use std::net::Ipv4Addr;

use spop_core::notation;

use super::*;

fn segment(port: u16, to_agent: bool, sequence: u32, payload: &[u8]) -> Segment<'_> {
    let (engine, agent): (SocketAddr, SocketAddr) =
        ((Ipv4Addr::LOCALHOST, port).into(), (Ipv4Addr::LOCALHOST, 9).into());
    let (from, to) = if to_agent { (engine, agent) } else { (agent, engine) };
    Segment { from, to, sequence, ack: None, syn: false, fin: false, rst: false, payload, cut: 0 }
}

fn syn(port: u16) -> Segment<'static> {
    Segment { syn: true, ..segment(port, true, u32::MAX, b"") }
}

/// What is held is what was counted, and within the limits.
fn check(connections: &Connections) {
    let held: usize = connections.map.values().map(Connection::bytes).sum();
    assert_eq!(held, connections.held);
    assert!(held <= connections.limits.held && connections.map.len() <= connections.limits.connections);
}

#[test]
fn what_is_held_is_limited_whatever_is_sent() {
    let hello = notation::parse_bytes(
        "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 capabilities=string:\"\"",
    );
    let hello = hello.unwrap();
    // Half a frame, at the longest length.
    let partial = [&[0, 16, 0, 0, 3][..], &[0; 3_000]].concat();
    let mut random = fastrand::Rng::with_seed(4);
    let mut connections = Connections::new(Vec::new());
    connections.limits = Limits { connections: 50, held: 40_000 };
    let (mut events, mut gave_up, mut forgotten) = (Vec::new(), 0, 0);
    for step in 0..20_000_u64 {
        let time = Duration::from_millis(step);
        let port = random.u16(1_000..1_100);
        let at = hello.len() as u32;
        let segment = match random.u8(..8) {
            0 => syn(port),
            1 | 2 => segment(port, true, 0, &hello),
            3 => segment(port, true, at, &partial),
            4 => segment(port, true, at + random.u32(..9_000), &partial),
            5 => segment(port, false, random.u32(..9_000), &partial[..random.usize(..3_000)]),
            6 => Segment { fin: true, ..segment(port, random.bool(), at, b"") },
            _ => Segment { rst: random.u8(..9) == 0, ..segment(port, random.bool(), at, b"") },
        };
        connections.segment(time, &segment, &mut events);
        check(&connections);
        for event in events.drain(..) {
            if let What::Closed { reason, .. } = event.what {
                gave_up += usize::from(reason.starts_with("too many bytes"));
                forgotten += usize::from(reason.starts_with("too many connections"));
            }
        }
    }
    assert!(gave_up > 0 && forgotten > 0, "{gave_up} {forgotten}");
    while connections.finish_one(&mut events) {}
    assert!(connections.map.is_empty());
}

#[test]
fn a_flood_of_connections_forgets_the_oldest() {
    let mut connections = Connections::new(Vec::new());
    let (mut events, ports) = (Vec::new(), 1..=u16::MAX);
    for round in 0..2_u8 {
        for port in ports.clone() {
            let mut segment = syn(port);
            segment.from.set_ip(Ipv4Addr::new(10, 0, 0, round).into());
            let time = Duration::from_micros(u64::from(port));
            connections.segment(Duration::from_secs(round.into()) + time, &segment, &mut events);
        }
    }
    check(&connections);
    let newest = (SocketAddr::from(([10, 0, 0, 1], u16::MAX)), SocketAddr::from((Ipv4Addr::LOCALHOST, 9)));
    assert!(connections.map.contains_key(&newest));
    assert!(connections.map.len() > CONNECTIONS / 4);
}
