//! Addresses in HAProxy's format: which can be read, what they mean, and what the error says of others.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // It is a test.

use std::net::TcpStream;

use spop_server::{AbstractName, Address, Endpoint, Family, Listener, Listening, ParsedAddress};

fn parse(text: &str) -> ParsedAddress {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn error(text: &str) -> String {
    text.parse::<ParsedAddress>().expect_err(text).to_string()
}

#[test]
fn ip_addresses() {
    for (text, means) in [
        ("127.0.0.1:80", "127.0.0.1:80"),
        ("ipv4@127.0.0.1:80", "127.0.0.1:80"),
        ("tcp4@127.0.0.1:80", "127.0.0.1:80"),
        ("tcp@127.0.0.1:0", "127.0.0.1:0"),
        ("[::1]:80", "[::1]:80"),
        ("::1:80", "[::1]:80"),
        ("ipv6@[::1]:80", "[::1]:80"),
        ("tcp6@::1:80", "[::1]:80"),
        ("ip@[::1]:80", "[::1]:80"),
        // All addresses, as HAProxy: of IPv4, unless the text says IPv6.
        (":80", "0.0.0.0:80"),
        ("*:80", "0.0.0.0:80"),
        ("ipv4@:80", "0.0.0.0:80"),
        ("ipv4@*:80", "0.0.0.0:80"),
        ("ipv6@:80", "[::]:80"),
        ("ipv6@*:80", "[::]:80"),
        (":::80", "[::]:80"),
        ("[::]:80", "[::]:80"),
    ] {
        assert_eq!(parse(text), ParsedAddress::Tcp(means.parse().unwrap()), "{text}");
    }
}

#[test]
fn hosts() {
    let host = |host: &str, family| ParsedAddress::Host { host: host.into(), port: 80, family };
    assert_eq!(parse("agent.internal:80"), host("agent.internal", Family::Any));
    assert_eq!(parse("ipv4@agent:80"), host("agent", Family::V4));
    assert_eq!(parse("ipv6@agent:80"), host("agent", Family::V6));
    // The resolver knows interfaces.
    assert_eq!(parse("[fe80::1%eth0]:80"), host("fe80::1%eth0", Family::Any));

    let both = ["127.0.0.1:80", "[::1]:80"].map(|address| address.parse().unwrap());
    assert_eq!(Family::Any.select("agent", both).unwrap(), both);
    assert_eq!(Family::V4.select("agent", both).unwrap(), both[..1]);
    assert_eq!(Family::V6.select("agent", both).unwrap(), both[1..]);
    let none = Family::V6.select("agent", [both[0]]).unwrap_err();
    assert_eq!(none.to_string(), "host agent has no IPv6 address");
}

#[test]
fn unix_sockets() {
    for (text, path) in [
        ("/run/agent.sock", "/run/agent.sock"),
        ("./agent.sock", "./agent.sock"),
        ("unix@/run/agent.sock", "/run/agent.sock"),
        ("unix@agent.sock", "agent.sock"),
        ("uxst@agent.sock", "agent.sock"),
        // An @ or a colon of a path.
        ("/run/agent@2:1.sock", "/run/agent@2:1.sock"),
        ("unix@unix@x", "unix@x"),
    ] {
        assert_eq!(parse(text), ParsedAddress::Unix(path.into()), "{text}");
    }
}

#[test]
fn abstract_sockets() {
    let ParsedAddress::Abstract(padded) = parse("abns@agent") else { panic!() };
    assert_eq!(padded.as_bytes().len(), 107, "as HAProxy fills the whole address");
    assert_eq!(padded.as_bytes(), [&b"agent"[..], &[0; 102]].concat());
    assert_eq!(padded.to_string(), "abns@agent");

    let ParsedAddress::Abstract(exact) = parse("abnsz@agent") else { panic!() };
    assert_eq!(exact.as_bytes(), b"agent");
    assert_eq!(exact.to_string(), "abnsz@agent");
    assert_eq!(AbstractName::exact("a\nb").unwrap().to_string(), "abnsz@a\\nb");

    assert_eq!(parse(&format!("abns@{}", "n".repeat(107))), parse(&format!("abnsz@{}", "n".repeat(107))));
    assert!(error(&format!("abns@{}", "n".repeat(108))).contains("108 bytes: use at most 107"));
    assert!(error("abns@").contains("write abns@NAME"));
}

#[test]
fn errors_say_what_to_write() {
    for text in
        ["quic4@:80", "fd@3", "sockpair@4", "udp@:80", "uxdg@/x", "stream+ipv4@:80", "UNIX@/x", "@x:1"]
    {
        let error = error(text);
        let prefix = &text[..=text.find('@').unwrap()];
        assert!(error.contains(&format!("prefix {prefix} is not supported: use one of")), "{error}");
        for known in ["ip@", "ipv4@", "ipv6@", "tcp@", "tcp4@", "tcp6@", "unix@", "uxst@", "abns@", "abnsz@"]
        {
            assert!(error.contains(known), "{known}: {error}");
        }
    }
    for (text, part) in [
        ("", "the port is missing: write HOST:PORT"),
        ("agent", "the port is missing"),
        ("127.0.0.1", "the port is missing"),
        ("127.0.0.1:", "the port is missing"),
        ("[::1]", "the port is missing"),
        ("ipv4@127.0.0.1", "the port is missing"),
        ("127.0.0.1:8000-8010", "8000-8010 is a port range"),
        ("127.0.0.1:+10", "+10 is a port offset"),
        ("127.0.0.1:-10", "-10 is a port offset"),
        ("127.0.0.1:http", "port http is not a number"),
        ("127.0.0.1:65536", "port 65536 does not exist"),
        ("127.0.0.1:99999999999999999999", "does not exist"),
        ("[::1:80", "a bracket is not closed"),
        ("[]:80", "[] is not an IPv6 address"),
        ("[::g]:80", "[::g] is not an IPv6 address"),
        ("2001:db8::1:", "the port is missing"),
        ("2001:db8::f", "port f is not a number"),
        ("2001:db8:1", "2001:db8 is not an IPv6 address: write [IPV6]:PORT"),
        ("ipv4@[::1]:80", "::1 is not an IPv4 address"),
        ("ipv6@127.0.0.1:80", "127.0.0.1 is not an IPv6 address"),
        ("unix@", "write unix@PATH"),
    ] {
        let error = error(text);
        assert!(error.contains(part), "{text}: {error}");
    }
}

fn listen(text: &str) -> Listening {
    Endpoint::from(text).listen(false).unwrap()
}

#[test]
fn a_listener_opens_there() {
    for (text, at) in [
        (":0", "0.0.0.0"),
        ("*:0", "0.0.0.0"),
        ("ipv4@localhost:0", "127.0.0.1"),
        ("ipv4@127.0.0.1:0", "127.0.0.1"),
    ] {
        let listening = listen(text);
        let address = listening.address().unwrap().tcp().unwrap();
        assert_eq!(address.ip().to_string(), at, "{text}");
        TcpStream::connect(("127.0.0.1", address.port())).unwrap();
    }
    let error = Endpoint::from("fd@3").listen(false).unwrap_err().to_string();
    assert!(error.starts_with("cannot listen on fd@3: the prefix fd@ is not supported"), "{error}");
}

#[cfg(target_os = "linux")]
#[test]
fn abstract_sockets_have_no_file() {
    use std::os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener, UnixStream},
    };

    let name = format!("spop-server-{}", std::process::id());
    let padded =
        SocketAddr::from_abstract_name([name.as_bytes(), &vec![0; 107 - name.len()]].concat()).unwrap();
    let exact = SocketAddr::from_abstract_name(&name).unwrap();
    let unique = format!("abns@{name}");

    let listening = listen(&unique);
    assert_eq!(listening.address().unwrap().to_string(), unique);
    assert!(matches!(listening.listener, Listener::Unix { file: None, .. }));
    UnixStream::connect_addr(&padded).unwrap();
    assert!(UnixStream::connect_addr(&exact).is_err(), "it is another one");
    let Listener::Unix { listener, .. } = &listening.listener else { panic!() };
    assert!(listener.accept().is_ok());
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);

    let error = Endpoint::from(unique.as_str()).listen(false).unwrap_err().to_string();
    assert!(
        error.contains(&format!("cannot listen on {unique}: another process of this network namespace")),
        "{error}"
    );
    let shorter = listen(&format!("abnsz@{name}"));
    assert_eq!(shorter.address().unwrap(), Address::Abstract(AbstractName::exact(&name).unwrap()));
    UnixStream::connect_addr(&exact).unwrap();
    drop((listening, shorter));
    drop(listen(&unique));

    // One that is open already.
    let opened = Endpoint::from(UnixListener::bind_addr(&padded).unwrap()).listen(false).unwrap();
    assert_eq!(opened.address().unwrap().to_string(), unique);
}

#[cfg(unix)]
#[test]
fn access_rights_are_for_files() {
    let name = format!("abns@spop-server-{}-mode", std::process::id());
    for endpoint in [
        Endpoint::from(name.as_str()).mode(0o600),
        Endpoint::from("127.0.0.1:0").owner("root"),
        Endpoint::from("localhost:0").group(0),
        Endpoint::from(std::net::TcpListener::bind("127.0.0.1:0").unwrap()).mode(0o600),
    ] {
        let error = endpoint.listen(false).unwrap_err().to_string();
        assert!(error.contains("no file that could have a mode, an owner or a group"), "{error}");
    }
}
