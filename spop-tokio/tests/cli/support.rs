//! Runs of the program, and agents that it talks to.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use spop_core::notation;
use tokio::net::TcpSocket;

/// More than any run takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A `--timeout` that is longer than a busy machine keeps a thread or a process from running.
pub(crate) const PATIENT: &str = "4s";

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Run {
    /// The lines of JSON whose `event` is this one.
    pub(crate) fn events(&self, event: &str) -> Vec<Value> {
        json(&self.out).into_iter().filter(|object| object["event"] == event).collect()
    }

    /// Standard error is this line alone.
    pub(crate) fn expect_error(&self, code: i32, line: &str) {
        assert_eq!((self.code, self.err.as_str()), (Some(code), format!("{line}\n").as_str()), "{self:?}");
    }
}

/// Lines of JSON.
pub(crate) fn json(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect()
}

/// The program with these arguments. Commands that ask an agent get `--timeout` [`PATIENT`] unless they have one: the default of 2 s is
/// too short for a busy machine.
pub(crate) fn command<'a>(args: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spop"));
    let mut args: Vec<_> = args.into_iter().collect();
    if let ["send" | "bench" | "conform", _, ..] = args[..]
        && !args.contains(&"--timeout")
    {
        args.extend(["--timeout", PATIENT]);
    }
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs the program to its end.
pub(crate) fn spop<'a>(args: impl IntoIterator<Item = &'a str>) -> Run {
    finish(command(args).spawn().unwrap())
}

/// Runs the program with this standard input.
pub(crate) fn spop_with_input<'a>(args: impl IntoIterator<Item = &'a str>, input: &[u8]) -> Run {
    let mut child = command(args).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // The program may end before it has read everything.
    thread::spawn(move || drop(stdin.write_all(&input)));
    finish(child)
}

/// Waits for the end of a run.
pub(crate) fn finish(mut child: Child) -> Run {
    let read = |mut pipe: Box<dyn std::io::Read + Send>| {
        thread::spawn(move || {
            let mut text = Vec::new();
            pipe.read_to_end(&mut text).unwrap();
            String::from_utf8(text).expect("the output is UTF-8")
        })
    };
    let out = child.stdout.take().map(|pipe| read(Box::new(pipe)));
    let err = child.stderr.take().map(|pipe| read(Box::new(pipe)));
    let end = Instant::now() + LIMIT;
    let code = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        if Instant::now() > end {
            child.kill().unwrap();
            panic!("it runs for {LIMIT:?}");
        }
        thread::sleep(Duration::from_millis(5));
    };
    let text = |reader: Option<thread::JoinHandle<String>>| {
        reader.map_or_else(String::new, |reader| reader.join().unwrap())
    };
    Run { code, out: text(out), err: text(err) }
}

/// A running `spop listen` or `spop relay`; killed when it is dropped.
pub(crate) struct Listen {
    child: Option<Child>,
    out: Option<BufReader<ChildStdout>>,
    pub(crate) address: String,
}

impl Listen {
    /// Starts it on a free port.
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0", args)
    }

    pub(crate) fn start_at(address: &str, args: &[&str]) -> Self {
        Self::run(["listen", address].into_iter().chain(args.iter().copied()))
    }

    /// A relay to this agent, on a free port.
    pub(crate) fn relay(target: &str, args: &[&str]) -> Self {
        Self::run(["relay", "127.0.0.1:0", target].into_iter().chain(args.iter().copied()))
    }

    /// As [`relay`](Self::relay), behind a command of the shell.
    pub(crate) fn relay_behind(prepare: &str, target: &str) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{prepare}; exec \"$@\""), "sh", env!("CARGO_BIN_EXE_spop")]);
        command.args(["relay", "127.0.0.1:0", target]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self::spawn(command)
    }

    /// Any command that listens.
    pub(crate) fn run<'a>(args: impl IntoIterator<Item = &'a str>) -> Self {
        Self::spawn(command(args))
    }

    fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let address = match line.strip_prefix("listening on ") {
            Some(address) => address.trim().to_owned(),
            None if line.starts_with('{') => json(&line)[0]["address"].as_str().unwrap().to_owned(),
            None => {
                let run = finish(child);
                panic!("it says {line:?}: {run:?}");
            }
        };
        Self { child: Some(child), out: Some(out), address }
    }

    /// Reads what it shows, so that it never waits for a reader.
    pub(crate) fn without_output(mut self) -> Self {
        let mut out = self.out.take().unwrap();
        thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
        self
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// The next line that contains the text.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        let out = self.out.as_mut().unwrap();
        loop {
            let mut line = String::new();
            assert!(out.read_line(&mut line).unwrap() > 0, "it ends before it has shown {text:?}");
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Waits until it has shown more answers than can be on their way: some have arrived.
    pub(crate) fn wait_for_answers(&mut self) {
        for _ in 0..20 {
            self.wait_for("< ACK");
        }
    }

    /// Sends it SIGINT, and returns the rest of its output.
    pub(crate) fn interrupt(self) -> Run {
        self.signal("INT")
    }

    /// Sends it a signal once it has shown a line that contains the text, and returns all of its output.
    pub(crate) fn signal_after(mut self, text: &str, name: &str) -> Run {
        let mut shown = String::new();
        while !shown.lines().next_back().is_some_and(|line| line.contains(text)) {
            shown.push_str(&self.wait_for(""));
        }
        let run = self.signal(name);
        Run { out: shown + &run.out, ..run }
    }

    /// Sends it a signal, and returns the rest of its output.
    pub(crate) fn signal(mut self, name: &str) -> Run {
        let child = self.child.take().unwrap();
        let mut out = self.out.take().unwrap();
        signal(&child, name);
        let rest = thread::spawn(move || {
            let mut text = String::new();
            out.read_to_string(&mut text).unwrap();
            text
        });
        let run = finish(child);
        Run { out: rest.join().unwrap(), ..run }
    }
}

impl Drop for Listen {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// An agent, or another server: for each connection `serve` gets the socket and the first frame that it has read.
pub(crate) fn server(serve: impl Fn(&mut TcpStream, &str) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            socket.set_nodelay(true).unwrap();
            let first = read_frame(&mut socket).unwrap_or_default();
            serve(&mut socket, &first);
        }
    });
    address
}

