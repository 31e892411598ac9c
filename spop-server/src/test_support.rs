//! What several unit tests need.

use spop_core::{frame::Frame, notation};

/// Frames as sentences of the notation.
pub(crate) fn sentences(bytes: &[u8]) -> Vec<String> {
    let mut frames = bytes;
    let mut sentences = Vec::new();
    while let Some((length, rest)) = frames.split_first_chunk::<4>() {
        let (frame, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        sentences.push(notation::print(Frame::decode(frame).unwrap()).to_string());
        frames = rest;
    }
    sentences
}
