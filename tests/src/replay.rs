//! A recorded scenario once more, with an engine's reactor in the place of HAProxy.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use spop_core::{
    ConnectionId, EngineAction, EngineConfig, EngineReactor, Status, Step, Timestamp,
    engine::{NotifyError, StreamIds},
    frame::{Capabilities, Flags, Frame, FrameType, HaproxyHello, Ids, put_frame},
    notation,
    testing::Inbox,
};

use crate::{
    captures::{Capture, Line, frames},
    driver::Cuts,
};

/// What HAProxy's configuration and its operator did in a scenario.
#[derive(Clone, Copy, Debug, Default)]
pub struct Circumstances {
    /// `timeout processing`, in milliseconds.
    pub processing: Option<u64>,
    /// `timeout idle`, in milliseconds.
    pub idle: Option<u64>,
    /// When HAProxy was told to stop.
    pub stopped_at: Option<u64>,
}

/// The connections of a scenario, and what the engines made of them.
pub struct Replay<'a> {
    connections: Vec<Connection<'a>>,
    circumstances: Circumstances,
    cuts: Cuts,
    now: Timestamp,
    /// What was asked on any connection.
    asked: BTreeSet<(u64, u64)>,
}

struct Connection<'a> {
    capture: &'a Capture,
    engine: Option<EngineReactor>,
    inbox: Inbox,
    /// The agent's frames that were not received yet, first at the end.
    received: Vec<Frame<'a>>,
    /// HAProxy's frames, the same way; empty where they were not kept.
    recorded: Vec<Frame<'a>>,
    next: usize,
    sent: Vec<u8>,
    /// A payload leaves frame by frame, as it did.
    slowly: bool,
    log: Vec<String>,
    payloads: BTreeMap<Ids, Vec<u8>>,
}

impl<'a> Replay<'a> {
    /// The connections of one scenario.
    ///
    /// # Errors
    /// Captures that make no sense.
    pub fn new(captures: &[&'a Capture], circumstances: Circumstances, cuts: Cuts) -> anyhow::Result<Self> {
        let reversed = |bytes: &'a Option<Vec<u8>>| -> anyhow::Result<Vec<Frame<'a>>> {
            let mut list = frames(bytes.as_deref().unwrap_or_default())?;
            list.reverse();
            Ok(list)
        };
        let connection = |capture: &&'a Capture| {
            Ok(Connection {
                capture,
                engine: None,
                inbox: Inbox::new(),
                received: reversed(&capture.output)?,
                recorded: reversed(&capture.input)?,
                next: 0,
                sent: Vec::new(),
                slowly: false,
                log: Vec::new(),
                payloads: BTreeMap::new(),
            })
        };
        let connections = captures.iter().map(connection).collect::<anyhow::Result<_>>()?;
        Ok(Self { connections, circumstances, cuts, now: Timestamp::ZERO, asked: BTreeSet::new() })
    }

    /// Goes through all that was recorded, in the order of its time.
    ///
    /// # Errors
    /// An engine that cannot ask what HAProxy asked, or an answer that is not the agent's.
    pub fn run(&mut self) -> anyhow::Result<()> {
        while let Some(index) = self.next() {
            let asked = &self.asked;
            let Some(connection) = self.connections.get_mut(index) else { break };
            let lines = connection.capture.lines.get(connection.next..).unwrap_or_default();
            let Some(line) = lines.first() else { break };
            let name = &connection.capture.name;
            let count = if line.to_agent {
                1
            } else {
                let also = |other: &&Line| !other.to_agent && other.at == line.at && is_due(asked, other);
                lines.iter().take_while(also).count().max(1)
            };
            connection.next += count;
            self.wait(line.at);
            if line.to_agent {
                self.ask(index, line, lines).with_context(|| format!("{name}: {line:?}"))?;
            } else {
                self.answer(index, count);
            }
        }
        let last = self.connections.iter().filter_map(|c| c.capture.lines.last()).map(|line| line.at).max();
        self.wait(last.unwrap_or_default() + 700);
        Ok(())
    }

