//! Input of the wrong kind: one line says what is wrong with it, and the exit status that it is.

use std::{fs::File, io::Write as _, net::TcpListener, path::PathBuf, process::Stdio};

use tempfile::TempDir;

use crate::support::{Listen, Run, command, finish, interrupt, spop};

/// A gibibyte of zeros, which takes no space.
fn zeros() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("zeros");
    File::create(&path).unwrap().set_len(1 << 30).unwrap();
    (dir, path)
}

fn spop_with_file(args: &[&str], path: &PathBuf) -> Run {
    finish(command(args.iter().copied()).stdin(File::open(path).unwrap()).spawn().unwrap())
}

#[test]
fn a_gibibyte_of_zeros_is_refused_by_every_reader() {
    let (_dir, path) = zeros();
    let name = path.to_str().unwrap();
    let agent = Listen::start(&[]).without_output();
    let address = agent.address.as_str();
    spop_with_file(&["send", address, "--stdin"], &path)
        .expect_error(1, "spop: line 1: longer than 16777216 bytes");
    spop_with_file(&["explain", "-"], &path).expect_error(
        1,
        "spop: standard input has no log line of SPOE: they contain `SPOE: [AGENT] <EVENT:NAME>`",
    );
    for option in ["--messages-from", "--capture"] {
        spop(["bench", address, option, name, "--requests", "9"])
            .expect_error(1, &format!("spop: {name}: longer than 67108864 bytes"));
    }
}

#[test]
fn a_recording_that_ends_in_a_frame_is_refused_by_bench() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cut");
    let hello = "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 capabilities=string:\"\"";
    let bytes = spop_core::notation::parse_bytes(hello).unwrap();
    File::create(&path).unwrap().write_all(&bytes[..bytes.len() - 3]).unwrap();
    let agent = Listen::start(&[]).without_output();
    let run = spop(["bench", &agent.address, "--capture", path.to_str().unwrap(), "--requests", "9"]);
    assert_eq!((run.code, run.out.as_str(), run.err.lines().count()), (Some(1), "", 1), "{run:?}");
    assert!(run.err.starts_with(&format!("spop: {}: ", path.display())), "{run:?}");
}

#[test]
fn packets_are_no_recording_of_bytes_for_bench() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.pcap");
    let name = path.to_str().unwrap();
    let agent = Listen::start(&[]).without_output();
    for magic in [[0xd4, 0xc3, 0xb2, 0xa1], [0xa1, 0xb2, 0x3c, 0x4d], [0x0a, 0x0d, 0x0d, 0x0a]] {
        File::create(&path).unwrap().write_all(&magic).unwrap();
        let why =
            "it has packets (pcap): --capture is for the bytes alone that HAProxy has sent on one connection";
        spop(["bench", &agent.address, "--capture", name, "--requests", "9"])
            .expect_error(1, &format!("spop: {name}: {why}"));
    }
}

#[test]
fn a_file_that_is_no_socket_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    File::create(&path).unwrap();
    let name = path.to_str().unwrap();
    spop(["check", name]).expect_error(3, &format!("spop: {name}: this is no socket"));
}

#[test]
fn an_address_that_is_in_use_is_status_3() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    let run = spop(["listen", &address]);
    assert_eq!((run.code, run.out.as_str(), run.err.lines().count()), (Some(3), "", 1), "{run:?}");
    assert!(run.err.starts_with(&format!("spop: cannot listen on {address}: ")), "{run:?}");
}

#[test]
fn an_interrupt_ends_the_wait_for_a_log() {
    let child = command(["explain", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    interrupt(&child);
    finish(child).expect_error(130, "spop: interrupted");
}
