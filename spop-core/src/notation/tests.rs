use alloc::{
    format,
    string::{String, ToString},
    vec,
    vec::Vec,
};

use proptest::{collection, prelude::*, sample};

use super::*;
use crate::{
    Scope, Value,
    frame::{Flags, FrameType, Ids},
    wire::put_string,
};

fn payload(line: &str) -> Vec<u8> {
    parse(line).unwrap_or_else(|error| panic!("{line}\n{error}")).payload
}

#[test]
fn these_lines_print_as_they_were_typed() {
    for line in [
        "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 \
         capabilities=string:pipelining,async engine-id=string:abc healthcheck=bool:true",
        "HAPROXY-HELLO - 1 2 max-frame-size=string:big max-frame-size=null",
        "AGENT-HELLO fin 0 0 version=string:2.0 max-frame-size=uint32:16380 capabilities=string:\"\"",
        "HAPROXY-DISCONNECT fin 0 0 status-code=uint32:0 message=string:normal",
        "AGENT-DISCONNECT fin 0 0 status-code=uint32:4 message=string:\"out of \\\"luck\\\"\"",
        "NOTIFY fin 5 1 check-ip ip=ipv4:203.0.113.7 port=int32:-1",
        "NOTIFY fin 18446744073709551615 0 a =null =bool:false x=int64:-9223372036854775808 ; b ; \"\" y=uint64:1",
        "NOTIFY fin 5 1 m a=ipv6:2001:db8::1 a=ipv6:::ffff:192.0.2.1 \"a b\"=binary:00ff \"é\"=binary:",
        "NOTIFY fin 5 1 hex raw=null hex=null",
        "NOTIFY fin 5 1 messages items=null",
        "ACK fin 5 1",
        "ACK fin 5 1 set sess ip_score=int32:77 ; unset txn reason",
        "ACK fin,abort 5 1 set proc a=null ; set req b=uint32:4294967295 ; unset res \"\"",
        "ACK abort 5 1 unset txn \"a;b\"",
        "UNSET 0x80000001 5 1 hex:00ff",
        "UNSET - 5 1 hex:00ff00ff78",
        "TYPE:42 fin 0 0 raw:\"a text\"",
        "TYPE:255 - 0 0",
        // A well-formed front and a malformed tail.
        "HAPROXY-HELLO fin 0 0 a=null hex:0562",
        "NOTIFY - 5 1 a b=null ; hex:0163",
        "ACK fin 5 1 unset txn a ; hex:0900",
        "ACK fin 5 1 hex:0900",
        // Reserved flag bits.
        "NOTIFY fin 5 1 raw:\"\\x05hello\\x01\\x01b\\xf0\"",
        // A long run.
        "NOTIFY fin 5 1 m s=string:\"x\"*5000 b=binary:00*32 short=string:xxxxxxxxxx",
        "UNSET fin 5 1 hex:0001 raw:\"x\"*5000 raw:end",
        "NOTIFY fin 5 1 m s=string:\"\\n\\r\\t\\\\\\x00\\x7f\\xff é\"",
    ] {
        let frame = parse(line).unwrap_or_else(|error| panic!("{line}\n{error}"));
        assert_eq!(frame.to_string(), line);
        assert_eq!(line.parse(), Ok(frame));
    }
}

