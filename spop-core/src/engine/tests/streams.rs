//! Streams: their events, variables, times and log lines.

use super::*;
use crate::{
    Actions, Scope,
    engine::pool::{ConnectionCounts, Times},
    frame::AckActions,
    haproxy::{AgentSection, EventName, Sample, SkippedEvent, SpoeStream, Vars},
};

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn section() -> AgentSection {
    let mut section =
        AgentSection::new("eng").set_on_error("error").set_process_time("p").set_total_time("t");
    section.continue_on_error = true;
    section
}

fn actions(build: impl FnOnce(&mut Actions)) -> Vec<u8> {
    let mut actions = Actions::new();
    build(&mut actions);
    actions.as_bytes().to_vec()
}

fn int(vars: &Vars, name: &str) -> Option<i64> {
    match vars.get(name)? {
        Sample::Int(number) => Some(*number),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_error_ends_the_events_of_its_stream_unless_told_otherwise() {
    let mut vars = Vars::default();
    for go_on in [false, true] {
        let mut section = section();
        section.continue_on_error = go_on;
        let mut stream = SpoeStream::new(3);
        stream.begin(at(0)).unwrap();
        stream.end(at(1), &section, &mut vars, Err(EngineError::TooBig), Times::default()).unwrap();
        assert_eq!(stream.is_disabled(), !go_on);
        assert_eq!(stream.begin(at(2)).err(), (!go_on).then_some(SkippedEvent::Disabled));
        assert_eq!(
            (stream.times().last, stream.times().total.as_millis()),
            (Some(Duration::from_millis(1)), 1)
        );
        // The next transaction of the session enables the engine again.
        stream.skip();
        stream.next_transaction();
        assert_eq!(stream.begin(at(3)), Ok(Ids::new(3, 1)));
    }
}

#[test]
fn only_an_answer_moves_the_frame_id_on() {
    let (mut stream, mut vars, section) = (SpoeStream::new(0), Vars::default(), section());
    let mut ids = vec![];
    for outcome in
        [Err(EngineError::Timeout), Ok(&[][..]), Err(EngineError::Aborted), Ok(&[][..]), Ok(&[][..])]
    {
        ids.push(stream.begin(at(0)).unwrap().frame);
        assert_eq!(stream.begin(at(0)), Err(SkippedEvent::Busy), "events follow each other");
        let outcome = outcome.map(AckActions::lenient);
        assert!(stream.end(at(1), &section, &mut vars, outcome, Times::default()).is_some());
        assert!(
            stream.end(at(1), &section, &mut vars, Ok(AckActions::lenient(&[])), Times::default()).is_none()
        );
    }
    assert_eq!(ids, [1, 1, 2, 2, 3]);
    stream.next_transaction();
    assert_eq!(stream.begin(at(2)), Ok(Ids::new(0, 4)));
}

#[test]
fn the_variables_of_the_section_say_what_happened() {
    let (mut stream, mut vars, section) = (SpoeStream::new(9), Vars::default(), section());
    let answer = actions(|actions| {
        actions
            .set_var(Scope::Session, "unknown", 1_i32)
            .set_var(Scope::Process, "unknown", 1_i32)
            .set_var(Scope::Process, "p", 1_i32)
            .set_var(Scope::Transaction, "p", 99_i32);
    });
    stream.begin(at(10)).unwrap();
    stream.end(at(14), &section, &mut vars, Ok(AckActions::lenient(&answer)), Times::default());
    assert_eq!(
        (int(&vars, "txn.eng.p"), int(&vars, "txn.eng.t")),
        (Some(4), Some(4)),
        "set after the answer's"
    );
    assert_eq!((int(&vars, "txn.eng.error"), int(&vars, "sess.eng.unknown")), (None, Some(1)));
    assert_eq!(
        (int(&vars, "proc.eng.unknown"), int(&vars, "proc.eng.p")),
        (None, None),
        "the section names `p` in scope txn only"
    );
    stream.begin(at(20)).unwrap();
    stream.end(at(27), &section, &mut vars, Err(EngineError::Spop(Status(13))), Times::default());
    assert_eq!((int(&vars, "txn.eng.p"), int(&vars, "txn.eng.t")), (Some(7), Some(11)));
    assert_eq!(int(&vars, "txn.eng.error"), Some(256 + 13));
    // The variable keeps its value until it is set again.
    stream.begin(at(30)).unwrap();
    stream.end(at(30), &section, &mut vars, Ok(AckActions::lenient(&[])), Times::default());
    assert_eq!((int(&vars, "txn.eng.p"), int(&vars, "txn.eng.error")), (Some(0), Some(269)));
    // The agent may unset a variable that the configuration names.
    let answer = actions(|actions| _ = actions.unset_var(Scope::Transaction, "error"));
    stream.begin(at(31)).unwrap();
    stream.end(at(31), &section, &mut vars, Ok(AckActions::lenient(&answer)), Times::default());
    assert_eq!(int(&vars, "txn.eng.error"), None);
    // A skipped event sets nothing.
    stream.begin(at(50)).unwrap();
    stream.skip();
    assert_eq!((stream.begin(at(60)).is_ok(), int(&vars, "txn.eng.t")), (true, Some(11)));
}

#[test]
fn a_line_says_where_the_time_went() {
    let (mut stream, mut vars) = (SpoeStream::new(12), Vars::default());
    let load = ConnectionCounts { idles: 1, applets: 2, sending: 3, waiting: 4, errors: 5, processed: 6 };
    let millis = Duration::from_millis;
    let mut section = section();
    let mut line = |begun, ended, outcome: Result<&[u8], EngineError>, times| {
        stream.begin(at(begun)).unwrap();
        stream.encoded(at(begun + 1));
        let outcome = outcome.map(AckActions::lenient);
        let end = stream.end(at(ended), &section, &mut vars, outcome, times).unwrap();
        end.log_line(&section, EventName::Group("grp"), load).to_string()
    };
    let times = Times { queue: Some(millis(2)), wait: Some(millis(3)), ..Times::default() };
    assert_eq!(line(100, 110, Ok(&[]), times), "SPOE: [eng] <GROUP:grp> sid=12 st=0 1/2/3/4/10 1/2 3/4 5/6");
    let times = Times { queue: Some(millis(2)), ..Times::default() };
    assert_eq!(
        line(200, 205, Err(EngineError::Timeout), times),
        "SPOE: [eng] <GROUP:grp> sid=12 st=1 1/2/-1/-1/5 1/2 3/4 5/6"
    );
    assert!(section.logs(None) && section.logs(Some(EngineError::Timeout)));
    section.dontlog_normal = true;
    assert!(!section.logs(None) && section.logs(Some(EngineError::Timeout)));
}
