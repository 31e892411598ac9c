use alloc::{string::ToString, sync::Arc, vec::Vec};

use super::*;
use crate::{Action, AgentConfig, Scope, frame::Capabilities, notation, testing::Inbox};

const NOW: Timestamp = Timestamp::ZERO;

struct Net(BTreeMap<ConnectionId, AgentReactor>);

impl Connections for Net {
    fn get(&mut self, connection: ConnectionId) -> Option<&mut AgentReactor> {
        self.0.get_mut(&connection)
    }
}

impl Net {
    fn connect(&mut self, hub: &mut Hub, id: u64, engine: &str) {
        self.connect_with(hub, id, engine, "pipelining,async");
    }

    fn connect_with(&mut self, hub: &mut Hub, id: u64, engine: &str, of_peer: &str) {
        let capabilities = Capabilities::PIPELINING | Capabilities::ASYNC;
        let config = AgentConfig { capabilities, ..AgentConfig::default() };
        let connection = ConnectionId(id);
        let mut reactor = AgentReactor::new(Arc::new(config.checked().unwrap()), connection, NOW);
        let mut inbox = Inbox::new();
        inbox.extend_from_slice(&bytes(&alloc::format!(
            "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:1000 \
             capabilities=string:\"{of_peer}\" engine-id=string:{engine}"
        )));
        let Action::Established(session) = inbox.feed(|input| reactor.on_bytes(NOW, input)) else {
            panic!("no session")
        };
        assert!(hub.join(connection, &session));
        self.0.insert(connection, reactor);
        self.sent(id);
    }

    fn ask(&mut self, id: u64, stream: u64) -> Ticket {
        let reactor = self.0.get_mut(&ConnectionId(id)).unwrap();
        let mut inbox = Inbox::new();
        inbox.extend_from_slice(&bytes(&alloc::format!("NOTIFY fin {stream} 1 m")));
        let Action::RunMessages(notify) = inbox.feed(|input| reactor.on_bytes(NOW, input)) else {
            panic!("no NOTIFY")
        };
        notify.ticket
    }

    /// Sends the frames that are queued on a connection, and returns them.
    fn sent(&mut self, id: u64) -> Vec<alloc::string::String> {
        let reactor = self.0.get_mut(&ConnectionId(id)).unwrap();
        let out = reactor.outgoing().to_vec();
        let _ = reactor.on_sent(NOW, out.len());
        let mut rest = &out[..];
        let mut frames = Vec::new();
        while let Some((len, after)) = rest.split_first_chunk::<4>() {
            let (frame, after) = after.split_at(u32::from_be_bytes(*len) as usize);
            frames.push(notation::print(crate::frame::Frame::decode(frame).unwrap()).to_string());
            rest = after;
        }
        frames
    }
}

fn bytes(line: &str) -> Vec<u8> {
    notation::parse_bytes(line).unwrap()
}

fn answer(value: i64) -> Actions {
    let mut actions = Actions::new();
    actions.set_var(Scope::Transaction, "x", value);
    actions
}

fn two() -> (Hub, Net) {
    let (mut hub, mut net) = (Hub::default(), Net(BTreeMap::new()));
    net.connect(&mut hub, 1, "a");
    net.connect(&mut hub, 2, "a");
    net.connect(&mut hub, 3, "b");
    (hub, net)
}

#[test]
fn home_answers_unless_a_sibling_has_less_to_send() {
    let (mut hub, mut net) = two();
    for stream in [1, 3] {
        let ticket = net.ask(1, stream);
        assert_eq!(hub.hold(NOW, &ticket), Held::Recorded);
        hub.settle(NOW, ticket, &answer(1), &mut net).unwrap();
    }
    assert_eq!(net.sent(1), ["ACK fin 1 1 set txn x=int64:1"]);
    assert_eq!(net.sent(2), ["ACK fin 3 1 set txn x=int64:1"]);
    assert_eq!(net.get(ConnectionId(1)).unwrap().in_flight(), 0);
    assert_eq!((hub.waiting(), hub.orphans()), (0, 0));
}