#[test]
fn there_is_more_than_one_way_to_write_a_thing() {
    for (line, same) in [
        ("  NOTIFY\tfin 5  1 m ", "NOTIFY fin 5 1 m"),
        ("TYPE:3 0x1 5 1 \"m\"", "NOTIFY fin 5 1 m"),
        ("NOTIFY abort,fin 5 1 m;n", "NOTIFY 0x3 5 1 m ; n"),
        ("NOTIFY fin,0x10 5 1 m a=null;n", "NOTIFY 0x11 5 1 m a=null ; n"),
        ("ACK fin 5 1 set txn a=int32:1;unset txn a", "ACK fin 5 1 set txn a=int32:+1 ; unset txn a"),
        ("NOTIFY fin 5 1 m a=string:\"\\x61\\x62\"", "NOTIFY fin 5 1 m a=string:ab"),
        ("NOTIFY fin 5 1 m \"a\"*3=binary:AB", "NOTIFY fin 5 1 m aaa=binary:ab"),
        ("UNSET fin 5 1 hex:00ff*2 raw:x", "UNSET fin 5 1 hex:00ff00ff78"),
        ("NOTIFY fin 5 1 raw:a hex:62 raw:\"c\"*0", "NOTIFY fin 5 1 raw:ab"),
        ("UNSET fin 5 1 messages[..] m a=null", "UNSET fin 5 1 raw:\"\\x01m\\x01\\x01a\\x00\""),
        ("UNSET fin 5 1 items[1..2] a=null b=null", "UNSET fin 5 1 raw:a"),
        ("ACK fin 5 1 actions[..2] unset txn a", "ACK fin 5 1 hex:0202"),
    ] {
        assert_eq!(parse(line).unwrap(), parse(same).unwrap(), "{line}");
    }
}

#[test]
fn sentences_have_their_bytes() {
    assert_eq!(payload("AGENT-HELLO fin 0 0 a=bool:true"), b"\x01a\x11");
    assert_eq!(
        payload("NOTIFY fin 1 1 one a=int32:1 =null ; two"),
        b"\x03one\x02\x01a\x02\x01\x00\x00\x03two\x00"
    );
    assert_eq!(
        payload("ACK fin 1 1 set sess a=string:x ; unset res b"),
        b"\x01\x03\x01\x01a\x08\x01x\x02\x02\x04\x01b"
    );
    let frame = parse("UNSET 0x80000000 240 2 hex:0a").unwrap();
    assert_eq!(frame.header.flags, Flags(0x8000_0000));
    assert_eq!(frame.header.ids, Ids::new(240, 2));
    assert_eq!(frame.to_bytes(), [0, 0, 0, 9, 0, 0x80, 0, 0, 0, 0xf0, 0, 2, 0x0a]);
    assert_eq!(parse_bytes("UNSET 0x80000000 240 2 hex:0a"), Ok(frame.to_bytes()));
}

