//! The HELLO handshake as an agent does it.

use alloc::vec::Vec;

use bytes::Bytes;

use super::{
    action::{Session, is_multiplexer},
    config::{AgentConfig, PipeliningPolicy},
};
use crate::{
    frame::{AgentHello, Capabilities, FrameType, HaproxyHello, Header, Ids, Version},
    link::Violation,
};

/// An accepted HELLO.
pub(super) struct Greeting {
    pub(super) session: Session,
    pub(super) healthcheck: bool,
    /// The payload of the AGENT-HELLO.
    pub(super) answer: Vec<u8>,
}

/// Judges a HAPROXY-HELLO and words the answer.
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
    if hello.engine_id.is_none() {
        // Without an engine-id there is no telling which connections belong together.
        common = common.without(Capabilities::ASYNC);
    }
    // Receiving fragments is up to the receiver alone.
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
            engine_id: hello.engine_id.map(Bytes::copy_from_slice),
        },
        healthcheck: hello.healthcheck,
        answer,
    })
}

/// What a frame may take before the handshake: a peer is not given more before it has said who it is.
pub(super) fn first_frame_size(config: &AgentConfig) -> u32 {
    config.max_frame_size.min(16 * 1024)
}
