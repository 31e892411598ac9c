//! An agent whose requests select their answers, and engines of each profile.

// The fuzz target `pair` also compiles this module: no path may begin with `crate`.

use alloc::{vec, vec::Vec};
use core::time::Duration;

use spop_core::{
    Actions, EngineConfig, MessageList, Scope, Status, Value,
    link::Side,
    testing::{Call, Decision, Pair},
    wire::{Piece, Reader},
};

/// All profiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    Spec,
    Old,
    New,
}

impl Profile {
    pub(crate) const ALL: [Self; 3] = [Self::Spec, Self::Old, Self::New];

    pub(crate) fn config(self) -> EngineConfig {
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

/// A request of about `size` bytes. `answer` selects the decision of the handler.
pub(crate) fn question(answer: &[u32], size: usize) -> MessageList {
    let mut list = MessageList::new();
    let mut message = list.message("echo");
    for number in answer {
        message.arg("n", *number);
    }
    message.arg("body", Value::Binary(&vec![b'x'; size]));
    list
}

/// The agent's answer to a request that the engine did not send.
pub(crate) const GARBLED: Status = Status(900);

/// The handler: an answer of a given size after a given number of microseconds, or another decision.
pub(crate) fn handler(call: &Call<'_>) -> Decision {
    let integer = |value: Value<'_>| u32::try_from(value.as_integer()?).ok();
    let args = call.messages().get("echo").into_iter().flat_map(|message| message.args());
    let numbers: Vec<_> = args.filter_map(|(_, value)| integer(value)).collect();
    let [kind, size, micros] = numbers[..] else { return Decision::Disconnect(GARBLED) };
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

/// No frame exceeds the negotiated size, except for the HELLO, which is sent before.
pub(crate) fn check_frames<H>(pair: &Pair<H>, most: u32) {
    for side in [Side::Engine, Side::Agent] {
        let mut reader = Reader::new(pair.sent_by(side));
        while let Ok(prefix) = reader.array::<4>(Piece::FrameHeader) {
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