#[test]
fn an_error_says_where_and_what_was_expected() {
    for (line, column, expected, found) in [
        ("", 1, "a frame type", ""),
        ("notify fin 5 1", 1, "a frame type", "notify"),
        ("TYPE:256 fin 5 1", 6, "a number up to 255", "256"),
        ("NOTIFY", 7, "flags", ""),
        ("NOTIFY fin, 5 1", 8, "flags", "fin,"),
        ("NOTIFY 0x+1 5 1", 8, "flags", "0x+1"),
        ("NOTIFY 0x100000000 5 1", 8, "flags", "0x100000000"),
        ("NOTIFY fin", 11, "a stream-id", ""),
        ("NOTIFY fin 5 x", 14, "a frame-id", "x"),
        ("NOTIFY fin 5 1 ;", 16, "the name of a message", ";"),
        ("NOTIFY fin 5 1 m ;", 19, "the name of a message", ""),
        ("NOTIFY fin 5 1 m a", 19, "`=` and a value", ""),
        ("NOTIFY fin 5 1 m a =null", 19, "`=` and a value", " "),
        ("NOTIFY fin 5 1 m é=null", 18, "a name or `=`", "é=null"),
        ("NOTIFY fin 5 1 m a=ipv5:1", 20, "a value", "ipv5:1"),
        ("NOTIFY fin 5 1 m a=bool", 20, "a value", "bool"),
        ("NOTIFY fin 5 1 m \"é\"=bool:yes b=null", 27, "true or false", "yes"),
        ("NOTIFY fin 5 1 m a=int32:2147483648", 26, "a number of 32 bits, signed", "2147483648"),
        ("NOTIFY fin 5 1 m a=uint32:-1;", 27, "a number of 32 bits, unsigned", "-1"),
        ("NOTIFY fin 5 1 m a=null:", 24, "a space", ":"),
        ("NOTIFY fin 5 1 m a=string:", 27, "a text", ""),
        ("NOTIFY fin 5 1 m a=string:\"x y", 27, "a closing quote", "\"x"),
        ("NOTIFY fin 5 1 m a=string:\"x\\q\"", 29, "one of", "\\q\""),
        ("NOTIFY fin 5 1 m a=string:\"x\\x4é\"", 29, "one of", "\\x4é\""),
        ("NOTIFY fin 5 1 m a=string:x\"y\"", 28, "a space", "\"y\""),
        ("NOTIFY fin 5 1 m a=string:\"x\"*", 31, "a number of times", ""),
        ("NOTIFY fin 5 1 m a=string:\"x\"*16777217", 31, "at most 16 MiB", "16777217"),
        ("NOTIFY fin 5 1 m a=string:\"x\"*9999999 b=binary:00*9999999", 51, "at most 16 MiB", "9999999"),
        (
            "NOTIFY fin 5 1 m a=string:\"xx\"*18446744073709551615",
            32,
            "at most 16 MiB",
            "18446744073709551615",
        ),
        (
            "NOTIFY fin 5 1 m a=string:\"\"*18446744073709551616",
            30,
            "a smaller number",
            "18446744073709551616",
        ),
        ("NOTIFY fin 5 1 m a=binary:012", 29, "two hexadecimal digits", "2"),
        ("NOTIFY fin 5 1 m a=binary:0g", 27, "two hexadecimal digits", "0g"),
        ("NOTIFY fin 5 1 m hex:00", 21, "`=` and a value", ":00"),
        ("NOTIFY fin 5 1 hex:00 m", 23, "`;` or the end", "m"),
        ("ACK fin 5 1 set sess", 21, "a name or `=`", ""),
        ("ACK fin 5 1 set session a=null", 17, "a scope", "session"),
        ("ACK fin 5 1 set txn a=null b=null", 28, "`;` or the end", "b=null"),
        ("ACK fin 5 1 del txn a", 13, "`set`, `unset`", "del"),
        ("ACK fin 5 1 unset txn a=null", 24, "a space", "=null"),
        ("AGENT-HELLO fin 0 0 a=null ; b=null", 28, "a name or `=`", ";"),
        ("UNSET fin 5 1 check-ip", 15, "`raw:` or `hex:`", "check-ip"),
        ("UNSET fin 5 1 items[3..2] a=null", 21, "a range inside the payload", "3..2]"),
        ("UNSET fin 5 1 items[..4] a=null", 21, "a range inside the payload", "..4]"),
        ("UNSET fin 5 1 items[4] a=null", 22, "`..`", "]"),
        ("UNSET fin 5 1 items[..4 a=null", 24, "`]`", " "),
        ("UNSET fin 5 1 items[..]a=null", 24, "a space", "a=null"),
    ] {
        let error = parse(line).expect_err(line);
        assert_eq!(
            (error.line, error.column, error.found.as_str()),
            (None, column, found),
            "{line}: {error}"
        );
        assert!(error.expected.starts_with(expected), "{line}: {error}");
    }
}

#[test]
fn a_message_has_at_most_255_arguments() {
    let mut line = format!("NOTIFY fin 5 1 m{}", " =null".repeat(255));
    assert_eq!(payload(&line)[..3], [1, b'm', 255]);
    assert_eq!(parse(&parse(&line).unwrap().to_string()), parse(&line));
    line.push_str(" a=null");
    assert_eq!(parse(&line).unwrap_err().expected, "at most 255 arguments in a message");
}

#[test]
fn a_known_type_called_unknown_prints_as_what_it_is_on_the_wire() {
    let header = Header { frame_type: FrameType::Unknown(3), flags: Flags::FIN, ids: Ids::ZERO };
    assert_eq!(print(Frame { header, payload: b"\x01m\x00" }).to_string(), "NOTIFY fin 0 0 m");
}

