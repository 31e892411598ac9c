//! An agent's connection against the reference model.

use crate::{
    agent::{BOUNDS, Event, actions, config, hello, send, ways},
    driver::{Cuts, Driver},
    input::Input,
    model::{Bounds, Model},
};
use spop_core::{
    Status,
    frame::{Disconnect, Frame, FrameType},
    link::Layers,
};

/// The events that the model supports have the same results in the reactor and the model.
pub fn reference(data: &[u8]) {
    let mut input = Input::new(data);
    let switches = input.byte();
    let seed = input.number() as u64;
    let bounds = Bounds {
        fragmentation: switches & 0x0e != 0,
        in_flight: 1 + usize::from(switches >> 4) % 5,
        window: if switches >= 0xe0 { 1 } else { usize::MAX },
        ..BOUNDS
    };
    let mut events = Vec::new();
    while !input.is_empty() && events.len() < 100 {
        events.push(Event::read(&mut input));
    }
    for cuts in ways(seed) {
        against_the_model(bounds, &events, switches & 1 != 0, cuts);
    }
}

/// An event in the format of the model's log, if the model supports it.
fn words(line: &str) -> String {
    let count = match line.split(' ').next() {
        Some("RunMessages") => 2,
        Some("Close") => 3,
        _ => usize::MAX,
    };
    line.split(' ').take(count).collect::<Vec<_>>().join(" ")
}

fn sent(driver: &Driver, from: usize) -> Vec<String> {
    let mut rest = &driver.sent[from..];
    let mut found = Vec::new();
    while let Some((prefix, more)) = rest.split_first_chunk::<4>() {
        let (frame, more) = more.split_at(u32::from_be_bytes(*prefix) as usize);
        let frame = Frame::decode(frame).unwrap();
        found.push(match frame.header.frame_type {
            FrameType::Ack => {
                let flags = if frame.header.flags.is_abort() { "fin,abort" } else { "fin" };
                format!("ACK {} {flags} {}", frame.header.ids, frame.payload.len())
            }
            FrameType::AgentDisconnect => {
                format!("AGENT-DISCONNECT {}", Disconnect::decode(frame.payload).unwrap().status.0)
            }
            other => panic!("{other}"),
        });
        rest = more;
    }
    assert!(rest.is_empty(), "half a frame");
    found
}

/// Runs the events that the model supports, and compares actions and sent frames.
pub fn against_the_model(bounds: Bounds, events: &[Event], end: bool, cuts: Cuts) {
    let config = config(bounds);
    let mut driver = Driver::new(config, Layers::Plain, cuts);
    hello(&mut driver, if bounds.window == usize::MAX { "pipelining,async" } else { "pipelining" });
    let (log, out) = (driver.log.len(), driver.sent.len());
    let mut model = Model::new(bounds);
    // The model's numbers of the driver's tickets, in the driver's order.
    let (mut numbers, mut next) = (Vec::new(), 0);
    let mut events = events.to_vec();
    if end {
        events.push(Event::Eof);
    }
    // Finally all unanswered requests are answered.
    events.extend((0..40).flat_map(|_| [Event::Answer(0, 0), Event::Take]));
    for event in &events {
        match event {
            Event::Frames(burst) => {
                for frame in burst {
                    send(&mut driver, frame);
                    model.send(frame.clone());
                }
            }
            Event::Answer(index, len) if !numbers.is_empty() => {
                let index = index % numbers.len();
                let actions = actions(*len);
                driver.answer(index, &actions);
                let number = numbers.remove(index);
                if !model.answer(number, actions.as_bytes().len()) {
                    numbers.push(number);
                }
            }
            Event::AbortAnswer(index) if !numbers.is_empty() => {
                let index = index % numbers.len();
                driver.abort_answer(index);
                model.abort_answer(numbers.remove(index));
            }
            Event::Refuse(ids) => {
                driver.refuse(*ids);
                model.refuse(*ids);
            }
            Event::Take => {
                driver.take(usize::MAX);
                model.take();
            }
            Event::Disconnect(status) => {
                driver.disconnect(Status(u32::from(*status)), "");
                model.disconnect(*status);
            }
            Event::Eof => {
                driver.end();
                model.end();
            }
            _ => {}
        }
        driver.read();
        model.read();
        while numbers.len() < driver.tickets.len() {
            numbers.push(next);
            next += 1;
        }
        let found: Vec<_> = driver.log[log..].iter().map(|line| words(line)).collect();
        assert_eq!(found, model.events, "after {event:?}");
    }
    driver.take(usize::MAX);
    let mut found = sent(&driver, out);
    // Payloads dropped at the end are reported in any order.
    found.sort();
    model.frames.sort();
    assert_eq!(found, model.frames);
}
