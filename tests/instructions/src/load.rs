//! The load, in the thread of the agent: the handler calls it when the last request of a round has arrived.

use std::{
    cell::RefCell,
    io::{ErrorKind, Read as _, Write as _},
    os::unix::net::UnixStream,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use spop_core::{
    frame::{Flags, FrameType, Header, Ids, put_frame},
    notation,
};

use super::question::{Question, STREAMS};

/// The rounds before those that are counted.
const WARM_UP: usize = 9;
/// The rounds that are counted.
pub const ROUNDS: usize = 9;

const SETS: usize = 3;

const HELLO: &str = r#"HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 capabilities=string:"pipelining,async""#;

thread_local! {
    static LOAD: RefCell<Option<Load>> = const { RefCell::new(None) };
}

/// Sets of connections, of which one is asked in each round. So no read of a round finds a request of the next, and answers may
/// take a round longer.
struct Load {
    sets: [Vec<UnixStream>; SETS],
    depth: usize,
    payload: Vec<u8>,
    stream_id: u64,
    round: usize,
    /// Requests of this round that have not arrived at the handler.
    left: usize,
}

/// Opens the connections, and asks on the first set.
pub fn start(path: &Path, connections: usize, depth: usize) {
    let connect = |_| {
        let mut stream = UnixStream::connect(path).unwrap();
        stream.write_all(&notation::parse_bytes(HELLO).unwrap()).unwrap();
        stream.set_nonblocking(true).unwrap();
        stream
    };
    let mut load = Load {
        sets: [(); SETS].map(|()| (0..connections).map(connect).collect()),
        depth,
        payload: Question::Small.payload(),
        stream_id: STREAMS.start,
        round: 0,
        left: 0,
    };
    load.ask();
    LOAD.set(Some(load));
}

/// A request has arrived at the handler.
pub fn arrived() {
    LOAD.with_borrow_mut(|load| {
        let load = load.as_mut().unwrap();
        load.left -= 1;
        if load.left == 0 {
            uncounted(load);
        }
    });
}

/// Callgrind counts everything outside of this function.
#[inline(never)]
fn uncounted(load: &mut Load) {
    // A panic would be that of a handler, which the server survives.
    if catch_unwind(AssertUnwindSafe(|| load.next())).is_err() {
        std::process::exit(1);
    }
}

/// Callgrind begins to count here. Functions with the same code would become one.
#[inline(never)]
fn begin() {
    std::hint::black_box("begin");
}

/// Callgrind writes what it has counted here.
#[inline(never)]
fn end() {
    std::hint::black_box("end");
}

impl Load {
    fn next(&mut self) {
        self.round += 1;
        if self.round == WARM_UP {
            begin();
        } else if self.round == WARM_UP + ROUNDS {
            end();
            std::process::exit(0);
        }
        if self.round >= SETS {
            self.read_answers();
        }
        self.ask();
    }

    fn ask(&mut self) {
        let set = &mut self.sets[self.round % SETS];
        self.left = set.len() * self.depth;
        let mut frames = Vec::new();
        for stream in set {
            frames.clear();
            for _ in 0..self.depth {
                let header = Header {
                    frame_type: FrameType::Notify,
                    flags: Flags::FIN,
                    ids: Ids::new(self.stream_id, 1),
                };
                put_frame(&mut frames, header, &self.payload);
                self.stream_id += 1;
            }
            stream.write_all(&frames).unwrap();
        }
    }

    /// All requests of a set have their answers before it is asked again; but after its handshake a connection may have its
    /// next turn after others.
    fn read_answers(&mut self) {
        let mut answers = Vec::new();
        for stream in &mut self.sets[self.round % SETS] {
            answers.clear();
            let end = stream.read_to_end(&mut answers).unwrap_err();
            assert_eq!(end.kind(), ErrorKind::WouldBlock);
            let (mut acks, mut rest) = (0, &answers[..]);
            while let Some((prefix, frame)) = rest.split_first_chunk::<4>() {
                let (frame, next) = frame.split_at(u32::from_be_bytes(*prefix) as usize);
                acks += usize::from(frame[0] == FrameType::Ack.byte());
                rest = next;
            }
            assert!(acks == self.depth || self.round < WARM_UP, "{acks} answers");
        }
    }
}
