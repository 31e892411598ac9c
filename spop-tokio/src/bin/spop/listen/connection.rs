//! One connection of a listener: the driver of an agent's reactor.

use std::{
    future::ready,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Buf as _, BytesMut};
use spop_core::{
    Action, AgentConfig, AgentReactor, Clock, ConnectionId, Interest, Notify, Status,
    accept::Peer,
    agent::{Abort, Aborted, Cancel, Cancelled, Ticket, TicketId},
    config::Checked,
    frame::HEADER_MAX,
    link::Progress,
    notation::Direction,
};
use spop_server::{BUFFERED_SPARED, BufferedShare, BufferedTotal, TOO_MUCH_BUFFERED};
use spop_tokio::Closed;
use tokio::{
    io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split},
    sync::watch,
    task::yield_now,
    time::{sleep_until, timeout},
};

use super::{
    rules::{End, Rule, Rules},
    trace::ConnectionTrace,
};
use crate::{
    accept::{Entered, Entrance},
    address::Transport,
    exit::Failure,
};

/// How long TLS may take to send what it has, or to close.
const STEP: Duration = Duration::from_secs(10);

/// A connection that was accepted.
pub(super) struct Serving {
    pub(super) config: Arc<Checked<AgentConfig>>,
    pub(super) rules: Arc<Rules>,
    pub(super) stopping: watch::Receiver<bool>,
    /// What all connections hold.
    pub(super) buffered: Arc<BufferedTotal>,
    pub(super) trace: ConnectionTrace,
}

impl Serving {
    /// Serves a connection to its end.
    ///
    /// # Errors
    /// Nothing can be shown any more.
    pub(super) async fn run(
        self,
        socket: Box<dyn Transport>,
        peer: Peer,
        entrance: Arc<Entrance>,
    ) -> Result<(), Failure> {
        let Self { config, rules, mut stopping, buffered, trace } = self;
        let clock = Clock::start();
        trace.opened(&peer.to_string())?;
        let entered = tokio::select! {
            entered = entrance.pass(socket, peer, &clock) => entered,
            _ = stopping.wait_for(|stop| *stop) => return Ok(()),
        };
        let Entered { io, input, origin } = match entered {
            Ok(entered) => entered,
            Err(why) => return trace.note(format!("closed before its session: {why}")),
        };
        if origin.proxy.is_some() {
            trace.note(format!("PROXY header: the client is {}", origin.client()))?;
        }
        let reactor = AgentReactor::new(config, ConnectionId(trace.number()), clock.now());
        let mut session = Session {
            reactor,
            rules,
            trace,
            clock,
            input: BytesMut::new(),
            share: buffered.share(),
            buffered,
            eof: false,
            waiting: Vec::new(),
            ignored: Vec::new(),
            closed: None,
        };
        session.received(&input)?;
        session.run(io, stopping).await
    }
}

struct Session {
    reactor: AgentReactor,
    rules: Arc<Rules>,
    trace: ConnectionTrace,
    clock: Clock,
    input: BytesMut,
    share: BufferedShare,
    buffered: Arc<BufferedTotal>,
    eof: bool,
    /// Requests whose answers are delayed; as many as the reactor lets be in flight.
    waiting: Vec<Waiting>,
    /// Requests that are not to be answered.
    ignored: Vec<Ticket>,
    /// Why the session is over. It is shown when the last bytes have left.
    closed: Option<Closed>,
}

struct Waiting {
    due: Instant,
    ticket: Ticket,
    answer: Rule,
}

enum Event {
    Read(io::Result<usize>),
    Sent(io::Result<usize>),
    /// A read would block.
    Blocked,
    Time,
    Stop,
}

impl Session {
    async fn run(
        &mut self,
        io: Box<dyn Transport>,
        mut stopping: watch::Receiver<bool>,
    ) -> Result<(), Failure> {
        let (mut reader, mut writer) = split(io);
        let mut stopped = false;
        // A read has blocked since something else happened.
        let mut blocked = false;
        loop {
            self.limit_memory()?;
            let interest = self.settle()?;
            if interest.close {
                return self.closed.as_ref().map_or(Ok(()), |closed| self.trace.closed(closed));
            }
            if let Some(_layer) = interest.shut {
                // One stream stands for all layers: it sends the close_notify of TLS itself.
                let _ = timeout(STEP, writer.shutdown()).await;
                self.apply(|reactor, now| reactor.on_write_shut(now, Progress::Done))?;
                continue;
            }
            let wake = self.wake();
            self.input.reserve(16 << 10);
            let polls = interest.read_now && !blocked;
            if polls {
                // The runtime asks the system whether the socket is readable.
                yield_now().await;
            }
            let event = tokio::select! {
                biased;
                read = reader.read_buf(&mut self.input), if interest.read => Event::Read(read),
                sent = writer.write(self.reactor.outgoing()), if interest.write => Event::Sent(sent),
                () = ready(()), if polls => Event::Blocked,
                () = sleep_until(wake.into()) => Event::Time,
                _ = stopping.wait_for(|stop| *stop), if !stopped => Event::Stop,
            };
            blocked = matches!(event, Event::Blocked);
            self.on_event(event, &mut writer).await?;
            if *stopping.borrow() && !stopped {
                stopped = true;
                self.reactor.drain(self.clock.now());
            }
        }
    }