#[test]
fn a_transcript_is_its_lines() {
    let steps = transcript("# why\n\n  > NOTIFY fin 5 1 m\r\n\t<ACK fin 5 1\n   # done\n").unwrap();
    let read: Vec<_> = steps.iter().map(|step| (step.line, step.direction, step.to_string())).collect();
    assert_eq!(
        read,
        [
            (3, Direction::ToAgent, "> NOTIFY fin 5 1 m".into()),
            (4, Direction::ToHaproxy, "< ACK fin 5 1".into())
        ]
    );
    assert_eq!(transcript(""), Ok(vec![]));
    let error = transcript("> ACK fin 5 1\n\nACK fin 5 1").unwrap_err();
    assert_eq!(error.to_string(), "line 3, column 1: expected `>`, `<`, `#` or nothing, found `ACK`");
    let error = transcript("\n  > ACK fin 5").unwrap_err();
    assert_eq!(error.to_string(), "line 2, column 14: expected a frame-id, found the end of the line");
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[a-zA-Z0-9._-]{1,8}".prop_map(String::into_bytes),
        any::<String>().prop_map(String::into_bytes),
        collection::vec(any::<u8>(), 0..20),
        (any::<u8>(), 0_usize..80).prop_map(|(byte, len)| vec![byte; len]),
    ]
}

/// An encoded value of any type.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let text = (bytes(), any::<bool>());
    prop_oneof![
        Just(encoded(Value::Null)),
        any::<bool>().prop_map(|value| encoded(value.into())),
        any::<i32>().prop_map(|value| encoded(value.into())),
        any::<u32>().prop_map(|value| encoded(value.into())),
        any::<i64>().prop_map(|value| encoded(value.into())),
        any::<u64>().prop_map(|value| encoded(value.into())),
        any::<core::net::IpAddr>().prop_map(|value| encoded(value.into())),
        text.prop_map(|(bytes, binary)| encoded(if binary {
            Value::Binary(&bytes)
        } else {
            Value::String(&bytes)
        })),
    ]
}

fn encoded(value: Value<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    value.encode(&mut out);
    out
}

/// Encoded items, and their number.
fn items() -> impl Strategy<Value = (u8, Vec<u8>)> {
    collection::vec((bytes(), value()), 0..5).prop_map(|items| {
        let mut out = Vec::new();
        for (name, value) in &items {
            put_string(&mut out, name);
            out.extend(value);
        }
        (items.len() as u8, out)
    })
}

fn message() -> impl Strategy<Value = Vec<u8>> {
    (bytes(), items()).prop_map(|(name, (count, args))| {
        let mut out = Vec::new();
        put_string(&mut out, &name);
        out.push(count);
        out.extend(args);
        out
    })
}

fn action() -> impl Strategy<Value = Vec<u8>> {
    (sample::select(&Scope::ALL), bytes(), proptest::option::of(value())).prop_map(|(scope, name, value)| {
        let mut out = if value.is_some() { vec![1, 3, scope as u8] } else { vec![2, 2, scope as u8] };
        put_string(&mut out, &name);
        out.extend(value.unwrap_or_default());
        out
    })
}

/// A payload for this type of frame.
fn good_frame() -> impl Strategy<Value = (FrameType, Vec<u8>)> {
    let hello = [
        FrameType::HaproxyHello,
        FrameType::HaproxyDisconnect,
        FrameType::AgentHello,
        FrameType::AgentDisconnect,
    ];
    prop_oneof![
        (sample::select(hello.to_vec()), items()).prop_map(|(frame_type, (_, items))| (frame_type, items)),
        collection::vec(message(), 0..4).prop_map(|list| (FrameType::Notify, list.concat())),
        collection::vec(action(), 0..4).prop_map(|list| (FrameType::Ack, list.concat())),
    ]
}

fn header(frame_type: FrameType) -> impl Strategy<Value = Header> {
    let flags = prop_oneof![0..4_u32, any::<u32>()];
    (flags, any::<u64>(), any::<u64>()).prop_map(move |(flags, stream, frame)| Header {
        frame_type,
        flags: Flags(flags),
        ids: Ids::new(stream, frame),
    })
}

