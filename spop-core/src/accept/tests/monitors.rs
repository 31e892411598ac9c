//! Monitors: probes and their answers, also in lame duck.

use bytes::Bytes;

use super::*;

#[test]
fn a_probe_is_answered_and_closed() {
    let config = list([ping()]);
    for bytes in [&b"ping\n"[..], b"ping\nand\r\nmore"] {
        let trace = drive_cut(&config, &peer("192.0.2.1"), bytes, true);
        assert_eq!(trace.sent, b"pong\n");
        assert_eq!(trace.end(), &Accept::Close(Closing::Answered));
        let trace = drive_cut(&config, &peer("192.0.2.1"), bytes, false);
        assert_eq!(trace.actions, [Accept::ShutWrite]);
    }
}

#[test]
fn what_is_no_probe_goes_on_with_its_bytes() {
    let config = list([ping(), Monitor::new("pin?", "!").into()]);
    for (bytes, eof) in [(FRAME, false), (b"pink", false), (b"pin", true), (FRAME, true)] {
        assert_eq!(drive_cut(&config, &peer("192.0.2.1"), bytes, eof).rest, bytes);
    }
    assert_eq!(drive_cut(&config, &peer("192.0.2.1"), b"pin?", true).sent, b"!");
    assert!(drive_cut(&config, &peer("192.0.2.1"), b"pin", false).actions.is_empty());
}

#[test]
fn a_probe_may_come_without_an_answer_or_without_a_byte() {
    let config = list([Monitor::new("ping\n", "").into()]);
    let trace = drive_cut(&config, &peer("192.0.2.1"), b"ping\n", true);
    assert_eq!((trace.sent.len(), trace.end()), (0, &Accept::Close(Closing::Answered)));
    let trace = drive_cut(&config, &peer("192.0.2.1"), b"", true);
    assert_eq!(trace.actions, [Accept::Close(Closing::Silent)]);
}

#[test]
fn a_monitor_that_reads_its_answer_and_stays_is_closed() {
    let config = list([ping()]);
    let mut acceptor = Acceptor::new(config.clone(), peer("192.0.2.1"), NOW);
    let mut inbox = Inbox::from(&b"ping\n"[..]);
    assert_eq!(inbox.feed(|input| acceptor.on_bytes(NOW, input)), Accept::SendReply);
    assert_eq!(acceptor.on_sent(NOW, 2), Ok(Accept::SendReply));
    assert_eq!(acceptor.outgoing(), b"ng\n");
    let then = NOW + Duration::from_secs(2);
    assert_eq!(acceptor.on_sent(then, 3), Ok(Accept::ShutWrite));
    assert_eq!(acceptor.deadline(), Some(then + config.linger));
    inbox.extend_from_slice(b"more");
    assert_eq!(inbox.feed(|input| acceptor.on_bytes(then, input)), Accept::WantBytes { at_least: 1 });
    assert!(inbox.is_empty());
    assert_eq!(acceptor.on_timeout(then), Accept::WantBytes { at_least: 1 });
    assert_eq!(acceptor.on_timeout(then + config.linger), Accept::Close(Closing::Answered));
    assert_eq!(acceptor.deadline(), None);
}

#[test]
fn a_monitor_that_closed_its_side_still_gets_its_answer() {
    let mut acceptor = Acceptor::new(list([ping()]), peer("192.0.2.1"), NOW);
    let mut inbox = Inbox::from(&b"ping\n"[..]);
    assert_eq!(inbox.feed(|input| acceptor.on_bytes(NOW, input)), Accept::SendReply);
    assert_eq!(inbox.feed(|input| acceptor.on_input_eof(NOW, input)), Accept::SendReply);
    assert_eq!(acceptor.on_sent(NOW, 5), Ok(Accept::Close(Closing::Answered)));
}

/// What a probe was sent, and what the connection came to.
fn answered(config: &Arc<Checked<AcceptConfig>>, lame_duck: bool, bytes: &[u8]) -> (Vec<u8>, Accept) {
    let mut acceptor = Acceptor::new(config.clone(), peer("192.0.2.1"), NOW);
    acceptor.set_lame_duck(lame_duck);
    let mut sent = Vec::new();
    let mut action = acceptor.on_bytes(NOW, bytes).action;
    while action == Accept::SendReply {
        sent.push(acceptor.outgoing()[0]);
        action = acceptor.on_sent(NOW, 1).unwrap();
    }
    (sent, action)
}

#[test]
fn a_monitor_for_all_answers_before_a_byte_comes() {
    let config = list([deny("10.0.0.0/8"), Monitor::for_all("up 50%\n").into()]);
    for (bytes, eof) in [(&b""[..], false), (b"agent-send text", false), (FRAME, false), (FRAME, true)] {
        let trace = drive_cut(&config, &peer("192.0.2.1"), bytes, eof);
        let end = if eof { Accept::Close(Closing::Answered) } else { Accept::ShutWrite };
        assert_eq!((&trace.sent[..], trace.end()), (&b"up 50%\n"[..], &end));
    }
    assert!(matches!(drive_cut(&config, &peer("10.1.1.1"), b"", false).end(), Accept::Refuse(_)));
}

#[test]
fn in_lame_duck_a_probe_gets_another_answer_or_none() {
    let one = Monitor::new("ping\n", "pong\n");
    let config = list([one.clone().into()]);
    assert_eq!(answered(&config, false, b"ping\n"), (b"pong\n".to_vec(), Accept::ShutWrite));
    assert_eq!(answered(&config, true, b"ping\n"), (b"".to_vec(), Accept::ShutWrite));
    assert!(matches!(answered(&config, true, FRAME).1, Accept::Ready(_)), "sessions are served");
    let config = list([one.lame_duck("gone\n").into()]);
    assert_eq!(answered(&config, false, b"ping\n").0, b"pong\n");
    assert_eq!(answered(&config, true, b"ping\n").0, b"gone\n");
    let config = list([Monitor::for_all("up\n").lame_duck("drain\n").into()]);
    assert_eq!(answered(&config, true, b""), (b"drain\n".to_vec(), Accept::ShutWrite));
}

#[test]
fn lame_duck_may_begin_while_a_probe_is_read_and_not_while_it_is_answered() {
    let config = list([Monitor::new("ping\n", "pong\n").lame_duck("gone\n").into()]);
    let mut acceptor = Acceptor::new(config, peer("192.0.2.1"), NOW);
    let mut inbox = Inbox::from(&b"pin"[..]);
    assert_eq!(inbox.feed(|input| acceptor.on_bytes(NOW, input)), Accept::WantBytes { at_least: 1 });
    let mut before = acceptor.clone();
    acceptor.set_lame_duck(true);
    inbox.extend_from_slice(b"g\n");
    assert_eq!(acceptor.on_bytes(NOW, inbox.unused()).action, Accept::SendReply);
    assert_eq!(acceptor.outgoing(), b"gone\n");
    assert_eq!(inbox.feed(|input| before.on_bytes(NOW, input)), Accept::SendReply);
    before.set_lame_duck(true);
    assert_eq!(before.outgoing(), b"pong\n");
}

#[test]
fn an_answer_is_one_from_its_first_byte_to_its_last() {
    let count = core::sync::atomic::AtomicU8::new(b'0');
    let next = move || Bytes::from(alloc::vec![count.fetch_add(1, core::sync::atomic::Ordering::Relaxed); 3]);
    let config = list([Monitor::new("ping\n", Response::from_fn(next)).into()]);
    assert_eq!(answered(&config, false, b"ping\n").0, b"000");
    assert_eq!(answered(&config, false, b"ping\n").0, b"111");
}