    async fn on_event(
        &mut self,
        event: Event,
        writer: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), Failure> {
        match event {
            Event::Read(Ok(0)) => {
                self.eof = true;
                self.process()
            }
            Event::Read(Ok(read)) => {
                let start = self.input.len().saturating_sub(read);
                let bytes = self.input.get(start..).unwrap_or_default();
                self.trace.bytes(Direction::ToAgent, bytes)?;
                self.process()
            }
            Event::Sent(Ok(sent)) if sent > 0 => {
                let bytes = self.reactor.outgoing().get(..sent).unwrap_or_default();
                self.trace.bytes(Direction::ToHaproxy, bytes)?;
                match timeout(STEP, writer.flush()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return self.broken(&error),
                    Err(_) => return self.broken(&io::ErrorKind::TimedOut.into()),
                }
                self.apply(|reactor, now| reactor.on_sent(now, sent))
            }
            Event::Sent(Ok(_)) => self.broken(&io::ErrorKind::WriteZero.into()),
            Event::Read(Err(error)) | Event::Sent(Err(error)) => self.broken(&error),
            Event::Time => {
                self.answer_due()?;
                let now = self.clock.now();
                loop {
                    let action = self.reactor.on_timeout(now);
                    let ends = action.ends_input();
                    self.act(action)?;
                    if ends {
                        return Ok(());
                    }
                }
            }
            Event::Blocked => {
                let action = self.reactor.on_read_blocked(self.clock.now());
                self.act(action)
            }
            Event::Stop => Ok(()),
        }
    }

    /// Bytes that were read before the session began.
    fn received(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.input.extend_from_slice(bytes);
        self.trace.bytes(Direction::ToAgent, bytes)?;
        self.process()
    }

    /// Ends the session if all connections hold too much, and this one has grown, as a server does.
    fn limit_memory(&mut self) -> Result<(), Failure> {
        if !self.buffers_too_much() || self.closed.is_some() {
            return Ok(());
        }
        self.trace.note(format!("{TOO_MUCH_BUFFERED}: it is disconnected"))?;
        self.reactor.disconnect(self.clock.now(), Status::RESOURCE, TOO_MUCH_BUFFERED);
        self.process()?;
        self.input = BytesMut::new();
        self.trace.clear();
        if self.reactor.outgoing_bytes() > BUFFERED_SPARED {
            let action = self.reactor.on_transport_error(self.clock.now());
            self.act(action)?;
        }
        let _ = self.buffers_too_much();
        Ok(())
    }

    /// Counts what the connection holds.
    fn buffers_too_much(&mut self) -> bool {
        let queued = self.reactor.reassembly_bytes() + self.reactor.outgoing_bytes();
        let bytes = queued + self.input.len() + self.trace.buffered();
        self.share.set(bytes) && bytes > BUFFERED_SPARED && self.buffered.is_exceeded()
    }

    /// Carries out what needs no I/O, and returns what is left.
    fn settle(&mut self) -> Result<Interest, Failure> {
        loop {
            let interest = self.reactor.interest();
            if !interest.resume {
                return Ok(interest);
            }
            self.process()?;
        }
    }

    /// Gives the reactor its input until nothing of it is left that it takes.
    fn process(&mut self) -> Result<(), Failure> {
        let mut input = std::mem::take(&mut self.input);
        let result = loop {
            let now = self.clock.now();
            let step = if self.eof {
                self.reactor.on_input_eof(now, &input)
            } else {
                self.reactor.on_bytes(now, &input)
            };
            let (consumed, ends) = (step.consumed, step.action.ends_input());
            let decision = decide(step.action, &self.rules);
            input.advance(consumed.min(input.len()));
            if let Err(failure) = self.carry_out(decision) {
                break Err(failure);
            }
            if ends || input.is_empty() && !self.eof {
                break Ok(());
            }
        };
        self.input = input;
        result
    }

    fn apply<E: std::fmt::Display>(
        &mut self,
        input: impl FnOnce(&mut AgentReactor, spop_core::Timestamp) -> Result<Action<'static>, E>,
    ) -> Result<(), Failure> {
        match input(&mut self.reactor, self.clock.now()) {
            Ok(action) => self.act(action),
            Err(misuse) => self.trace.note(misuse.to_string()),
        }
    }

    fn broken(&mut self, error: &io::Error) -> Result<(), Failure> {
        self.trace.note(format!("the connection broke: {}", crate::exit::reason(error)))?;
        let action = self.reactor.on_transport_error(self.clock.now());
        self.act(action)
    }

