//! A driver for an agent's reactor, with a network and a clock that the test controls.

use alloc::{
    borrow::ToOwned,
    collections::VecDeque,
    format,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};
use core::{fmt::Write as _, mem, time::Duration};

use spop_core::{
    AckError, Action, Actions, AgentConfig, AgentReactor, ConnectionId, Misuse, Settled, Status, Ticket,
    Timestamp,
    frame::Ids,
    link::{Layers, Phase, Progress},
};

use super::{
    inbox::Inbox,
    log::{lost, reason, sentence},
    random::Random,
};

/// How the peer's bytes are cut into reads.
#[derive(Clone, Debug)]
pub enum Cuts {
    /// A frame per read.
    AsSent,
    /// All bytes in one read.
    Joined,
    /// One byte per read.
    Bytes,
    /// At random places.
    Random(Random),
}

/// A driver that follows the run loop of the reactor's documentation, and logs every action.
#[derive(Debug)]
pub struct Driver {
    /// The reactor under test.
    pub reactor: AgentReactor,
    /// The current time.
    pub now: Timestamp,
    /// All actions and errors, as text.
    pub log: Vec<String>,
    /// All bytes that were sent.
    pub sent: Vec<u8>,
    /// The unsettled tickets, in order.
    pub tickets: Vec<Ticket>,
    /// Actions with which every NOTIFY is answered at once.
    pub at_once: Option<Actions>,
    cuts: Cuts,
    inbox: Inbox,
    /// Bytes that the peer has sent and the driver has not read, per read.
    network: VecDeque<Vec<u8>>,
    /// The peer has shut its write side: EOF follows the bytes of the network.
    eof: Eof,
    /// The reactor has asked for a shut of the write side.
    shut_requested: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Eof {
    No,
    Sent,
    Read,
}

impl Driver {
    /// A new connection, opened one second after the epoch.
    pub fn new(config: AgentConfig, layers: Layers, cuts: Cuts) -> Self {
        let now = Timestamp::from_millis(1_000);
        let reactor = AgentReactor::new(
            Arc::new(config.checked().expect("a configuration that can work")),
            ConnectionId(1),
            now,
        )
        .with_layers(layers);
        Self {
            reactor,
            now,
            log: Vec::new(),
            sent: Vec::new(),
            tickets: Vec::new(),
            at_once: None,
            cuts,
            inbox: Inbox::new(),
            network: VecDeque::new(),
            eof: Eof::No,
            shut_requested: false,
        }
    }

    // ---- the peer ----

    /// The peer sends these bytes, unless it has shut its write side.
    pub fn send(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() && self.eof == Eof::No {
            self.network.push_back(bytes.to_vec());
        }
    }

    /// The peer shuts its write side.
    pub fn end(&mut self) {
        if self.eof == Eof::No {
            self.eof = Eof::Sent;
        }
    }

    /// Reads while there are bytes to read and the reactor's interest includes `read`.
    pub fn read(&mut self) {
        loop {
            self.obey_resume();
            if !self.reactor.interest().read {
                return;
            }
            if self.fill_inbox() {
                // EOF is reported together with the bytes before it.
                let at_end = self.network.is_empty() && self.eof == Eof::Sent;
                if !(at_end && matches!(self.cuts, Cuts::Joined)) {
                    self.input(false);
                    continue;
                }
            }
            if self.eof != Eof::Sent {
                return;
            }
            self.eof = Eof::Read;
            self.input(true);
        }
    }

    /// Moves the bytes of one read into the inbox. False if there are none.
    fn fill_inbox(&mut self) -> bool {
        let Some(mut piece) = self.network.pop_front() else { return false };
        if matches!(self.cuts, Cuts::Joined | Cuts::Random(_)) {
            piece.extend(self.network.drain(..).flatten());
        }
        let len = match &mut self.cuts {
            Cuts::AsSent | Cuts::Joined => piece.len(),
            Cuts::Bytes => 1,
            Cuts::Random(random) => random.piece(piece.len()),
        };
        let rest = piece.split_off(len);
        if !rest.is_empty() {
            self.network.push_front(rest);
        }
        self.inbox.extend_from_slice(&piece);
        true
    }

