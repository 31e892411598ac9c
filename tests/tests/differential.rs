//! The codec against that of the `spop` crate, in both directions: what one writes the other reads, and of any bytes they
//! make the same. Where they do not, the case has a name here, and the specification says who is right.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // It is a test.

use std::borrow::Cow;

use proptest::{collection, prelude::*, sample::select};
use spop::{
    Metadata, SpopFrame, TypedData, VarScope,
    frame::{FrameFlags, FramePayload},
    frames::{
        Ack, AgentDisconnect, AgentHello, FrameCapabilities, HaproxyHello as TheirHello,
        haproxy_disconnect::HaproxyDisconnect,
    },
    parser::parse_frame,
    types::typed_data,
};
use spop_core::{
    Actions, MessageList, Scope, Status, Value,
    frame::{
        self, AckAction, AckActions, Capabilities, Disconnect, Flags, Frame, FrameType, HaproxyHello, Header,
        Ids, Messages, put_frame,
    },
    wire::{Malformed, Reader, put_varint},
};
use spop_tests::captures::{Capture, frames};

/// A value that both have, in their way.
fn value() -> impl Strategy<Value = TypedData> {
    let wide = prop_oneof![any::<u64>(), any::<u32>().prop_map(u64::from), 0..300_u64, 2_200..2_300_u64];
    prop_oneof![
        Just(TypedData::Null),
        any::<bool>().prop_map(TypedData::Bool),
        any::<i32>().prop_map(TypedData::Int32),
        any::<u32>().prop_map(TypedData::UInt32),
        any::<i64>().prop_map(TypedData::Int64),
        wide.prop_map(TypedData::UInt64),
        any::<[u8; 4]>().prop_map(|ip| TypedData::IPv4(ip.into())),
        any::<[u8; 16]>().prop_map(|ip| TypedData::IPv6(ip.into())),
        "\\PC{0,300}".prop_map(TypedData::String),
        collection::vec(any::<u8>(), 0..300).prop_map(TypedData::Binary),
    ]
}

fn as_ours(value: &TypedData) -> Value<'_> {
    match value {
        TypedData::Null => Value::Null,
        TypedData::Bool(value) => Value::Bool(*value),
        TypedData::Int32(value) => Value::Int32(*value),
        TypedData::UInt32(value) => Value::Uint32(*value),
        TypedData::Int64(value) => Value::Int64(*value),
        TypedData::UInt64(value) => Value::Uint64(*value),
        TypedData::IPv4(value) => Value::Ipv4(*value),
        TypedData::IPv6(value) => Value::Ipv6(*value),
        TypedData::String(value) => Value::String(value.as_bytes()),
        TypedData::Binary(value) => Value::Binary(value),
    }
}

/// What they make of a value of ours: a STRING that is no UTF-8 is rewritten.
fn as_theirs(value: Value<'_>) -> TypedData {
    match value {
        Value::Null => TypedData::Null,
        Value::Bool(value) => TypedData::Bool(value),
        Value::Int32(value) => TypedData::Int32(value),
        Value::Uint32(value) => TypedData::UInt32(value),
        Value::Int64(value) => TypedData::Int64(value),
        Value::Uint64(value) => TypedData::UInt64(value),
        Value::Ipv4(value) => TypedData::IPv4(value),
        Value::Ipv6(value) => TypedData::IPv6(value),
        Value::String(value) => TypedData::String(lossy(value).into_owned()),
        Value::Binary(value) => TypedData::Binary(value.into()),
    }
}

fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// Cases in which the other crate accepts what this one refuses. The specification is on this side each time: a 32-bit
/// integer has 32 bits, and a varint that would need more than 64 is no value of theirs either, they drop the bits.
const fn stricter(what: Malformed) -> bool {
    matches!(what, Malformed::Int32OutOfRange | Malformed::Uint32OutOfRange | Malformed::VarintTooLong)
}

