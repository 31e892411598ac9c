//! The PROXY header, read and written.

use alloc::{format, string::String, vec};

use super::*;

const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn expect() -> AcceptHandler {
    ExpectProxy::new().into()
}

fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    [V2, &[command, family], &(body.len() as u16).to_be_bytes(), body].concat()
}

/// 203.0.113.9:4711 → 192.0.2.1:12345, and what comes after.
fn v4(tlvs: &[u8]) -> Vec<u8> {
    v2(0x21, 0x11, &[&[203, 0, 113, 9, 192, 0, 2, 1, 0x12, 0x67, 0x30, 0x39], tlvs].concat())
}

/// Reads a header that comes from a proxy at 10.0.0.1, with a frame behind it.
fn read(header: &[u8]) -> Trace {
    let trace = drive_cut(&list([expect()]), &peer("10.0.0.1"), &[header, FRAME].concat(), false);
    if matches!(trace.end(), Accept::Ready(_)) {
        assert_eq!(trace.rest, FRAME);
    }
    trace
}

fn announced(trace: &Trace) -> Option<(String, String)> {
    let addresses = trace.origin().announced()?;
    Some((addresses.source.to_string(), addresses.destination.to_string()))
}

#[test]
fn version_1_announces_tcp() {
    for (line, source, destination) in [
        ("TCP4 203.0.113.9 192.0.2.1 4711 12345", "203.0.113.9:4711", "192.0.2.1:12345"),
        (
            "TCP4 255.255.255.255 255.255.255.255 65535 65535",
            "255.255.255.255:65535",
            "255.255.255.255:65535",
        ),
        ("TCP6 2001:db8::9 2001:db8::1 4711 0", "[2001:db8::9]:4711", "[2001:db8::1]:0"),
    ] {
        let trace = read(format!("PROXY {line}\r\n").as_bytes());
        assert_eq!(announced(&trace), Some((source.into(), destination.into())));
        assert_eq!(trace.origin().to_string(), format!("{source} via 10.0.0.1:4711"));
        assert_eq!(trace.origin().proxy.as_ref().unwrap().version, ProxyVersion::V1);
    }
}

#[test]
fn version_1_may_not_know() {
    let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(107 - 16));
    assert_eq!(longest.len(), 107);
    for line in ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN a b c d e f \u{e9} \r g\r\n", &longest] {
        let trace = read(line.as_bytes());
        assert_eq!(announced(&trace), None);
        assert_eq!(trace.origin().client(), &peer("10.0.0.1"));
        assert!(!trace.origin().proxy.as_ref().unwrap().local);
    }
}

#[test]
fn version_1_ends_within_107_bytes() {
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(108 - 16));
    for header in [long.as_bytes(), &[b"PROXY ", &[b'x'; 500][..]].concat()] {
        assert_eq!(read(header).refusal(), &RefuseReason::BadProxyHeader(ProxyError::LineTooLong));
    }
    let mut acceptor = Acceptor::new(list([expect()]), peer("10.0.0.1"), NOW);
    let mut inbox = Inbox::from(&long.as_bytes()[..106]);
    assert!(matches!(inbox.feed(|input| acceptor.on_bytes(NOW, input)), Accept::WantBytes { .. }));
    inbox.extend_from_slice(b"\r");
    assert!(
        matches!(inbox.feed(|input| acceptor.on_bytes(NOW, input)), Accept::Refuse(_)),
        "107 bytes are enough to tell"
    );
}

#[test]
fn a_line_that_does_not_parse_is_shown() {
    for line in [
        "",
        "TCP4",
        "TCP5 1.1.1.1 2.2.2.2 1 2",
        "TCP4 1.1.1.1 2.2.2.2 1",
        "TCP4 1.1.1.1 2.2.2.2 1 ",
        "TCP4 1.1.1.1 2.2.2.2 1 2 3",
        "TCP4 1.1.1.1 2.2.2.2 1 65536",
        "TCP4 1.1.1.1 2.2.2.2 +1 2",
        "TCP4 1.1.1.1 2.2.2.2 1 02",
        "TCP4  1.1.1.1 2.2.2.2 1 2",
        "TCP4 ::1 2.2.2.2 1 2",
        "TCP6 1.1.1.1 2.2.2.2 1 2",
        "UNKNOWNS",
        "tcp4 1.1.1.1 2.2.2.2 1 2",
        "TCP4 1.1.1.1 2.2.2.2 1 2\n",
    ] {
        let message = read(format!("PROXY {line}\r\n").as_bytes()).message();
        let shown = line.escape_default();
        assert_eq!(message, format!("bad PROXY header from 10.0.0.1: \"PROXY {shown}\" does not parse"));
    }
    assert!(read(b"PROXY TCP4 \xff\xfe\r\n").message().contains(r"\xff\xfe"));
}

