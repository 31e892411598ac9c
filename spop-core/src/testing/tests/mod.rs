//! The two reactors against each other.

mod interop;
mod scenes;
mod transcripts;

use alloc::{vec, vec::Vec};
use core::time::Duration;

use proptest::{prelude::*, sample::select};

use super::*;
use crate::{Actions, Scope, Value, frame::Capabilities, wire::Reader};

/// All profiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Profile {
    Spec,
    Old,
    New,
}

impl Profile {
    fn config(self) -> EngineConfig {
        let mut config = match self {
            Self::Spec => EngineConfig::default(),
            Self::Old => EngineConfig::haproxy_2_6(),
            Self::New => EngineConfig::haproxy_3_1(),
        };
        config.engine_id = Some("an-id".into());
        config.timeouts.hello = Some(Duration::from_secs(5));
        config.timeouts.message = Some(Duration::from_secs(2));
        config.timeouts.idle = Some(Duration::from_secs(60));
        config
    }
}

fn capabilities() -> impl Strategy<Value = Capabilities> {
    any::<[bool; 3]>().prop_map(|wanted| {
        [Capabilities::FRAGMENTATION, Capabilities::PIPELINING, Capabilities::ASYNC]
            .into_iter()
            .zip(wanted)
            .filter(|(_, wanted)| *wanted)
            .fold(Capabilities::NONE, |all, (one, _)| all | one)
    })
}

fn profile() -> impl Strategy<Value = Profile> {
    select(vec![Profile::Spec, Profile::Old, Profile::New])
}

fn frame_size() -> impl Strategy<Value = u32> {
    select(vec![256, 257, 300, 1_024, 16_380])
}

prop_compose! {
    fn conditions()(
        cuts in prop_oneof![
            select(vec![Cuts::Whole, Cuts::Each, Cuts::Random]),
            prop::collection::vec(0_usize..300, 0..6).prop_map(Cuts::Lengths),
        ],
        latency in select(vec![0_u64, 1, 40_000]),
        bandwidth in select(vec![None, Some(1_u64 << 20), Some(1 << 24)]),
        buffer in select(vec![100_usize, 1 << 16]),
        seed: u64,
    ) -> Conditions {
        let latency = Duration::from_micros(latency);
        Conditions { latency, bandwidth, cuts, buffer, seed, record: true, lost_within: None }
    }
}

/// A request of about `size` bytes. `answer` selects the decision of the handler.
fn question(answer: &[u32], size: usize) -> MessageList {
    let mut list = MessageList::new();
    let mut message = list.message("echo");
    for number in answer {
        message.arg("n", *number);
    }
    message.arg("body", Value::Binary(&vec![b'x'; size]));
    list
}

/// The handler: an answer of a given size after a given number of microseconds, or another decision.
fn handler(call: &Call<'_>) -> Decision {
    let message = call.messages().get("echo").expect("the only message");
    let integer = |value: Value<'_>| u32::try_from(value.as_integer()?).ok();
    let numbers: Vec<_> = message.args().filter_map(|(_, value)| integer(value)).collect();
    let [kind, size, micros] = numbers[..] else { panic!("a question has three numbers") };
    let mut actions = Actions::new();
    actions.set_var(Scope::Transaction, "blob", Value::Binary(&vec![b'y'; size as usize]));
    match kind {
        0 => Decision::Now(actions),
        1 => Decision::After(Duration::from_micros(micros.into()), actions),
        2 => Decision::Never,
        3 => Decision::Fail("no".into()),
        4 => Decision::Abort,
        _ => Decision::Disconnect(Status(kind)),
    }
}

/// No frame exceeds the negotiated size.
fn check_frames<H>(pair: &Pair<H>, most: u32) {
    for side in [Side::Engine, Side::Agent] {
        let mut reader = Reader::new(pair.sent_by(side));
        while let Ok(prefix) = reader.array::<4>(crate::wire::Piece::FrameHeader) {
            let len = u32::from_be_bytes(prefix);
            assert!(
                (7..=most).contains(&len),
                "a frame of {len} bytes from the {side:?}, where {most} were agreed"
            );
            let rest = reader.rest();
            let Some(rest) = rest.get(len as usize..) else { break };
            reader = Reader::new(rest);
        }
    }
}
