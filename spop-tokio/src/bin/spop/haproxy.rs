//! The versions of HAProxy whose behavior the commands reproduce.

use std::{
    collections::hash_map::RandomState,
    fmt,
    hash::{BuildHasher as _, Hasher as _},
    sync::Arc,
};

use bytes::Bytes;
use clap::ValueEnum;
use spop_core::{
    ConnectionId, EngineAction, EngineConfig, EngineReactor, Timestamp, agent::Session, engine::Ended,
};

/// A version of HAProxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Version {
    #[value(name = "2.6")]
    V2_6,
    #[value(name = "3.0")]
    V3_0,
    #[value(name = "3.2")]
    V3_2,
    #[value(name = "3.4")]
    V3_4,
}

impl Version {
    pub(crate) const ALL: [Self; 4] = [Self::V2_6, Self::V3_0, Self::V3_2, Self::V3_4];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::V2_6 => "2.6",
            Self::V3_0 => "3.0",
            Self::V3_2 => "3.2",
            Self::V3_4 => "3.4",
        }
    }

    /// Whether it fragments, sends DISCONNECTs, and numbers requests by their streams.
    pub(crate) const fn is_old(self) -> bool {
        matches!(self, Self::V2_6 | Self::V3_0)
    }

    /// Its configuration, with an engine-id.
    pub(crate) fn config(self) -> EngineConfig {
        let mut config =
            if self.is_old() { EngineConfig::haproxy_2_6() } else { EngineConfig::haproxy_3_2() };
        config.engine_id = Some(Bytes::from(engine_id()));
        config
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A random UUID, as HAProxy announces it.
pub(crate) fn engine_id() -> String {
    let random = || RandomState::new().build_hasher().finish();
    let (high, low) = (random(), random());
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xfff,
        low >> 48 & 0x3fff | 0x8000,
        low & 0xffff_ffff_ffff
    )
}

/// What an HAProxy makes of the bytes that answer its HELLO.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The session begins.
    Established(Box<Session>),
    /// It has ended; a health check that was passed ends as well.
    Ended(Box<Ended>),
    /// More is to come.
    Undecided,
}

/// Judges the answer to a HELLO as an HAProxy with this configuration does. Each of the `reads` is what one read has returned.
pub(crate) fn judge<'a>(
    config: EngineConfig,
    reads: impl IntoIterator<Item = &'a Bytes>,
    eof: bool,
) -> Result<Verdict, spop_core::config::ConfigError> {
    let now = Timestamp::ZERO;
    let mut engine = EngineReactor::new(Arc::new(config.checked()?), ConnectionId(1), now);
    let sent = engine.outgoing().len();
    // The HELLO has left.
    let _ = engine.on_sent(now, sent);
    let mut input = Vec::new();
    for read in reads {
        input.extend_from_slice(read);
        let step = engine.on_bytes(now, &input);
        let verdict = decided(step.action);
        if !matches!(verdict, Verdict::Undecided) {
            return Ok(verdict);
        }
        let consumed = step.consumed;
        input.drain(..consumed);
    }
    // It has sent a DISCONNECT and awaits the agent's: the session has failed already.
    let eof = eof || !engine.outgoing().is_empty();
    if eof { Ok(decided(engine.on_input_eof(now, &input).action)) } else { Ok(Verdict::Undecided) }
}

fn decided(action: EngineAction<'_>) -> Verdict {
    match action {
        EngineAction::Established(session) => Verdict::Established(Box::new(session)),
        EngineAction::Close(ended) => Verdict::Ended(Box::new(ended)),
        _ => Verdict::Undecided,
    }
}

/// The HAPROXY-HELLO of an HAProxy with this configuration, with its length prefix.
pub(crate) fn hello(config: EngineConfig) -> Result<Vec<u8>, spop_core::config::ConfigError> {
    let engine = EngineReactor::new(Arc::new(config.checked()?), ConnectionId(1), Timestamp::ZERO);
    Ok(engine.outgoing().to_vec())
}

#[cfg(test)]
mod tests {
    use spop_core::notation;

    use super::*;

    #[test]
    fn an_engine_id_is_a_uuid() {
        let id = engine_id();
        let lengths: Vec<_> = id.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_ne!(id, engine_id());
    }

    #[test]
    fn a_rejected_hello_ends_the_session_in_all_versions() {
        let hello =
            "AGENT-HELLO fin 0 0 version=string:3.0 max-frame-size=uint32:16380 capabilities=string:\"\"";
        let hello = Bytes::from(notation::parse_bytes(hello).unwrap());
        for version in Version::ALL {
            let Ok(Verdict::Ended(ended)) = judge(version.config(), [&hello], false) else {
                panic!("{version}")
            };
            assert!(ended.closed.to_string().contains("no common version"), "{version}: {}", ended.closed);
        }
    }

    #[test]
    fn a_hello_in_two_reads_is_judged_by_the_version() {
        let hello =
            "AGENT-HELLO fin 0 0 version=string:2.0 max-frame-size=uint32:16380 capabilities=string:\"\"";
        let hello = Bytes::from(notation::parse_bytes(hello).unwrap());
        let whole = [hello.clone()];
        let halves = [hello.slice(..20), hello.slice(20..)];
        for (config, accepts_halves) in [
            (EngineConfig::haproxy_2_6(), true),
            (EngineConfig::haproxy_3_2(), true),
            (EngineConfig::haproxy_3_1(), false),
        ] {
            let established =
                |reads| matches!(judge(config.clone(), reads, false), Ok(Verdict::Established(_)));
            assert!(established(&whole[..]));
            assert_eq!(established(&halves[..]), accepts_halves);
        }
    }
}