#[test]
fn a_home_that_is_free_is_all_that_is_asked() {
    let (mut hub, mut net) = two();
    let ticket = net.ask(1, 1);
    assert_eq!(hub.hold(NOW, &ticket), Held::Recorded);
    let mut asked = Vec::new();
    let route = hub.route(ticket, |connection| {
        asked.push(connection);
        Some(0)
    });
    assert!(matches!(route, Route::Home(_)));
    assert_eq!(asked, [ConnectionId(1)]);
}

#[test]
fn an_answer_that_was_begun_in_parts_stays_on_its_connection() {
    let (mut hub, mut net) = (Hub::default(), Net(BTreeMap::new()));
    for id in [1, 2] {
        net.connect_with(&mut hub, id, "a", "pipelining,async,fragmentation");
    }
    let [first, second] = [net.ask(1, 1), net.ask(1, 3)];
    for ticket in [&first, &second] {
        assert_eq!(hub.hold(NOW, ticket), Held::Recorded);
    }
    let mut long = Actions::new();
    long.set_var(Scope::Transaction, "x", crate::Value::Binary(&[0; 2_000]));
    let home = net.get(ConnectionId(1)).unwrap();
    let first = home.acknowledge_part(NOW, first, &long).unwrap();
    let second = home.acknowledge_part(NOW, second, &long).unwrap();
    let sibling = net.get(ConnectionId(2)).unwrap();
    let error = sibling.acknowledge(NOW, first, &answer(1)).unwrap_err();
    assert!(matches!(error, AckError::WrongConnection { .. }));
    let settled = hub.settle(NOW, error.into_ticket(), &answer(1), &mut net).unwrap();
    assert_eq!(settled, (Settled::Queued, Some(ConnectionId(1))), "despite its send backlog");

    net.0.remove(&ConnectionId(1));
    assert_eq!(hub.leave(ConnectionId(1)), Some(Vec::new()));
    assert_eq!(hub.settle(NOW, second, &answer(1), &mut net).unwrap(), (Settled::Dropped, None));
    assert!(net.sent(2).is_empty(), "the end of an answer is not an answer");
    assert_eq!((hub.orphans(), hub.waiting()), (0, 0), "it waits for nothing any more");
    assert!(hub.expire(ConnectionId(1)).is_empty());
}

#[test]
fn an_answer_outlives_its_connection_while_a_sibling_lives() {
    let (mut hub, mut net) = two();
    let tickets = [net.ask(1, 1), net.ask(1, 3)];
    for ticket in &tickets {
        assert_eq!(hub.hold(NOW, ticket), Held::Recorded);
    }
    let [first, second] = tickets;
    net.0.remove(&ConnectionId(1));
    assert_eq!(hub.leave(ConnectionId(1)), Some(Vec::new()));
    let (settled, target) = hub.settle(NOW, first, &answer(1), &mut net).unwrap();
    assert_eq!((settled, target), (Settled::Queued, Some(ConnectionId(2))));
    assert_eq!(net.sent(2), ["ACK fin 1 1 set txn x=int64:1"]);

    net.0.remove(&ConnectionId(2));
    assert_eq!(hub.leave(ConnectionId(2)), None);
    assert_eq!(hub.settle(NOW, second, &answer(1), &mut net).unwrap(), (Settled::Dropped, None));
    assert_eq!((hub.engines(), hub.waiting()), (1, 0));
    assert!(net.sent(3).is_empty(), "nothing crosses engine-ids");
}

