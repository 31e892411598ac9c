//! Which frames are struck.

use spop_core::{frame::Ids, notation};

use super::*;

fn stream(count: u64) -> Vec<u8> {
    (1..=count)
        .flat_map(|id| {
            let line = format!("ACK fin {id} 1 set txn a=string:{}", "x".repeat(id as usize));
            notation::parse_bytes(&line).unwrap()
        })
        .collect()
}

/// What passes of a stream that comes in pieces, and the ids of the frames that were struck.
fn inject(faults: &Faults, connection: u64, piece: usize, bytes: &[u8]) -> (Vec<u8>, Vec<Ids>, Option<bool>) {
    let mut injector = faults.of(connection, Direction::ToHaproxy);
    let (mut parts, mut struck) = (Vec::new(), Vec::new());
    for piece in bytes.chunks(piece) {
        injector.push(piece, &mut parts, &mut struck);
        assert!(injector.head.len() < PREFIX + HEADER_MAX);
    }
    injector.finish(&mut parts);
    let (mut passed, mut end) = (Vec::new(), None);
    for part in parts {
        assert!(end.is_none(), "nothing passes behind the end");
        match part {
            Part::Bytes(bytes, _) => passed.extend_from_slice(&bytes),
            Part::End { reset } => end = Some(reset),
        }
    }
    (passed, struck.iter().map(|struck| struck.header.unwrap().ids).collect(), end)
}

fn ids(struck: &[Ids]) -> Vec<u64> {
    struck.iter().map(|ids| ids.stream).collect()
}

#[test]
fn faults_strike_the_frames_that_they_name_however_the_stream_is_cut() {
    let bytes = stream(9);
    for (fault, expected, end) in [
        (drop("every=3"), &[3, 6, 9][..], None),
        (drop("type=ACK after=7"), &[8, 9], None),
        (drop("type=NOTIFY,UNSET"), &[], None),
        (drop("every=2 times=2"), &[2, 4], None),
        (drop("to=agent"), &[], None),
        (drop("share=0%"), &[], None),
        (delay("0 every=4"), &[4, 8], None),
        (close("after=2 byte=7"), &[3], Some(false)),
        (reset("every=5"), &[5], Some(true)),
    ] {
        let fault = fault.unwrap();
        for piece in 1..bytes.len() {
            let (passed, struck, ended) = inject(&Faults::new(vec![fault.clone()], 0), 1, piece, &bytes);
            assert_eq!((ids(&struck), ended), (expected.to_vec(), end), "{fault:?}");
            let frame = |id: u64| stream(id).split_off(stream(id - 1).len());
            let whole = |ids: &mut dyn Iterator<Item = u64>| ids.flat_map(frame).collect::<Vec<_>>();
            let expected = match fault.action {
                Action::Delay(_) => bytes.clone(),
                Action::Drop => whole(&mut (1..=9).filter(|id| !expected.contains(id))),
                Action::End { byte, .. } => {
                    let at = stream(expected[0] - 1).len() + byte as usize;
                    bytes[..at].to_vec()
                }
            };
            assert_eq!(passed, expected, "{fault:?} {piece}");
        }
    }
}

#[test]
fn what_is_random_is_repeated_by_its_seed() {
    let bytes = stream(200);
    let struck = |seed, connection| {
        let faults = Faults::new(vec![drop("share=25%").unwrap()], seed);
        ids(&inject(&faults, connection, 50, &bytes).1)
    };
    assert_eq!(struck(1, 1), struck(1, 1));
    assert_ne!(struck(1, 1), struck(2, 1));
    assert_ne!(struck(1, 1), struck(1, 2));
    assert!((20..80).contains(&struck(1, 1).len()));
}

#[test]
fn bytes_that_are_no_frames_pass() {
    let faults = Faults::new(vec![drop("type=ACK").unwrap()], 0);
    let cases = [&b"HTTP/1.1 200 OK\r\n\r\nabc"[..], b"\0\0\0\0\0\0\0\0", b"\0\0", b"\0\0\0\x02xyz\0\0"];
    for bytes in cases {
        for piece in 1..=bytes.len() {
            assert_eq!(inject(&faults, 1, piece, bytes), (bytes.to_vec(), Vec::new(), None));
        }
    }
}

#[test]
fn a_proxy_header_is_no_frame() {
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01\x02\x03\x04\x05\x06\x07\x08\0\x01\0\x02";
    // Longer than what is held of it.
    let long = [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff".as_slice(), &vec![7; 0xffff]].concat();
    let faults = Faults::new(vec![drop("to=agent every=2").unwrap()], 0);
    let (frames, second) = (stream(3), stream(1).len()..stream(2).len());
    let left = [&frames[..second.start], &frames[second.end..]].concat();
    for header in [b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n".as_slice(), v2, &long, b""] {
        let bytes = [header, &frames].concat();
        for piece in [1, 2, 13, 14, 17, 40, bytes.len()] {
            let mut injector = faults.of(1, Direction::ToAgent);
            let (mut parts, mut struck) = (Vec::new(), Vec::new());
            bytes.chunks(piece).for_each(|piece| injector.push(piece, &mut parts, &mut struck));
            injector.finish(&mut parts);
            let passed: Vec<_> = parts
                .iter()
                .flat_map(|part| match part {
                    Part::Bytes(bytes, _) => bytes.to_vec(),
                    Part::End { .. } => panic!(),
                })
                .collect();
            assert_eq!(struck.len(), 1, "{piece}");
            assert!(passed == [header, &left].concat(), "{piece}");
        }
    }
    // One that does not end passes as it is.
    let mut injector = faults.of(1, Direction::ToAgent);
    let mut parts = Vec::new();
    injector.push(b"PROXY TCP4", &mut parts, &mut Vec::new());
    assert_eq!(parts, []);
    injector.finish(&mut parts);
    assert_eq!(parts, [Part::Bytes(b"PROXY TCP4"[..].into(), Duration::ZERO)]);
}

#[test]
fn delays_add_up_and_bytes_of_one_delay_stay_together() {
    let faults = Faults::new(vec![delay("1s").unwrap(), delay("500ms every=2").unwrap()], 0);
    let mut injector = faults.of(1, Direction::ToHaproxy);
    let (mut parts, mut struck) = (Vec::new(), Vec::new());
    injector.push(&stream(3), &mut parts, &mut struck);
    let delays: Vec<_> = parts
        .iter()
        .map(|part| match part {
            Part::Bytes(_, delay) => delay.as_millis(),
            Part::End { .. } => panic!(),
        })
        .collect();
    assert_eq!((delays, struck.len()), (vec![1_000, 1_500, 1_000], 4));
    assert_eq!(struck[0].to_string(), "ACK 1/1, 19 bytes: delayed by 1s");
}

#[test]
fn what_is_no_fault_is_an_error() {
    for text in
        ["x", "to=me", "type=PING", "every=0", "times=0", "share=200%", "share=1", "byte=2", "after=-1"]
    {
        assert!(drop(text).is_err(), "{text}");
    }
    assert!(delay("soon").is_err() && delay("1s byte=2").is_err() && close("byte=2").is_ok());
}
