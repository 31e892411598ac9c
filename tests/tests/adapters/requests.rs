//! Requests and their answers, in any order.

use std::time::Duration;

use anyhow::{Result, ensure};
use spop_tests::peer::bytes;

use super::stage::{ALL, Over, Stage};

pub(super) const OVER: &[Over] = ALL;

/// Long enough for what must not come to come.
const SILENCE: Duration = Duration::from_millis(60);

pub(super) fn every_type_comes_back(stage: &Stage<'_>) -> Result<()> {
    let server = stage.serve()?;
    let mut peer = server.session()?;
    let values = [
        "null",
        "bool:true",
        "bool:false",
        "int32:-2147483648",
        "uint32:4294967295",
        "int64:-9223372036854775808",
        "uint64:18446744073709551615",
        "ipv4:203.0.113.7",
        "ipv6:2001:db8::1",
        "string:\"\\xff\\x00\"",
        "binary:00ff",
        "string:\"x\"*8170",
    ];
    for (frame, value) in (1..).zip(values) {
        peer.send(&format!("NOTIFY fin 18446744073709551615 {frame} m a={value} ; n b={value}"))?;
        peer.expect(&format!("ACK fin 18446744073709551615 {frame} set txn a={value} ; set txn b={value}"))?;
    }
    Ok(())
}

pub(super) fn a_thousand_at_once_are_answered_once_each(stage: &Stage<'_>) -> Result<()> {
    let server = stage.serve()?;
    let mut peer = server.session()?;
    let lines: Vec<_> = (0..1000).map(|id| format!("NOTIFY fin {id} 1 m a=int32:{id}")).collect();
    let bytes = bytes(&lines.join("\n"))?;
    // In pieces that end anywhere.
    for piece in bytes.chunks(777) {
        peer.send_bytes(piece)?;
    }
    for id in 0..1000 {
        peer.expect(&format!("ACK fin {id} 1 set txn a=int32:{id}"))?;
    }
    peer.expect_silence(SILENCE)
}

pub(super) fn answers_come_in_the_order_they_are_given(stage: &Stage<'_>) -> Result<()> {
    let server = stage.serve()?;
    let mut peer = server.session()?;
    peer.send(
        "NOTIFY fin 1 1 hold key=string:a ; m v=int32:1
         NOTIFY fin 3 1 hold key=string:b ; m v=int32:2
         NOTIFY fin 5 1 m v=int32:3
         NOTIFY fin 7 1 hold key=string:c ; m v=int32:4",
    )?;
    peer.expect("ACK fin 5 1 set txn v=int32:3")?;
    for (key, answer) in
        [("c", "7 1 set txn v=int32:4"), ("a", "1 1 set txn v=int32:1"), ("b", "3 1 set txn v=int32:2")]
    {
        server.gate.release(key)?;
        peer.expect(&format!("ACK fin {answer}"))?;
    }
    Ok(())
}

pub(super) fn the_same_ids_again_supersede(stage: &Stage<'_>) -> Result<()> {
    let server = stage.serve()?;
    let mut peer = server.session()?;
    peer.send("NOTIFY fin 1 1 hold key=string:old ; m v=int32:1")?;
    server.gate.wait("old")?;
    peer.send("NOTIFY fin 1 1 hold key=string:new ; m v=int32:2")?;
    server.gate.wait("new")?;
    server.gate.wait_for_cancel("old")?;
    server.gate.release("old")?;
    peer.expect_silence(SILENCE)?;
    server.gate.release("new")?;
    peer.expect("ACK fin 1 1 set txn v=int32:2")
}

pub(super) fn a_slow_answer_keeps_nobody_waiting(stage: &Stage<'_>) -> Result<()> {
    let server = stage.serve()?;
    let (mut slow, mut other) = (server.session()?, server.session()?);
    slow.send("NOTIFY fin 1 1 hold key=string:slow")?;
    server.gate.wait("slow")?;
    for id in 2..50 {
        slow.ask(&format!("NOTIFY fin {id} 1 m"), &format!("ACK fin {id} 1"))?;
        other.ask(&format!("NOTIFY fin {id} 1 m"), &format!("ACK fin {id} 1"))?;
    }
    ensure!(!server.gate.is_cancelled("slow"), "nobody wants the slow answer any more");
    server.gate.release("slow")?;
    slow.expect("ACK fin 1 1")
}

pub(super) fn unknown_frames_and_reserved_flags_change_nothing(stage: &Stage<'_>) -> Result<()> {
    let server = stage.serve()?;
    let mut peer = server.session()?;
    peer.send(
        "TYPE:42 fin 0 0 raw:\"whatever this is\"
         TYPE:255 - 77 88
         NOTIFY 0xfffffffd 5 1 m a=int32:1
         TYPE:42 fin 0 0",
    )?;
    peer.expect("ACK fin 5 1 set txn a=int32:1")?;
    peer.ask("NOTIFY fin 5 2 m", "ACK fin 5 2")
}

pub(super) fn a_notify_without_messages_is_answered_without_the_handler(stage: &Stage<'_>) -> Result<()> {
    let server = stage.serve()?;
    let mut peer = server.session()?;
    // HAProxy 3.1 and 3.2 send it when no message is to be sent.
    peer.ask("NOTIFY fin 1 1", "ACK fin 1 1")?;
    peer.send("NOTIFY fin 3 1 hold key=string:a\nNOTIFY fin 5 1\nNOTIFY - 7 1\nUNSET fin 7 1")?;
    peer.expect("ACK fin 5 1\nACK fin 7 1")?;
    server.gate.release("a")?;
    peer.expect("ACK fin 3 1")
}