#[test]
fn home_is_the_last_resort_once_its_input_has_ended() {
    let (mut hub, mut net) = two();
    let tickets = [net.ask(1, 1), net.ask(1, 3), net.ask(2, 5)];
    for ticket in &tickets {
        assert_eq!(hub.hold(NOW, ticket), Held::Recorded);
    }
    let [first, second, third] = tickets;
    let home = net.get(ConnectionId(1)).unwrap();
    let _ = home.on_input_eof(NOW, &[]).action;
    hub.settle(NOW, first, &answer(1), &mut net).unwrap();
    assert_eq!(net.sent(2), ["ACK fin 1 1 set txn x=int64:1"]);

    hub.settle(NOW, second, &answer(3), &mut net).unwrap();
    let home = net.get(ConnectionId(1)).unwrap();
    let action = home.on_bytes(NOW, &[]).action;
    assert!(matches!(action, Action::Close(_)), "{action:?}: no answer is outstanding");
    hub.leave(ConnectionId(1));

    let sibling = net.get(ConnectionId(2)).unwrap();
    let _ = sibling.on_input_eof(NOW, &[]).action;
    hub.settle(NOW, third, &answer(5), &mut net).unwrap();
    assert_eq!(net.sent(2), ["ACK fin 3 1 set txn x=int64:3", "ACK fin 5 1 set txn x=int64:5"]);
}

#[test]
fn a_reactor_itself_refuses_another_engines_ticket() {
    let (mut hub, mut net) = two();
    let ticket = net.ask(1, 1);
    assert_eq!(hub.hold(NOW, &ticket), Held::Recorded);
    let other = net.get(ConnectionId(3)).unwrap();
    let error = other.acknowledge(NOW, ticket, &answer(1)).unwrap_err();
    assert!(matches!(error, AckError::WrongConnection { .. }));
    let sibling = net.get(ConnectionId(2)).unwrap();
    assert_eq!(sibling.acknowledge(NOW, error.into_ticket(), &answer(1)), Ok(Settled::Queued));
}

#[test]
fn a_notify_that_is_recorded_late_does_not_supersede_a_newer_one() {
    let (mut hub, mut net) = two();
    let (older, newer) = (net.ask(1, 7), net.ask(2, 7));
    let later = NOW + core::time::Duration::from_millis(1);
    assert_eq!(hub.hold(later, &newer), Held::Recorded);
    assert_eq!(hub.hold(NOW, &older), Held::Superseded);
    assert_eq!(hub.settle(NOW, older, &answer(1), &mut net).unwrap().0, Settled::Dropped);
    assert_eq!(hub.settle(later, newer, &answer(2), &mut net).unwrap().0, Settled::Queued);
    assert_eq!(net.sent(2), ["ACK fin 7 1 set txn x=int64:2"]);
}

#[test]
fn the_same_ids_on_a_sibling_supersede() {
    let (mut hub, mut net) = two();
    let older = net.ask(1, 7);
    assert_eq!(hub.hold(NOW, &older), Held::Recorded);
    let newer = net.ask(2, 7);
    assert_eq!(hub.hold(NOW, &newer), Held::Supersedes(ConnectionId(1), older.id()));
    assert_eq!(hub.settle(NOW, older, &answer(1), &mut net).unwrap().0, Settled::Dropped);
    assert_eq!(net.get(ConnectionId(1)).unwrap().in_flight(), 0);
    assert_eq!(hub.settle(NOW, newer, &answer(2), &mut net).unwrap().0, Settled::Queued);
    assert_eq!((net.sent(1).len(), net.sent(2)), (0, ["ACK fin 7 1 set txn x=int64:2".to_string()].to_vec()));
}

#[test]
fn a_cancelled_notify_is_not_answered_by_a_sibling() {
    let (mut hub, mut net) = two();
    let ticket = net.ask(1, 1);
    assert_eq!(hub.hold(NOW, &ticket), Held::Recorded);
    hub.cancel(ConnectionId(1), ticket.ids(), ticket.id());
    net.0.remove(&ConnectionId(1));
    assert_eq!(hub.leave(ConnectionId(1)), Some(Vec::new()));
    assert_eq!(hub.settle(NOW, ticket, &answer(1), &mut net).unwrap(), (Settled::Dropped, None));
}

