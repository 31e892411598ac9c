//! The link alone: frames in and out, interest and deadlines.

use alloc::{vec, vec::Vec};
use core::time::Duration;

use super::*;
use crate::{
    Status, Timestamp,
    config::{Limits, Timeouts},
    frame::{Flags, FrameType, HEADER_MAX, Header, Ids, put_frame},
};

const START: Timestamp = Timestamp::from_millis(1_000);
const MAX: u32 = 256;
const A: Ids = Ids::new(1, 1);
const B: Ids = Ids::new(2, 1);
const ACK: Header = Header { frame_type: FrameType::Ack, flags: Flags::FIN, ids: A };

fn established() -> Link {
    let mut link = Link::new(Side::Agent, MAX, START);
    link.phase = Phase::Established;
    link
}

fn at(seconds: u64) -> Timestamp {
    START + Duration::from_secs(seconds)
}

/// The next deadline without outstanding answers or backpressure.
fn next(link: &Link) -> Option<(Timestamp, Timer)> {
    link.deadline(&Timeouts::default(), false, || false)
}

fn frame(frame_type: FrameType, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put_frame(&mut bytes, Header { frame_type, ..ACK }, payload);
    bytes
}

/// Sends all outgoing bytes; returns how many.
fn send_all(link: &mut Link) -> usize {
    let n = link.outgoing().len();
    link.sent(n).unwrap();
    n
}

#[test]
fn a_link_reads_unless_it_is_full_or_the_input_is_over() {
    let mut link = established();
    let open = Interest { read: true, ..Interest::default() };
    assert_eq!(link.interest(false, false), open);
    assert_eq!(link.interest(true, false), Interest::default());
    link.push(ACK, b"");
    assert_eq!(link.interest(false, false), Interest { write: true, ..open });
    send_all(&mut link);
    link.input_ended();
    assert_eq!(
        (link.interest(false, false), link.interest(true, false)),
        (Interest::default(), Interest::default())
    );
}

#[test]
fn what_was_left_at_a_limit_goes_on_when_the_limit_is_gone() {
    let mut link = established();
    link.rest(9);
    assert_eq!(link.partial_bytes(), 9);
    link.pause(9);
    assert_eq!((link.partial_bytes(), link.is_paused()), (0, true));
    assert!(!link.interest(true, false).resume);
    assert!(link.interest(false, false).resume);
    link.rest(0);
    assert_eq!((link.partial_bytes(), link.is_paused()), (0, false));
    assert_eq!(link.interest(false, false), Interest { read: true, ..Interest::default() });
}

#[test]
fn closing_asks_for_one_step_after_the_other() {
    let mut link = established();
    link.set_layers(Layers::Data);
    link.push(ACK, b"");
    link.close();
    let reading = Interest { read: true, ..Interest::default() };
    assert_eq!(link.interest(false, false), Interest { write: true, ..reading });
    assert_eq!(next(&link), Some((at(1), Timer::Linger)));
    link.tick(at(1));
    send_all(&mut link);
    for (layer, seconds) in [(Layer::Data, 1), (Layer::Transport, 2)] {
        assert_eq!(link.interest(false, false), Interest { shut: Some(layer), ..reading });
        assert_eq!(next(&link), Some((at(seconds + 1), Timer::Linger)));
        link.write_shut(Progress::Started).unwrap();
        assert_eq!(link.interest(false, false).shut, Some(layer));
        link.tick(at(seconds + 1));
        link.write_shut(Progress::Done).unwrap();
    }
    assert_eq!(link.interest(false, false), reading);
    assert_eq!(next(&link), Some((at(4), Timer::Linger)));
    link.input_ended();
    assert_eq!(link.interest(false, false), Interest { close: true, ..Interest::default() });
    assert_eq!(next(&link), None);
    link.stage_timed_out();
    assert_eq!(link.closing.current(), Some(Stage::Close));
}

#[test]
fn a_step_that_is_overdue_is_left_and_what_cannot_leave_is_given_up() {
    let mut link = established();
    link.close();
    assert_eq!(link.interest(false, false).shut, Some(Layer::Transport));
    link.stage_timed_out();
    assert_eq!(link.closing.current(), Some(Stage::Linger));
    link.stage_timed_out();
    assert!(link.interest(false, false).close);

    let mut link = established();
    link.push(ACK, b"");
    link.close();
    // A slow flush makes progress, but its total time is limited.
    for seconds in 0..9 {
        link.tick(at(seconds));
        link.sent(1).unwrap();
    }
    assert_eq!(next(&link), Some((at(9), Timer::Linger)));
    link.tick(at(9));
    link.sent(1).unwrap();
    assert_eq!(next(&link), Some((at(10), Timer::Linger)));
    link.stage_timed_out();
    assert!(link.interest(false, false).close && link.outgoing().is_empty());
}

