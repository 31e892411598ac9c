//! Settings by name.

use std::time::Duration;

use anyhow::{Context as _, bail};
use spop_core::{
    Actions, AgentConfig, Scope, Status,
    agent::{OnFailure, PipeliningPolicy},
    frame::Capabilities,
    link::Layers,
};

use super::{Scenario, parse::duration};

/// Applies `key=value`; the keys are those of the configuration, with dashes.
pub(super) fn set(scenario: &mut Scenario, setting: &str) -> anyhow::Result<()> {
    let (key, value) = setting.split_once('=').context("a setting is key=value")?;
    let config: &mut AgentConfig = &mut scenario.config;
    let limits = &mut config.limits;
    let timeouts = &mut config.timeouts;
    match key {
        "max-frame-size" => config.max_frame_size = value.parse()?,
        "capabilities" => config.capabilities = Capabilities::parse(value.as_bytes()),
        "max-payload" => limits.max_payload = value.parse()?,
        "max-payload-bytes" => limits.max_payload_bytes = value.parse()?,
        "max-payloads" => limits.max_payloads = value.parse()?,
        "max-in-flight" => limits.max_in_flight = value.parse()?,
        "max-outgoing" => limits.max_outgoing = value.parse()?,
        "max-engine-id" => limits.max_engine_id = value.parse()?,
        "max-refused" => limits.max_refused = value.parse()?,
        "hello" => timeouts.hello = perhaps(value)?,
        "frame" => timeouts.frame = perhaps(value)?,
        "idle" => timeouts.idle = perhaps(value)?,
        "write" => timeouts.write = perhaps(value)?,
        "message" => timeouts.message = perhaps(value)?,
        "drain" => timeouts.drain = duration(value)?,
        "linger" => timeouts.linger = duration(value)?,
        "pipelining" if value == "always" => config.pipelining = PipeliningPolicy::Always,
        "max-waiting-frames" => config.max_waiting_frames = value.parse()?,
        "processing" => config.processing = perhaps(value)?,
        "max-age" => config.max_age = perhaps(value)?,
        "farewell" if value == "none" => config.farewell = None,
        "watch-fragments" => config.watch_fragments = value.parse()?,
        "defer-output" => config.defer_output = value.parse()?,
        "on-failure" => config.on_failure = on_failure(value)?,
        "layers" if value == "tls" => scenario.layers = Layers::Data,
        _ => bail!("no such setting: {key}"),
    }
    Ok(())
}

fn perhaps(value: &str) -> anyhow::Result<Option<Duration>> {
    if value == "none" { Ok(None) } else { duration(value).map(Some) }
}

/// `set:NAME` answers with a variable of that name; a number disconnects with it.
fn on_failure(value: &str) -> anyhow::Result<OnFailure> {
    if let Some(name) = value.strip_prefix("set:") {
        let mut actions = Actions::new();
        actions.set_var(Scope::Transaction, name, true);
        return Ok(OnFailure::Answer(actions));
    }
    Ok(OnFailure::Disconnect { status: Status(value.parse()?), message: "a handler failed".to_owned() })
}
