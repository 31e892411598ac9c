//! What HAProxy really sent goes into the agent's reactor, and what the agent really sent comes out of the encoder.

#![allow(clippy::unwrap_used, clippy::panic)] // It is a test.

use std::{collections::BTreeMap, time::Duration};

use spop_core::{
    Actions, AgentConfig, Scope, Value,
    frame::{AckAction, AckActions, Disconnect, Flags, Frame, FrameType, Ids, Messages, put_frame},
    link::Layers,
    notation,
    wire::{KvList, put_pair, put_string},
};
use spop_tests::{
    captures::{Capture, frames},
    driver::{Cuts, Driver},
    random::Random,
};

fn all() -> Vec<Capture> {
    let all = Capture::all().unwrap();
    assert!(all.len() > 100, "the captures are there");
    all
}

#[test]
fn frames_are_what_the_recorder_saw() {
    for capture in all() {
        for (to_agent, bytes) in [(true, &capture.input), (false, &capture.output)] {
            let Some(bytes) = bytes else { continue };
            let found: Vec<_> = frames(bytes).unwrap();
            let lines: Vec<_> = capture.lines(to_agent).collect();
            assert_eq!(found.len(), lines.len(), "{}", capture.name);
            for (frame, line) in found.iter().zip(lines) {
                let flags = match frame.header.flags.0 {
                    0 => "-",
                    1 => "FIN",
                    2 => "ABORT",
                    3 => "FIN|ABORT",
                    other => panic!("{}: flags {other}", capture.name),
                };
                let header = frame.header;
                let found =
                    (header.frame_type, flags, (header.ids.stream, header.ids.frame), frame.payload.len());
                assert_eq!(found, (line.frame_type, &*line.flags, line.ids, line.len.1), "{}", capture.name);
                assert_eq!(header.encoded_len() + frame.payload.len(), line.len.0, "{}", capture.name);
            }
        }
    }
}

#[test]
fn frames_decode_and_encode_to_the_same_bytes() {
    for capture in all() {
        for bytes in [&capture.input, &capture.output].into_iter().flatten() {
            let found = frames(bytes).unwrap();
            let (mut raw, mut typed) = (Vec::new(), Vec::new());
            // After a first fragment, and in it, there is no telling what a part of a payload is.
            for frame in &found {
                put_frame(&mut raw, frame.header, frame.payload);
                let payload = if whole(frame) { encoded(*frame) } else { frame.payload.to_vec() };
                put_frame(&mut typed, frame.header, &payload);
                let sentence = notation::print(*frame).to_string();
                assert_eq!(notation::parse(&sentence).unwrap().as_frame(), *frame, "{}", capture.name);
            }
            assert!(raw == *bytes, "{}", capture.name);
            // The recorded agent set flag bits without a meaning on one BOOL; they are never sent.
            if capture.name.ends_with("ack-all-types/conn-1") && typed != *bytes {
                let differ: Vec<_> =
                    typed.iter().zip(bytes).filter(|(ours, theirs)| ours != theirs).collect();
                assert_eq!(differ, [(&0x11, &0xf1)], "{}", capture.name);
            } else {
                assert!(typed == *bytes, "{}", capture.name);
            }
        }
    }
}

fn whole(frame: &Frame<'_>) -> bool {
    frame.header.flags == Flags::FIN && frame.header.frame_type != FrameType::Unset
}

/// Reads a payload, and writes what was read.
fn encoded(frame: Frame<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    match frame.header.frame_type {
        FrameType::Notify => {
            for message in Messages::decode(frame.payload).unwrap() {
                put_string(&mut out, message.name());
                out.push(u8::try_from(message.args().count()).unwrap());
                for (name, value) in message.args() {
                    put_string(&mut out, name);
                    value.encode(&mut out);
                }
            }
        }
        FrameType::Ack => {
            let mut actions = Actions::new();
            for action in &AckActions::decode(frame.payload).unwrap() {
                match action {
                    AckAction::SetVar { scope, name, value } => actions.set_var(scope, name, value),
                    AckAction::UnsetVar { scope, name } => actions.unset_var(scope, name),
                };
            }
            out.extend_from_slice(actions.as_bytes());
        }
        FrameType::HaproxyDisconnect | FrameType::AgentDisconnect => {
            Disconnect::decode(frame.payload).unwrap().encode(&mut out);
        }
        _ => {
            for (name, value) in &KvList::decode(frame.payload).unwrap() {
                put_pair(&mut out, std::str::from_utf8(name).unwrap(), value);
            }
        }
    }
    out
}

