//! The HELLOs, and what they agree on.

use spop_core::{
    excerpt::Escaped,
    frame::{AgentHello, Capabilities, HaproxyHello, HelloError},
    link::{Phase, Side},
};

use super::{Agreed, Checked, Happened, Hello, Session};
use crate::watch::event::{About, What};

impl Session {
    pub(super) fn hello(&mut self, frame: &Checked<'_>, out: &mut Happened) {
        let announced = self.engine.hello.map_or(u32::MAX, |hello| hello.max_frame_size);
        let decoded = match frame.side {
            Side::Engine => HaproxyHello::decode(frame.payload).map(|hello| {
                let engine_id = hello.engine_id.map(|id| Escaped(id).to_string());
                let HaproxyHello { max_frame_size, capabilities, healthcheck, .. } = hello;
                (Hello { max_frame_size, capabilities, healthcheck }, engine_id)
            }),
            Side::Agent => AgentHello::decode(frame.payload, announced).map(|hello| {
                let AgentHello { max_frame_size, capabilities, .. } = hello;
                (Hello { max_frame_size, capabilities, healthcheck: false }, None)
            }),
        };
        self.phase = match frame.side {
            Side::Engine => Phase::Greeted,
            Side::Agent => Phase::Established,
        };
        match decoded {
            Ok((hello, engine_id)) => {
                self.half(frame.side).hello = Some(hello);
                if let Some(id) = engine_id {
                    self.engine.id = Some(id);
                }
                if frame.side == Side::Agent && self.only.is_none() {
                    self.agree(out);
                }
            }
            Err(HelloError::Malformed(error)) => frame.malformed(out, &error),
            Err(error) => frame.violation(out, format_args!("{error} (status {})", error.status())),
        }
    }

    /// Nothing is known to be agreed if a HELLO is missing or malformed.
    fn agree(&mut self, out: &mut Happened) {
        let (Some(engine), Some(agent)) = (self.engine.hello, self.agent.hello) else { return };
        let both = engine.capabilities & agent.capabilities;
        let max_frame_size = engine.max_frame_size.min(agent.max_frame_size);
        let agreed = Agreed {
            max_frame_size,
            pipelining: both.allow_overlap(),
            is_async: both.contains(Capabilities::ASYNC),
        };
        self.agreed = Some(agreed);
        if engine.healthcheck {
            self.agent.end = Some("the AGENT-HELLO of a health check: HAProxy 3.5 fails it");
        }
        // Each side says for itself that it receives fragments.
        let capabilities =
            both.without(Capabilities::FRAGMENTATION) | (agent.capabilities & Capabilities::FRAGMENTATION);
        let what = What::Session {
            max_frame_size,
            capabilities: capabilities.to_string(),
            healthcheck: engine.healthcheck,
            engine_id: self.engine.id.clone(),
        };
        out.push((what, About::default()));
    }
}