#[test]
fn after_the_end_of_input_a_closing_link_only_writes() {
    let mut link = established();
    link.push(ACK, b"");
    link.input_ended();
    link.close();
    assert_eq!(link.interest(false, false), Interest { write: true, ..Interest::default() });
}

#[test]
fn after_a_disconnect_the_close_of_the_peer_is_awaited_before_the_write_side_is_shut() {
    let reading = Interest { read: true, ..Interest::default() };
    let disconnected = || {
        let mut link = established();
        link.set_layers(Layers::Data);
        link.disconnect(Status::NORMAL, "bye");
        send_all(&mut link);
        assert_eq!((link.interest(false, false), link.closing.current()), (reading, Some(Stage::AwaitClose)));
        assert_eq!(next(&link), Some((at(1), Timer::Linger)));
        link
    };
    // The peer closes.
    let mut link = disconnected();
    link.input_ended();
    for layer in [Layer::Data, Layer::Transport] {
        assert_eq!(link.interest(false, false), Interest { shut: Some(layer), ..Interest::default() });
        link.write_shut(Progress::Done).unwrap();
    }
    assert!(link.interest(false, false).close);
    // The peer does not close: there is no second linger timeout after the shutdown.
    let mut link = disconnected();
    link.tick(at(1));
    link.stage_timed_out();
    for layer in [Layer::Data, Layer::Transport] {
        assert_eq!(link.interest(false, false).shut, Some(layer));
        link.write_shut(Progress::Done).unwrap();
    }
    assert!(link.interest(false, false).close);
}

#[test]
fn a_disconnect_is_cut_to_what_fits_at_a_character() {
    let said = |message: &str| {
        let mut link = established();
        link.disconnect(Status::NORMAL, message);
        let frame = crate::frame::Frame::decode(&link.outgoing()[4..]).unwrap();
        let disconnect = crate::frame::Disconnect::decode(frame.payload).unwrap();
        alloc::string::String::from_utf8(disconnect.message.to_vec()).unwrap()
    };
    assert_eq!(said("bye"), "bye");
    assert_eq!(said(&"x".repeat(180)), "x".repeat(180));
    assert_eq!(said(&"x".repeat(181)), "x".repeat(180));
    assert_eq!(said(&"é".repeat(91)), "é".repeat(90));
    assert_eq!(said(&alloc::format!("x{}", "é".repeat(90))), alloc::format!("x{}", "é".repeat(89)));
}

#[test]
fn a_frame_under_way_has_its_time_unless_nobody_reads() {
    type Begin = fn(&mut Link, &Limits);
    let limits = Limits::default();
    let beginnings: [(Timer, Begin); 2] = [
        (Timer::Frame, |link, _| link.rest(4)),
        (Timer::Fragment, |link, limits| {
            let _ = link.reassembly.begin(link.now, A, b"half", limits);
        }),
    ];
    for (timer, begin) in beginnings {
        let mut link = established();
        link.tick(at(1));
        begin(&mut link, &limits);
        assert_eq!(next(&link), Some((at(11), timer)), "and no idle timer");
        assert_eq!(
            link.deadline(&Timeouts::default(), false, || true),
            None,
            "no frame timeout under backpressure"
        );
        link.tick(at(5));
        link.under_backpressure();
        assert_eq!(next(&link), Some((at(15), timer)), "the timeout restarts when backpressure ends");
        // Without a frame timeout, the idle timeout applies.
        let patient = Timeouts { frame: None, ..Timeouts::default() };
        assert_eq!(link.deadline(&patient, false, || false), Some((at(600), Timer::Idle)));
        assert_eq!(link.deadline(&patient, true, || false), None);
        link.input_ended();
        assert_eq!(next(&link), None);
    }
}

#[test]
fn an_idle_link_ends_unless_it_owes_an_answer() {
    let mut link = established();
    assert_eq!(next(&link), Some((at(600), Timer::Idle)));
    assert_eq!(link.deadline(&Timeouts::default(), true, || false), None);
    link.tick(at(7));
    link.push(ACK, b"");
    assert_eq!(link.last_active(), at(7));
    send_all(&mut link);
    assert_eq!(next(&link), Some((at(607), Timer::Idle)));
}