#[test]
fn version_2_announces_tcp_and_unix_sockets() {
    let trace = read(&v4(b""));
    assert_eq!(announced(&trace), Some(("203.0.113.9:4711".into(), "192.0.2.1:12345".into())));
    assert_eq!(trace.origin().destination().unwrap().to_string(), "192.0.2.1:12345");
    let mut paths = vec![0; 216];
    paths[..7].copy_from_slice(b"/run/me");
    paths[108..112].copy_from_slice(b"\0abs");
    let trace = read(&v2(0x21, 0x31, &paths));
    assert_eq!(announced(&trace), Some(("unix:/run/me".into(), "unix:\\x00abs".into())));
}

#[test]
fn a_proxy_that_speaks_for_itself_keeps_its_address() {
    for header in [
        v2(0x20, 0, b""),
        v2(0x20, 0x11, b""),
        v2(0x20, 0xff, b"whatever"),
        v2(0x20, 0x11, &[1; 12]),
        v2(0x21, 0, b""),
        v2(0x21, 0, b"whatever"),
    ] {
        let trace = read(&header);
        assert_eq!(announced(&trace), None);
        assert_eq!(trace.origin().client(), &peer("10.0.0.1"));
        assert_eq!(trace.origin().proxy.as_ref().unwrap().local, header[12] == 0x20);
    }
}

#[test]
fn tlvs_are_kept() {
    let trace = read(&v4(b"\x05\0\x03abc\x02\0\x0bexample.com\x04\0\0\x05\0\x01z"));
    let header = trace.origin().proxy.as_ref().unwrap();
    assert_eq!(header.unique_id(), Some(&b"abc"[..]));
    assert_eq!(header.authority(), Some(&b"example.com"[..]));
    assert_eq!(header.tlv(4), Some(&b""[..]));
    assert_eq!(header.tlv(1), None);
    let kinds: Vec<_> = header.tlvs().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, [5, 2, 4, 5]);
    for cut in [&b"\x05"[..], b"\x05\0", b"\x05\0\x01", b"\x05\0\x01z\x05"] {
        assert_eq!(read(&v4(cut)).refusal(), &RefuseReason::BadProxyHeader(ProxyError::Tlv));
    }
}

#[test]
fn version_2_is_as_long_as_its_first_16_bytes_say() {
    let config = list([ExpectProxy { max_len: 50, ..ExpectProxy::new() }.into()]);
    let from = peer("10.0.0.1");
    assert!(matches!(drive_cut(&config, &from, &v2(0x20, 0, &[7; 34]), false).end(), Accept::Ready(_)));
    for body in [35, 65_535] {
        let header = v2(0x20, 0, &vec![7; body]);
        let error = ProxyError::TooLong { length: 16 + body, limit: 50 };
        for seen in [16, 20] {
            let trace = drive_cut(&config, &from, &header[..seen], false);
            assert_eq!(
                trace.refusal(),
                &RefuseReason::BadProxyHeader(error.clone()),
                "before the rest comes"
            );
        }
    }
    let mut acceptor = Acceptor::new(config, from, NOW);
    let mut inbox = Inbox::from(&v4(b"")[..20]);
    assert_eq!(inbox.feed(|input| acceptor.on_bytes(NOW, input)), Accept::WantBytes { at_least: 8 });
}

#[test]
fn a_wrong_version_2_says_what_is_wrong() {
    for (header, message) in [
        (v2(0x31, 0x11, &[0; 12]), "its version is 3, not 2"),
        (v2(0x22, 0x11, &[0; 12]), "the command 2 is unknown"),
        (v2(0x21, 0x41, &[0; 12]), "the address family and transport 0x41 are unknown"),
        (v2(0x21, 0x13, &[0; 12]), "the address family and transport 0x13 are unknown"),
        (v2(0x21, 0x11, &[0; 11]), "its addresses take 12 bytes, but it has 11"),
        (v2(0x21, 0x21, &[0; 12]), "its addresses take 36 bytes, but it has 12"),
        (v2(0x21, 0x31, &[0; 36]), "its addresses take 216 bytes, but it has 36"),
    ] {
        assert_eq!(read(&header).message(), format!("bad PROXY header from 10.0.0.1: {message}"));
    }
}