#[test]
fn an_orphan_whose_time_is_over_is_failed_in_place_of_its_handler() {
    let (mut hub, mut net) = two();
    let tickets: Vec<Ticket> = (1..=3).map(|stream| net.ask(1, stream)).collect();
    let other = net.ask(2, 7);
    for ticket in tickets.iter().chain([&other]) {
        assert_eq!(hub.hold(NOW, ticket), Held::Recorded);
    }
    assert!(hub.expire(ConnectionId(1)).is_empty(), "it is still open");
    net.0.remove(&ConnectionId(1));
    assert_eq!(hub.leave(ConnectionId(1)), Some(Vec::new()));
    let expired = hub.expire(ConnectionId(1));
    assert_eq!(expired.len(), 3);
    assert!(hub.expire(ConnectionId(1)).is_empty(), "once");
    for ticket in expired {
        let Route::Sibling(ConnectionId(2), ticket) = hub.route_again(ticket, |_| Some(0)) else { panic!() };
        let _ = net.0.get_mut(&ConnectionId(2)).unwrap().fail(NOW, ticket).unwrap();
    }
    assert_eq!(net.sent(2), ["ACK fin 1 1", "ACK fin 2 1", "ACK fin 3 1"]);
    // Answers of their handlers are dropped; the sibling's own request is answered.
    for ticket in tickets {
        assert!(matches!(hub.route(ticket, |_| Some(0)), Route::Dropped(_)));
    }
    assert!(matches!(hub.route(other, |_| Some(0)), Route::Home(_)));
}

#[test]
fn an_answer_returns_to_its_own_connection_if_the_sibling_has_left() {
    let (mut hub, mut net) = two();
    let ticket = net.ask(1, 1);
    assert_eq!(hub.hold(NOW, &ticket), Held::Recorded);
    let (id, busy) = (ticket.id(), |connection| Some(usize::from(connection == ConnectionId(1))));
    let Route::Sibling(ConnectionId(2), ticket) = hub.route(ticket, busy) else {
        panic!("the sibling is free")
    };
    net.0.get_mut(&ConnectionId(1)).unwrap().release(NOW, id).unwrap();
    hub.leave(ConnectionId(2));
    let Route::Sibling(ConnectionId(1), ticket) = hub.route_again(ticket, busy) else {
        panic!("home is open")
    };
    let home = net.0.get_mut(&ConnectionId(1)).unwrap();
    assert_eq!(home.acknowledge(NOW, ticket, &answer(1)).unwrap(), Settled::Queued);
    assert_eq!(net.sent(1).len(), 1);
    // A connection that is closing gives it back.
    let ticket = net.ask(1, 2);
    let id = ticket.id();
    let home = net.0.get_mut(&ConnectionId(1)).unwrap();
    home.release(NOW, id).unwrap();
    let Route::Sibling(_, ticket) = hub.route_again(ticket, busy) else { panic!("home is open") };
    home.disconnect(NOW, crate::Status::NORMAL, "");
    let Err(AckError::Closing { ticket }) = home.acknowledge(NOW, ticket, &answer(1)) else {
        panic!("closing")
    };
    let Err(AckError::Closing { .. }) = home.fail(NOW, ticket) else { panic!("closing") };
}

#[test]
fn orphans_are_bounded() {
    let (mut hub, mut net) = (Hub::new(1), Net(BTreeMap::new()));
    net.connect(&mut hub, 1, "a");
    net.connect(&mut hub, 2, "a");
    let tickets: Vec<_> = (0..5).map(|stream| net.ask(1, stream)).collect();
    for ticket in &tickets {
        assert_eq!(hub.hold(NOW, ticket), Held::Recorded);
    }
    net.0.remove(&ConnectionId(1));
    let dropped: Vec<_> = tickets[1..].iter().map(Ticket::id).collect();
    assert_eq!(hub.leave(ConnectionId(1)), Some(dropped));
    assert_eq!((hub.waiting(), hub.orphans()), (1, 1));
    let queued = tickets
        .into_iter()
        .filter_map(|ticket| hub.settle(NOW, ticket, &answer(1), &mut net).ok())
        .filter(|(settled, _)| *settled == Settled::Queued);
    assert_eq!(queued.count(), 1);
    assert_eq!((hub.waiting(), hub.orphans()), (0, 0));
}