    /// What became of the requests and the connection, for each that was recorded.
    pub fn logs(&self) -> impl Iterator<Item = (&'a Capture, &[String])> {
        self.connections.iter().map(|connection| (connection.capture, &*connection.log))
    }

    /// What the engine of each connection sent.
    pub fn sent(&self) -> impl Iterator<Item = (&'a Capture, &[u8])> {
        self.connections.iter().map(|connection| (connection.capture, &*connection.sent))
    }

    /// The connection with the earliest line. Among equals, what goes to the agent comes first, and what answers nothing so
    /// far last.
    fn next(&self) -> Option<usize> {
        let lines = self.connections.iter().enumerate().filter_map(|(index, connection)| {
            let line = connection.capture.lines.get(connection.next)?;
            Some((line.at, !is_due(&self.asked, line), !line.to_agent, index))
        });
        lines.min().map(|(_, _, _, index)| index)
    }

    /// Lets time pass, and timers fire.
    fn wait(&mut self, millis: u64) {
        let until = Timestamp::from_millis(millis);
        if self.circumstances.stopped_at.is_some_and(|at| at <= millis) {
            self.circumstances.stopped_at = None;
            for index in 0..self.connections.len() {
                let now = self.now;
                if let Some(engine) = self.connections.get_mut(index).and_then(|c| c.engine.as_mut()) {
                    engine.drain(now);
                }
                self.act(index, |engine, input| engine.on_bytes(now, input));
            }
        }
        for index in 0..self.connections.len() {
            while let Some(at) = self.deadline(index).filter(|at| *at <= until) {
                self.now = self.now.max(at);
                let now = self.now;
                self.act(index, |engine, _| Step { consumed: 0, action: engine.on_timeout(now) });
            }
        }
        self.now = until.max(self.now);
    }

    fn deadline(&self, index: usize) -> Option<Timestamp> {
        self.connections.get(index)?.engine.as_ref()?.deadline().map(|(at, _)| at)
    }

    /// HAProxy sends something.
    fn ask(&mut self, index: usize, line: &Line, rest: &[Line]) -> anyhow::Result<()> {
        let now = self.now;
        let circumstances = self.circumstances;
        let connection = self.connections.get_mut(index).context("no such connection")?;
        let frame = connection.recorded.pop();
        let ids = Ids::new(line.ids.0, line.ids.1);
        match line.frame_type {
            FrameType::HaproxyHello => {
                let config = config(connection.capture, frame, circumstances, &self.cuts)?;
                connection.engine =
                    Some(EngineReactor::new(Arc::new(config.checked()?), ConnectionId(0), now));
            }
            FrameType::Notify => {
                self.asked.insert(line.ids);
                let set: Vec<_> =
                    rest.iter().filter(|line| line.to_agent && line.ids == (ids.stream, ids.frame)).collect();
                let upto = 1 + set.iter().position(|line| line.flags != "-").unwrap_or(set.len() - 1);
                let parts = set.get(..upto).unwrap_or_default();
                let finished = parts.last().is_some_and(|line| line.flags == "FIN");
                let mut payload = Vec::new();
                if let Some(frame) = frame {
                    payload.extend_from_slice(frame.payload);
                    let more = connection.recorded.iter().rev().filter(|other| other.header.ids == ids);
                    for frame in
                        more.take(upto - 1).filter(|frame| frame.header.frame_type == FrameType::Unset)
                    {
                        payload.extend_from_slice(frame.payload);
                    }
                } else {
                    // Not kept: as much of something else.
                    payload.resize(parts.iter().map(|line| line.len.1).sum(), 0);
                }
                if !finished {
                    // How much was left is not known: a lot.
                    payload.resize(payload.len() + 200_000, 0);
                }
                connection.slowly = upto > 1 || !finished;
                let engine = connection.engine.as_mut().context("no HELLO")?;
                match engine.notify_raw(now, Some(ids), &payload) {
                    Ok(_) => {}
                    Err(NotifyError::NoSession) => connection.log.push(format!("not asked {ids}")),
                    Err(error) => bail!(error),
                }
            }
            FrameType::Unset if line.flags == "FIN" => connection.slowly = false,
            FrameType::HaproxyDisconnect if connection.capture.name.contains("no-fragmentation") => {
                // HAProxy had a payload for which the connection was no good.
                let engine = connection.engine.as_mut().context("no HELLO")?;
                let error = engine.notify_raw(now, None, &[0; 5_000]);
                ensure!(matches!(error, Err(NotifyError::TooBig { .. })), "{error:?}");
                engine.disconnect(now, Status::FRAGMENTED);
                self.act(index, |engine, input| engine.on_bytes(now, input));
            }
            _ => {}
        }
        self.flush(index, 1);
        Ok(())
    }

