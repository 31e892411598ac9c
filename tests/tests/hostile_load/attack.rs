//! The list of attacks. A feature that reads something new from a peer adds a line to [`ALL`].

use anyhow::Result;
use spop_tests::peer::bytes;

/// The longest payload of the default limits.
const MAX_PAYLOAD: usize = 1 << 20;

/// The bytes of a frame before its payload: length, type, flags, and two ids of one byte.
const HEADER: usize = 11;

/// What a fragment carries, in sessions with the frame size of HAProxy.
const FRAGMENT: usize = 16_000;

/// Short frames are repeated for so many bytes: few system calls.
const REPEATED: usize = 256 << 10;

/// What one kind of malicious peer sends.
#[derive(Debug)]
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    pub(crate) exhausts: Resource,
    /// What that is spent on.
    pub(crate) aim: &'static str,
    /// The keys of its HELLO; without, there is no handshake.
    pub(crate) hello: Option<&'static str>,
    /// Sent once, after the HELLO.
    first: fn() -> Result<Vec<u8>>,
    /// Sent afterwards, without end.
    repeated: fn() -> Result<Vec<u8>>,
    pub(crate) pace: Pace,
    /// Whether it reads what the server sends.
    pub(crate) reads: bool,
}

/// What an attack tries to exhaust.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resource {
    Memory,
    Time,
}

/// How fast it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// As fast as the server reads.
    Flood,
    /// One byte a second.
    Drip,
    /// All at once, then it disconnects with a reset.
    Reset,
}

impl Attack {
    /// What is sent once, HELLO included, and what is sent afterwards.
    pub(crate) fn input(&self) -> Result<(Vec<u8>, Vec<u8>)> {
        let mut first = match self.hello {
            Some(keys) => bytes(&format!("HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 {keys}"))?,
            None => Vec::new(),
        };
        first.extend((self.first)()?);
        Ok((first, (self.repeated)()?))
    }

    /// Whether it goes on for as long as the server reads.
    pub(crate) fn is_endless(&self) -> bool {
        (self.repeated)().is_ok_and(|repeated| !repeated.is_empty())
    }
}

/// The HELLO of a peer that asks as HAProxy does.
const USUAL: Option<&str> = Some("max-frame-size=uint32:16380 capabilities=string:pipelining,async");

/// The HELLO of a peer that wants the longest frames.
const LONG_FRAMES: Option<&str> = Some("max-frame-size=uint32:1048576 capabilities=string:pipelining,async");

pub(crate) static EMPTY_FRAGMENTS: Attack = Attack {
    name: "empty fragments",
    exhausts: Resource::Time,
    aim: "frames that add nothing to a payload",
    hello: USUAL,
    first: || bytes("NOTIFY - 1 1"),
    repeated: || filled(|_| "UNSET - 1 1".into()),
    pace: Pace::Flood,
    reads: true,
};

pub(crate) static SMALL_REQUESTS: Attack = Attack {
    name: "small requests",
    exhausts: Resource::Time,
    aim: "the shortest requests, each with an answer",
    hello: USUAL,
    first: nothing,
    repeated: || filled(|id| format!("NOTIFY fin {id} 1 m")),
    pace: Pace::Flood,
    reads: true,
};

pub(crate) static UNREAD_ANSWERS: Attack = Attack {
    name: "unread answers",
    exhausts: Resource::Memory,
    aim: "answers that wait for a peer that does not read",
    hello: USUAL,
    first: nothing,
    repeated: || filled(|id| format!("NOTIFY fin {id} 1 m a=string:\"x\"*200")),
    pace: Pace::Flood,
    reads: false,
};

pub(crate) static UNKNOWN_FRAMES: Attack = Attack {
    name: "unknown frames",
    exhausts: Resource::Time,
    aim: "frames that are skipped",
    hello: USUAL,
    first: nothing,
    // Of type 42, with the flag FIN and the ids 1 and 1.
    repeated: || Ok([0, 0, 0, 7, 42, 0, 0, 0, 1, 1, 1].repeat(REPEATED / 11)),
    pace: Pace::Flood,
    reads: true,
};

pub(crate) static SUPERSEDING_IDS: Attack = Attack {
    name: "superseding ids",
    exhausts: Resource::Memory,
    aim: "calls of a slow handler, each cancelled by the next",
    hello: USUAL,
    first: nothing,
    repeated: || filled(|_| "NOTIFY fin 9 1 sleep ms=int32:100".into()),
    pace: Pace::Flood,
    reads: true,
};

pub(crate) static LONG_PAYLOADS: Attack = Attack {
    name: "long payloads",
    exhausts: Resource::Memory,
    aim: "copies of payloads in fragments",
    hello: USUAL,
    first: nothing,
    repeated: || Ok(fragments(1, &payload("unset a=string:")?, true)),
    pace: Pace::Flood,
    reads: true,
};

static HALF_FRAMES: Attack = Attack {
    name: "half frames",
    exhausts: Resource::Memory,
    aim: "frames of 1 MiB under way",
    hello: LONG_FRAMES,
    first: || {
        // All of a NOTIFY but its last byte.
        let mut frame = vec![0, 0x10, 0, 0, 3, 0, 0, 0, 1, 1, 1];
        frame.resize(4 + MAX_PAYLOAD - 1, 0);
        Ok(frame)
    },
    repeated: nothing,
    pace: Pace::Flood,
    reads: true,
};

