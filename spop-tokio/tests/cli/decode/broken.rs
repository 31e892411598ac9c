//! Files that are broken, or no recordings.

use std::{fs::File, time::Instant};

use super::{
    decode,
    recorder::{Agent, Haproxy, pcap},
    session,
};
use crate::support::{spop, spop_with_input};

#[test]
fn what_is_no_recording_is_said_in_a_line() {
    spop_with_input(["decode"], b"").expect_error(1, "spop: standard input: it is empty");
    for (file, line) in [
        (&b"GET / HTTP/1.1\r\n"[..], "it begins with \"GET / HTTP/1.1\\r\\n\""),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\0", "it is compressed by gzip"),
        (b"\x28\xb5\x2f\xfd\0\0\0\0\0\0", "it is compressed by zstd"),
        (b"ab", "it begins with \"ab\""),
    ] {
        let start = "spop: standard input: neither a capture (pcap, pcapng) nor frames of SPOP: ";
        spop_with_input(["decode"], file).expect_error(1, &format!("{start}{line}"));
    }
    spop(["decode", "/nonexistent.pcap"])
        .expect_error(3, "spop: /nonexistent.pcap: no such file or directory");
    spop(["decode", "/"]).expect_error(3, "spop: /: is a directory");
    // Standard input is /dev/null.
    spop(["decode"]).expect_error(1, "spop: standard input: it is empty");
}

#[test]
fn a_gibibyte_of_zeros_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("zeros");
    File::create(&path).unwrap().set_len(1 << 30).unwrap();
    let begun = Instant::now();
    let run = spop(["decode", path.to_str().unwrap()]);
    assert!(run.code == Some(1) && run.err.contains("neither a capture"), "{run:?}");
    assert_eq!(run.err.lines().count(), 1, "{run:?}");
    assert!(begun.elapsed().as_secs() < 5);
}

#[test]
fn a_truncated_capture_is_decoded_up_to_there() {
    let file = pcap(&session().packets);
    let run = spop_with_input(["decode"], &file[..file.len() - 10]);
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.out.contains("> HAPROXY-HELLO") && !run.out.contains("< AGENT-HELLO"), "{run:?}");
    assert!(run.err.starts_with("spop: standard input: it is truncated: "), "{run:?}");
    assert_eq!(run.err.lines().count(), 1, "{run:?}");
    let run = spop_with_input(["decode"], &file[..10]);
    assert!(run.code == Some(1) && run.err.contains("it is truncated"), "{run:?}");
}

#[test]
fn packets_that_were_captured_in_part_are_no_violations() {
    let mut connection = session();
    for id in 1..=5 {
        connection.frame(Haproxy, &format!("NOTIFY fin {id} 1 a x=string:\"{}\"", "y".repeat(100)));
        connection.frame(Agent, &format!("ACK fin {id} 1"));
    }
    connection.close();
    // As `tcpdump -s 100`, which leaves the lengths in the headers of IP.
    let packets: Vec<_> =
        connection.packets.iter().map(|packet| packet[..packet.len().min(100)].to_vec()).collect();
    let run = decode(&packets, &[]);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.out.contains("bytes are missing in the capture"), "{run:?}");
    assert!(run.err.contains(" packets were captured in part: capture with -s 0"), "{run:?}");
    assert!(run.out.contains("< ACK fin 1 1") && run.out.contains("< ACK fin 5 1"), "{run:?}");
}

#[test]
fn a_malformed_capture_is_decoded_up_to_there() {
    let mut file = pcap(&session().packets);
    let len = file.len();
    file.extend([0xff; 100]);
    let run = spop_with_input(["decode"], &[&file[..], &vec![0; 2 << 20]].concat());
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.out.contains("< AGENT-HELLO"), "{run:?}");
    let start = format!("spop: standard input: byte {len}: the capture is malformed there: ");
    assert!(run.err.starts_with(&start), "{run:?}");
}

#[test]
fn bytes_that_change_by_chance_do_no_harm() {
    let mut random = fastrand::Rng::with_seed(9);
    let mut connection = session();
    for id in 1..30 {
        connection.frames(&[&format!("> NOTIFY fin {id} 1 a x=string:abc"), &format!("< ACK fin {id} 1")]);
    }
    connection.close();
    for _ in 0..40 {
        let mut packets = connection.packets.clone();
        for packet in &mut packets {
            if random.u8(..4) == 0 {
                let at = random.usize(30..packet.len());
                packet[at] = random.u8(..);
            }
        }
        let run = decode(&packets, &["--port", "12345"]);
        assert!(matches!(run.code, Some(0 | 1)) && !run.err.contains("panicked"), "{run:?}");
    }
}
