//! An agent that passes all cases, with at most one fault. A thread per connection, and no reactor.

mod handshake;

use std::{
    collections::HashMap,
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use spop_core::{
    Messages, Value,
    frame::{Frame, FrameType, Ids},
    notation,
    wire::KvList,
};

use super::fault::Fault;

/// The longest frame that this agent accepts before the handshake.
const FIRST_MAX: usize = 16_384;

/// Starts the agent, and returns its address.
pub(super) fn start(fault: Option<Fault>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let shared = Arc::new(Shared::default());
    thread::spawn(move || {
        for socket in listener.incoming() {
            let socket = socket.unwrap();
            if shared.dead.load(Ordering::SeqCst) {
                continue;
            }
            socket.set_nodelay(true).unwrap();
            let shared = Arc::clone(&shared);
            let connection = Connection::new(socket, fault, shared);
            if fault == Some(Fault::ServesOneConnection) {
                connection.serve();
            } else {
                thread::spawn(|| connection.serve());
            }
        }
    });
    address
}

#[derive(Default)]
struct Shared {
    /// The agent has crashed: new connections are closed at once.
    dead: AtomicBool,
    /// The sessions and their engines, the oldest first.
    sessions: Mutex<Vec<(TcpStream, Vec<u8>)>>,
}

/// Why a connection ends.
enum End {
    Closed,
    Status(u32),
    /// The agent crashes.
    Crash,
}

type Done = Result<(), End>;

struct Connection {
    socket: TcpStream,
    fault: Option<Fault>,
    shared: Arc<Shared>,
    greeted: bool,
    agreed: usize,
    is_async: bool,
    engine: Vec<u8>,
    payloads: HashMap<Ids, Vec<u8>>,
    answered: Vec<Ids>,
}

impl Connection {
    fn new(socket: TcpStream, fault: Option<Fault>, shared: Arc<Shared>) -> Self {
        Self {
            socket,
            fault,
            shared,
            greeted: false,
            agreed: FIRST_MAX,
            is_async: false,
            engine: Vec::new(),
            payloads: HashMap::new(),
            answered: Vec::new(),
        }
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    fn serve(mut self) {
        let end = self.run().unwrap_err();
        match end {
            End::Crash => self.shared.dead.store(true, Ordering::SeqCst),
            End::Closed => {}
            End::Status(status) => {
                let status = if self.has(Fault::StatusIsAlways99) { 99 } else { status };
                let _ = self.disconnect(status);
            }
        }
        let peer = self.socket.peer_addr().ok();
        self.shared.sessions.lock().unwrap().retain(|(socket, _)| socket.peer_addr().ok() != peer);
        // A clone may be in use.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    fn run(&mut self) -> Done {
        if self.has(Fault::TalksFirst) {
            self.send(
                "AGENT-HELLO fin 0 0 version=string:2.0 max-frame-size=uint32:256 capabilities=string:\"\"",
            )?;
        }
        let mut input = Vec::new();
        let mut buffer = vec![0; 1 << 16];
        loop {
            let read = self.socket.read(&mut buffer).map_err(|_| End::Closed)?;
            if read == 0 {
                if self.has(Fault::CrashesOnHalfFrame) && !input.is_empty() {
                    return Err(End::Crash);
                }
                if self.has(Fault::StaysOpen) {
                    thread::sleep(Duration::from_secs(20));
                }
                return Err(End::Closed);
            }
            input.extend_from_slice(&buffer[..read]);
            while let Some(frame) = self.next(&mut input)? {
                self.handle(&frame)?;
                if self.has(Fault::SwallowsRestOfRead) {
                    input.clear();
                }
            }
            if self.has(Fault::NeedsWholeFrames) {
                input.clear();
            }
        }
    }

    fn next(&self, input: &mut Vec<u8>) -> Result<Option<Vec<u8>>, End> {
        let Some(prefix) = input.first_chunk::<4>() else { return Ok(None) };
        let len = u32::from_be_bytes(*prefix) as usize;
        if self.has(Fault::AllocatesTheLength) && len > 1 << 30 {
            return Err(End::Crash);
        }
        if len == 0 {
            return Err(End::Status(4));
        }
        if len > self.agreed && !self.has(Fault::AcceptsLongFrames) {
            return Err(End::Status(3));
        }
        if input.len() < 4 + len {
            return Ok(None);
        }
        let rest = input.split_off(4 + len);
        Ok(Some(std::mem::replace(input, rest).split_off(4)))
    }

    fn handle(&mut self, frame: &[u8]) -> Done {
        let frame = Frame::decode(frame).map_err(|_| End::Status(4))?;
        let ids = frame.header.ids;
        let (fin, abort) = (frame.header.flags.is_fin(), frame.header.flags.is_abort());
        if frame.header.flags.0 > 3 && self.has(Fault::RejectsReservedFlags) {
            return Err(End::Status(4));
        }
        match frame.header.frame_type {
            FrameType::Unknown(_) if self.has(Fault::CrashesOnUnknownType) => Err(End::Crash),
            FrameType::Unknown(_) if self.has(Fault::RejectsUnknownType) => Err(End::Status(4)),
            FrameType::Unknown(_) => Ok(()),
            FrameType::HaproxyHello => self.greet(&frame),
            FrameType::Notify if !self.greeted && self.has(Fault::AnswersBeforeHello) => {
                self.answer(ids, b"")
            }
            _ if !self.greeted => Err(End::Status(4)),
            FrameType::HaproxyDisconnect => self.disconnected(&frame),
            FrameType::Notify if abort => Ok(()),
            FrameType::Notify if fin || self.has(Fault::AnswersFirstFragment) => {
                if self.has(Fault::RejectsInterlaced) && !self.payloads.is_empty() {
                    return Err(End::Status(4));
                }
                self.answer(ids, frame.payload)
            }
            FrameType::Notify => {
                self.payloads.insert(self.key(ids), frame.payload.to_vec());
                Ok(())
            }
            FrameType::Unset => self.fragment(ids, fin, abort, frame.payload),
            _ => Err(End::Status(4)),
        }
    }

    fn key(&self, ids: Ids) -> Ids {
        if self.has(Fault::MixesPayloads) { Ids::ZERO } else { ids }
    }

    fn fragment(&mut self, ids: Ids, fin: bool, abort: bool, part: &[u8]) -> Done {
        let key = self.key(ids);
        if abort && !self.has(Fault::AnswersAborted) {
            return self.payloads.remove(&key).map(|_| ()).ok_or(End::Status(12));
        }
        let payload = self.payloads.get_mut(&key).ok_or(End::Status(12))?;
        payload.extend_from_slice(part);
        if abort {
            return self.acknowledge(ids);
        }
        if fin && !self.has(Fault::NeverAnswersFragments) {
            let payload = self.payloads.remove(&key).unwrap();
            return self.answer(ids, &payload);
        }
        Ok(())
    }

    fn disconnected(&mut self, frame: &Frame<'_>) -> Done {
        if self.has(Fault::IgnoresDisconnect) {
            return Ok(());
        }
        let items = KvList::decode(frame.payload).map_err(|_| End::Status(4))?;
        let status = items.get("status-code").and_then(|value| value.as_integer()).unwrap_or(0);
        let status = if self.has(Fault::DisconnectsWith0) { 0 } else { u32::try_from(status).unwrap_or(99) };
        self.disconnect(status).and(Err(End::Closed))
    }

    /// Sends an AGENT-DISCONNECT, and awaits the peer's close for a short time.
    fn disconnect(&mut self, status: u32) -> Done {
        if self.has(Fault::ClosesWithoutDisconnect) {
            return Ok(());
        }
        let message = if self.has(Fault::DisconnectHasNoMessage) { "" } else { "message=string:bye" };
        self.send_or_split(
            &format!("AGENT-DISCONNECT fin 0 0 status-code=uint32:{status} {message}"),
            Fault::DisconnectInTwoSegments,
        )?;
        let patience = if self.has(Fault::StaysOpenAfterDisconnect) { 20_000 } else { 100 };
        self.socket.set_read_timeout(Some(Duration::from_millis(patience))).unwrap();
        let mut buffer = vec![0; 1 << 16];
        while self.socket.read(&mut buffer).is_ok_and(|read| read > 0) {}
        if self.has(Fault::StaysOpenAfterDisconnect) {
            thread::sleep(Duration::from_secs(20));
        }
        Ok(())
    }

    fn answer(&mut self, ids: Ids, payload: &[u8]) -> Done {
        let messages = Messages::decode(payload).map_err(|_| End::Status(4))?;
        for message in messages {
            let args: Vec<_> = message.args().collect();
            match self.fault {
                Some(Fault::CrashesAt255Arguments) if args.len() == 255 => return Err(End::Crash),
                Some(Fault::WantsArgumentNames) if args.iter().any(|(name, _)| name.is_empty()) => {
                    return Err(End::Status(4));
                }
                Some(Fault::IgnoresUnknownMessages) if message.name() != b"known" => return Ok(()),
                _ => {}
            }
            for (_, value) in args {
                match (self.fault, value) {
                    (Some(Fault::ChecksUtf8), Value::String(text)) if str::from_utf8(text).is_err() => {
                        return Err(End::Status(4));
                    }
                    (Some(Fault::HasNo64BitNumbers), Value::Int64(number))
                        if i32::try_from(number).is_err() =>
                    {
                        return Err(End::Crash);
                    }
                    (Some(Fault::RejectsNull), Value::Null) => return Err(End::Status(4)),
                    _ => {}
                }
            }
        }
        if messages.iter().next().is_none() && self.has(Fault::RejectsEmptyNotify) {
            return Err(End::Status(4));
        }
        if self.has(Fault::IgnoresStream0) && ids.stream == 0 {
            return Ok(());
        }
        if self.has(Fault::RemembersIds) && self.answered.contains(&ids) {
            return Ok(());
        }
        self.answered.push(ids);
        if self.has(Fault::AnswersPerMessage) {
            for _ in messages.iter().skip(1) {
                self.acknowledge(ids)?;
            }
        }
        self.acknowledge(ids)
    }

    fn acknowledge(&mut self, Ids { stream, frame }: Ids) -> Done {
        let (stream, frame) = match self.fault {
            Some(Fault::WrongStreamId) => (stream + 1, frame),
            Some(Fault::WrongFrameId) => (stream, frame + 1),
            Some(Fault::IdsOfOneByte) => (stream % 240, frame % 240),
            _ => (stream, frame),
        };
        let flags = match self.fault {
            Some(Fault::NoFin) => "-",
            Some(Fault::ReservedFlags) => "0x101",
            _ => "fin",
        };
        let actions = match self.fault {
            Some(Fault::MalformedActions) => "hex:0103ff".to_owned(),
            Some(Fault::LongAck) => format!("set txn x=string:\"x\"*{}", self.agreed),
            Some(Fault::FillsTheBuffer) => {
                format!("set txn x=string:\"x\"*{}", self.agreed.saturating_sub(16))
            }
            _ => "set txn x=int32:1".to_owned(),
        };
        let ack = format!("ACK {flags} {stream} {frame} {actions}");
        if self.has(Fault::AnswersSlowly) {
            thread::sleep(Duration::from_millis(50));
        }
        if self.has(Fault::DisconnectsForLongAnswers) && self.agreed < 300 {
            return Err(End::Status(3));
        }
        if self.has(Fault::AnswersTwice) {
            self.send(&ack)?;
        }
        let elsewhere = match self.fault {
            // The probes of the suite announce async, and belong to another engine.
            Some(Fault::AnswersOnFirstConnection) => !self.is_async,
            Some(Fault::IgnoresEngineIds) => self.is_async && self.engine == b"another-engine",
            Some(Fault::AnswersOnFirstOfEngine) => self.is_async,
            _ => false,
        };
        if elsewhere {
            let bytes = notation::parse_bytes(&ack).unwrap();
            let of_engine =
                |engine: &Vec<u8>| *engine == self.engine || !self.has(Fault::AnswersOnFirstOfEngine);
            let sessions = self.shared.sessions.lock().unwrap();
            let first = sessions.iter().find(|(_, engine)| of_engine(engine));
            return first.map_or(Ok(()), |(socket, _)| (&*socket).write_all(&bytes).map_err(|_| End::Closed));
        }
        self.send(&ack)
    }

    /// Sends a frame, in two segments if the agent has this fault.
    fn send_or_split(&mut self, frame: &str, fault: Fault) -> Done {
        let bytes = notation::parse_bytes(frame).unwrap();
        if !self.has(fault) {
            return self.write(&bytes);
        }
        self.write(&bytes[..20])?;
        // What is read late is read at once.
        thread::sleep(Duration::from_millis(30));
        self.write(&bytes[20..])
    }

    fn send(&mut self, frame: &str) -> Done {
        self.write(&notation::parse_bytes(frame).unwrap())
    }

    fn write(&mut self, bytes: &[u8]) -> Done {
        self.socket.write_all(bytes).map_err(|_| End::Closed)
    }
}
