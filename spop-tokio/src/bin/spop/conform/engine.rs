//! Engines of their own for cases and probes.
//!
//! With async an agent may answer on any connection of an engine, also on one of the case before whose close it has not noticed yet.

use super::script::ENGINE;
use crate::haproxy::engine_id;

/// What stands in place of [`ENGINE`].
pub(super) struct Engine(String);

impl Engine {
    pub(super) fn new() -> Self {
        Self(engine_id())
    }

    pub(super) fn line(&self, line: &str) -> String {
        line.replace(ENGINE, &self.0)
    }

    /// Encoded frames. An engine-id has one length.
    pub(super) fn bytes(&self, frames: &[u8]) -> Vec<u8> {
        debug_assert_eq!(self.0.len(), ENGINE.len());
        let mut bytes = frames.to_vec();
        while let Some(at) = bytes.windows(ENGINE.len()).position(|window| window == ENGINE.as_bytes()) {
            bytes.splice(at..at + ENGINE.len(), self.0.bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use spop_core::notation;

    use super::*;
    use crate::conform::script::hello;

    #[test]
    fn frames_are_of_the_engine_that_is_shown() {
        let (one, other) = (Engine::new(), Engine::new());
        let line = hello("");
        assert!(line.contains(ENGINE) && one.line(&line) != other.line(&line));
        let bytes = notation::parse_bytes(&line).unwrap().repeat(2);
        assert_eq!(one.bytes(&bytes), notation::parse_bytes(&one.line(&line)).unwrap().repeat(2));
        assert_eq!(one.bytes(b"else"), b"else");
    }
}
