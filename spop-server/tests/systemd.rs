//! Messages to systemd. The environment belongs to a whole process, so that each test has its messages sent by another one.
#![cfg(all(feature = "systemd", unix))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // It is a test.

mod support;

use std::{
    ffi::OsStr,
    os::unix::net::UnixDatagram,
    path::Path,
    process::{Child, Command},
    time::Duration,
};

use spop_server::systemd;

use self::support::soon;

/// Says which message the process is to send.
const SEND: &str = "SPOP_TEST_SEND";

/// What the other process runs. By itself, it does nothing.
#[test]
fn sender() {
    let status = "serving on *:12345\nREADY=0\0";
    match std::env::var(SEND).as_deref() {
        Ok("ready") => systemd::ready(status).unwrap(),
        Ok("stopping") => systemd::stopping("draining, 3 connections").unwrap(),
        Ok("error") => {
            let error = systemd::ready(status).unwrap_err().to_string();
            assert!(error.starts_with("cannot send READY=1 to systemd at NOTIFY_SOCKET="), "{error}");
            let part = std::env::var("SPOP_TEST_ERROR").unwrap();
            assert!(error.contains(&part), "{error}");
        }
        _ => {}
    }
}

/// Whether the other process did what it was to do.
fn send(message: &str, socket: Option<&OsStr>, error: &str) {
    expect_sent(message, start(message, socket, error));
}

fn start(message: &str, socket: Option<&OsStr>, error: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "sender"])
        .env(SEND, message)
        .env("SPOP_TEST_ERROR", error)
        .env_remove("NOTIFY_SOCKET");
    if let Some(socket) = socket {
        command.env("NOTIFY_SOCKET", socket);
    }
    // Its lines would break those of this process.
    command.stdout(std::process::Stdio::null()).spawn().unwrap()
}

fn expect_sent(message: &str, mut sender: Child) {
    let mut ended = None;
    let in_time = soon(|| {
        ended = sender.try_wait().unwrap();
        ended.is_some()
    });
    if !in_time {
        sender.kill().unwrap();
        sender.wait().unwrap();
        panic!("it waits without end");
    }
    assert!(ended.is_some_and(|status| status.success()), "{message}");
}

fn received(socket: &UnixDatagram) -> String {
    socket.set_nonblocking(true).unwrap();
    let mut buffer = [0; 1024];
    let length = socket.recv(&mut buffer).unwrap();
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

#[test]
fn ready_and_stopping_arrive_with_their_status() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    send("ready", Some(path.as_os_str()), "");
    assert_eq!(
        received(&socket),
        "READY=1\nSTATUS=serving on *:12345 READY=0 \n",
        "one line is one variable"
    );
    send("stopping", Some(path.as_os_str()), "");
    assert_eq!(received(&socket), "STOPPING=1\nSTATUS=draining, 3 connections\n");
}

#[test]
fn outside_systemd_nothing_is_sent() {
    send("ready", None, "");
    send("stopping", None, "");
}

#[cfg(target_os = "linux")]
#[test]
fn the_socket_may_be_abstract() {
    use std::os::{linux::net::SocketAddrExt as _, unix::net::SocketAddr};

    let name = format!("spop-notify-{}", std::process::id());
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    send("stopping", Some(format!("@{name}").as_ref()), "");
    assert_eq!(received(&socket), "STOPPING=1\nSTATUS=draining, 3 connections\n");
}

#[test]
fn what_cannot_be_sent_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    send("error", Some(path.as_os_str()), "No such file");
    send("error", Some("vsock:2:1234".as_ref()), "neither a path nor an abstract socket");

    // A queue that nobody empties.
    let _socket = full(&path);
    send("error", Some(path.as_os_str()), "its queue has been full for 1s");
}

/// A socket whose queue is full.
fn full(path: &Path) -> UnixDatagram {
    let socket = UnixDatagram::bind(path).unwrap();
    let other = UnixDatagram::unbound().unwrap();
    other.set_nonblocking(true).unwrap();
    other.connect(path).unwrap();
    while other.send(b"x").is_ok() {}
    socket
}

#[cfg(target_os = "linux")]
#[test]
fn a_signal_that_comes_while_it_waits_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let _socket = full(&path);
    let sender = start("error", Some(path.as_os_str()), "its queue has been full for 1s");
    // It may not wait yet, and then this shows nothing.
    std::thread::sleep(Duration::from_millis(200));
    for signal in ["-STOP", "-CONT"] {
        let killed = Command::new("kill").args([signal, &sender.id().to_string()]).status().unwrap();
        assert!(killed.success());
    }
    expect_sent("error", sender);
}