/// Answers requests of connection 1 on a sibling until that refuses one, and returns its ticket.
fn fill(net: &mut Net, sibling: u64) -> Ticket {
    let mut long = Actions::new();
    long.set_var(Scope::Transaction, "x", "x".repeat(900));
    for stream in 0..2_000 {
        let ticket = net.ask(1, stream);
        net.0.get_mut(&ConnectionId(1)).unwrap().release(NOW, ticket.id()).unwrap();
        match net.0.get_mut(&ConnectionId(sibling)).unwrap().acknowledge(NOW, ticket, &long) {
            Ok(settled) => assert_eq!(settled, Settled::Queued),
            Err(AckError::Full { ticket }) => return ticket,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("it takes all")
}

#[test]
fn a_connection_whose_queue_is_full_takes_no_answer_of_a_sibling() {
    let (mut hub, mut net) = two();
    net.connect(&mut hub, 4, "a");
    let max = crate::config::Limits::default().max_outgoing;
    let ticket = fill(&mut net, 2);
    let full = net.0.get_mut(&ConnectionId(2)).unwrap();
    assert!((max..max + 1_000).contains(&full.outgoing_bytes()), "{} bytes", full.outgoing_bytes());
    assert_eq!(full.send_backlog(), Some(FULL));
    let Err(AckError::Full { ticket }) = full.fail(NOW, ticket) else { panic!("not even a failure") };
    let Err(AckError::Full { ticket }) = full.abort_answer(NOW, ticket) else { panic!("nor an abort") };
    // Another takes it.
    let backlogs = |home, last| {
        move |id| match id {
            ConnectionId(1) => Some(home),
            ConnectionId(2) => Some(FULL),
            _ => Some(last),
        }
    };
    let Route::Sibling(ConnectionId(4), ticket) = hub.route_again(ticket, backlogs(9, 7)) else {
        panic!("a sibling has space")
    };
    let Route::Sibling(ConnectionId(1), ticket) = hub.route_again(ticket, backlogs(9, FULL)) else {
        panic!("home has space")
    };
    // Once all are full, it is dropped. What home has not released is answered there: it is in flight.
    assert!(matches!(hub.route_again(ticket, backlogs(FULL, FULL)), Route::Dropped(_)));
    let own = net.ask(1, 1 << 20);
    assert_eq!(hub.hold(NOW, &own), Held::Recorded);
    assert!(matches!(hub.route(own, backlogs(FULL, FULL)), Route::Home(_)));
}

#[test]
fn a_connection_that_was_left_out_carries_answers_again_once_it_sends() {
    let (mut hub, mut net) = two();
    let mut stream = 0;
    let mut routed = |home, backlogs: [Option<usize>; 2]| {
        stream += 1;
        let ticket = net.ask(home, stream);
        assert_eq!(hub.hold(NOW, &ticket), Held::Recorded);
        let route = hub.route(ticket, |id| backlogs[id.0 as usize - 1]);
        match route {
            Route::Home(_) => home,
            Route::Sibling(id, _) => id.0,
            Route::Dropped(_) => 0,
        }
    };
    assert_eq!(routed(1, [Some(5), None]), 1);
    assert_eq!(routed(1, [Some(5), Some(1)]), 1, "it is not asked again");
    assert_eq!(routed(2, [Some(5), Some(0)]), 2);
    assert_eq!(routed(1, [Some(5), Some(1)]), 2);
}