#[test]
fn messages_are_what_the_recorder_saw() {
    let mut checked = 0;
    for capture in all() {
        let Some(input) = &capture.input else { continue };
        for (frame, line) in frames(input).unwrap().iter().zip(capture.lines(true)) {
            if !whole(frame) || frame.header.frame_type != FrameType::Notify {
                continue;
            }
            let mut rest = &*line.payload;
            for message in Messages::decode(frame.payload).unwrap() {
                let name = std::str::from_utf8(message.name()).unwrap();
                let head = format!("{name}{{nargs={}", message.args().count());
                rest = after(rest, &head, &capture.name);
                for (name, value) in message.args() {
                    let name = std::str::from_utf8(name).unwrap();
                    if let Some(text) = described(value) {
                        rest = after(rest, &format!("{name}={text}"), &capture.name);
                        checked += 1;
                    }
                }
            }
        }
    }
    assert!(checked > 500, "{checked} values checked");
}

fn after<'a>(text: &'a str, what: &str, name: &str) -> &'a str {
    text.split_once(what).unwrap_or_else(|| panic!("{name}: no {what} in {text}")).1
}

/// A value in the recorder's words; `None` where they are abbreviated.
fn described(value: Value<'_>) -> Option<String> {
    Some(match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => format!("bool({value})"),
        Value::Int64(value) => format!("int64({value})"),
        Value::Ipv4(address) => format!("ipv4({address})"),
        Value::Ipv6(address) => format!("ipv6({address})"),
        Value::String(text) if text.len() < 20 && text.iter().all(u8::is_ascii_alphanumeric) => {
            format!("str('{}')", text.escape_ascii())
        }
        Value::String(_) | Value::Binary(_) => return None,
        other => panic!("HAProxy sends no {other:?}"),
    })
}

#[test]
fn every_input_gives_the_same_however_it_is_cut_and_each_notify_one_answer() {
    for capture in all() {
        let Some(input) = &capture.input else { continue };
        let config = capture.config().unwrap();
        for at_once in [true, false] {
            let name = format!("{}, answered {}", capture.name, if at_once { "at once" } else { "later" });
            let whole = replay(&config, input, Cuts::AsSent, at_once);
            let run = whole.log.iter().filter(|line| line.starts_with("RunMessages")).count();
            let ways = [Cuts::Joined, Cuts::Bytes]
                .into_iter()
                .chain((0..4).map(|seed| Cuts::Random(Random::seeded(seed))));
            for cuts in ways {
                let cut = replay(&config, input, cuts.clone(), at_once);
                assert_eq!(cut.log, whole.log, "{name} {cuts:?}");
                assert_eq!(cut.sent, whole.sent, "{name} {cuts:?}");
            }

            let mut answers: BTreeMap<Ids, usize> = BTreeMap::new();
            for frame in frames(&whole.sent).unwrap() {
                if frame.header.frame_type == FrameType::Ack && !frame.header.flags.is_abort() {
                    *answers.entry(frame.header.ids).or_default() += 1;
                }
            }
            if at_once {
                assert_eq!(answers, complete(input), "{name}");
                assert_eq!(answers.values().sum::<usize>(), run, "{name}");
            } else {
                // One answer for all that came under the same identifiers; none after a DISCONNECT, and none for what HAProxy
                // gave up, as far as the agent can tell.
                let disconnected = whole.log.iter().any(|line| line.starts_with("Close"));
                let abandoned = |ids: &Ids| {
                    let line = format!("CancelMessages {ids} Abandoned");
                    whole.log.iter().any(|said| said.starts_with(&line))
                };
                let once =
                    complete(input).into_keys().filter(|ids| !abandoned(ids)).map(|ids| (ids, 1)).collect();
                assert!(disconnected || answers == once, "{name}: {answers:?}");
            }
            for line in &whole.log {
                assert!(!line.contains("Violation"), "{name}: {line}");
            }
        }
    }
}

/// How many NOTIFYs are complete in this input, by identifiers.
fn complete(input: &[u8]) -> BTreeMap<Ids, usize> {
    let mut count = BTreeMap::new();
    for frame in frames(input).unwrap() {
        let header = frame.header;
        if matches!(header.frame_type, FrameType::Notify | FrameType::Unset) && header.flags == Flags::FIN {
            *count.entry(header.ids).or_default() += 1;
        }
    }
    count
}

fn replay(config: &AgentConfig, input: &[u8], cuts: Cuts, at_once: bool) -> Driver {
    let mut driver = Driver::new(config.clone(), Layers::Plain, cuts);
    let mut actions = Actions::new();
    actions.set_var(Scope::Transaction, "score", 7_i64);
    driver.at_once = at_once.then(|| actions.clone());
    for frame in frames(input).unwrap() {
        let mut bytes = Vec::new();
        put_frame(&mut bytes, frame.header, frame.payload);
        driver.send(&bytes);
    }
    driver.read();
    while !driver.tickets.is_empty() || !driver.reactor.outgoing().is_empty() {
        while !driver.tickets.is_empty() {
            driver.answer(0, &actions);
        }
        driver.take(usize::MAX);
        driver.wait(Duration::from_millis(1));
    }
    driver
}
