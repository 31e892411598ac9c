//! Round trips of bytes, values, frames and notation.

use std::str;

use bytes::Bytes;

use spop_core::{
    Value,
    frame::{
        AckAction, AckActions, Actions, AgentHello, Disconnect, Frame, FrameType, HaproxyHello, Messages,
        OwnedMessages, put_message,
    },
    notation::{self, ParseError},
    wire::{Headers, KvList, Reader, put_headers, put_varint, varint_len},
};

/// Varints, strings, values and lists: decoded items encode to the same bytes.
pub fn wire(data: &[u8]) {
    let mut reader = Reader::new(data);
    if let Ok(value) = reader.varint() {
        let mut out = Vec::new();
        put_varint(&mut out, value);
        assert_eq!(out, data[..data.len() - reader.len()]);
        assert_eq!(out.len(), varint_len(value));
    }
    let mut rest = data;
    loop {
        let mut reader = Reader::new(rest);
        let Ok(value) = reader.value() else { break };
        same_value(value, &rest[..rest.len() - reader.len()]);
        rest = reader.rest();
    }

    if let Ok(headers) = Headers::decode(data) {
        let mut out = Vec::new();
        // Lengths have one encoding. Headers that HTTP does not allow are rejected.
        let good = put_headers(&mut out, headers.iter()).is_ok();
        assert_eq!(out, if good { data } else { &[] });
        assert!(headers.iter().all(|(name, _)| !name.is_empty()));
    }

    if let Ok(list) = KvList::decode(data) {
        for (name, value) in &list {
            assert!(str::from_utf8(name).is_err() || list.get(str::from_utf8(name).unwrap()).is_some());
            let _ = (value.as_integer(), value.as_ip(), value.as_str(), value.as_bool());
        }
    }
}

/// A value encodes to the bytes it was decoded from, except for reserved flag bits.
fn same_value(value: Value<'_>, bytes: &[u8]) {
    let mut out = Vec::new();
    value.encode(&mut out);
    assert_eq!(out.len(), value.encoded_len());
    assert_eq!(out[1..], bytes[1..]);
    assert_eq!(out[0] & 0x0f, bytes[0] & 0x0f);
    assert_eq!(Reader::new(&out).value(), Ok(value));
}

/// Frames and their payloads: decoding, encoding and decoding again gives the same.
pub fn frames(data: &[u8]) {
    let Ok(frame) = Frame::decode(data) else { return };
    let mut out = Vec::new();
    frame.encode(&mut out);
    assert_eq!(out.len(), 4 + data.len());
    assert_eq!(out[..4], u32::try_from(data.len()).unwrap().to_be_bytes());
    assert_eq!(out[4..], *data);

    // Every decoder must accept any payload, whatever the type.
    hellos(frame.payload);
    disconnect(frame.payload);
    messages(frame.payload);
    actions(frame.payload);
}

fn hellos(payload: &[u8]) {
    let mut out = Vec::new();
    if let Ok(hello) = HaproxyHello::decode(payload) {
        hello.encode(&mut out);
        assert_eq!(HaproxyHello::decode(&out), Ok(hello));
        assert!(hello.max_frame_size >= 256);
    }
    out.clear();
    if let Ok(hello) = AgentHello::decode(payload, 16_380) {
        hello.encode(&mut out);
        assert_eq!(AgentHello::decode(&out, 16_380), Ok(hello));
        assert!((256..=16_380).contains(&hello.max_frame_size));
    }
}

fn disconnect(payload: &[u8]) {
    if let Ok(disconnect) = Disconnect::decode(payload) {
        let mut out = Vec::new();
        disconnect.encode(&mut out);
        assert_eq!(Disconnect::decode(&out), Ok(disconnect));
    }
}

fn messages(payload: &[u8]) {
    let whole = Messages::decode(payload);
    let owned = OwnedMessages::decode(Bytes::copy_from_slice(payload));
    assert_eq!(whole.as_ref().err(), owned.as_ref().err());
    let Ok(messages) = whole else { return };
    let (mut out, mut text) = (Vec::new(), true);
    for message in messages {
        let args: Vec<_> =
            message.args().map(|(name, value)| (str::from_utf8(name).unwrap_or_default(), value)).collect();
        text &= str::from_utf8(message.name()).is_ok()
            && message.args().all(|(name, _)| str::from_utf8(name).is_ok());
        put_message(&mut out, str::from_utf8(message.name()).unwrap_or_default(), args);
    }
    let again = Messages::decode(&out).expect("what was written can be read");
    if text {
        assert_eq!(out.len(), payload.len());
        for (one, two) in messages.iter().zip(again) {
            assert_eq!(one.name(), two.name());
            assert!(one.args().eq(two.args()));
        }
    }
}

fn actions(payload: &[u8]) {
    let lenient = AckActions::lenient(payload);
    let strict = AckActions::decode(payload);
    assert_eq!(lenient.error(), strict.as_ref().err().copied());
    let mut actions = Actions::new();
    for action in &lenient {
        match action {
            AckAction::SetVar { scope, name, value } => actions.set_var(scope, name, value),
            AckAction::UnsetVar { scope, name } => actions.unset_var(scope, name),
        };
    }
    let again = AckActions::decode(actions.as_bytes()).expect("what was written can be read");
    assert!(again.iter().eq(&lenient));
    if strict.is_ok() {
        assert_eq!(actions.as_bytes().len(), payload.len());
    }
}

/// The notation: every frame prints and parses back to itself; every text parses to an error or a frame.
pub fn notation(data: &[u8]) {
    if let Ok(frame) = Frame::decode(data) {
        let sentence = notation::print(frame).to_string();
        assert!(!sentence.contains('\n'), "{sentence}");
        assert_eq!(notation::parse(&sentence).map(|owned| owned.as_frame() == frame), Ok(true), "{sentence}");
        let step = notation::transcript(&format!("# x\n> {sentence}\n")).expect("a transcript of it");
        assert_eq!(step[0].frame.as_frame(), frame);
    }
    let Ok(text) = str::from_utf8(data) else { return };
    match notation::parse(text) {
        Ok(frame) => {
            let sentence = frame.to_string();
            let again = notation::parse(&sentence).unwrap_or_else(|error| panic!("{sentence}\n{error}"));
            assert_eq!(again, frame, "{sentence}");
            assert_eq!(again.to_string(), sentence);
            assert_eq!(notation::parse_bytes(text), Ok(frame.to_bytes()));
        }
        Err(error) => points_into(text, &error),
    }
    if let Err(error) = notation::transcript(text) {
        let line = text.lines().nth(error.line.expect("a line") - 1).expect("a line of the text");
        points_into(line, &error);
    }
}

fn points_into(line: &str, error: &ParseError) {
    assert!((1..=line.chars().count() + 1).contains(&error.column), "{error}");
    assert!(!error.expected.is_empty() && !error.to_string().is_empty());
}

/// The types of frames that a fuzzer picks from.
pub(super) const TYPES: [FrameType; 10] = [
    FrameType::Notify,
    FrameType::Unset,
    FrameType::Ack,
    FrameType::HaproxyDisconnect,
    FrameType::AgentDisconnect,
    FrameType::HaproxyHello,
    FrameType::AgentHello,
    FrameType::Unknown(42),
    FrameType::Notify,
    FrameType::Unset,
];