    /// The peer reads at most `n` bytes, in one piece or several. Returns their number.
    pub fn take(&mut self, n: usize) -> usize {
        let mut left = n;
        while left > 0 && self.reactor.interest().write {
            let outgoing = self.reactor.outgoing();
            let most = left.min(outgoing.len());
            let piece = match &mut self.cuts {
                Cuts::AsSent | Cuts::Joined => most,
                Cuts::Bytes => 1,
                Cuts::Random(random) => random.piece(most),
            };
            self.sent.extend_from_slice(&outgoing[..piece]);
            let action = self.reactor.on_sent(self.now, piece).expect("so much was outgoing");
            self.note(action);
            left -= piece;
        }
        self.read();
        n - left
    }

    // ---- reports of the driver ----

    /// A read would block.
    pub fn read_blocked(&mut self) {
        let action = self.reactor.on_read_blocked(self.now);
        self.note(action);
        self.check();
    }

    /// The connection is reset.
    pub fn reset(&mut self) {
        let action = self.reactor.on_transport_error(self.now);
        self.note(action);
        self.check();
    }

    /// Reports progress in shutting the write side.
    pub fn shut(&mut self, progress: Progress) {
        match self.reactor.on_write_shut(self.now, progress) {
            Ok(action) => drop(self.note(action)),
            Err(misuse) => assert_eq!((misuse, self.shut_requested), (Misuse::ShutNotRequested, false)),
        }
        self.check();
    }

    /// Advances the time, and fires every timer that is due on the way.
    pub fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        if matches!(self.cuts, Cuts::Random(_)) && self.reactor.deadline().is_none_or(|(at, _)| at > self.now)
        {
            // A call before the deadline does nothing.
            while self.timeout() {}
        }
        while let Some((at, timer)) = self.reactor.deadline().filter(|(at, _)| *at <= until) {
            self.now = self.now.max(at);
            while self.timeout() {}
            if let Some((next, again)) = self.reactor.deadline() {
                assert!(next > self.now, "after {timer:?} at {at} the deadline of {again:?} is {next}");
            }
            self.read();
        }
        self.now = until;
    }

    fn timeout(&mut self) -> bool {
        let action = self.reactor.on_timeout(self.now);
        let again = self.note(action);
        self.check();
        again
    }

    // ---- decisions of the application ----

    /// Answers the ticket at this index. On an error the ticket moves to the end.
    pub fn answer(&mut self, index: usize, actions: &Actions) {
        let ticket = self.tickets.remove(index);
        let settled = self.reactor.acknowledge(self.now, ticket, actions);
        self.settled(settled);
    }

    /// Passes a part of an answer. The ticket keeps its index, or moves to the end on an error.
    pub fn answer_part(&mut self, index: usize, actions: &Actions) {
        let ticket = self.tickets.remove(index);
        match self.reactor.acknowledge_part(self.now, ticket, actions) {
            Ok(ticket) => self.tickets.insert(index, ticket),
            Err(error) => self.refused(error),
        }
        self.check();
    }

    /// Aborts an answer.
    pub fn abort_answer(&mut self, index: usize) {
        let ticket = self.tickets.remove(index);
        let settled = self.reactor.abort_answer(self.now, ticket);
        self.settled(settled);
    }

    /// Fails the request of a ticket.
    pub fn fail(&mut self, index: usize) {
        let ticket = self.tickets.remove(index);
        if let Err(error) = self.reactor.fail(self.now, ticket) {
            self.refused(error);
        }
        self.check();
    }

    /// Disconnects.
    pub fn disconnect(&mut self, status: Status, message: &str) {
        self.reactor.disconnect(self.now, status, message);
        self.obey_resume();
        self.check();
    }

    /// Releases a ticket whose answer is sent on another connection.
    pub fn release(&mut self, index: usize) {
        let ticket = self.tickets.remove(index);
        let waited = self.reactor.is_waiting(ticket.id());
        assert_eq!(self.reactor.release(self.now, ticket.id()).is_ok(), waited);
        assert_eq!(self.reactor.acknowledge(self.now, ticket, &Actions::new()), Ok(Settled::Dropped));
        self.check();
    }

    /// Drains.
    pub fn drain(&mut self) {
        self.reactor.drain(self.now);
    }

    /// Refuses health checks from now on.
    pub fn lame_duck(&mut self) {
        self.reactor.set_lame_duck(true);
    }

    /// Refuses a NOTIFY that is still arriving.
    pub fn refuse(&mut self, ids: Ids) {
        if let Err(error) = self.reactor.abort(self.now, ids) {
            self.log.push(format!("NotArriving {}", error.0));
        }
        self.check();
    }

