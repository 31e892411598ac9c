//! The measured work: the bytes of one read in, every argument decoded, one variable set, the answers out.
//!
//! There are four variants. `Read` only copies the bytes in, as the kernel would; the figures of the others are net of it.
//! `Floor` is the lower bound: a bounds-checked walk over the arguments, and a patched copy of a finished answer. `Reactor` is
//! this crate, `Spop` the `spop` crate behind its codec.

mod walk;

use std::{hint::black_box, sync::Arc};

use bytes::{Buf, BytesMut};
use spop::{SpopCodec, actions::VarScope, frame::FramePayload, frames::Ack};
use spop_core::{
    Action, Actions, AgentReactor, ConnectionId, Scope, Timestamp,
    frame::{Flags, FrameType, Header, Ids, put_frame, put_message},
    notation,
    wire::Value,
};
use tokio_util::codec::{Decoder, Encoder};

/// The numbers of frames per read.
pub const BATCHES: [usize; 2] = [1, 32];

/// The shape of a request.
#[derive(Clone, Copy)]
pub struct Shape {
    pub name: &'static str,
    messages: fn(&mut Vec<u8>),
}

pub const SHAPES: [Shape; 4] = [
    Shape { name: "IP check", messages: ip_check },
    Shape { name: "HTTP headers", messages: http_headers },
    Shape { name: "WAF body", messages: waf_body },
    Shape { name: "three messages", messages: three_messages },
];

const AGENT: &[u8] = b"Mozilla/5.0 (X11; Linux x86_64) Gecko Firefox/140";
const IP: Value<'_> = Value::Ipv4(std::net::Ipv4Addr::new(203, 0, 113, 7));

fn ip_check(out: &mut Vec<u8>) {
    put_message(out, "check-client-ip", [("ip", IP), ("ua", Value::String(AGENT))]);
}

fn http_headers(out: &mut Vec<u8>) {
    let headers = "accept: text/html\r\ncookie: session=0123456789abcdef\r\n".repeat(11);
    put_message(
        out,
        "http-request",
        [
            ("src", IP),
            ("src_port", Value::Int64(49_152)),
            ("ssl", Value::Bool(true)),
            ("sni", Value::String(b"www.example.com")),
            ("method", Value::String(b"GET")),
            ("path", Value::String(b"/products/4711/")),
            ("query", Value::String(b"page=2&sort=date&lang=en")),
            ("version", Value::String(b"1.1")),
            ("ua", Value::String(AGENT)),
            ("referer", Value::Null),
            ("conn_cur", Value::Int64(118)),
            ("headers", Value::Binary(headers.as_bytes())),
        ],
    );
}

fn waf_body(out: &mut Vec<u8>) {
    put_message(
        out,
        "waf",
        [
            ("src", IP),
            ("method", Value::String(b"POST")),
            ("path", Value::String(b"/login")),
            ("body", Value::Binary(&[b'x'; 9_000])),
        ],
    );
}

fn three_messages(out: &mut Vec<u8>) {
    put_message(out, "ip-reputation", [("ip", IP), ("port", Value::Int64(49_152))]);
    put_message(
        out,
        "user",
        [("token", Value::Null), ("name", Value::String(b"alice")), ("tls", true.into())],
    );
    put_message(out, "bot-score", [("ua", Value::String(AGENT)), ("path", Value::String(b"/products/4711"))]);
}

impl Shape {
    /// The bytes of a read with `frames` NOTIFYs.
    pub fn read(&self, frames: usize) -> Vec<u8> {
        let mut payload = Vec::new();
        (self.messages)(&mut payload);
        let mut bytes = Vec::new();
        for frame in 0..frames as u64 {
            // HAProxy numbers streams from its start, so identifiers of a busy process are long.
            put_frame(&mut bytes, header(FrameType::Notify, Ids::new(70_000 + frame, 1)), &payload);
        }
        bytes
    }
}

fn header(frame_type: FrameType, ids: Ids) -> Header {
    Header { frame_type, flags: Flags::FIN, ids }
}

/// A variant of the work.
pub trait Variant {
    /// Processes the bytes of a read. Returns the bytes of the answers.
    fn round(&mut self, bytes: &[u8]) -> &[u8];
}

