//! A recording says what was shown.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown, symlink},
};

use super::session;
use crate::support::{Listen, Run, read_frame, spop, write_frames};

/// A file for a recording.
fn file(dir: &tempfile::TempDir) -> String {
    dir.path().join("relay.pcap").to_str().unwrap().to_owned()
}

/// The lines of connections.
fn events(run: &Run) -> Vec<String> {
    run.out.lines().filter(|line| line.contains(" #")).map(str::to_owned).collect()
}

#[test]
fn decode_shows_what_the_relay_has_shown() {
    let dir = tempfile::tempdir().unwrap();
    let file = file(&dir);
    let agent = Listen::start(&["--set", "txn score=int32:42"]).without_output();
    let relay = Listen::relay(&agent.address, &["--record", &file, "--delay", "20ms every=3"]);
    let long = format!("check body=string:\"{}\"", "x".repeat(40_000));
    for args in
        [&["--engine", "2.6", "--fragment", "9000"][..], &["--engine", "3.4", "--max-frame-size", "65532"]]
    {
        let send = ["send", &relay.address, &long, "log text=string:hello", "--repeat", "5"];
        let sent = spop(send.iter().chain(args).copied());
        assert_eq!(sent.code, Some(0), "{sent:?}");
    }
    // A violation, half a frame, and one that is open at the end.
    let mut bad = session(&relay);
    write_frames(&mut bad, &["ACK fin 1 1", "NOTIFY fin 3 1 a"]);
    std::io::Write::write_all(&mut bad, &[0, 0, 0, 9, 3]).unwrap();
    drop(bad);
    let mut open = session(&relay);
    write_frames(&mut open, &["NOTIFY fin 1 1 check"]);
    assert!(read_frame(&mut open).unwrap().starts_with("ACK fin 1 1"));
    let run = relay.interrupt();
    let decoded = spop(["decode", &file]);
    assert_eq!((decoded.code, decoded.err.as_str()), (Some(1), ""), "{decoded:?}");
    let shown: Vec<_> = events(&run).into_iter().filter(|line| !line.contains(" ~ ")).collect();
    assert!(shown.len() > 60, "{shown:#?}");
    assert_eq!(events(&decoded), shown);
    // Any tool can read the packets: the checksums are right.
    let packets = std::process::Command::new("tcpdump").args(["-nvr", &file]).output();
    if let Ok(packets) = packets {
        let text = String::from_utf8_lossy(&packets.stdout).into_owned();
        assert!(text.contains("(correct)") && !text.contains("incorrect"), "{text}");
    }
}

#[test]
fn a_relay_that_is_killed_leaves_a_recording() {
    let dir = tempfile::tempdir().unwrap();
    let file = file(&dir);
    let agent = Listen::start(&[]).without_output();
    let mut relay = Listen::relay(&agent.address, &["--record", &file]);
    let mut socket = session(&relay);
    write_frames(&mut socket, &["NOTIFY fin 1 1 check"]);
    assert!(read_frame(&mut socket).unwrap().starts_with("ACK fin 1 1"));
    relay.wait_for("< ACK");
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}");
    // SIGKILL.
    drop(relay);
    let decoded = spop(["decode", &file]);
    assert_eq!((decoded.code, decoded.err.as_str()), (Some(0), ""), "{decoded:?}");
    assert!(
        decoded.out.contains("< ACK fin 1 1\n") && decoded.out.contains("* open at the end"),
        "{decoded:?}"
    );
}

#[test]
fn a_recording_that_has_reached_its_limit_ends_and_the_relay_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let file = file(&dir);
    let agent = Listen::start(&[]).without_output();
    let relay = Listen::relay(&agent.address, &["--record", &file, "--record-max", "1k"]);
    let sent = spop(["send", &relay.address, "a", "--repeat", "50"]);
    assert_eq!(sent.code, Some(0), "{sent:?}");
    let run = relay.signal("TERM");
    assert_eq!(run.code, Some(0), "{run:?}");
    let told = format!(" * {file} has reached 1024 bytes (--record-max): what follows is not recorded\n");
    assert_eq!(run.out.matches(&told).count(), 1, "{run:?}");
    assert!(run.out.contains("requests: 50, answered: 50"), "{run:?}");
    assert!(fs::metadata(&file).unwrap().len() <= 1_024);
    let decoded = spop(["decode", &file]);
    assert_eq!((decoded.code, decoded.err.as_str()), (Some(0), ""), "{decoded:?}");
    assert!(decoded.out.contains("> NOTIFY fin 1 1 a\n"), "{decoded:?}");
}

#[test]
fn a_disk_that_is_full_is_an_error_before_anything_is_relayed() {
    let run = spop(["relay", "127.0.0.1:0", "127.0.0.1:1", "--record", "/dev/full"]);
    run.expect_error(3, "spop: /dev/full: no space left on device");
}

#[test]
fn a_file_that_exists_becomes_one_that_only_its_owner_may_read() {
    let dir = tempfile::tempdir().unwrap();
    let file = file(&dir);
    fs::write(&file, [7; 5_000]).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    let _ = Listen::relay("127.0.0.1:1", &["--record", &file]);
    let found = fs::metadata(&file).unwrap();
    assert_eq!((found.permissions().mode() & 0o777, found.len()), (0o600, 24));
}

#[test]
fn the_file_of_another_user_and_a_link_to_a_file_are_refused_and_stay_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let (file, link) = (file(&dir), dir.path().join("link"));
    fs::write(&file, "abc").unwrap();
    symlink(&file, &link).unwrap();
    let run = |path: &str| spop(["relay", "127.0.0.1:0", "127.0.0.1:1", "--record", path]);
    let link = link.to_str().unwrap();
    let line = format!("spop: {link}: a symbolic link to a file: name the file itself");
    run(link).expect_error(3, &line);
    assert_eq!(fs::read(&file).unwrap(), b"abc");
    // Only root can give a file away.
    if chown(&file, Some(65_534), None).is_ok() {
        let line = format!("spop: {file}: the file belongs to another user: remove it, or name another one");
        run(&file).expect_error(3, &line);
        assert_eq!(fs::read(&file).unwrap(), b"abc");
    }
    fs::remove_file(&file).unwrap();
    run(link).expect_error(3, &format!("spop: {link}: no such file or directory"));
    assert!(!fs::exists(&file).unwrap());
}

#[test]
fn a_pipe_can_be_recorded_to_also_through_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let (pipe, link) = (file(&dir), dir.path().join("link"));
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    symlink(&pipe, &link).unwrap();
    for path in [pipe.as_str(), link.to_str().unwrap()] {
        let read = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::read(pipe).unwrap()
        });
        assert_eq!(Listen::relay("127.0.0.1:1", &["--record", path]).interrupt().code, Some(130));
        assert_eq!(read.join().unwrap().len(), 24);
    }
}
