//! An agent's reactor with a network and a clock that the test controls. All calls of a transcript to the reactor are here.

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

/// How what the peer sends is cut into reads.
#[derive(Clone, Debug)]
pub enum Cuts {
    /// As it was put in: a frame with each read.
    AsSent,
    /// Everything that is there with one read.
    Joined,
    /// One byte with each read.
    Bytes,
    /// At random places.
    Random(Random),
}

/// A driver that does what the reactor's documentation says, and keeps a log of all that the reactor says.
#[derive(Debug)]
pub struct Driver {
    /// What is driven.
    pub reactor: AgentReactor,
    /// The time it is.
    pub now: Timestamp,
    /// All actions and errors, as text.
    pub log: Vec<String>,
    /// All bytes that left.
    pub sent: Vec<u8>,
    /// All tickets that were handed out and not used up, in order.
    pub tickets: Vec<Ticket>,
    /// Every NOTIFY is answered with this as soon as it comes.
    pub at_once: Option<Actions>,
    cuts: Cuts,
    inbox: Inbox,
    /// Sent by the peer, and not yet read.
    network: VecDeque<Vec<u8>>,
    /// The peer's end of input is behind what the network holds.
    eof: Eof,
    /// The write side was to be shut at some time.
    shut_asked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Eof {
    No,
    Sent,
    Read,
}

impl Driver {
    /// A new connection, the first moment of which is a second after the epoch.
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
            shut_asked: false,
        }
    }

    // ---- what the peer does ----

    /// The peer sends these bytes, unless it has ended its side.
    pub fn send(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() && self.eof == Eof::No {
            self.network.push_back(bytes.to_vec());
        }
    }

    /// The peer ends its side.
    pub fn end(&mut self) {
        if self.eof == Eof::No {
            self.eof = Eof::Sent;
        }
    }

    /// Reads as long as there is something to read and the reactor wants it.
    pub fn read(&mut self) {
        loop {
            self.obey_resume();
            if !self.reactor.interest().read {
                return;
            }
            if self.fill_inbox() {
                // A reader that finds the end at once tells of the bytes before it together with it.
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

    /// Moves what one read finds into the inbox; false when it finds nothing.
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

    /// The peer takes at most `n` bytes, in one piece or in several; returns how many it got.
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

    // ---- what the driver reports ----

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

    /// The write side was shut, or not yet.
    pub fn shut(&mut self, progress: Progress) {
        match self.reactor.on_write_shut(self.now, progress) {
            Ok(action) => drop(self.note(action)),
            Err(misuse) => assert_eq!((misuse, self.shut_asked), (Misuse::ShutNotAsked, false)),
        }
        self.check();
    }

    /// Time passes, and every deadline on the way is served.
    pub fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        if matches!(self.cuts, Cuts::Random(_)) && self.reactor.deadline().is_none_or(|(at, _)| at > self.now)
        {
            // To be called too early is harmless.
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

    // ---- what the application decides ----

    /// Answers the ticket at this index. With an error the ticket is back at the end.
    pub fn answer(&mut self, index: usize, actions: &Actions) {
        let ticket = self.tickets.remove(index);
        let settled = self.reactor.acknowledge(self.now, ticket, actions);
        self.settled(settled);
    }

    /// Hands in a part of an answer. The ticket stays where it is, or moves to the end with an error.
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

    /// There is no answer.
    pub fn fail(&mut self, index: usize) {
        let ticket = self.tickets.remove(index);
        if let Err(error) = self.reactor.fail(self.now, ticket) {
            self.refused(error);
        }
        self.check();
    }

    /// The session is to end.
    pub fn disconnect(&mut self, status: Status, message: &str) {
        self.reactor.disconnect(self.now, status, message);
        self.obey_resume();
        self.check();
    }

    /// Another connection carries the answer: what becomes of the ticket here is nothing.
    pub fn release(&mut self, index: usize) {
        let ticket = self.tickets.remove(index);
        let waited = self.reactor.is_waiting(ticket.id());
        assert_eq!(self.reactor.release(self.now, ticket.id()).is_ok(), waited);
        assert_eq!(self.reactor.acknowledge(self.now, ticket, &Actions::new()), Ok(Settled::Dropped));
        self.check();
    }

    /// The agent finishes what it owes and disconnects.
    pub fn drain(&mut self) {
        self.reactor.drain(self.now);
    }

    /// Health checks are refused from now on.
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
            #[allow(unreachable_patterns)] // Only where the crate compiles this itself.
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

    /// Carries out an action; whether the input goes on after it.
    fn note(&mut self, action: Action<'_>) -> bool {
        let (line, again) = match action {
            Action::Established(session) => {
                let mut line = format!("Established {} {}", session.max_frame_size, session.capabilities);
                if let Some(id) = &session.engine_id {
                    let _ = write!(line, " engine-id={}", id.escape_ascii());
                }
                assert_eq!(self.reactor.session(), Some(&session));
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

    /// What holds at any time.
    fn check(&mut self) {
        let reactor = &self.reactor;
        let interest = reactor.interest();
        let closing = reactor.phase() == Phase::Closing;
        assert_eq!(interest, reactor.interest(), "reading it changes nothing");
        if interest.write {
            assert!(!reactor.outgoing().is_empty(), "writes nothing");
        }
        self.shut_asked |= interest.shut.is_some();
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