    fn act(&mut self, action: Action<'_>) -> Result<(), Failure> {
        let decision = decide(action, &self.rules);
        self.carry_out(decision)
    }

    fn carry_out(&mut self, decision: Decision) -> Result<(), Failure> {
        match decision {
            Decision::None => Ok(()),
            Decision::Show(text) => self.trace.note(text),
            Decision::Session(session) => self.trace.session(&session),
            Decision::Closed(closed) => {
                self.closed = Some(closed);
                Ok(())
            }
            Decision::Answer(ticket, answer) if answer.delay.is_zero() => self.answer(ticket, &answer),
            Decision::Answer(ticket, answer) => {
                let due = Instant::now() + answer.delay;
                self.waiting.push(Waiting { due, ticket, answer });
                Ok(())
            }
            Decision::Cancel(ticket, text) => {
                self.waiting.retain(|waiting| waiting.ticket.id() != ticket);
                self.ignored.retain(|ignored| ignored.id() != ticket);
                self.trace.note(text)
            }
        }
    }

    fn answer_due(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        let (due, waiting) =
            std::mem::take(&mut self.waiting).into_iter().partition(|waiting| waiting.due <= now);
        self.waiting = waiting;
        let mut due: Vec<Waiting> = due;
        due.sort_by_key(|waiting| waiting.due);
        due.into_iter().try_for_each(|waiting| self.answer(waiting.ticket, &waiting.answer))
    }

    fn answer(&mut self, ticket: Ticket, answer: &Rule) -> Result<(), Failure> {
        let now = self.clock.now();
        let ids = ticket.ids();
        let result = match answer.end {
            End::Ack => {
                let header = spop_core::frame::Header {
                    frame_type: spop_core::frame::FrameType::Ack,
                    flags: spop_core::frame::Flags::FIN,
                    ids,
                };
                debug_assert!(header.encoded_len() <= HEADER_MAX);
                self.reactor.acknowledge(now, ticket, &answer.filled(4 + header.encoded_len()))
            }
            End::Fail => self.reactor.fail(now, ticket),
            End::Abort => self.reactor.abort_answer(now, ticket),
            End::Ignore => {
                self.ignored.push(ticket);
                return self.trace.note(format!("NOTIFY {ids} is not answered, as told"));
            }
            End::Disconnect(status) => {
                self.reactor.disconnect(now, Status(status), "as told");
                return Ok(());
            }
        };
        let Err(error) = result else { return Ok(()) };
        self.trace.note(format!("{error}: an empty answer instead"))?;
        // HAProxy would wait for its timeout. The only error is that of another connection's ticket.
        let _ = self.reactor.fail(now, error.into_ticket());
        Ok(())
    }

    /// When something is due.
    fn wake(&self) -> Instant {
        let far = Instant::now() + Duration::from_secs(3_600);
        let timer = self.reactor.deadline().and_then(|(deadline, _)| self.clock.instant(deadline));
        let answer = self.waiting.iter().map(|waiting| waiting.due).min();
        timer.into_iter().chain(answer).min().map_or(far, |due| due.min(far))
    }
}

/// What an action asks for, without what it borrows.
enum Decision {
    None,
    Show(String),
    Session(Arc<spop_core::agent::Session>),
    Answer(Ticket, Rule),
    Cancel(TicketId, String),
    Closed(Closed),
}

fn decide(action: Action<'_>, rules: &Rules) -> Decision {
    match action {
        Action::Established(session) => Decision::Session(session),
        Action::RunMessages(notify) => {
            let answer = rules.answer(notify.messages());
            let Notify { ticket, .. } = notify;
            Decision::Answer(ticket, answer)
        }
        Action::AbortFragment(aborted) => Decision::Show(abort_text(aborted)),
        Action::CancelMessages(cancelled) => Decision::Cancel(cancelled.ticket, cancel_text(cancelled)),
        Action::Close(closed) => Decision::Closed(closed),
        _ => Decision::None,
    }
}

fn abort_text(aborted: Aborted) -> String {
    let why = match aborted.why {
        Abort::Peer => "HAProxy has aborted it",
        Abort::Superseded => "another one has the same identifiers",
        Abort::TimedOut => "its fragments did not arrive in time",
        Abort::TooBig => "it is too long",
        Abort::TooManyMessages => "it has too many messages",
        _ => "it exceeds a limit",
    };
    format!("NOTIFY {} is dropped after {} bytes: {why}", aborted.ids, aborted.received)
}

fn cancel_text(cancelled: Cancelled) -> String {
    let why = match cancelled.why {
        Cancel::Superseded => "another one has the same identifiers",
        Cancel::Aborted => "HAProxy has aborted it",
        Cancel::Abandoned => "HAProxy has given it up, as the next request shows",
        Cancel::TimedOut | Cancel::Overdue => "it was not answered in time",
        _ => "it exceeds a limit",
    };
    format!("NOTIFY {} is cancelled after {:.1?}: {why}", cancelled.ids, cancelled.age)
}