    /// The agent sends some frames, at once.
    fn answer(&mut self, index: usize, count: usize) {
        let Some(connection) = self.connections.get_mut(index) else { return };
        let mut bytes = Vec::new();
        for _ in 0..count {
            // Where the agent's bytes were not kept, there is nothing to be replayed.
            let Some(frame) = connection.received.pop() else { continue };
            put_frame(&mut bytes, frame.header, frame.payload);
            connection.payloads.insert(frame.header.ids, frame.payload.to_vec());
        }
        let split = connection.capture.name.contains("hello-split") && connection.next == 2;
        let mut rest = &*bytes;
        while !rest.is_empty() {
            let len = match &mut self.cuts {
                Cuts::Bytes => 1,
                Cuts::Random(random) => random.piece(rest.len()),
                _ if split && rest.len() == bytes.len() => 11,
                _ => rest.len(),
            };
            let (piece, more) = rest.split_at_checked(len).unwrap_or((rest, &[]));
            rest = more;
            if let Some(connection) = self.connections.get_mut(index) {
                connection.inbox.extend_from_slice(piece);
            }
            let now = self.now;
            self.act(index, |engine, input| engine.on_bytes(now, input));
        }
        let over = self
            .connections
            .get(index)
            .is_some_and(|c| c.capture.agent_closed && c.next == c.capture.lines.len());
        if over {
            let now = self.now;
            self.act(index, |engine, input| engine.on_input_eof(now, input));
        }
    }

    /// Passes something on to an engine until it has no more to say.
    fn act(
        &mut self,
        index: usize,
        mut input: impl for<'i> FnMut(&mut EngineReactor, &'i [u8]) -> Step<EngineAction<'i>>,
    ) {
        loop {
            let Some(connection) = self.connections.get_mut(index) else { return };
            let Some(engine) = &mut connection.engine else { return };
            match connection.inbox.feed(|bytes| input(engine, bytes)) {
                EngineAction::Answered(answer) => {
                    let answer = answer.into_owned();
                    connection.answered(answer.id.ids(), &answer.payload);
                }
                EngineAction::Failed(failure) => {
                    connection.log.push(format!("failed {} {}", failure.id.ids(), failure.error.code()));
                }
                EngineAction::Unclaimed(ack) => self.claim(&ack),
                EngineAction::Close(ended) => {
                    for id in &ended.unanswered {
                        let code =
                            if ended.orphaned { "orphaned".into() } else { ended.error.code().to_string() };
                        connection.log.push(format!("failed {} {code}", id.ids()));
                    }
                    connection.log.push(format!("closed: {}", ended.closed.reason));
                    break;
                }
                EngineAction::SendFrames | EngineAction::WantBytes { .. } => break,
                _ => {}
            }
        }
        self.flush(index, 0);
    }

    /// Finds the connection that waits for an ACK which came by another.
    fn claim(&mut self, ack: &spop_core::engine::UnclaimedAck) {
        let (ids, now) = (ack.ids, self.now);
        let payload = ack.payload.clone();
        for connection in &mut self.connections {
            let Some(engine) = &mut connection.engine else { continue };
            if engine.claim(now, ack.clone()).is_ok() {
                connection.payloads.insert(ids, payload.to_vec());
                connection.answered(ids, &payload);
                return;
            }
        }
    }

    /// Has bytes leave: all, or so many frames.
    fn flush(&mut self, index: usize, count: usize) {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(index) else { return };
        let Some(engine) = &mut connection.engine else { return };
        for turn in 0.. {
            let out = engine.outgoing();
            if out.is_empty() || connection.slowly && turn == count {
                break;
            }
            let frame = out.first_chunk::<4>().map_or(0, |prefix| 4 + u32::from_be_bytes(*prefix) as usize);
            let leaves = out.get(..frame).unwrap_or(out);
            connection.sent.extend_from_slice(leaves);
            let n = leaves.len();
            let _ = engine.on_sent(now, n);
        }
    }
}

