//! What a session keeps.

use std::{future::Ready, task::Waker};

use spop_core::{Actions, AgentConfig, notation};

use super::*;
use crate::{Peer, Service, transfer::End as _};

const HELLO: &str = "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 \
                     capabilities=string:pipelining,async engine-id=string:e1";

async fn handler(_: Request) -> Actions {
    Actions::new()
}

/// Passes a frame on, and sends what follows.
fn exchange<H, F, C>(session: &mut Session<H, F, C>, now: Timestamp, frame: &str)
where
    H: Handler,
    F: Future<Output = Reply>,
    C: Fn(Request) -> F,
{
    let cx = &mut Context::from_waker(Waker::noop());
    let input = Bytes::from(notation::parse_bytes(frame).unwrap());
    assert_eq!(session.on_bytes(now, cx, &input, false), input.len());
    let n = session.outgoing().len();
    session.on_sent(now, cx, n).unwrap();
}

#[test]
fn memory_for_calls_is_given_back_early_and_when_the_connection_is_idle() {
    let service = Service::new(handler, AgentConfig::default()).unwrap();
    let call = |_| -> Ready<Reply> { std::future::ready(Reply::Ack(Actions::new())) };
    let arrival = Arrival::from(Peer::unnamed());
    let mut session = Session::new(Arc::clone(&service.shared), ConnectionId(1), arrival, call);
    let now = service.shared.now();
    let cx = &mut Context::from_waker(Waker::noop());
    for round in 0..3 {
        if round == 0 {
            exchange(&mut session, now, HELLO);
        }
        for frame in 1..=4 {
            exchange(&mut session, now, &format!("NOTIFY fin {round} {frame} m"));
            // The HELLO was the first send.
            let early = if round == 0 { frame < 2 } else { frame <= 2 };
            assert_eq!(session.calls.has_memory(), !early, "round {round}, frame {frame}");
        }
        let due = session.deadline().unwrap();
        session.on_timeout(due, cx);
        assert!(!session.calls.has_memory());
    }
}