type List = Vec<(String, Vec<(String, TypedData)>)>;

/// The messages that they find in a frame.
fn their_messages(bytes: &[u8]) -> Result<List, String> {
    let (rest, frame) = parse_frame(bytes).map_err(|error| format!("{error:?}"))?;
    assert!(rest.is_empty());
    let FramePayload::ListOfMessages(messages) = frame.payload() else { panic!("no NOTIFY") };
    Ok(messages.iter().map(|message| (message.name.clone(), message.args.clone())).collect())
}

/// The messages that we find, as they would have them.
fn our_messages(payload: &[u8]) -> Result<List, Malformed> {
    let messages = Messages::decode(payload).map_err(|error| error.what)?;
    let args = |message: frame::Message<'_>| {
        message.args().map(|(name, value)| (lossy(name).into_owned(), as_theirs(value))).collect()
    };
    Ok(messages.iter().map(|message| (lossy(message.name()).into_owned(), args(message))).collect())
}

fn notify(payload: &[u8], ids: Ids) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_frame(&mut bytes, Header { frame_type: FrameType::Notify, flags: Flags::FIN, ids }, payload);
    bytes
}

const SCOPES: [(Scope, VarScope); 5] = [
    (Scope::Process, VarScope::Process),
    (Scope::Session, VarScope::Session),
    (Scope::Transaction, VarScope::Transaction),
    (Scope::Request, VarScope::Request),
    (Scope::Response, VarScope::Response),
];

