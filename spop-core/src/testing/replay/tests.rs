use alloc::{string::ToString, vec};
use core::cell::Cell;

use super::*;
use crate::{Actions, Scope, notation};

/// Answers at once, after the time in the argument `ms`, or never if that is 0.
fn handler(call: &Call<'_>) -> Decision {
    let mut actions = Actions::new();
    actions.set_var(Scope::Session, "n", call.messages().len() as u64);
    match call.messages().arg::<Option<u64>>("ms") {
        Ok(Some(0)) => Decision::Never,
        Ok(Some(ms)) => Decision::After(Duration::from_millis(ms), actions),
        Ok(None) => actions.into(),
        Err(error) => Decision::Fail(error.to_string()),
    }
}

fn config() -> AgentConfig {
    let mut config = AgentConfig::default();
    config.timeouts.message = Some(Duration::from_millis(80));
    config
}

fn run(text: &str) -> Result<(), ReplayError> {
    replay(text, config(), || handler)
}

#[test]
fn these_hold() {
    run("
        > NOTIFY fin 1 1 a
        > NOTIFY fin 2 1 a ; b
        < ACK fin 1 1 set sess n=uint64:1
        < ACK fin 2 1 set sess n=uint64:2
        # In the order in which they are ready.
        > NOTIFY fin 3 1 a ms=uint32:50
        > NOTIFY fin 4 1 a ms=uint32:20
        * wait 19ms
        < ACK fin 4 1 set sess n=uint64:1
        < ACK fin 3 1 *
        ## A timeout.
        > NOTIFY fin 3 1 a ms=uint32:0
        * wait 79ms
        < ACK fin 3 1
        * close
        ## A handshake.
        > HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:1000 capabilities=string:\"\"
        < AGENT-HELLO fin 0 0 version=string:2.0 max-frame-size=uint32:1000 *
        > NOTIFY fin 1 1 a
        < ACK fin 1 1 set sess n=uint64:1
        > HAPROXY-DISCONNECT fin 0 0 status-code=uint32:0 message=string:normal
        < AGENT-DISCONNECT fin 0 0 *
    ")
    .unwrap();
}

#[test]
fn these_do_not_hold() {
    for (line, expected, found, text) in [
        (2, "`>`, `<`, `*`, `#` or nothing", "what", "\nwhat"),
        (1, "a time in ns, ms, s or m", "* wait 5", "* wait 5"),
        (1, "column 1: expected a frame type, such as NOTIFY or TYPE:42, found `NOTE`", "> NOTE", "> NOTE"),
        (1, "nothing more", "< ACK fin 1 1 set sess n=uint64:1", "> NOTIFY fin 1 1 a"),
        (2, "< ACK fin 1 2", "< ACK fin 1 1 set sess n=uint64:1", "> NOTIFY fin 1 1 a\n< ACK fin 1 2"),
        (
            2,
            "nothing before this wait",
            "< ACK fin 1 1 set sess n=uint64:1",
            "> NOTIFY fin 1 1 a\n* wait 1ms\n< ACK fin 1 1 set sess n=uint64:1",
        ),
        (1, "< ACK fin 1 1", "< AGENT-DISCONNECT fin 0 0", "< ACK fin 1 1"),
    ] {
        let error = run(text).unwrap_err();
        assert!(error.found.starts_with(found), "{error}");
        assert_eq!((error.line, error.expected.as_str()), (line, expected), "{text}");
    }
}

#[test]
fn an_error_says_why_the_handler_failed() {
    let error = run(
        "> NOTIFY fin 1 1 a ms=bool:true\n< ACK fin 1 1 *\n> NOTIFY fin 2 1 b ms=bool:true\n< ACK fin 2 2",
    );
    let error = error.unwrap_err();
    assert_eq!((error.line, error.way), (4, Some(Way::Whole)));
    assert!(error.failure.unwrap().contains("\"b\""));
}

#[test]
fn every_way_is_tried_with_a_handler_of_its_own() {
    let (mut made, calls) = (0, Cell::new(0));
    replay("> NOTIFY fin 1 1 a\n< ACK fin 1 1", config(), || {
        made += 1;
        let calls = &calls;
        move |_: &Call<'_>| {
            calls.set(calls.get() + 1);
            Actions::new().into()
        }
    })
    .unwrap();
    assert_eq!((made, calls.get()), (11, 11));
}

/// Reads of every length are among the ways.
#[test]
fn the_ways_differ() {
    let scenarios =
        parse("> NOTIFY fin 1 1 a\n> NOTIFY fin 2 1 a\n< ACK fin 1 1\n> NOTIFY fin 3 1 a").unwrap();
    let sends = |way| {
        let mut player = Player::new(&scenarios[0], way);
        player.receive(notation::parse_bytes("AGENT-HELLO fin 0 0").unwrap());
        let mut reads = vec![];
        while let Ok(Some(Todo::Send(bytes))) = player.next_todo() {
            reads.push(bytes.len());
        }
        reads
    };
    let whole = sends(Way::Whole);
    assert_eq!(whole[1..], [14, 14]);
    assert_eq!(sends(Way::Joined), [whole[0], 28]);
    assert!(sends(Way::Bytes).iter().all(|read| *read == 1));
    let random: vec::Vec<_> = (0..8).map(|seed| sends(Way::Random(seed))).collect();
    // The front of the third NOTIFY precedes the answer that is awaited.
    assert!(random.iter().any(|reads| reads.iter().sum::<usize>() > whole.iter().sum()));
    assert!(random.iter().all(|reads| reads.len() > 4), "{random:?}");
    assert!(random.iter().all(|reads| reads.iter().sum::<usize>() < whole.iter().sum::<usize>() + 14));
}
