//! A peer that speaks in sentences, over any stream.
#![allow(dead_code, unreachable_pub)] // No test uses all of it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

pub mod echo;
#[path = "../../tokio/support/log.rs"]
pub mod log;
#[path = "../../tokio/support/pki.rs"]
pub mod pki;

use std::{
    io::{Read, Write},
    net::TcpStream,
    panic,
    sync::mpsc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use spop_core::{AgentConfig, frame::Frame, notation};
use spop_mio::{Address, Endpoint, Handler, Outcome, Request, Responder, Server, ServerConfig, ServerHandle};

/// No test takes longer than this; if it does, something hangs.
const LONG: Duration = Duration::from_secs(20);

/// Runs a test that must not hang.
pub fn within(test: impl FnOnce() + Send + 'static) {
    within_time(LONG, test);
}

/// Runs a test that takes longer than others.
pub fn within_time(time: Duration, test: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel();
    let test = thread::spawn(move || {
        // `tracing` caches for the whole process whether a subscriber is interested in an event. If another thread emits the
        // event while this test installs its subscriber, the cache can stay at "none". A subscriber for all events, installed
        // first, prevents that.
        let _all_events = tracing::subscriber::set_default(tracing_subscriber::registry());
        test();
        let _ = done.send(());
    });
    assert_ne!(ended.recv_timeout(time), Err(mpsc::RecvTimeoutError::Timeout), "the test hangs");
    if let Err(panicked) = test.join() {
        panic::resume_unwind(panicked);
    }
}

/// Waits until something is so that no event announces.
#[track_caller]
pub fn until(mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < LONG, "it never comes");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Lets the test answer.
pub fn hand_out() -> (impl FnMut(Request<'_>) -> Outcome + Clone + Send + 'static, mpsc::Receiver<Responder>)
{
    let (sender, responders) = mpsc::channel();
    (move |request: Request<'_>| request.defer(|responder| drop(sender.send(responder))), responders)
}

/// A server on a free port of its own. It is stopped when this is dropped.
pub struct Running {
    pub address: Address,
    pub handle: ServerHandle,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Running {
    pub fn start(handler: impl Handler + Clone + Send + 'static) -> Self {
        Self::with(handler, AgentConfig::default(), |server| server.workers(1))
    }

    pub fn with<H: Handler + Clone + Send + 'static>(
        handler: H,
        config: impl Into<ServerConfig>,
        adjust: impl FnOnce(Server<H>) -> Server<H>,
    ) -> Self {
        Self::serve(adjust(Server::with_config(handler, config).unwrap()).bind("127.0.0.1:0").unwrap())
    }

    pub fn on(handler: impl Handler + Clone + Send + 'static, endpoint: impl Into<Endpoint>) -> Self {
        Self::serve(Server::new(handler).workers(1).bind(endpoint).unwrap())
    }

    /// Serves on a thread, whose log is that of this one.
    pub fn serve<H: Handler + Clone + Send + 'static>(server: Server<H>) -> Self {
        let address = server.addresses().unwrap().pop().unwrap();
        let handle = server.handle();
        let log = tracing::dispatcher::get_default(Clone::clone);
        let serve = move || tracing::dispatcher::with_default(&log, || server.serve());
        Self { address, handle, thread: Some(thread::spawn(serve)) }
    }

    pub fn connect(&self) -> Client<TcpStream> {
        let stream = TcpStream::connect(self.address.tcp().unwrap()).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.set_nodelay(true).unwrap();
        Client::new(stream)
    }

    /// A connection whose handshake is done.
    pub fn session(&self) -> Client<TcpStream> {
        let mut client = self.connect();
        client.greet("pipelining,async", "e1");
        client
    }

    /// Whether the server has ended.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// Waits for the end that somebody else brought about.
    pub fn join(mut self) {
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap().unwrap();
        }
    }
}

pub struct Client<I> {
    pub io: I,
}

impl<I: Read + Write> Client<I> {
    pub fn new(io: I) -> Self {
        Self { io }
    }

    pub fn greet(&mut self, capabilities: &str, engine: &str) {
        self.send(&format!(
            "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 \
             capabilities=string:\"{capabilities}\" engine-id=string:{engine}"
        ));
        let hello = self.receive().unwrap();
        assert!(hello.starts_with("AGENT-HELLO fin 0 0"), "{hello}");
    }

    /// Sends sentences, one a line, in one write.
    pub fn send(&mut self, sentences: &str) {
        self.io.write_all(&bytes(sentences)).unwrap();
    }

    /// The next frame as a sentence; `None` at the end.
    pub fn receive(&mut self) -> Option<String> {
        let mut length = [0; 4];
        self.io.read_exact(&mut length).ok()?;
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.io.read_exact(&mut frame).unwrap();
        Some(notation::print(Frame::decode(&frame).unwrap()).to_string())
    }

    pub fn expect(&mut self, sentences: &str) {
        for line in lines(sentences) {
            assert_eq!(self.receive().as_deref(), Some(line));
        }
    }

    /// Sends a NOTIFY and reads its answer.
    pub fn ask(&mut self, sentence: &str, answer: &str) {
        self.send(sentence);
        self.expect(answer);
    }

    /// Reads until the other side has closed.
    pub fn expect_end(&mut self) {
        assert!(matches!(self.io.read(&mut [0]), Ok(0) | Err(_)), "the connection goes on");
    }
}

/// The one line that is logged.
pub fn logged(log: &log::Log) -> String {
    let mut lines = Vec::new();
    until(|| {
        lines.extend(log.take());
        !lines.is_empty()
    });
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.remove(0)
}

pub fn bytes(sentences: &str) -> Vec<u8> {
    lines(sentences).flat_map(|line| notation::parse_bytes(line).unwrap()).collect()
}

fn lines(sentences: &str) -> impl Iterator<Item = &str> {
    sentences.lines().map(str::trim).filter(|line| !line.is_empty())
}
