//! The shapes of input.

use std::net::Ipv4Addr;

use spop_core::{
    AgentConfig,
    frame::{Flags, FrameType, Header, Ids, put_frame, put_message},
    notation,
    wire::{Value, put_varint},
};

use super::peer::Peer;

pub struct Shape {
    pub name: &'static str,
    pub config: fn(&mut AgentConfig),
    /// What arrives first and is not counted; nothing if the connection is not opened before.
    pub before: fn() -> Vec<u8>,
    /// What is counted.
    pub input: fn() -> Vec<u8>,
    /// The number of connections that receive it.
    pub connections: usize,
    /// The bytes of a read.
    pub read: usize,
    pub application: Application,
    /// How much more than an ordinary NOTIFY it may cost per byte.
    pub bound: f64,
    /// Whether the input did what its name says.
    pub check: fn(&Peer),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Application {
    /// Answers at once.
    Answer,
    /// Answers all when it has more than this many.
    Keep(usize),
    /// Refuses payloads that arrive.
    Refuse,
}

use Application::{Answer, Keep, Refuse};

const SHAPE: Shape = Shape {
    name: "",
    config: |_| (),
    before: session,
    input: Vec::new,
    connections: 1,
    read: 16 * 1024,
    application: Answer,
    bound: 10.0,
    check: |_| (),
};

/// The number of frames of a shape, unless it says another.
const FRAMES: u64 = 2_000;

/// The bytes that all connections of a shape receive.
pub fn bytes(shape: &Shape) -> usize {
    shape.connections * (shape.input)().len()
}

fn session() -> Vec<u8> {
    notation::parse_bytes(
        "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:1048576 \
         capabilities=string:pipelining,async,fragmentation engine-id=string:00000000-0000-0000-0000-000000000000",
    )
    .unwrap()
}

/// A HELLO with the payload of these keys.
fn hello(keys: &str) -> Vec<u8> {
    notation::parse_bytes(&format!(
        "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 {keys}"
    ))
    .unwrap()
}

fn frame(out: &mut Vec<u8>, frame_type: FrameType, flags: Flags, stream: u64, payload: &[u8]) {
    put_frame(out, Header { frame_type, flags, ids: Ids::new(stream, 1) }, payload);
}

/// So many frames, each with the number of its stream from 1.
fn frames(count: u64, mut one: impl FnMut(&mut Vec<u8>, u64)) -> Vec<u8> {
    let mut out = Vec::new();
    (1..=count).for_each(|n| one(&mut out, n));
    out
}

fn notify(out: &mut Vec<u8>, stream: u64, payload: &[u8]) {
    frame(out, FrameType::Notify, Flags::FIN, stream, payload);
}

fn first(out: &mut Vec<u8>, stream: u64, payload: &[u8]) {
    frame(out, FrameType::Notify, Flags::NONE, stream, payload);
}

fn more(out: &mut Vec<u8>, stream: u64, payload: &[u8]) {
    frame(out, FrameType::Unset, Flags::NONE, stream, payload);
}

fn ordinary() -> Vec<u8> {
    let mut payload = Vec::new();
    let agent = Value::String(b"Mozilla/5.0 (X11; Linux x86_64) Gecko Firefox/140");
    put_message(
        &mut payload,
        "check-client-ip",
        [("ip", Value::Ipv4(Ipv4Addr::new(203, 0, 113, 7))), ("ua", agent)],
    );
    payload
}

const EMPTY: &[u8] = b"\x00\x00";
const TINY: &[u8] = b"\x01m\x00";

fn watched(config: &mut AgentConfig) {
    config.watch_fragments = true;
    config.limits.max_messages = usize::MAX;
}

/// 256 payloads that were refused, whose remaining fragments may come.
fn after_refusals() -> Vec<u8> {
    let mut out = session();
    let long = vec![0; 600];
    for n in 1..=256 {
        first(&mut out, n, &long);
    }
    out
}

fn small_payloads(config: &mut AgentConfig) {
    config.limits.max_payload = 500;
}

macro_rules! shapes {
    ($($name:literal: { $($field:ident: $value:expr),* $(,)? })*) => {
        [$(Shape { name: $name, $($field: $value,)* ..SHAPE }),*]
    };
}

pub const SHAPES: [Shape; 48] = shapes! {
    "an ordinary NOTIFY of 92 bytes": {
        input: || frames(FRAMES, |out, n| notify(out, 70_000 + n, &ordinary())),
        check: |peer| assert_eq!(peer.counts.run as u64, FRAMES),
    }
    "a handshake": {
        before: Vec::new,
        input: session,
        connections: 50,
        check: |peer| assert!(peer.counts.sent > 0 && peer.counts.closed == 0),
    }

    // Messages.
    "a NOTIFY of one message of two bytes": {
        input: || frames(FRAMES, |out, n| notify(out, n, EMPTY)),
        check: |peer| assert_eq!(peer.counts.run as u64, FRAMES),
    }
    "128 messages of two bytes": {
        input: || frames(100, |out, n| notify(out, n, &EMPTY.repeat(128))),
        check: |peer| assert_eq!(peer.counts.run, 100),
    }
    "129 messages of two bytes": {
        input: || frames(100, |out, n| notify(out, n, &EMPTY.repeat(129))),
        check: |peer| assert_eq!(peer.counts.refused, 100),
    }
    "half a million messages of two bytes": {
        input: || frames(2, |out, n| notify(out, n, &EMPTY.repeat(500_000))),
        check: |peer| assert_eq!(peer.counts.refused, 2),
    }
    "half a million messages of two bytes, in fragments": {
        input: || frames(2, |out, n| {
            first(out, n, EMPTY);
            EMPTY.repeat(500_000).chunks(16_000).for_each(|part| more(out, n, part));
            frame(out, FrameType::Unset, Flags::FIN, n, b"");
        }),
        check: |peer| assert_eq!(peer.counts.refused, 2),
    }
    "a message of 255 arguments of two bytes": {
        input: || frames(200, |out, n| {
            let mut payload = b"\x01m\xff".to_vec();
            payload.extend(EMPTY.repeat(255));
            notify(out, n, &payload);
        }),
        check: |peer| assert_eq!(peer.counts.run, 200),
    }
    "arguments of the longest varints": {
        input: || frames(200, |out, n| {
            let arguments = vec![("", Value::Uint64(u64::MAX)); 255];
            let mut payload = Vec::new();
            put_message(&mut payload, "m", arguments);
            notify(out, n, &payload);
        }),
        check: |peer| assert_eq!(peer.counts.run, 200),
    }
    "a NOTIFY without messages": {
        input: || frames(FRAMES, |out, n| notify(out, n, b"")),
        check: |peer| assert!(peer.counts.sent as u64 >= 11 * FRAMES),
    }
    "the longest identifiers": {
        input: || frames(FRAMES, |out, n| {
            let ids = Ids::new(u64::MAX - FRAMES + n, u64::MAX);
            put_frame(out, Header { frame_type: FrameType::Notify, flags: Flags::FIN, ids }, TINY);
        }),
        check: |peer| assert_eq!(peer.counts.run as u64, FRAMES),
    }
    "a malformed argument behind a megabyte": {
        input: || frames(1, |out, n| {
            let mut payload = b"\x01m\x02\x00\x09".to_vec();
            put_varint(&mut payload, 1_000_000);
            payload.resize(payload.len() + 1_000_000, 0);
            payload.extend(b"\x00\x0f");
            notify(out, n, &payload);
        }),
        check: |peer| assert_eq!(peer.counts.closed, 1),
    }
    "each byte in a read of its own": {
        input: || frames(50, |out, n| notify(out, n, &ordinary())),
        read: 1,
        check: |peer| assert_eq!(peer.counts.run, 50),
    }

    // Frames that carry no request.
    "a frame of unknown type": {
        input: || frames(FRAMES, |out, n| frame(out, FrameType::Unknown(77), Flags::FIN, n, b"")),
    }
    "a long frame of unknown type": {
        input: || frames(10, |out, n| frame(out, FrameType::Unknown(77), Flags::FIN, n, &[0; 16_000])),
    }
    "an ABORT of nothing on a NOTIFY": {
        input: || frames(FRAMES, |out, n| frame(out, FrameType::Notify, Flags::ABORT, n, b"")),
        check: |peer| assert_eq!(peer.counts.dropped as u64, FRAMES),
    }

    // Requests in flight.
    "the same identifiers again": {
        input: || frames(FRAMES, |out, _| notify(out, 7, TINY)),
        application: Keep(usize::MAX),
        check: |peer| assert_eq!(peer.counts.superseded as u64, FRAMES - 1),
    }
    "identifiers that descend, 200 in flight": {
        input: || frames(FRAMES, |out, n| notify(out, 2 * FRAMES - n, TINY)),
        application: Keep(200),
        check: |peer| assert_eq!(peer.counts.run as u64, FRAMES),
    }
    "identifiers that descend, 10,000 in flight": {
        config: |config| config.limits.max_in_flight = 12_000,
        input: || frames(10_000, |out, n| notify(out, 20_000 - n, TINY)),
        application: Keep(usize::MAX),
        check: |peer| assert_eq!(peer.counts.run as u64, 10_000),
    }
    "a request and its ABORT": {
        input: || frames(FRAMES, |out, n| {
            notify(out, n, TINY);
            frame(out, FrameType::Unset, Flags::ABORT, n, b"");
        }),
        application: Keep(usize::MAX),
        check: |peer| assert_eq!(peer.counts.cancelled as u64, FRAMES),
    }
    "a request that gives up the one before": {
        before: || hello("capabilities=string:\"\""),
        input: || frames(FRAMES, |out, n| notify(out, n, TINY)),
        application: Keep(usize::MAX),
        check: |peer| assert_eq!(peer.counts.cancelled as u64, FRAMES - 1),
    }
    "more requests than may be in flight": {
        config: |config| config.limits.max_in_flight = 1,
        input: || frames(FRAMES, |out, n| notify(out, n, TINY)),
        application: Keep(usize::MAX),
        check: |peer| assert_eq!(peer.counts.run as u64, FRAMES),
    }

    // Fragments.
    "a payload in fragments of one byte": {
        before: || { let mut out = session(); first(&mut out, 7, b""); out },
        input: || ordinary().repeat(100).chunks(1).fold(Vec::new(), |mut out, part| { more(&mut out, 7, part); out }),
    }
    "empty fragments": {
        before: || { let mut out = session(); first(&mut out, 7, b""); out },
        input: || frames(FRAMES, |out, _| more(out, 7, b"")),
    }
    "sixteen payloads in fragments of one byte": {
        before: || {
            let mut out = session();
            (1..=16).for_each(|n| first(&mut out, n, b""));
            out
        },
        input: || frames(FRAMES, |out, n| more(out, 1 + n % 16, b"x")),
    }
    "whole requests between sixteen payloads": {
        before: || {
            let mut out = session();
            (1..=16).for_each(|n| first(&mut out, n, b"x"));
            out
        },
        input: || frames(FRAMES, |out, n| notify(out, 100 + n, TINY)),
        check: |peer| assert_eq!(peer.counts.run as u64, FRAMES),
    }
    "requests in two fragments": {
        input: || frames(FRAMES, |out, n| {
            first(out, n, TINY);
            frame(out, FrameType::Unset, Flags::FIN, n, b"");
        }),
        check: |peer| assert_eq!(peer.counts.run as u64, FRAMES),
    }
    "requests in two fragments, without messages": {
        input: || frames(FRAMES, |out, n| {
            first(out, n, b"");
            frame(out, FrameType::Unset, Flags::FIN, n, b"");
        }),
        check: |peer| assert!(peer.counts.sent as u64 >= 11 * FRAMES),
    }
    "a payload and its ABORT": {
        input: || frames(FRAMES, |out, n| {
            first(out, n, b"x");
            frame(out, FrameType::Unset, Flags::ABORT, n, b"");
        }),
        check: |peer| assert_eq!(peer.counts.dropped as u64, FRAMES),
    }
    "a payload that begins again": {
        input: || frames(FRAMES, |out, _| first(out, 7, b"x")),
        check: |peer| assert_eq!(peer.counts.dropped as u64, FRAMES - 1),
    }

    // Fragments that the application looks at.
    "watched, in fragments of one byte": {
        config: watched,
        before: || { let mut out = session(); first(&mut out, 7, b""); out },
        input: || ordinary().repeat(100).chunks(1).fold(Vec::new(), |mut out, part| { more(&mut out, 7, part); out }),
        check: |peer| assert!(peer.counts.fragments > 5_000),
    }
    "watched, many messages and empty fragments": {
        config: watched,
        before: || { let mut out = session(); first(&mut out, 7, &EMPTY.repeat(20_000)); out },
        input: || frames(FRAMES, |out, _| more(out, 7, b"")),
        check: |peer| assert_eq!(peer.counts.fragments, 0),
    }
    "watched, many messages and fragments of one byte": {
        config: watched,
        before: || { let mut out = session(); first(&mut out, 7, &EMPTY.repeat(20_000)); out },
        input: || frames(FRAMES, |out, _| more(out, 7, b"\0")),
        check: |peer| assert_eq!(peer.counts.fragments as u64, FRAMES),
    }
    "watched, more messages than the limit": {
        config: |config| config.watch_fragments = true,
        input: || frames(100, |out, n| first(out, n, &EMPTY.repeat(200))),
        check: |peer| assert_eq!(peer.counts.refused, 100),
    }
    "watched and refused": {
        config: watched,
        input: || frames(FRAMES, |out, n| first(out, n, b"x")),
        application: Refuse,
        check: |peer| assert_eq!(peer.counts.fragments as u64, FRAMES),
    }

    // Payloads that were refused.
    "payloads that are too long": {
        config: small_payloads,
        input: || frames(500, |out, n| first(out, n, &[0; 600])),
        check: |peer| assert_eq!(peer.counts.refused, 500),
    }
    "fragments of a refused payload": {
        config: small_payloads,
        before: || { let mut out = session(); first(&mut out, 7, &[0; 600]); out },
        input: || frames(FRAMES, |out, _| more(out, 7, b"")),
    }
    "fragments of the last of 256 refused payloads": {
        config: small_payloads,
        before: after_refusals,
        input: || frames(FRAMES, |out, _| more(out, 256, b"")),
    }
    "requests after 256 refused payloads": {
        config: small_payloads,
        before: after_refusals,
        input: || frames(FRAMES, |out, n| notify(out, 1_000 + n, TINY)),
        check: |peer| assert_eq!(peer.counts.run as u64, FRAMES),
    }
    "requests without messages after 256 refused payloads": {
        config: small_payloads,
        before: after_refusals,
        input: || frames(FRAMES, |out, n| notify(out, 1_000 + n, b"")),
    }
    "ABORTs of nothing after 256 refused payloads": {
        config: small_payloads,
        before: after_refusals,
        input: || frames(FRAMES, |out, n| frame(out, FrameType::Notify, Flags::ABORT, 1_000 + n, b"")),
    }

    // Before a session.
    "a HELLO with a thousand other keys": {
        before: Vec::new,
        input: || hello(&format!("capabilities=string:\"\" {}", "a=null ".repeat(3_000))),
        connections: 5,
        check: |peer| assert!(peer.counts.sent > 0 && peer.counts.closed == 0),
    }
    "a HELLO with many versions": {
        before: Vec::new,
        input: || notation::parse_bytes(&format!(
            "HAPROXY-HELLO fin 0 0 supported-versions=string:\"{}2.0\" max-frame-size=uint32:16380 capabilities=string:\"\"",
            "1.0,".repeat(3_000),
        )).unwrap(),
        connections: 5,
        check: |peer| assert!(peer.counts.sent > 0 && peer.counts.closed == 0),
    }
    "a HELLO with many capabilities": {
        before: Vec::new,
        input: || hello(&format!("capabilities=string:\"{}\"", "x,".repeat(6_000))),
        connections: 5,
        check: |peer| assert!(peer.counts.sent > 0 && peer.counts.closed == 0),
    }
    "a health check": {
        before: Vec::new,
        input: || hello("capabilities=string:\"\" healthcheck=bool:true"),
        connections: 50,
        check: |peer| assert_eq!(peer.counts.closed, 1),
    }
    "a length of four bytes that is too long": {
        before: Vec::new,
        input: || vec![0xff; 4],
        connections: 50,
        check: |peer| assert_eq!(peer.counts.closed, 1),
    }

    // After a session.
    "a DISCONNECT with a long message": {
        before: session,
        input: || notation::parse_bytes(&format!(
            "HAPROXY-DISCONNECT fin 0 0 status-code=uint32:0 message=string:\"{}\"", "x".repeat(16_000)
        )).unwrap(),
        check: |peer| assert_eq!(peer.counts.closed, 1),
    }
    "requests after a DISCONNECT": {
        before: || {
            let mut out = session();
            out.extend(notation::parse_bytes("HAPROXY-DISCONNECT fin 0 0 status-code=uint32:0 message=string:x").unwrap());
            out
        },
        input: || frames(FRAMES, |out, n| notify(out, n, TINY)),
        check: |peer| assert_eq!(peer.counts.run, 0),
    }
};