impl Connection<'_> {
    fn answered(&mut self, ids: Ids, payload: &[u8]) {
        let same = self.payloads.get(&ids).is_some_and(|sent| sent == payload);
        self.log.push(format!("answered {ids}{}", if same { "" } else { " with something else" }));
    }
}

/// Whether a line can come already: answers come after questions.
fn is_due(asked: &BTreeSet<(u64, u64)>, line: &Line) -> bool {
    line.frame_type != FrameType::Ack || asked.contains(&line.ids)
}

/// An engine as HAProxy was: what its HELLO says, and what it does.
fn config(
    capture: &Capture,
    hello: Option<Frame<'_>>,
    circumstances: Circumstances,
    cuts: &Cuts,
) -> anyhow::Result<EngineConfig> {
    let old = capture.name.starts_with("2.6");
    let mut config = if old { EngineConfig::haproxy_2_6() } else { EngineConfig::haproxy_3_1() };
    // It skips identifiers sometimes: take those that were recorded.
    config.profile.stream_ids = StreamIds::Streams;
    if let Some(hello) = hello {
        let hello = HaproxyHello::decode(hello.payload)?;
        config.max_frame_size = hello.max_frame_size;
        config.capabilities = hello.capabilities;
        config.engine_id = hello.engine_id.map(|id| id.to_vec().into());
        config.healthcheck = hello.healthcheck;
    } else {
        config.max_frame_size = 131_068;
        config.capabilities = Capabilities::PIPELINING | Capabilities::ASYNC;
        config.engine_id = Some("not kept".into());
    }
    config.timeouts.message = circumstances.processing.map(Duration::from_millis);
    config.timeouts.idle = circumstances.idle.map(Duration::from_millis);
    if !matches!(cuts, Cuts::AsSent) {
        // What kills it is how bytes arrive, not what they say.
        config.profile.rejects_split_frames = false;
        config.profile.strict_healthcheck = false;
        config.profile.stalls_at = None;
    }
    Ok(config)
}

/// The frames of an engine, with its fragmented payloads put together: what two engines that cut differently have in common.
///
/// # Errors
/// Bytes that are no frames.
pub fn summary(bytes: &[u8]) -> anyhow::Result<Vec<String>> {
    let mut open: BTreeMap<Ids, Vec<u8>> = BTreeMap::new();
    let mut summary = Vec::new();
    for frame in frames(bytes)? {
        let (ids, flags) = (frame.header.ids, frame.header.flags);
        let fragment = frame.header.frame_type == FrameType::Unset
            || frame.header.frame_type == FrameType::Notify && flags == Flags::NONE;
        if !fragment {
            summary.push(notation::print(frame).to_string());
            continue;
        }
        open.entry(ids).or_default().extend_from_slice(frame.payload);
        if flags.is_abort() {
            open.remove(&ids);
            summary.push(format!("aborted {ids}"));
        } else if flags == Flags::FIN {
            summary.push(format!("{ids} {:?}", open.remove(&ids)));
        }
    }
    summary.extend(open.keys().map(|ids| format!("never finished {ids}")));
    Ok(summary)
}