fn with_header(frame: impl Strategy<Value = (FrameType, Vec<u8>)>) -> impl Strategy<Value = OwnedFrame> {
    frame.prop_flat_map(|(frame_type, payload)| {
        header(frame_type).prop_map(move |header| OwnedFrame { header, payload: payload.clone() })
    })
}

/// Prints, parses and compares; returns the line.
fn round_trip(frame: &OwnedFrame) -> String {
    let line = frame.to_string();
    let parsed = parse(&line).unwrap_or_else(|error| panic!("{line}\n{error}"));
    assert_eq!(&parsed, frame, "{line}");
    assert_eq!(parsed.to_bytes(), frame.to_bytes());
    assert_eq!(parsed.to_string(), line);
    assert!(!line.contains(char::is_control), "{line:?}");
    line
}

proptest! {
    #[test]
    fn a_good_payload_prints_without_raw_data(frame in with_header(good_frame())) {
        let line = round_trip(&frame);
        // Quoted texts may contain anything, so they are removed before the comparison.
        let unescaped = line.replace("\\\\", "").replace("\\\"", "");
        let outside: String = unescaped.split('"').step_by(2).collect();
        prop_assert!(!outside.contains(" raw:") && !outside.contains(" hex:"), "{}", line);
    }

    #[test]
    fn a_damaged_payload_survives(
        frame in with_header(good_frame()),
        at: sample::Index,
        byte: u8,
        cut: sample::Index,
    ) {
        let mut frame = frame;
        if !frame.payload.is_empty() {
            let at = at.index(frame.payload.len());
            frame.payload[at] = byte;
            round_trip(&frame);
            frame.payload.truncate(cut.index(frame.payload.len()));
        }
        round_trip(&frame);
    }

    #[test]
    fn any_bytes_survive(
        frame in with_header((any::<u8>().prop_map(FrameType::from_byte), collection::vec(any::<u8>(), 0..200))),
        known in sample::select(&FrameType::KNOWN),
    ) {
        let mut frame = frame;
        round_trip(&frame);
        frame.header.frame_type = known;
        round_trip(&frame);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text: String, from in any::<sample::Index>()) {
        check(&text);
        let good = "NOTIFY fin 5 1 m";
        check(&format!("{}{text}", &good[..from.index(good.len())]));
        check(&format!("{good} a={text}"));
    }

    #[test]
    fn no_heap_of_words_makes_the_parser_panic(
        start in sample::select(vec!["NOTIFY fin 1 1 ", "ACK - 1 1 ", "AGENT-HELLO fin 0 0 ", "UNSET fin 1 1 ", "TYPE:"]),
        words in collection::vec(sample::select(vec![
            " ", " ", ";", "=", "a", "1", ",", "\"", "\"x\"", "*", "*3", "*40", "*99999999", "\\", "\\x0", "é", "0a", "[", "..", "]",
            "messages[", "items[", "actions[", "raw:", "hex:", "set ", "unset ", "txn ", "a=", "null", "bool:true", "int32:",
            "uint64:", "ipv4:1.2.3.4", "ipv6:::", "string:", "binary:", "fin", "0x", "\t", "\n",
        ]), 0..20),
    ) {
        check(&format!("{start}{}", words.concat()));
    }
}

/// Parses any text. What parses can be printed, and the printed line parses to the same frame.
fn check(text: &str) {
    if let Ok(frame) = parse(text) {
        round_trip(&frame);
    }
    let _ = transcript(text);
}

#[test]
fn a_message_list_is_parsed_from_its_sentence() {
    let list: MessageList = "a n=uint32:1 ; b".parse().unwrap();
    let mut same = MessageList::new();
    same.message("a").arg("n", 1_u32);
    same.message("b");
    assert_eq!(list, same);
    assert_eq!("".parse(), Ok(MessageList::new()));
    for (wrong, column) in [("a n=what", 5), ("a ; hex:05", 11)] {
        assert_eq!(wrong.parse::<MessageList>().unwrap_err().column, column, "{wrong}");
    }
}
