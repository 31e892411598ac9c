//! The table of legal frames per phase: as a snapshot, and compared with the documentation.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // It is a test.

extern crate alloc;

#[allow(dead_code, unreachable_pub)] // Not all tests need all of it.
#[path = "../src/testing/transcript/inbox.rs"]
mod inbox;

use std::{collections::BTreeSet, env, fmt::Write as _, fs, path::Path, sync::Arc, time::Duration};

use inbox::Inbox;
use spop_core::{
    Action, AgentReactor, CloseReason, ConnectionId, Status, Timestamp,
    frame::{Flags, FrameType},
    link::{Illegal, Phase, Side, Verdict, judge},
    notation,
};

const SIDES: [Side; 2] = [Side::Engine, Side::Agent];
const FLAGS: [(&str, Flags); 5] = [
    ("-", Flags::NONE),
    ("fin", Flags::FIN),
    ("abort", Flags(2)),
    ("fin,abort", Flags::ABORT),
    ("reserved", Flags(0x8000_0000)),
];

fn types() -> impl Iterator<Item = FrameType> {
    FrameType::KNOWN.into_iter().chain([FrameType::Unknown(42)])
}

fn source(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(path);
    fs::read_to_string(path).unwrap()
}

/// Compares with `snapshots/NAME`, or writes it if the variable UPDATE is set.
fn snapshot(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(name);
    if env::var_os("UPDATE").is_some() {
        fs::write(&path, found).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    for (line, (expected, found)) in (1..).zip(expected.lines().zip(found.lines())) {
        assert_eq!(expected, found, "{name}:{line}; UPDATE=1 rewrites it");
    }
    assert_eq!(expected.lines().count(), found.lines().count(), "{name}; UPDATE=1 rewrites it");
}

#[test]
fn every_phase_side_type_and_flag_has_its_verdict() {
    let mut table =
        String::from("# What a frame is to its receiver. UPDATE=1 cargo test rewrites this file.\n");
    for phase in Phase::ALL {
        for side in SIDES {
            write!(table, "\n{:<38}", format!("{phase:?}, {side:?} sends")).unwrap();
            for (name, _) in FLAGS {
                write!(table, "{name:<14}").unwrap();
            }
            table.truncate(table.trim_end().len());
            table.push('\n');
            for frame_type in types() {
                write!(table, "    {:<34}", frame_type.to_string()).unwrap();
                for (_, flags) in FLAGS {
                    let verdict = match judge(phase, side, frame_type, flags) {
                        Verdict::Illegal(why) => format!("!{why:?}"),
                        legal => format!("{legal:?}"),
                    };
                    write!(table, "{verdict:<14}").unwrap();
                }
                table.truncate(table.trim_end().len());
                table.push('\n');
            }
        }
    }
    snapshot("verdicts.txt", &table);
}

#[test]
fn flags_that_are_reserved_change_no_verdict() {
    for phase in Phase::ALL {
        for side in SIDES {
            for byte in 0..=u8::MAX {
                let frame_type = FrameType::from_byte(byte);
                for low in 0..4 {
                    let plain = judge(phase, side, frame_type, Flags(low));
                    for bit in 2..32 {
                        assert_eq!(judge(phase, side, frame_type, Flags(low | 1 << bit)), plain);
                    }
                }
            }
        }
    }
}

/// A cell of the table in the documentation of `judge`: frames, and the phase that a frame leads to.
fn cell(cell: &str) -> BTreeSet<(FrameType, Option<String>)> {
    cell.split(", ")
        .map(|item| {
            let (name, to) = match item.split_once(" → ") {
                Some((name, phase)) => (name, Some(phase.trim_matches('`').to_owned())),
                None => (item, None),
            };
            let known = FrameType::KNOWN.into_iter().find(|known| known.to_string() == name);
            (known.unwrap_or_else(|| panic!("{name} is no frame")), to)
        })
        .collect()
}

#[test]
fn the_table_in_the_documentation_is_what_the_code_does() {
    let source = source("link/table.rs");
    let rows: Vec<Vec<&str>> = source
        .lines()
        .filter_map(|line| line.strip_prefix("/// | `"))
        .map(|row| row.trim_end_matches(" |").split(" | ").collect())
        .collect();
    assert_eq!(rows.len(), Phase::ALL.len(), "a row for each phase");
    for (row, phase) in rows.iter().zip(Phase::ALL) {
        assert_eq!(row[0].trim_end_matches('`'), format!("{phase:?}"));
        for (text, side) in row[1..].iter().zip(SIDES) {
            let says = *text;
            if says == "anything is discarded" {
                for frame_type in types() {
                    for (_, flags) in FLAGS {
                        assert_eq!(judge(phase, side, frame_type, flags), Verdict::Discard);
                    }
                }
                continue;
            }
            let does: BTreeSet<_> = FrameType::KNOWN
                .into_iter()
                .filter_map(|frame_type| {
                    let to = match (judge(phase, side, frame_type, Flags::FIN), side) {
                        (Verdict::Illegal(_), _) => return None,
                        (Verdict::Hello, Side::Engine) => Some("Greeted".to_owned()),
                        (Verdict::Hello, Side::Agent) => Some("Established".to_owned()),
                        (Verdict::Disconnect, _) => Some("Closing".to_owned()),
                        _ => None,
                    };
                    Some((frame_type, to))
                })
                .collect();
            assert_eq!(cell(says), does, "{phase:?}, {side:?}");
        }
    }
}

#[test]
fn the_words_below_the_table_are_what_the_code_does() {
    let source = source("link/table.rs").replace("\n/// ", " ");
    for words in [
        "Frames of unknown type are skipped once the sender's HELLO has passed.",
        "HELLO and DISCONNECT need FIN.",
        "ABORT, with FIN or without, ends a payload; on a HELLO or DISCONNECT it means nothing.",
    ] {
        assert!(source.contains(words), "{words}");
    }
    for phase in [Phase::Connected, Phase::Greeted, Phase::Established] {
        for side in SIDES {
            let greeted = phase >= if side == Side::Engine { Phase::Greeted } else { Phase::Established };
            for (_, flags) in FLAGS {
                let skipped = judge(phase, side, FrameType::Unknown(42), flags) == Verdict::Skip;
                assert_eq!(skipped, greeted, "{phase:?} {side:?}");
            }
            for frame_type in FrameType::KNOWN {
                let verdict = |flags| judge(phase, side, frame_type, flags);
                if matches!(verdict(Flags::FIN), Verdict::Hello | Verdict::Disconnect) {
                    assert_eq!(verdict(Flags::NONE), Verdict::Illegal(Illegal::Fragmented));
                    assert_eq!(verdict(Flags::ABORT), verdict(Flags::FIN));
                } else if !matches!(verdict(Flags::FIN), Verdict::Illegal(_)) {
                    assert_eq!(verdict(Flags::ABORT), Verdict::Abort);
                    assert_eq!(verdict(Flags(2)), Verdict::Abort);
                } else {
                    assert_eq!(
                        verdict(Flags::NONE),
                        verdict(Flags::ABORT),
                        "{phase:?} {side:?} {frame_type}"
                    );
                }
            }
        }
    }
}

// ---- the diagram on `AgentReactor` ----

const HELLO: &str = "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 \
                     capabilities=string:pipelining,async";

struct Machine {
    reactor: AgentReactor,
    now: Timestamp,
    inbox: Inbox,
}

impl Machine {
    fn new(phase: Phase) -> Self {
        let now = Timestamp::ZERO;
        let reactor = AgentReactor::new(Arc::default(), ConnectionId(1), now);
        let mut machine = Self { reactor, now, inbox: Inbox::new() };
        if phase == Phase::Established {
            machine.receive(HELLO);
            let hello = machine.reactor.outgoing().len();
            let _ = machine.reactor.on_sent(now, hello);
        }
        assert_eq!(machine.reactor.phase(), phase);
        machine
    }

    fn receive(&mut self, line: &str) -> Option<CloseReason> {
        self.inbox.extend_from_slice(&notation::parse_bytes(line).unwrap());
        loop {
            match self.inbox.feed(|input| self.reactor.on_bytes(self.now, input)) {
                Action::Close(closed) => return Some(closed.reason),
                Action::SendFrames | Action::WantBytes { .. } | Action::Paused => return None,
                _ => {}
            }
        }
    }
}

#[test]
fn the_diagram_on_the_reactor_is_what_the_code_does() {
    let source = source("agent/reactor.rs");
    let line = |start: &str| {
        let found =
            source.lines().find_map(|line| line.strip_prefix("///   ").filter(|line| line.contains(start)));
        found.unwrap_or_else(|| panic!("no {start} in the diagram")).to_owned()
    };
    // Connected ──HAPROXY-HELLO──▶ Greeted ──AGENT-HELLO──▶ Established ──DISCONNECT of either side──▶ Closing
    let path = line("Connected ──");
    let words: Vec<_> = path.split("──").map(|word| word.trim_matches(['▶', ' '])).collect();
    let phases: Vec<_> = words.iter().step_by(2).map(|&word| word.to_owned()).collect();
    assert_eq!(phases, Phase::ALL.map(|phase| format!("{phase:?}")));
    assert_eq!(words[1], "HAPROXY-HELLO");
    assert_eq!(words[3], "AGENT-HELLO");
    assert_eq!(words[5], "DISCONNECT of either side");
    let mut machine = Machine::new(Phase::Connected);
    assert_eq!(machine.receive(HELLO), None);
    assert_eq!(machine.reactor.phase(), Phase::Established);
    assert_eq!(machine.reactor.outgoing()[4], FrameType::AgentHello.byte());
    assert!(machine.receive("HAPROXY-DISCONNECT fin 0 0 status-code=uint32:0").is_some());
    assert_eq!(machine.reactor.phase(), Phase::Closing);
    let mut machine = Machine::new(Phase::Established);
    machine.reactor.disconnect(machine.now, Status::NORMAL, "");
    assert_eq!(machine.reactor.phase(), Phase::Closing);

    // NOTIFY, ACK and UNSET do not leave Established.
    assert!(line("NOTIFY, ACK, UNSET").contains("└──┘"));
    let mut machine = Machine::new(Phase::Established);
    for frame in ["NOTIFY fin 5 1 m", "NOTIFY - 7 1", "UNSET fin 7 1", "TYPE:42 fin 0 0"] {
        assert_eq!(machine.receive(frame), None);
        assert_eq!(machine.reactor.phase(), Phase::Established, "{frame}");
    }

    // Each of the three can end without a DISCONNECT of the peer.
    assert!(line("violation, timeout, end of input, failure").contains("┴"));
    for phase in [Phase::Connected, Phase::Established] {
        let mut machine = Machine::new(phase);
        assert!(matches!(machine.receive("ACK fin 5 1"), Some(CloseReason::Violation(_))));
        assert_eq!(machine.reactor.phase(), Phase::Closing);

        let mut machine = Machine::new(phase);
        // An idle session reads once more before it closes.
        let times_out = |_: u8| {
            let at = machine.reactor.deadline().unwrap().0;
            matches!(machine.reactor.on_timeout(at), Action::Close(_))
        };
        assert!((0..2).any(times_out));
        assert_eq!(machine.reactor.phase(), Phase::Closing);

        let mut machine = Machine::new(phase);
        let eof = machine.inbox.feed(|input| machine.reactor.on_input_eof(machine.now, input));
        assert!(matches!(eof, Action::Close(_)));
        assert_eq!(machine.reactor.phase(), Phase::Closing);

        let mut machine = Machine::new(phase);
        assert!(matches!(machine.reactor.on_transport_error(machine.now), Action::Close(_)));
        assert_eq!(machine.reactor.phase(), Phase::Closing);

        // No frame leads back to an earlier phase.
        for frame in [HELLO, "NOTIFY fin 5 1 m", "HAPROXY-DISCONNECT fin 0 0 status-code=uint32:0"] {
            assert_eq!(machine.receive(frame), None);
            assert_eq!(machine.reactor.phase(), Phase::Closing);
        }
        machine.now = machine.now + Duration::from_secs(3_600);
        let _ = machine.reactor.on_timeout(machine.now);
        assert_eq!(machine.reactor.phase(), Phase::Closing);
    }
}