/// The only frame of these bytes.
fn only(bytes: &[u8]) -> Frame<'_> {
    let frames = frames(bytes).unwrap();
    assert_eq!(frames.len(), 1);
    frames[0]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn values_have_the_same_bytes(value in value(), number: u64, short in 0_u64..5_000) {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        as_ours(&value).encode(&mut ours);
        value.to_bytes(&mut theirs);
        prop_assert_eq!(&ours, &theirs);
        prop_assert_eq!(Reader::new(&theirs).value(), Ok(as_ours(&value)));
        for number in [number, short, u64::MAX - short] {
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            put_varint(&mut ours, number);
            spop::encode_varint_into(number, &mut theirs);
            prop_assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn any_bytes_are_the_same_value_or_a_case_with_a_name(
        first in select((0..=255_u8).filter(|byte| byte & 0x0f < 11).collect::<Vec<_>>()),
        rest in collection::vec(prop_oneof![Just(0xff_u8), Just(0x80), 0..20_u8, any::<u8>()], 0..40),
    ) {
        let bytes: Vec<u8> = std::iter::once(first).chain(rest).collect();
        let mut reader = Reader::new(&bytes);
        match (reader.value(), typed_data(&bytes)) {
            (Ok(ours), Ok((rest, theirs))) => {
                prop_assert_eq!(as_theirs(ours), theirs);
                prop_assert_eq!(reader.rest(), rest);
            }
            (Err(_), Err(_)) => {}
            (Err(what), Ok((_, theirs))) => prop_assert!(stricter(what), "{:?}, {:?}", what, theirs),
            (ours, theirs) => prop_assert!(false, "{:?}, {:?}", ours, theirs),
        }
    }

    #[test]
    fn our_notify_is_theirs(
        stream: u64,
        frame: u64,
        messages in collection::vec(("\\PC{0,20}", collection::vec(("\\PC{0,9}", value()), 0..6)), 0..5),
    ) {
        let mut list = MessageList::new();
        for (name, args) in &messages {
            let mut message = list.message(name);
            for (name, value) in args {
                message.arg(name, as_ours(value));
            }
        }
        let bytes = notify(list.as_bytes(), Ids::new(stream, frame));
        let (_, parsed) = parse_frame(&bytes).unwrap();
        let Metadata { flags, stream_id, frame_id } = *parsed.metadata();
        prop_assert!((stream_id, frame_id) == (stream, frame) && flags.is_fin() && !flags.is_abort());
        prop_assert_eq!(their_messages(&bytes).unwrap(), messages);
    }

    #[test]
    fn any_notify_is_the_same_or_a_case_with_a_name(
        payload in collection::vec(prop_oneof![4 => 0..6_u8, 2 => Just(0x11), 1 => Just(0xf8), 1 => any::<u8>()], 0..30),
    ) {
        match (our_messages(&payload), their_messages(&notify(&payload, Ids::new(1, 1)))) {
            (Ok(ours), Ok(theirs)) => prop_assert_eq!(ours, theirs),
            (Err(_), Err(_)) => {}
            (Err(what), Ok(theirs)) => prop_assert!(stricter(what), "{:?}, {:?}", what, theirs),
            (Ok(ours), Err(error)) => prop_assert!(false, "{:?}, {}", ours, error),
        }
    }

    #[test]
    fn acks_have_the_same_bytes(
        stream: u64,
        frame: u64,
        actions in collection::vec((select(SCOPES.to_vec()), "\\PC{0,20}", prop::option::of(value())), 0..8),
    ) {
        let (mut ours, mut ack) = (Actions::new(), Ack::new(stream, frame));
        for ((our_scope, their_scope), name, value) in &actions {
            match value {
                Some(value) => {
                    ours.set_var(*our_scope, name, as_ours(value));
                    ack = ack.set_var(*their_scope, name, value.clone());
                }
                None => {
                    ours.unset_var(*our_scope, name);
                    ack = ack.unset_var(*their_scope, name);
                }
            }
        }
        let theirs = ack.serialize().unwrap();
        let frame = only(&theirs);
        let header = Header { frame_type: FrameType::Ack, flags: Flags::FIN, ids: Ids::new(stream, frame.header.ids.frame) };
        prop_assert_eq!(frame.header, header);
        prop_assert_eq!(frame.payload, ours.as_bytes());
        let mut bytes = Vec::new();
        put_frame(&mut bytes, frame.header, ours.as_bytes());
        prop_assert_eq!(&bytes, &theirs);
        let read = AckActions::decode(frame.payload).unwrap();
        prop_assert_eq!(read.iter().count(), actions.len());
        for (action, ((scope, _), name, value)) in read.iter().zip(&actions) {
            let name = name.as_bytes();
            let expected = match value {
                Some(value) => AckAction::SetVar { scope: *scope, name, value: as_ours(value) },
                None => AckAction::UnsetVar { scope: *scope, name },
            };
            prop_assert_eq!(action, expected);
        }
    }

    #[test]
    fn hellos_and_disconnects_are_read_by_the_other(
        size in 256_u32..1 << 20,
        healthcheck: bool,
        engine_id in prop::option::of("[ -~]{1,40}"),
        pipelining: bool,
        code in 0_u32..1_000,
        message in "\\PC{0,50}",
    ) {
        let frame = |frame_type, payload: &[u8]| {
            let mut bytes = Vec::new();
            put_frame(&mut bytes, Header { frame_type, flags: Flags::FIN, ids: Ids::ZERO }, payload);
            bytes
        };
        // Engine to agent.
        let capabilities = if pipelining { Capabilities::PIPELINING } else { Capabilities::NONE };
        let mut payload = Vec::new();
        HaproxyHello {
            supported_versions: b"2.0",
            max_frame_size: size,
            capabilities: capabilities | Capabilities::ASYNC,
            healthcheck,
            engine_id: engine_id.as_deref().map(str::as_bytes),
        }
        .encode(&mut payload);
        let bytes = frame(FrameType::HaproxyHello, &payload);
        let hello = TheirHello::try_from(parse_frame(&bytes).unwrap().1.payload()).unwrap();
        prop_assert_eq!((hello.max_frame_size, hello.healthcheck.unwrap_or(false)), (size, healthcheck));
        prop_assert_eq!(&hello.engine_id, &engine_id);
        prop_assert_eq!(hello.capabilities.contains(&FrameCapabilities::Pipelining), pipelining);
        prop_assert!(hello.negotiate_version().is_some());
        let mut payload = Vec::new();
        Disconnect { status: Status(code), message: message.as_bytes() }.encode(&mut payload);
        let bytes = frame(FrameType::HaproxyDisconnect, &payload);
        let bye = HaproxyDisconnect::try_from(parse_frame(&bytes).unwrap().1.payload()).unwrap();
        prop_assert_eq!((bye.status_code, &bye.message), (code, &message));
        // Agent to engine.
        let theirs = AgentHello {
            version: spop::SUPPORTED_VERSION,
            max_frame_size: size,
            capabilities: hello.capabilities,
        };
        let bytes = theirs.serialize().unwrap();
        let ours = frame::AgentHello::decode(only(&bytes).payload, size).unwrap();
        prop_assert_eq!((ours.max_frame_size, ours.capabilities), (size, capabilities));
        let bytes = AgentDisconnect { status_code: code, message: message.clone() }.serialize().unwrap();
        let bye = Disconnect::decode(only(&bytes).payload).unwrap();
        prop_assert_eq!((bye.status, bye.message), (Status(code), message.as_bytes()));
    }
}

/// What the two make of the same bytes where they differ, and who is right by the specification.
#[test]
fn the_cases_in_which_they_differ() {
    fn value(bytes: &[u8]) -> (Result<Value<'_>, Malformed>, Option<TypedData>) {
        (Reader::new(bytes).value(), typed_data(bytes).ok().map(|(_, value)| value))
    }
    let wide = |first| {
        let mut bytes = vec![first];
        put_varint(&mut bytes, 1 << 32);
        bytes
    };
    // 3.1, "32bits signed integer": what has more bits is none. They cut them off. We are right.
    assert!(matches!(value(&wide(2)), (Err(Malformed::Int32OutOfRange), Some(TypedData::Int32(0)))));
    assert!(matches!(value(&wide(3)), (Err(Malformed::Uint32OutOfRange), Some(TypedData::UInt32(0)))));
    // A varint of more than 64 bits: they lose the bits above. We are right.
    let long = [5, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f];
    let (ours, theirs) = value(&long);
    assert_eq!(ours, Err(Malformed::VarintTooLong));
    assert!(theirs.is_none_or(|theirs| matches!(theirs, TypedData::UInt64(_))));
    // 3.1, "STRING : <8><LENGTH:varint><BYTES>": any bytes. They rewrite what is no UTF-8. We are right.
    let (ours, theirs) = value(&[8, 2, b'a', 0xff]);
    assert_eq!((ours, theirs), (Ok(Value::String(b"a\xff")), Some(TypedData::String("a\u{fffd}".into()))));

    let parses = |line: &str| parse_frame(&spop_core::notation::parse_bytes(line).unwrap()).is_ok();
    assert!(parses("NOTIFY fin 1 1 m"));
    // 3.2, fragments: a first frame without FIN, and frames of the type UNSET. They know neither. We are right.
    assert!(!parses("NOTIFY - 1 1 m") && !parses("UNSET fin 1 1"));
    // 3.2, ABORT "can be ignore for frames with an unfragemnted payload": they break off. Both are allowed.
    assert!(!parses("NOTIFY fin,abort 1 1 m"));
    // 3.2, flags 2 to 31 are reserved, which a receiver has to let pass if they are ever to be used: they break off.
    let mut reserved = spop_core::notation::parse_bytes("NOTIFY fin 1 1 m").unwrap();
    reserved[5] = 0x80;
    assert!(parse_frame(&reserved).is_err() && frames(&reserved).is_ok());
    // 3.2.2, "Unknown frames may be silently skipped": they break off. Both are allowed.
    assert!(!parses("TYPE:42 fin 1 1"));
    // 3.2.4 says nothing of a key that comes twice. They break off, the first counts for us: both are allowed.
    let hello = "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:256 capabilities=string:\"\"";
    let twice = format!("{hello} max-frame-size=uint32:999");
    assert!(parses(hello) && !parses(&twice));
    let twice = spop_core::notation::parse(&twice).unwrap();
    assert_eq!(HaproxyHello::decode(&twice.payload).unwrap().max_frame_size, 256);
    // 3.2.4, "max-frame-size" <UINT32>: they want that type, we take any integer, as HAProxy does. Both are allowed.
    let other = hello.replace("uint32", "int64");
    assert!(!parses(&other));
    assert_eq!(
        HaproxyHello::decode(&spop_core::notation::parse(&other).unwrap().payload).unwrap().max_frame_size,
        256
    );
    // 3.2.4, versions "Major.Minor": one that is not makes them break off, we look at the others. Both are allowed.
    let other = hello.replace("string:2.0", "string:\"2.0, x\"");
    assert!(!parses(&other));
    assert!(frame::Version::V2_0.is_announced_by(b"2.0, x"));
    assert!(FrameFlags::from_u32(1).is_ok());
}

/// What was recorded between HAProxy and an agent is the same to both.
#[test]
fn captures_are_the_same_to_both() {
    let (mut notifies, mut acks, mut as_sent, mut others, mut only_ours) = (0, 0, 0, 0, 0);
    for capture in Capture::all().unwrap() {
        for frame in capture.input.iter().flat_map(|input| frames(input).unwrap()) {
            let mut bytes = Vec::new();
            put_frame(&mut bytes, frame.header, frame.payload);
            let parsed = parse_frame(&bytes).map(|(_, frame)| frame);
            match frame.header.frame_type {
                FrameType::Notify if frame.header.flags == Flags::FIN => {
                    let ours = our_messages(frame.payload).unwrap();
                    assert_eq!(Ok(ours), their_messages(&bytes), "{}", capture.name);
                    notifies += 1;
                }
                FrameType::HaproxyHello | FrameType::HaproxyDisconnect => {
                    assert!(parsed.is_ok(), "{}", capture.name);
                    others += 1;
                }
                // Fragments and ABORT.
                _ => {
                    assert!(parsed.is_err(), "{}", capture.name);
                    only_ours += 1;
                }
            }
        }
        let output = capture.output.iter().filter_map(|output| frames(output).ok()).flatten();
        for frame in output.filter(|frame| frame.header.frame_type == FrameType::Ack) {
            let Ok(actions) = AckActions::decode(frame.payload) else { continue };
            let (mut ours, mut ack) =
                (Actions::new(), Ack::new(frame.header.ids.stream, frame.header.ids.frame));
            for action in &actions {
                let scope = |scope| SCOPES.iter().find(|(ours, _)| *ours == scope).unwrap().1;
                ack = match action {
                    AckAction::SetVar { scope: of, name, value } => {
                        ours.set_var(of, name, value);
                        ack.set_var(scope(of), &lossy(name), as_theirs(value))
                    }
                    AckAction::UnsetVar { scope: of, name } => {
                        ours.unset_var(of, name);
                        ack.unset_var(scope(of), &lossy(name))
                    }
                };
            }
            let mut bytes = Vec::new();
            put_frame(&mut bytes, Header { flags: Flags::FIN, ..frame.header }, ours.as_bytes());
            assert_eq!(ack.serialize().unwrap(), bytes, "{}", capture.name);
            // But for one recorded value, with flag bits that mean nothing, this is what the agent had sent.
            as_sent += usize::from(ours.as_bytes() == frame.payload);
            acks += 1;
        }
    }
    assert!(notifies > 200 && others > 100 && only_ours > 20, "{notifies} {others} {only_ours}");
    assert!(acks > 200 && as_sent + 4 >= acks, "{as_sent} of {acks}");
}