static UNFINISHED_PAYLOADS: Attack = Attack {
    name: "unfinished payloads",
    exhausts: Resource::Memory,
    aim: "payloads whose last fragment never comes, up to the limit of the connection",
    hello: USUAL,
    first: || {
        let payload = payload("unset a=string:")?;
        Ok((1..=4).flat_map(|id| fragments(id, &payload, false)).collect())
    },
    repeated: nothing,
    pace: Pace::Flood,
    reads: true,
};

static REFUSED_PAYLOADS: Attack = Attack {
    name: "refused payloads",
    exhausts: Resource::Time,
    aim: "ids whose payload was refused, and what is discarded of it",
    hello: USUAL,
    first: nothing,
    repeated: || {
        filled(|id| {
            let message = "abort a=string:\"x\"*300";
            format!("NOTIFY - {id} 1 messages[..100] {message}\nUNSET - {id} 1 messages[100..200] {message}")
        })
    },
    pace: Pace::Flood,
    reads: true,
};

static HELD_REQUESTS: Attack = Attack {
    name: "held requests",
    exhausts: Resource::Memory,
    aim: "long requests that a handler keeps while it waits",
    hello: USUAL,
    first: nothing,
    repeated: || {
        let payload = payload("hold ms=int32:2000 ; unset a=string:")?;
        Ok((0..16).flat_map(|id| fragments(id, &payload, true)).collect())
    },
    pace: Pace::Flood,
    reads: true,
};

static LONG_ANSWERS: Attack = Attack {
    name: "long answers",
    exhausts: Resource::Memory,
    aim: "answers of 1 MB that short requests cause",
    hello: LONG_FRAMES,
    first: nothing,
    repeated: || filled(|id| format!("NOTIFY fin {id} 1 blob size=int32:1000000")),
    pace: Pace::Flood,
    reads: false,
};

static SLOW_HELLOS: Attack = Attack {
    name: "slow HELLOs",
    exhausts: Resource::Memory,
    aim: "connections without a session",
    hello: None,
    first: || bytes("HAPROXY-HELLO fin 0 0 supported-versions=string:2.0"),
    repeated: nothing,
    pace: Pace::Drip,
    reads: true,
};

static RESETS: Attack = Attack {
    name: "resets",
    exhausts: Resource::Time,
    aim: "connections that end at once",
    hello: USUAL,
    first: || bytes("NOTIFY - 1 1 messages[..2] m\nNOTIFY fin 2 1 sleep ms=int32:1000"),
    repeated: nothing,
    pace: Pace::Reset,
    reads: true,
};

/// All of them.
pub(crate) static ALL: &[&Attack] = &[
    &EMPTY_FRAGMENTS,
    &SMALL_REQUESTS,
    &UNREAD_ANSWERS,
    &UNKNOWN_FRAMES,
    &SUPERSEDING_IDS,
    &LONG_PAYLOADS,
    &HALF_FRAMES,
    &UNFINISHED_PAYLOADS,
    &REFUSED_PAYLOADS,
    &HELD_REQUESTS,
    &LONG_ANSWERS,
    &SLOW_HELLOS,
    &RESETS,
];

/// Requests as a HAProxy sends them: what the cost of a byte is compared with.
pub(crate) static ORDINARY: Attack = Attack {
    name: "ordinary requests",
    exhausts: Resource::Time,
    aim: "nothing",
    hello: USUAL,
    first: nothing,
    repeated: || {
        filled(|id| {
            format!(
                "NOTIFY fin {id} 1 check-ip ip=ipv4:203.0.113.7 method=string:GET path=string:/index.html"
            )
        })
    },
    pace: Pace::Flood,
    reads: true,
};

fn nothing() -> Result<Vec<u8>> {
    bytes("")
}

/// The frames of these sentences for the ids 0 to 999, then again the same.
fn filled(sentences: impl Fn(usize) -> String) -> Result<Vec<u8>> {
    let lines: Vec<_> = (0..1000).map(sentences).collect();
    let frames = bytes(&lines.join("\n"))?;
    Ok(frames.repeat((REPEATED / frames.len()).max(1)))
}

/// The payload of a NOTIFY that is as long as it may be: what is missing is a string after `start`.
fn payload(start: &str) -> Result<Vec<u8>> {
    let payload = |length: usize| -> Result<Vec<u8>> {
        let mut frame = bytes(&format!("NOTIFY fin 1 1 {start}\"x\"*{length}"))?;
        Ok(frame.split_off(HEADER))
    };
    // The length of a long string takes a few bytes more than that of none.
    payload(MAX_PAYLOAD - payload(0)?.len() - 4)
}

/// Cuts a payload into the fragments of a NOTIFY; the last says that it is, or the payload is unfinished.
fn fragments(id: u8, payload: &[u8], finished: bool) -> Vec<u8> {
    let mut frames = Vec::with_capacity(payload.len() + payload.len() / 500);
    let count = payload.chunks(FRAGMENT).len();
    for (index, piece) in payload.chunks(FRAGMENT).enumerate() {
        let kind = if index == 0 { 3 } else { 0 };
        let fin = u8::from(finished && index + 1 == count);
        frames.extend((piece.len() as u32 + 7).to_be_bytes());
        frames.extend([kind, 0, 0, 0, fin, id, 1]);
        frames.extend(piece);
    }
    frames
}
