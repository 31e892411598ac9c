//! The corpora of the fuzz targets, one file for each target: inputs, each preceded by its length as a big-endian `u16`. A file for each
//! input would make clones slow.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, ensure};
use spop_core::{
    accept::{Addresses, ProxyVersion, encode_proxy_header},
    frame::put_frame,
    notation,
    testing::transcript::{self, Directive, Line},
};

use crate::captures::{Capture, frames};

/// The longest input that is kept.
pub const MAX_LEN: usize = 2_048;

/// Where the corpus of a target is.
pub fn path(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpora").join(target).with_extension("bin")
}

/// The inputs that are kept for a target.
///
/// # Errors
/// A file that cannot be read, or is none of these.
pub fn read(target: &str) -> anyhow::Result<Vec<Vec<u8>>> {
    let path = path(target);
    let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
    let (mut rest, mut inputs) = (&bytes[..], Vec::new());
    while let Some((len, more)) = rest.split_first_chunk::<2>() {
        let (input, more) =
            more.split_at_checked(u16::from_be_bytes(*len).into()).context("the last input is not whole")?;
        inputs.push(input.to_vec());
        rest = more;
    }
    ensure!(rest.is_empty(), "the last input is not whole");
    Ok(inputs)
}

/// Keeps these inputs for a target, the shortest first.
///
/// # Errors
/// A file that cannot be written.
pub fn write(target: &str, mut inputs: Vec<Vec<u8>>) -> anyhow::Result<()> {
    inputs.retain(|input| input.len() <= MAX_LEN);
    inputs.sort_by(|a, b| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
    inputs.dedup();
    let mut bytes = Vec::new();
    for input in inputs {
        bytes.extend_from_slice(&u16::try_from(input.len())?.to_be_bytes());
        bytes.extend_from_slice(&input);
    }
    Ok(fs::write(path(target), bytes)?)
}

/// What a target begins with: recorded traffic and transcripts, in the form that it reads.
///
/// # Errors
/// Captures or transcripts that cannot be read.
pub fn seeds(target: &str) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut seeds = Vec::new();
    for capture in Capture::all()? {
        for (bytes, to_agent) in [(&capture.input, true), (&capture.output, false)] {
            let Some(bytes) = bytes else { continue };
            for frame in frames(bytes)? {
                let mut raw = Vec::new();
                put_frame(&mut raw, frame.header, frame.payload);
                match target {
                    "wire" => seeds.push(frame.payload.to_vec()),
                    "frames" => seeds.push(raw.split_off(4)),
                    "notation" => seeds.push(notation::print(frame).to_string().into_bytes()),
                    "accept" if to_agent => {
                        for version in [ProxyVersion::V1, ProxyVersion::V2] {
                            let mut seed = vec![2, 0, 3, 0];
                            let addresses = Addresses {
                                source: "192.0.2.1:1".parse::<std::net::SocketAddr>()?.into(),
                                destination: "192.0.2.2:12345".parse::<std::net::SocketAddr>()?.into(),
                            };
                            encode_proxy_header(version, Some(&addresses), &mut seed);
                            seed.extend_from_slice(&raw);
                            seeds.push(seed);
                        }
                    }
                    _ => {}
                }
            }
            if (target == "agent" && to_agent) || (target == "engine" && !to_agent) {
                seeds.push(conversation(target, bytes)?);
            }
        }
    }
    if target == "agent" {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../spop-core/tests/transcripts");
        for entry in fs::read_dir(folder)? {
            for scenario in transcript::parse(&fs::read_to_string(entry?.path())?)? {
                seeds.push(scenario.steps.iter().flat_map(|(_, step)| event(step)).collect());
                if let Some(seed) = seeds.last_mut() {
                    // A frame of the fuzzer's own begins with the usual handshake; these bring their own where they can.
                    let own = scenario
                        .steps
                        .iter()
                        .any(|(_, step)| matches!(step, Line::ToAgent(bytes) if bytes.get(4) == Some(&1)));
                    seed.splice(0..0, [if own { 0 } else { 0x20 }, 2, 0]);
                }
            }
        }
    }
    Ok(seeds)
}

/// Recorded bytes, a frame with each read.
fn conversation(target: &str, bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut seed = match target {
        "agent" => vec![0, 2, 0],
        _ => vec![0, 23],
    };
    for frame in frames(bytes)? {
        let mut raw = Vec::new();
        put_frame(&mut raw, frame.header, frame.payload);
        if target == "engine" {
            seed.extend([14, 2]);
        }
        seed.push(31);
        seed.extend(u16::try_from(raw.len())?.to_le_bytes());
        seed.extend(raw);
        if target == "agent" {
            seed.extend([12, 0, 20, 0, 20]);
        }
    }
    Ok(seed)
}

/// A step of a transcript as an event of the fuzzer's.
fn event(step: &Line) -> Vec<u8> {
    match step {
        Line::ToAgent(bytes) => {
            let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
            [&[31][..], &len.to_le_bytes(), bytes].concat()
        }
        Line::ToHaproxy { .. } | Line::Raw(_) => vec![20],
        Line::Directive(directive) => match directive {
            Directive::Answer(..) => vec![12, 0, 20, 0],
            Directive::AnswerPart(..) => vec![16, 0, 200, 0],
            Directive::AbortAnswer(_) => vec![17, 0],
            Directive::Fail(_) => vec![18, 0],
            Directive::Refuse(_) => vec![19, 1],
            Directive::Drain => vec![25],
            Directive::Disconnect(..) => vec![28, 4],
            Directive::Eof => vec![29],
            Directive::Reset => vec![30],
            Directive::ReadBlocked => vec![26],
            Directive::Wait(_) => vec![24, 100],
            Directive::Take(_) => vec![22, 7, 0],
            Directive::Shut(_) => vec![27, 0],
            _ => vec![],
        },
    }
}