#[test]
fn what_is_no_header_is_shown() {
    let from = peer("203.0.113.9");
    for (bytes, began) in [
        (&b"\0\0\0\x06\x01\0\0\0\x01"[..], "00 00 00 06"),
        (b"\0\0\x40\x01\x01\0\0\0\x01", "00 00 40 01"),
        (b"\0\0\0\x81\x03\0\0\0\x01\0\0", "00 00 00 81 03"),
        (b"\0\0\0\x81\x01\0\0\0\x01\0\x01", "00 00 00 81 01 00 00 00 01 00 01"),
        (b"GET / HTTP/1.0\r\n\r\n", "47 45 54 20 (it looks like an HTTP request)"),
        (b"\x16\x03\x01\x02\0\x01", "16 03 01 02 (it looks like a TLS handshake)"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "53 53 48 2d (it looks like an SSH handshake)"),
        (b"\r\n\r\n\r\n\r\n", "0d 0a 0d 0a 0d"),
        (b"PROXIES", "50 52 4f 58 49"),
        (b"\r\n\r\n\0\r\nQUIT\r\n", "0d 0a 0d 0a 00 0d 0a 51 55 49 54 0d"),
    ] {
        let trace = drive_cut(&list([expect()]), &from, bytes, false);
        assert_eq!(
            trace.message(),
            format!("no PROXY header from 203.0.113.9: the connection began with {began}")
        );
    }
}

#[test]
fn spop_without_a_header_is_named_with_its_first_11_bytes() {
    let from = peer("203.0.113.9");
    for hello in [FRAME, b"\0\0\0\x07\x01\0\0\0\x01\0\0", b"\0\0\x40\0\x01\0\0\0\x01\0\0and what follows"] {
        let trace = drive_cut(&list([expect()]), &from, hello, false);
        assert_eq!(trace.refusal(), &RefuseReason::SpopWithoutProxyHeader);
        let message = trace.message();
        assert!(
            message.starts_with("203.0.113.9 began with SPOP, and this listener expects a PROXY header"),
            "{message}"
        );
        assert!(message.contains("HAProxy 3.3 and later ignore send-proxy"), "{message}");
    }
    // Not one byte later.
    let mut acceptor = Acceptor::new(list([expect()]), from.clone(), NOW);
    let mut inbox = Inbox::from(&FRAME[..10]);
    assert_eq!(inbox.feed(|input| acceptor.on_bytes(NOW, input)), Accept::WantBytes { at_least: 1 });
    inbox.extend_from_slice(&FRAME[10..11]);
    assert!(matches!(inbox.feed(|input| acceptor.on_bytes(NOW, input)), Accept::Refuse(_)));
    // With the header it is a session.
    assert_eq!(read(&v4(b"")).rest, FRAME);
}

#[test]
fn bytes_that_are_no_header_are_shown_at_the_end_of_the_input() {
    let from = peer("203.0.113.9");
    for (bytes, began) in [
        (&b"GE"[..], "47 45"),
        (b"\0", "00"),
        (b"\0\0\0\x81\x01\0", "00 00 00 81 01 00"),
        (b"PRO-", "50 52 4f 2d (it looks like text)"),
    ] {
        let trace = drive_cut(&list([expect()]), &from, bytes, true);
        assert_eq!(
            trace.message(),
            format!("no PROXY header from 203.0.113.9: the connection began with {began}")
        );
    }
}

#[test]
fn a_header_that_never_comes_whole_is_given_up() {
    let from = peer("10.0.0.1");
    for header in [b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n".to_vec(), v4(b"\x04\0\0")] {
        for cut in 1..header.len() {
            let trace = drive_cut(&list([expect()]), &from, &header[..cut], true);
            assert_eq!(
                trace.message(),
                format!("10.0.0.1 closed the connection {cut} bytes into its PROXY header")
            );
            let mut acceptor = Acceptor::new(list([expect()]), from.clone(), NOW);
            let _ = acceptor.on_bytes(NOW, &header[..cut]).action;
            let Accept::Refuse(refusal) = acceptor.on_timeout(NOW + Duration::from_secs(5)) else { panic!() };
            assert_eq!(refusal.to_string(), "no whole PROXY header from 10.0.0.1 within 5s");
        }
    }
    assert_eq!(drive_cut(&list([expect()]), &from, b"", true).end(), &Accept::Close(Closing::Silent));
}

#[test]
fn only_trusted_peers_may_send_one() {
    let config = list([ExpectProxy::new().trust("10.0.0.0/8".parse().unwrap()).into()]);
    let header = v4(b"");
    assert!(matches!(drive_cut(&config, &peer("10.0.0.1"), &header, false).end(), Accept::Ready(_)));
    assert!(matches!(drive_cut(&config, &peer("::ffff:10.0.0.1"), &header, false).end(), Accept::Ready(_)));
    assert!(matches!(drive_cut(&config, &Peer::unnamed(), &header, false).end(), Accept::Ready(_)));
    assert_eq!(
        drive_cut(&config, &peer("192.0.2.66"), &header, false).message(),
        "192.0.2.66 is not trusted to send a PROXY header"
    );
}