/// An address at which agents can be started one after another: no other test gets its port meanwhile.
pub(crate) struct Reserved {
    _socket: TcpSocket,
    pub(crate) address: String,
}

impl Reserved {
    pub(crate) fn new() -> Self {
        // It does not listen: another socket may, and connections are refused if none does.
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap().to_string();
        Self { _socket: socket, address }
    }
}

/// The next frame, in the notation.
pub(crate) fn read_frame(socket: &mut TcpStream) -> Option<String> {
    let mut prefix = [0; 4];
    socket.read_exact(&mut prefix).ok()?;
    let mut frame = vec![0; u32::from_be_bytes(prefix) as usize];
    socket.read_exact(&mut frame).ok()?;
    Some(notation::print(spop_core::frame::Frame::decode(&frame).unwrap()).to_string())
}

/// Sends frames in one write.
pub(crate) fn write_frames(socket: &mut TcpStream, frames: &[&str]) {
    let bytes: Vec<u8> = frames.iter().flat_map(|frame| notation::parse_bytes(frame).unwrap()).collect();
    // The program may have closed the connection.
    drop(socket.write_all(&bytes));
}

/// Reads until the peer closes.
pub(crate) fn read_to_end(socket: &mut TcpStream) {
    drop(socket.read_to_end(&mut Vec::new()));
}

/// A good AGENT-HELLO.
pub(crate) const HELLO: &str =
    "AGENT-HELLO fin 0 0 version=string:2.0 max-frame-size=uint32:16380 capabilities=string:fragmentation";

/// Sends a child SIGINT when its output contains the text.
pub(crate) fn interrupt_after(mut child: Child, text: &'static str) -> Run {
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let (sender, receiver) = mpsc::channel();
    let reader = thread::spawn(move || {
        let mut all = String::new();
        let mut line = String::new();
        while out.read_line(&mut line).unwrap() > 0 {
            if line.contains(text) {
                let _ = sender.send(());
            }
            all.push_str(&line);
            line.clear();
        }
        all
    });
    receiver.recv_timeout(LIMIT).unwrap();
    interrupt(&child);
    let run = finish(child);
    Run { out: reader.join().unwrap(), ..run }
}

pub(crate) fn interrupt(child: &Child) {
    signal(child, "INT");
}

/// `kill -NAME`, once the program handles this signal and its main thread, which is to notice it, waits for
/// something. std has no signals.
pub(crate) fn signal(child: &Child, name: &str) {
    let bit = match name {
        "INT" => 1,
        "TERM" => 14,
        other => panic!("SIG{other}"),
    };
    let end = Instant::now() + LIMIT;
    loop {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let field = |name| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
        let caught = u64::from_str_radix(field("SigCgt:"), 16).unwrap_or_default();
        match field("State:").as_bytes() {
            [b'S', ..] if caught >> bit & 1 == 1 => break,
            // It has ended, and the caller shows how.
            [b'Z', ..] => break,
            _ => {}
        }
        assert!(Instant::now() < end, "it does not handle SIG{name}: {status}");
        thread::sleep(Duration::from_millis(5));
    }
    let status = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}