    fn settled(&mut self, settled: Result<Settled, AckError>) {
        match settled {
            Ok(Settled::Queued) => {}
            Ok(Settled::Late { age }) => self.log.push(format!("Late {age:?}")),
            Ok(Settled::Dropped) => self.log.push("Dropped".to_owned()),
            Err(error) => self.refused(error),
            #[allow(unreachable_patterns)] // Within the crate `non_exhaustive` has no effect.
            Ok(other) => panic!("the log has no words for {other:?}"),
        }
        self.check();
    }

    fn refused(&mut self, error: AckError) {
        self.log.push(match &error {
            AckError::TooBig { size, limit, .. } => format!("TooBig {size} {limit}"),
            AckError::WrongConnection { .. } => "WrongConnection".to_owned(),
            AckError::NoFragmentation { .. } => "NoFragmentation".to_owned(),
            other => other.to_string(),
        });
        self.tickets.push(error.into_ticket());
    }

    // ---- the loop ----

    fn obey_resume(&mut self) {
        while self.reactor.interest().resume {
            self.input(false);
        }
    }

    fn input(&mut self, eof: bool) {
        let mut inbox = mem::take(&mut self.inbox);
        let (reactor, now) = (&mut self.reactor, self.now);
        let mut action = if eof {
            inbox.feed(|input| reactor.on_input_eof(now, input))
        } else {
            inbox.feed(|input| reactor.on_bytes(now, input))
        };
        while self.note(action) {
            action = inbox.feed(|input| self.reactor.on_bytes(now, input));
        }
        self.inbox = inbox;
        self.check();
    }

    /// Carries out an action. True if the input needs another call.
    fn note(&mut self, action: Action<'_>) -> bool {
        let (line, again) = match action {
            Action::Established(session) => {
                let mut line = format!("Established {} {}", session.max_frame_size, session.capabilities);
                if let Some(id) = &session.engine_id {
                    let _ = write!(line, " engine-id={}", id.escape_ascii());
                }
                assert_eq!(self.reactor.session(), Some(&*session));
                (line, true)
            }
            Action::RunMessages(notify) => {
                let ids = notify.ticket.ids();
                let line = format!("RunMessages {ids}{}", sentence(notify.messages().payload()));
                assert!(self.reactor.is_waiting(notify.ticket.id()));
                match &self.at_once {
                    None => self.tickets.push(notify.ticket),
                    Some(actions) => {
                        let settled = self.reactor.acknowledge(self.now, notify.ticket, actions);
                        assert_eq!(settled, Ok(Settled::Queued));
                    }
                }
                (line, true)
            }
            Action::FragmentArrived(ids) => {
                let partial = self.reactor.arriving(ids).expect("a fragment that arrived is there");
                (format!("FragmentArrived {ids} {}", partial.payload().len()), true)
            }
            Action::AbortFragment(aborted) => {
                (format!("AbortFragment {} {} {:?}", aborted.ids, aborted.received, aborted.why), true)
            }
            Action::CancelMessages(cancelled) => {
                assert!(!self.reactor.is_waiting(cancelled.ticket), "a cancelled ticket does not wait");
                (format!("CancelMessages {} {:?}", cancelled.ids, cancelled.why), true)
            }
            Action::SendFrames => {
                assert!(!self.reactor.outgoing().is_empty(), "SendFrames without frames");
                return false;
            }
            Action::WantBytes { at_least } => {
                assert!(at_least > 0, "WantBytes that wants none");
                return false;
            }
            Action::Paused => {
                assert!(!self.reactor.interest().read, "Paused, but reading goes on");
                return false;
            }
            Action::Close(closed) => {
                self.log.push(format!("Close {}", reason(&closed)));
                if closed.lost.is_nothing() {
                    return false;
                }
                (lost(closed.lost), false)
            }
            #[allow(unreachable_patterns)] // As above.
            other => panic!("the log has no words for {other:?}"),
        };
        self.log.push(line);
        again
    }

    /// Checks the invariants.
    fn check(&mut self) {
        let reactor = &self.reactor;
        let interest = reactor.interest();
        let closing = reactor.phase() == Phase::Closing;
        assert_eq!(interest, reactor.interest(), "reading it changes nothing");
        if interest.write {
            assert!(!reactor.outgoing().is_empty(), "writes nothing");
        }
        self.shut_requested |= interest.shut.is_some();
        assert!(interest.read || !interest.read_now, "{interest:?}");
        if interest.close {
            assert!(
                closing && !interest.write && interest.shut.is_none(),
                "closes with work left: {interest:?}"
            );
        } else if closing && !interest.resume {
            assert!(reactor.deadline().is_some(), "closing, but nothing ends it: {interest:?}");
        }
    }
}