#[test]
fn what_waits_to_be_sent_has_its_time_unless_it_waits_for_something_else() {
    let mut link = established();
    link.tick(at(3));
    link.push(ACK, b"");
    assert_eq!(next(&link), Some((at(33), Timer::Write)));

    let mut deferred = established();
    deferred.defer_output();
    assert!(deferred.is_deferred());
    deferred.push(ACK, b"");
    assert!(deferred.outgoing().is_empty());
    assert_eq!(next(&deferred), Some((at(600), Timer::Idle)));
    deferred.tick(at(100));
    deferred.input_ended();
    assert!(!deferred.is_deferred());
    assert_eq!(next(&deferred), Some((at(130), Timer::Write)));

    let mut both = established();
    both.defer_output();
    both.hold_output(true);
    both.push(ACK, b"");
    both.tick(at(100));
    both.input_ended();
    assert_eq!(next(&both), Some((at(130), Timer::Write)));

    let mut held = established();
    held.hold_output(true);
    assert_eq!(held.held_since(), None);
    held.push(ACK, b"");
    assert_eq!(held.held_since(), Some(START));
    assert_eq!((held.outgoing().len(), next(&held)), (0, None));
    held.hold_output(false);
    assert_eq!(next(&held), Some((at(30), Timer::Write)));

    // A part too short for a fragment waits for the application's next part: no timeout.
    let mut part = established();
    part.push_fragmented(FrameType::Ack, A, b"x", false);
    assert_eq!(next(&part), None);
}

/// The peer reads `each` bytes every 29 s while there are any: when the write timeout expires.
fn read_slowly(link: &mut Link, each: usize, mut refill: impl FnMut(&mut Link)) -> Option<u64> {
    for seconds in (29..100_000).step_by(29) {
        let due = next(link).filter(|(_, timer)| *timer == Timer::Write);
        if let Some((by, _)) = due.filter(|(by, _)| *by <= at(seconds)) {
            return Some(by.since(START).as_secs());
        }
        link.tick(at(seconds));
        link.sent(each.min(link.outgoing().len())).unwrap();
        refill(link);
    }
    None
}

#[test]
fn a_peer_that_reads_a_byte_now_and_then_does_not_keep_the_queue() {
    let queued = |bytes: usize| {
        let mut link = established();
        (0..bytes / 128).for_each(|_| link.push(ACK, &[0; 128 - 11]));
        link
    };
    // The first send sets the mark.
    assert_eq!(read_slowly(&mut queued(128 << 10), 1, |_| {}), Some(29 + 300));
    // Each mark is reached in time: by what was queued when it was set, however much is queued meanwhile.
    let refill = |link: &mut Link| link.push(ACK, &[0; 1_000 - 11]);
    assert_eq!(read_slowly(&mut queued(9_000), 1_000, refill), None);
    assert!(read_slowly(&mut queued(12_000), 1_000, refill).is_some());
    // A queue that empties has no mark.
    let refill = |link: &mut Link| {
        if link.nothing_to_send() {
            link.push(ACK, &[0; 2_000 - 11]);
        }
    };
    assert_eq!(read_slowly(&mut queued(2_048), 1_500, refill), None);
    let mut link = queued(2_048);
    link.sent(1).unwrap();
    send_all(&mut link);
    link.tick(at(1_000));
    link.push(ACK, b"");
    assert_eq!(next(&link), Some((at(1_030), Timer::Write)));
    // Bytes of a payload that are not in a fragment yet count, even if the peer empties the queue each time.
    let mut link = established();
    link.push_fragmented(FrameType::Ack, A, &vec![0; 128 << 10], true);
    assert_eq!(read_slowly(&mut link, usize::MAX, |_| {}), Some(29 + 300));
}

#[test]
fn output_is_not_held_back_for_a_peer_that_will_not_answer() {
    for end in [Link::input_ended, Link::close] {
        let mut link = established();
        end(&mut link);
        link.hold_output(true);
        link.push(ACK, b"");
        assert!(!link.outgoing().is_empty());
    }
}

#[test]
fn of_two_deadlines_at_one_time_the_first_counts() {
    let mut next = Earliest::default();
    for (seconds, timer) in [(2, Timer::Idle), (1, Timer::Write), (1, Timer::Frame), (3, Timer::Drain)] {
        next.offer(Some(at(seconds)), timer);
    }
    next.offer(None, Timer::Hello);
    assert_eq!(next.0, Some((at(1), Timer::Write)));
}

#[test]
fn what_is_missing_of_a_frame_is_said_exactly() {
    let whole = frame(FrameType::Notify, b"payload");
    for cut in 0..whole.len() {
        let mut input = Input::new(&whole[..cut]);
        let missing = if cut < 4 { 4 - cut } else { whole.len() - cut };
        assert_eq!(established().next(&mut input).unwrap().unwrap_err(), missing, "of {cut}");
    }
}

#[test]
fn frames_of_unknown_type_are_counted() {
    let mut link = established();
    let frames = frame(FrameType::Unknown(42), b"x").repeat(3);
    let mut input = Input::new(&frames);
    assert_eq!(link.next(&mut input).unwrap().unwrap_err(), 4);
    assert_eq!(link.skipped(), 3);
}

