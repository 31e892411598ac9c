//! Bytes pass unchanged, whatever they are and whether they are watched or not.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    process::{Child, ChildStdout},
    thread,
    time::{Duration, Instant},
};

use spop_tokio::tls::{ClientTls, ClientTlsFiles};
use tokio_rustls::rustls::{ClientConnection, StreamOwned};

use super::{HAPROXY_HELLO, certificate};
use crate::support::{Listen, command, finish, read_to_end, signal};

/// A server that is no agent.
fn raw(serve: impl Fn(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || listener.incoming().for_each(|socket| serve(socket.unwrap())));
    address
}

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..)).take(len).collect()
}

#[test]
fn any_bytes_pass_both_ways_and_the_end_of_each_direction() {
    let target = raw(|mut socket| {
        // All of it, after its end: the other direction is still open then.
        let mut read = Vec::new();
        socket.read_to_end(&mut read).unwrap();
        read.reverse();
        socket.write_all(&read).unwrap();
    });
    for args in [&[][..], &["--delay", "1ms every=2", "--delay", "1ms to=agent every=3"]] {
        let relay = Listen::relay(&target, args).without_output();
        for len in [0, 1, 3, 5_000, 3_000_000] {
            let mut sent = noise(len, len as u64);
            let mut socket = TcpStream::connect(&relay.address).unwrap();
            let mut writer = socket.try_clone().unwrap();
            let bytes = sent.clone();
            let writing = thread::spawn(move || {
                writer.write_all(&bytes).unwrap();
                writer.shutdown(Shutdown::Write).unwrap();
            });
            let mut read = Vec::new();
            socket.read_to_end(&mut read).unwrap();
            writing.join().unwrap();
            sent.reverse();
            assert!(read == sent, "{len} {args:?}");
        }
    }
}

#[test]
fn a_reset_passes() {
    // What is closed with unread bytes is reset.
    let target = raw(|socket| {
        let _ = socket.peek(&mut [0]);
    });
    let mut relay = Listen::relay(&target, &[]);
    let mut socket = TcpStream::connect(&relay.address).unwrap();
    socket.write_all(b"abcdefghijklmnop").unwrap();
    let error = socket.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    relay.wait_for("* closed: reset by the agent");
    // And that of HAProxy.
    let (sender, ended) = std::sync::mpsc::channel();
    let target = raw(move |mut socket| {
        socket.write_all(b"abcdefghijklmnop").unwrap();
        let read = std::iter::repeat_with(|| socket.read(&mut [0; 99])).find(|read| !matches!(read, Ok(1..)));
        let _ = sender.send(read.unwrap().map_err(|error| error.kind()));
    });
    let mut relay = Listen::relay(&target, &[]);
    let socket = TcpStream::connect(&relay.address).unwrap();
    (&socket).write_all(b"abcdefghijklmnop").unwrap();
    socket.peek(&mut [0]).unwrap();
    drop(socket);
    relay.wait_for("* closed: reset by HAProxy");
    assert_eq!(ended.recv().unwrap(), Err(ErrorKind::ConnectionReset));
}

/// TLS to a relay that ends it.
fn tls(relay: &Listen, certificate: &str) -> StreamOwned<ClientConnection, TcpStream> {
    let tls = ClientTls::from_files(ClientTlsFiles::new(certificate)).unwrap();
    let name = "agent.example".try_into().unwrap();
    let connection = ClientConnection::new(tls.current(), name).unwrap();
    StreamOwned::new(connection, TcpStream::connect(&relay.address).unwrap())
}

#[test]
fn a_close_without_a_close_notify_is_no_reset() {
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = certificate(&dir);
    let (sender, ended) = std::sync::mpsc::channel();
    let target = raw(move |mut socket| {
        // A reset would discard what was not read.
        thread::sleep(Duration::from_millis(200));
        let mut read = Vec::new();
        let ended = socket.read_to_end(&mut read).map_err(|error| error.kind());
        sender.send((ended, read)).unwrap();
    });
    let args = ["--listen-tls-cert", &certificate, "--listen-tls-key", &key];
    let mut relay = Listen::relay(&target, &args);
    let mut socket = tls(&relay, &certificate);
    socket.write_all(b"abcdefghijklmnop").unwrap();
    socket.sock.shutdown(Shutdown::Write).unwrap();
    read_to_end(&mut socket.sock);
    relay.wait_for("* closed: by HAProxy, then by the agent");
    assert_eq!(ended.recv().unwrap(), (Ok(16), b"abcdefghijklmnop".to_vec()));
}

