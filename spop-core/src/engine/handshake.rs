//! The engine's side of the HELLO handshake.

use alloc::{sync::Arc, vec::Vec};

use super::EngineConfig;
use crate::{
    Value,
    agent::Session,
    frame::{AgentHello, Capabilities, Flags, FrameType, HaproxyHello, Header, HelloError, Ids},
    link::Violation,
    wire::{KvList, put_pair},
};

/// The payload of the HAPROXY-HELLO.
pub(super) fn hello(config: &EngineConfig) -> Vec<u8> {
    let mut payload = Vec::new();
    HaproxyHello {
        supported_versions: b"2.0",
        max_frame_size: config.max_frame_size,
        capabilities: if config.healthcheck { Capabilities::NONE } else { config.capabilities },
        healthcheck: config.healthcheck,
        engine_id: config.engine_id.as_deref().filter(|_| !config.healthcheck),
    }
    .encode(&mut payload);
    payload
}

/// Negotiates the session from an AGENT-HELLO.
pub(super) fn negotiate(config: &EngineConfig, header: Header, payload: &[u8]) -> Result<Session, Violation> {
    if header.ids != Ids::ZERO
        || config.healthcheck && config.profile.strict_healthcheck && header.flags != Flags::FIN
    {
        return Err(Violation::HelloIds(header));
    }
    let hello = read(config, payload)
        .map_err(|error| Violation::Hello { frame_type: FrameType::AgentHello, error })?;
    let mut common = hello.capabilities & config.capabilities;
    if config.engine_id.is_none() {
        // Without an engine-id the agent cannot tell which connections belong together.
        common = common.without(Capabilities::ASYNC);
    }
    let capabilities =
        common.without(Capabilities::FRAGMENTATION) | config.capabilities & Capabilities::FRAGMENTATION;
    Ok(Session {
        version: hello.version,
        max_frame_size: hello.max_frame_size,
        capabilities,
        peer_capabilities: hello.capabilities,
        peer_max_frame_size: hello.max_frame_size,
        engine_id: config.engine_id.clone().map(Arc::new),
    })
}

fn read(config: &EngineConfig, payload: &[u8]) -> Result<AgentHello, HelloError> {
    let own = config.max_frame_size;
    let profile = &config.profile;
    let all = config.healthcheck && profile.strict_healthcheck;
    KvList::decode(payload)?;
    // The first item of a name counts, so an appended one is only a default for one that is missing.
    let mut items = payload.to_vec();
    if !profile.needs_frame_size && !all {
        put_pair(&mut items, "max-frame-size", own);
    }
    if !profile.needs_capabilities && !all {
        put_pair(&mut items, "capabilities", Value::String(b""));
    }
    AgentHello::decode(&items, own)
}
