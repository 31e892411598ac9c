//! The agent's side of the HELLO handshake.

use alloc::{sync::Arc, vec::Vec};

use bytes::Bytes;

use super::{
    action::{Session, is_multiplexer},
    config::{AgentConfig, PipeliningPolicy},
};
use crate::{
    frame::{AgentHello, Capabilities, FrameType, HaproxyHello, Header, Ids, Version},
    link::Violation,
};

/// The result of an acceptable HAPROXY-HELLO.
pub(super) struct Greeting {
    pub(super) session: Session,
    pub(super) healthcheck: bool,
    /// The payload of the AGENT-HELLO.
    pub(super) answer: Vec<u8>,
}

/// Validates a HAPROXY-HELLO, negotiates the session, and encodes the AGENT-HELLO.
pub(super) fn greet(config: &AgentConfig, header: Header, payload: &[u8]) -> Result<Greeting, Violation> {
    if header.ids != Ids::ZERO {
        return Err(Violation::HelloIds(header));
    }
    let hello = HaproxyHello::decode(payload)
        .map_err(|error| Violation::Hello { frame_type: FrameType::HaproxyHello, error })?;
    let max = config.limits.max_engine_id;
    if let Some(id) = hello.engine_id
        && id.len() > max
    {
        return Err(Violation::EngineIdTooLong { len: id.len(), max });
    }

    let mut common = hello.capabilities & config.capabilities;
    if config.pipelining == PipeliningPolicy::Auto && is_multiplexer(hello.capabilities) {
        common = common.without(Capabilities::PIPELINING);
    }
    // One that is empty tells no engine from another.
    let engine_id = hello.engine_id.filter(|id| !id.is_empty());
    if engine_id.is_none() {
        // Async needs an engine-id: it identifies the connections that share answers.
        common = common.without(Capabilities::ASYNC);
    }
    // Fragmentation is announced by the receiver of fragments, whatever the peer announces.
    let capabilities =
        common.without(Capabilities::FRAGMENTATION) | config.capabilities & Capabilities::FRAGMENTATION;
    let max_frame_size = hello.max_frame_size.min(config.max_frame_size);
    let mut answer = Vec::new();
    AgentHello { version: Version::V2_0, max_frame_size, capabilities }.encode(&mut answer);
    Ok(Greeting {
        session: Session {
            version: Version::V2_0,
            max_frame_size,
            capabilities,
            peer_capabilities: hello.capabilities,
            peer_max_frame_size: hello.max_frame_size,
            engine_id: engine_id.map(Bytes::copy_from_slice).map(Arc::new),
        },
        healthcheck: hello.healthcheck,
        answer,
    })
}

/// The frame size limit before the handshake: 16 KiB, so that an unknown peer cannot make the driver buffer more.
pub(super) fn first_frame_size(config: &AgentConfig) -> u32 {
    config.max_frame_size.min(16 * 1024)
}