#[test]
fn a_whole_payload_is_found_if_it_is_there_and_of_its_type_and_not_too_long() {
    let whole = |bytes: &[u8], frame_type| {
        established().whole(bytes, Side::Engine, frame_type).map(|(ids, payload, end)| {
            assert_eq!(payload.as_ptr_range().end, bytes[..end].as_ptr_range().end);
            (ids, end - payload.len(), end)
        })
    };
    let head = 4 + ACK.encoded_len();
    let longest = frame(FrameType::Notify, &vec![0; MAX as usize - ACK.encoded_len()]);
    assert_eq!(longest.len(), 4 + MAX as usize);
    for bytes in [frame(FrameType::Notify, b""), frame(FrameType::Notify, b"abc"), longest] {
        assert_eq!(whole(&bytes, FrameType::Notify), Some((A, head, bytes.len())));
        let more = [&bytes[..], b"more"].concat();
        assert_eq!(whole(&more, FrameType::Notify), Some((A, head, bytes.len())));
        assert_eq!(whole(&bytes[..bytes.len() - 1], FrameType::Notify), None);
        assert_eq!(whole(&bytes, FrameType::Ack), None);
    }
    let too_long = frame(FrameType::Notify, &vec![0; MAX as usize - ACK.encoded_len() + 1]);
    assert_eq!(whole(&too_long, FrameType::Notify), None);
    let endless = [&[0xff; 4][..], &frame(FrameType::Notify, b"")[4..]].concat();
    let mut link = established();
    link.max_frame_size = u32::MAX;
    assert!(link.whole(&endless, Side::Engine, FrameType::Notify).is_none());
}

#[test]
fn an_answer_in_fragments_can_be_ended_while_it_is_made() {
    const FRAGMENT: usize = MAX as usize - HEADER_MAX;
    let begun = |parts: usize| {
        let mut link = established();
        for _ in 0..parts {
            link.push_fragmented(FrameType::Ack, A, &[0; FRAGMENT], false);
        }
        send_all(&mut link);
        link
    };
    let abort = |frame_type| {
        let mut bytes = Vec::new();
        put_frame(&mut bytes, Header { frame_type, flags: Flags::ABORT, ids: A }, b"");
        bytes
    };
    let mut link = begun(1);
    assert!(link.is_sending(A) && !link.is_sending(B), "the first part was sent, and more is to come");
    assert!(!link.abort_sending(B));
    assert!(link.abort_sending(A));
    assert!(!link.is_sending(A));
    assert_eq!(link.outgoing(), abort(FrameType::Unset));

    let mut link = begun(2);
    assert_eq!(link.abort_all_sending(), 1);
    assert_eq!(link.outgoing(), abort(FrameType::Unset));

    let mut link = begun(2);
    link.withdraw(B);
    assert!(link.outgoing().is_empty() && link.is_sending(A));
    link.withdraw(A);
    assert_eq!(link.outgoing(), abort(FrameType::Unset));
    let mut link = begun(0);
    link.push_fragmented(FrameType::Ack, A, b"x", false);
    link.withdraw(A);
    assert!(link.nothing_to_send(), "no fragment was queued");
}

#[test]
fn what_stood_behind_an_answer_that_is_withdrawn_leaves() {
    let mut link = established();
    link.push_fragmented(FrameType::Ack, A, b"x", false);
    link.push_fragmented(FrameType::Ack, B, b"y", true);
    assert!(link.outgoing().is_empty());
    link.withdraw(A);
    assert!(!link.outgoing().is_empty() && !link.is_fragmenting());
}

#[test]
fn memory_is_given_back_when_it_is_asked_for() {
    let waits = |after: fn(&mut Link)| {
        let mut link = established();
        link.push(ACK, &[0; 5_000]);
        link.push_fragmented(FrameType::Ack, A, b"x", true);
        let _ = link.reassembly.begin(START, A, b"half", &Limits::default());
        link.reassembly.drop_set(A);
        while send_all(&mut link) > 0 {}
        after(&mut link);
        (link.out.memory() > 0, link.sending.memory() + link.reassembly.memory() > 0)
    };
    assert_eq!(waits(|_| {}), (true, true));
    assert_eq!(waits(Link::trim), (false, false));
}

#[test]
fn each_illegal_frame_has_its_message() {
    for (why, text) in [
        (Illegal::BeforeHello, "the handshake must come first"),
        (Illegal::SecondHello, "the handshake was done already"),
        (Illegal::WrongSide, "only the other side sends such frames"),
        (Illegal::Fragmented, "such a frame must not be fragmented"),
    ] {
        let message = alloc::format!("{}", Violation::Illegal { header: ACK, why });
        assert!(message.contains(text), "{message}");
    }
}
