//! A real conversation: `spop send` asks `spop listen`, and what passes between them is written to a capture.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use super::recorder::{Agent, By, Connection, Haproxy, pcap};
use crate::support::{Listen, spop, spop_with_input};

/// Passes one connection on to the agent, and records what was read.
fn record(agent: String) -> (String, thread::JoinHandle<Connection>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let recorder = thread::spawn(move || {
        let engine = listener.accept().unwrap().0;
        let agent = TcpStream::connect(agent).unwrap();
        let connection = Arc::new(Mutex::new(Connection::open(40_000)));
        let pass = |by: By, mut from: TcpStream, mut to: TcpStream| {
            let connection = Arc::clone(&connection);
            thread::spawn(move || {
                let mut buffer = [0; 4_096];
                while let Ok(len @ 1..) = from.read(&mut buffer) {
                    // Before the other side can answer it.
                    connection.lock().unwrap().send(by, &buffer[..len]);
                    to.write_all(&buffer[..len]).unwrap();
                }
                connection.lock().unwrap().fin(by);
                let _ = to.shutdown(Shutdown::Write);
            })
        };
        let threads = [
            pass(Haproxy, engine.try_clone().unwrap(), agent.try_clone().unwrap()),
            pass(Agent, agent, engine),
        ];
        for thread in threads {
            thread.join().unwrap();
        }
        Arc::try_unwrap(connection).unwrap().into_inner().unwrap()
    });
    (address, recorder)
}

#[test]
fn a_capture_shows_what_the_agent_has_shown() {
    let agent = Listen::start(&["--set", "txn score=int32:42"]);
    let (address, recorder) = record(agent.address.clone());
    let long = format!("check body=string:\"{}\"", "x".repeat(40_000));
    let sent =
        spop(["send", &address, &long, "log text=string:hello", "--repeat", "5", "--fragment", "9000"]);
    assert_eq!(sent.code, Some(0), "{sent:?}");
    let connection = recorder.join().unwrap();
    let listened = agent.interrupt();
    let run = spop_with_input(["decode"], &pcap(&connection.packets));
    assert_eq!((run.code, run.err.as_str()), (Some(0), ""), "{run:?}");
    let frames = |text: &str| {
        let frame = |line: &str| {
            let line = line.split_once(" #1 ")?.1;
            line.starts_with(['<', '>']).then(|| line.to_owned())
        };
        let mut frames: Vec<_> = text.lines().filter_map(frame).collect();
        // The order between the directions is that of each observer.
        frames.sort_by_key(|frame| frame.as_bytes()[0]);
        frames
    };
    assert!(frames(&run.out).len() > 20, "{run:?}");
    assert_eq!(frames(&run.out), frames(&listened.out));
    assert!(run.out.contains("* joined from ") && run.out.contains("violations: 0"), "{run:?}");
}