#[test]
fn rules_judge_what_is_known_at_their_place() {
    let config = list([deny("192.0.2.0/24"), expect(), deny("203.0.113.0/24")]);
    let header = v4(b"");
    assert_eq!(
        drive_cut(&config, &peer("10.0.0.1"), &header, false).message(),
        "203.0.113.9, announced by 10.0.0.1, is denied by the rule for 203.0.113.0/24"
    );
    assert_eq!(
        drive_cut(&config, &peer("192.0.2.1"), &header, false).message(),
        "192.0.2.1 is denied by the rule for 192.0.2.0/24"
    );
    let local = v2(0x20, 0, b"");
    assert!(matches!(drive_cut(&config, &peer("10.0.0.1"), &local, false).end(), Accept::Ready(_)));
    assert_eq!(
        drive_cut(&config, &peer("203.0.113.1"), &local, false).message(),
        "203.0.113.1 is denied by the rule for 203.0.113.0/24"
    );
}

#[test]
fn handlers_pass_a_connection_on_in_any_order() {
    let header = v4(b"");
    let from = peer("10.0.0.1");
    let whole = [&header[..], FRAME].concat();
    for config in [
        list([expect(), AcceptHandler::Tls]),
        list([AcceptHandler::Tls, expect()]),
        list([ping(), expect(), AcceptHandler::Tls, ping()]),
        list([
            deny("192.0.2.0/24"),
            ping(),
            AcceptHandler::Tls,
            ping(),
            expect(),
            deny("192.0.2.0/24"),
            ping(),
        ]),
    ] {
        let trace = drive_cut(&config, &from, &whole, false);
        assert_eq!(trace.actions.len(), 2);
        assert_eq!(trace.origin().to_string(), "203.0.113.9:4711 via 10.0.0.1:4711 over TLS");
        assert_eq!(trace.rest, FRAME);
    }
    // A probe is answered only where the list has it.
    let probe = [&header[..], b"ping\n"].concat();
    assert_eq!(drive_cut(&list([expect(), ping()]), &from, &probe, true).sent, b"pong\n");
    assert_eq!(drive_cut(&list([ping(), expect()]), &from, &probe, false).rest, b"ping\n");
    assert_eq!(drive_cut(&list([ping(), expect()]), &from, b"ping\n", true).sent, b"pong\n");
    assert!(matches!(drive_cut(&list([expect(), ping()]), &from, b"ping\n", true).end(), Accept::Refuse(_)));
    // A proxy that checks no more than that a header is taken.
    assert_eq!(drive_cut(&list([expect(), ping()]), &from, &v2(0x20, 0, b""), true).rest, b"");
}

#[test]
fn what_is_written_is_read() {
    let unix = |path: &'static [u8]| Peer::Unix(path.into());
    let pair = |source: &Peer, destination: &Peer| {
        Some(Addresses { source: source.clone(), destination: destination.clone() })
    };
    let (v4, v6, mapped) = (peer("203.0.113.9"), peer("2001:db8::9"), peer("::ffff:203.0.113.9"));
    let (path, long) = (unix(b"/run/spoe.sock"), unix(&[b'x'; 109]));
    // What goes in, what version 1 makes of it, and version 2.
    for (written, v1, v2) in [
        (None, None, None),
        (pair(&v4, &v4), pair(&v4, &v4), pair(&v4, &v4)),
        (pair(&v6, &v6), pair(&v6, &v6), pair(&v6, &v6)),
        (pair(&v4, &v6), pair(&mapped, &v6), pair(&mapped, &v6)),
        (pair(&mapped, &v4), pair(&v4, &v4), pair(&v4, &v4)),
        (pair(&Peer::unnamed(), &path), None, pair(&Peer::unnamed(), &path)),
        (pair(&unix(&[b'x'; 108]), &unix(b"\0abs")), None, pair(&unix(&[b'x'; 108]), &unix(b"\0abs"))),
        (pair(&path, &v4), None, None),
        (pair(&long, &path), None, None),
    ] {
        for (version, expected) in [(ProxyVersion::V1, v1), (ProxyVersion::V2, v2)] {
            let mut bytes = Vec::new();
            encode_proxy_header(version, written.as_ref(), &mut bytes);
            let trace = read(&bytes);
            let header = trace.origin().proxy.as_ref().unwrap();
            assert_eq!((header.version, &header.addresses), (version, &expected));
            assert_eq!(header.local, version == ProxyVersion::V2 && written.is_none());
        }
    }
}
