//! Where the messages come from: the command line, a file, or a recording of what HAProxy has sent.

use std::{collections::HashMap, fs, io::Read as _, path::Path};

use spop_core::frame::{Flags, Frame, FrameType, Ids, Messages};

use super::template::Template;
use crate::{
    decode::is_capture,
    exit::Failure,
    frames::{Next, Splitter},
};

/// The longest file.
const FILE_MAX: u64 = 64 << 20;

/// Payloads that are put together at once; more are dropped.
const OPEN_MAX: usize = 1_000;

/// The longest frame in a recording.
const FRAME_MAX: u32 = 1 << 20;

/// Messages in the notation, one NOTIFY a line; blank lines and those with # are skipped.
pub(super) fn lines(path: &Path) -> Result<Vec<Template>, Failure> {
    let name = path.display();
    let text = String::from_utf8(read(path)?)
        .map_err(|_| Failure::wrong(format_args!("{name}: it is not UTF-8: is it a --capture?")))?;
    let mut templates = Vec::new();
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let template = Template::parse(line)
            .map_err(|error| Failure::wrong(format_args!("{name}: line {number}: {error}")))?;
        templates.push(template);
    }
    if templates.is_empty() {
        return Err(Failure::wrong(format_args!("{name}: no message in it")));
    }
    Ok(templates)
}

/// The NOTIFYs of a recording: the bytes that HAProxy has sent on a connection.
pub(super) fn capture(path: &Path) -> Result<Vec<Template>, Failure> {
    let name = path.display();
    let bytes = read(path)?;
    if bytes.first_chunk().copied().is_some_and(is_capture) {
        return Err(Failure::wrong(format_args!(
            "{name}: it has packets (pcap): --capture is for the bytes alone that HAProxy has sent on one connection"
        )));
    }
    let payloads = payloads(&bytes).map_err(|error| Failure::wrong(format_args!("{name}: {error}")))?;
    if payloads.is_empty() {
        return Err(Failure::wrong(format_args!(
            "{name}: no NOTIFY in it: a recording has the bytes that HAProxy has sent on a connection"
        )));
    }
    Ok(payloads.into_iter().map(Template::fixed).collect())
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let name = path.display();
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| Failure::io_of(name, &error))?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(Failure::wrong(format_args!("{}: longer than {FILE_MAX} bytes", path.display())));
    }
    Ok(bytes)
}

/// The payloads of whole NOTIFYs, fragments joined. A frame that was cut at the end is skipped.
fn payloads(bytes: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let (mut payloads, mut open) = (Vec::new(), HashMap::<Ids, Vec<u8>>::new());
    let mut splitter = Splitter::new(FRAME_MAX);
    splitter.push(bytes);
    let mut offset = 0;
    loop {
        let frame = match splitter.next() {
            Next::Frame(frame) => frame,
            Next::Partial(_) => return Ok(payloads),
            Next::TooLong(_) => return Err(format!("byte {offset}: no frame begins there")),
        };
        let Frame { header, payload } =
            Frame::decode(&frame).map_err(|error| format!("byte {offset}: {error}"))?;
        let (first, more) = (header.frame_type == FrameType::Notify, header.frame_type == FrameType::Unset);
        if header.flags.is_abort() && (first || more) {
            open.remove(&header.ids);
        } else if first || more && open.contains_key(&header.ids) {
            let mut whole = if first { Vec::new() } else { open.remove(&header.ids).unwrap_or_default() };
            whole.extend_from_slice(payload);
            if header.flags.0 & Flags::FIN.0 == 0 {
                if open.len() < OPEN_MAX {
                    open.insert(header.ids, whole);
                }
            } else {
                Messages::decode(&whole)
                    .map_err(|error| format!("the NOTIFY that ends at byte {offset}: {error}"))?;
                payloads.push(whole);
            }
        }
        offset += 4 + frame.len();
    }
}

#[cfg(test)]
mod tests {
    use spop_core::{Value, notation};

    use super::*;
    use crate::text;

    fn bytes(frames: &[&str]) -> Vec<u8> {
        frames.iter().flat_map(|frame| notation::parse_bytes(frame).unwrap()).collect()
    }

    #[test]
    fn notifys_are_found_and_their_fragments_joined() {
        let mut recording = bytes(&[
            "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0",
            "NOTIFY fin 1 1 one",
            "NOTIFY - 3 1 raw:two",
            "NOTIFY fin 5 1 three",
            "UNSET fin 3 1 raw:x",
            "NOTIFY - 7 1 raw:four",
            "UNSET fin,abort 7 1",
            "UNSET fin 9 1 raw:none",
            "HAPROXY-DISCONNECT fin 0 0 status-code=uint32:0",
            "NOTIFY fin 9 1 cut",
        ]);
        recording.pop();
        let parts = payloads(&recording);
        // The joined payload is no message list.
        assert!(parts.unwrap_err().starts_with("the NOTIFY that ends at byte "));

        let whole = text::messages("two a=string:b").unwrap().payload;
        let hex = |part: &[u8]| text::value(Value::Binary(part)).replace("binary", "hex");
        let recording = bytes(&[
            "NOTIFY fin 1 1 one",
            &format!("NOTIFY - 3 1 {}", hex(&whole[..5])),
            "NOTIFY fin 5 1 three",
            &format!("UNSET fin 3 1 {}", hex(&whole[5..])),
        ]);
        let one = text::messages("one").unwrap().payload;
        let three = text::messages("three").unwrap().payload;
        assert_eq!(payloads(&recording).unwrap(), [one, three, whole]);
    }

    #[test]
    fn what_is_no_recording_is_refused() {
        assert!(payloads(b"GET / HTTP/1.1\r\n").unwrap_err().starts_with("byte 0: "));
        assert_eq!(payloads(b"").unwrap(), Vec::<Vec<u8>>::new());
    }
}
