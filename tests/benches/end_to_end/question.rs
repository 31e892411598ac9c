//! What is asked and answered: the same for every agent.

use std::{hint::black_box, net::Ipv4Addr};

use clap::ValueEnum;
use spop_core::{
    Actions, Scope,
    agent::Router,
    frame::{MessageIter, put_message},
    wire::Value,
};

pub const IP: Value<'_> = Value::Ipv4(Ipv4Addr::new(203, 0, 113, 7));
pub const AGENT: &[u8] = b"Mozilla/5.0 (X11; Linux x86_64) Gecko Firefox/140";

/// The streams of the load's NOTIFYs: identifiers of four bytes, as HAProxy has them after a while.
pub const STREAMS: std::ops::Range<u64> = 70_000..200_000;

/// The payload of a NOTIFY.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Question {
    /// An address and a user agent: a frame of 92 bytes.
    Small,
    /// Twelve arguments, the headers of a request among them: a frame of 1.1 KB.
    Large,
}

impl Question {
    pub const ALL: [Self; 2] = [Self::Small, Self::Large];

    pub fn payload(self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Small => {
                put_message(&mut out, "check-client-ip", [("ip", IP), ("ua", Value::String(AGENT))]);
            }
            Self::Large => {
                let headers = "accept: text/html\r\ncookie: session=0123456789abcdef\r\n".repeat(17);
                let args = [
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
                ];
                put_message(&mut out, "http-request", args);
            }
        }
        out
    }
}

/// The variable that every answer sets.
pub const VARIABLE: &str = "ip_score";
pub const SCORE: i32 = 42;

/// Looks at every argument, and answers.
pub fn answer(messages: MessageIter<'_>) -> Actions {
    for message in messages {
        black_box(message.name());
        for argument in message.args() {
            black_box(argument);
        }
    }
    actions()
}

pub fn actions() -> Actions {
    let mut actions = Actions::new();
    actions.set_var(Scope::Session, VARIABLE, black_box(SCORE));
    actions
}

/// The messages that the routers have routes for.
pub const ROUTES: [&str; 5] =
    ["check-client-ip", "get-ip-reputation", "http-request", "http-response", "check-request"];

/// A router of the core with these routes. `arrived` is called for each message.
pub fn router(arrived: impl Fn() + Copy + Send + Sync + 'static) -> Router {
    ROUTES.into_iter().fold(Router::new(), |router, name| {
        router.on(name, move |message| {
            arrived();
            black_box(message.name());
            for argument in message.args() {
                black_box(argument);
            }
            Ok(actions())
        })
    })
}