#[test]
fn a_reset_passes_below_tls() {
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = certificate(&dir);
    // What is closed with unread bytes is reset.
    let target = raw(|socket| {
        let _ = socket.peek(&mut [0]);
    });
    let args = ["--listen-tls-cert", &certificate, "--listen-tls-key", &key];
    let mut relay = Listen::relay(&target, &args);
    let mut socket = tls(&relay, &certificate);
    socket.write_all(b"abcdefghijklmnop").unwrap();
    let error = socket.sock.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    relay.wait_for("* closed: reset by the agent");
}

#[test]
fn a_peer_that_does_not_read_stops_the_other() {
    let target = raw(|socket| {
        thread::sleep(Duration::from_secs(20));
        drop(socket);
    });
    let relay = Listen::relay(&target, &[]).without_output();
    let mut socket = TcpStream::connect(&relay.address).unwrap();
    socket.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let block = vec![0; 1 << 20];
    let mut sent = 0;
    let error = loop {
        match socket.write(&block) {
            Ok(len) => sent += len,
            Err(error) => break error,
        }
        // The system buffers some megabytes.
        assert!(sent < 64 << 20);
    };
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
}

/// A relay of whose output only the first line was read, and its address.
fn unread(target: &str) -> (Child, ChildStdout, String) {
    let mut relay = command(["relay", "127.0.0.1:0", target]).spawn().unwrap();
    let mut out = relay.stdout.take().unwrap();
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        let mut byte = [0];
        out.read_exact(&mut byte).unwrap();
        line.extend(byte);
    }
    let line = String::from_utf8(line).unwrap();
    let address = line.strip_prefix("listening on ").unwrap().trim().to_owned();
    (relay, out, address)
}

#[test]
fn bytes_pass_while_nothing_can_be_shown() {
    let target = raw(|mut socket| {
        std::io::copy(&mut socket, &mut std::io::sink()).unwrap();
        socket.write_all(b"done").unwrap();
    });
    let (relay, mut out, address) = unread(&target);
    let mut socket = TcpStream::connect(address).unwrap();
    let frame = spop_core::notation::parse_bytes("NOTIFY fin 1 1 check x=string:\"x\"*16000").unwrap();
    socket.write_all(&spop_core::notation::parse_bytes(HAPROXY_HELLO).unwrap()).unwrap();
    // More than waits for the watcher, whose output is not read.
    let begun = Instant::now();
    for _ in 0..(100 << 20) / frame.len() {
        socket.write_all(&frame).unwrap();
    }
    socket.shutdown(Shutdown::Write).unwrap();
    let mut done = Vec::new();
    socket.read_to_end(&mut done).unwrap();
    assert_eq!(done, b"done");
    assert!(begun.elapsed() < Duration::from_secs(20));
    let reader = thread::spawn(move || {
        let mut text = String::new();
        out.read_to_string(&mut text).unwrap();
        text
    });
    signal(&relay, "TERM");
    let run = finish(relay);
    let text = reader.join().unwrap();
    assert_eq!(text.matches("parts of it are not watched; all of it passes").count(), 1);
    let end: Vec<_> = text.lines().rev().take(2).collect();
    assert!(end.iter().any(|line| line.contains(", bytes not watched: ")), "{end:?} {run:?}");
}

#[test]
fn an_output_that_is_not_read_does_not_delay_the_end_for_long() {
    let target = raw(|mut socket| drop(std::io::copy(&mut socket, &mut std::io::sink())));
    for (name, code) in [("TERM", 3), ("INT", 130)] {
        let (relay, out, address) = unread(&target);
        let mut socket = TcpStream::connect(address).unwrap();
        // More than a pipe holds.
        let frame = spop_core::notation::parse_bytes("NOTIFY fin 1 1 check").unwrap();
        socket.write_all(&frame.repeat(2_000)).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        read_to_end(&mut socket);
        signal(&relay, name);
        let line = "spop: the output has taken nothing for 5 seconds: the rest is not shown";
        finish(relay).expect_error(code, line);
        drop(out);
    }
}