/// The names of the variants, in the order of [`variants`].
pub const VARIANTS: [&str; 4] = ["read", "floor", "spop-core", "spop"];

/// All variants, ready for their first read.
pub fn variants() -> [Box<dyn Variant>; 4] {
    [Box::new(Read::default()), Box::new(Floor::new()), Box::new(Reactor::new()), Box::new(Spop::default())]
}

#[derive(Default)]
struct Read {
    inbox: BytesMut,
}

impl Variant for Read {
    fn round(&mut self, bytes: &[u8]) -> &[u8] {
        self.inbox.clear();
        self.inbox.extend_from_slice(bytes);
        &[]
    }
}

struct Floor {
    inbox: BytesMut,
    answers: Vec<Vec<u8>>,
    out: Vec<u8>,
}

impl Floor {
    fn new() -> Self {
        let mut actions = Actions::new();
        actions.set_var(Scope::Session, "ip_score", 42_i32);
        Self { inbox: BytesMut::new(), answers: walk::canned(actions.as_bytes()), out: Vec::new() }
    }
}

impl Variant for Floor {
    fn round(&mut self, bytes: &[u8]) -> &[u8] {
        self.inbox.clear();
        self.inbox.extend_from_slice(bytes);
        self.out.clear();
        let mut start = 0;
        while start < self.inbox.len() {
            start += walk::answer(&self.inbox[start..], &self.answers, &mut self.out).unwrap();
        }
        &self.out
    }
}

struct Reactor {
    agent: AgentReactor,
    inbox: Vec<u8>,
    now: Timestamp,
    out: Vec<u8>,
}

impl Reactor {
    fn new() -> Self {
        let now = Timestamp::ZERO;
        let mut agent = AgentReactor::new(Arc::default(), ConnectionId(1), now);
        let hello = "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 capabilities=string:pipelining,async";
        let hello = notation::parse_bytes(hello).unwrap();
        let greeted = agent.on_bytes(now, &hello);
        assert!(matches!(greeted.action, Action::Established(_)) && greeted.consumed == hello.len());
        let _ = agent.on_sent(now, agent.outgoing().len()).unwrap();
        Self { agent, inbox: Vec::new(), now, out: Vec::new() }
    }
}

impl Variant for Reactor {
    fn round(&mut self, bytes: &[u8]) -> &[u8] {
        self.inbox.clear();
        self.inbox.extend_from_slice(bytes);
        self.now = Timestamp::from_nanos(self.now.as_nanos() + 50_000);
        let mut input = &self.inbox[..];
        while !input.is_empty() {
            let step = self.agent.on_bytes(self.now, input);
            input = &input[step.consumed..];
            match step.action {
                Action::RunMessages(notify) => {
                    for message in notify.payload.messages() {
                        black_box(message.name());
                        for argument in message.args() {
                            black_box(argument);
                        }
                    }
                    let mut actions = Actions::new();
                    actions.set_var(Scope::Session, "ip_score", black_box(42_i32));
                    self.agent.acknowledge(self.now, notify.ticket, &actions).unwrap();
                }
                other => panic!("{other:?}"),
            }
        }
        // The copy that a transport makes, and that the other variants include.
        self.out.clear();
        self.out.extend_from_slice(self.agent.outgoing());
        assert!(self.agent.on_sent(self.now, self.out.len()).is_ok());
        &self.out
    }
}

#[derive(Default)]
struct Spop {
    codec: SpopCodec,
    inbox: BytesMut,
    out: BytesMut,
}

impl Variant for Spop {
    fn round(&mut self, bytes: &[u8]) -> &[u8] {
        self.inbox.extend_from_slice(bytes);
        self.out.clear();
        while self.inbox.has_remaining() {
            let frame = self.codec.decode(&mut self.inbox).unwrap().unwrap();
            let FramePayload::ListOfMessages(messages) = frame.payload() else { panic!("not a NOTIFY") };
            for message in messages {
                black_box(&message.name);
                for argument in &message.args {
                    black_box(argument);
                }
            }
            let ids = frame.metadata();
            let ack = Ack::new(ids.stream_id, ids.frame_id).set_var(
                VarScope::Session,
                "ip_score",
                black_box(42_i32),
            );
            self.codec.encode(Box::new(ack), &mut self.out).unwrap();
        }
        &self.out
    }
}
