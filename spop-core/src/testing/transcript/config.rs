//! Settings by name.

use alloc::{borrow::ToOwned, format, string::String};
use core::time::Duration;

use spop_core::{
    Actions, AgentConfig, Scope, Status,
    agent::{OnFailure, PipeliningPolicy},
    frame::Capabilities,
    link::Layers,
};

use super::{
    Scenario,
    parse::{duration, number},
};

/// Applies `key=value`. The keys are the fields of the configuration, with dashes.
pub(super) fn set(scenario: &mut Scenario, setting: &str) -> Result<(), String> {
    let (key, value) = setting.split_once('=').ok_or("a setting is key=value")?;
    let config: &mut AgentConfig = &mut scenario.config;
    let limits = &mut config.limits;
    let timeouts = &mut config.timeouts;
    match key {
        "max-frame-size" => config.max_frame_size = number(value)?,
        "capabilities" => config.capabilities = Capabilities::parse(value.as_bytes()),
        "max-payload" => limits.max_payload = number(value)?,
        "max-payload-bytes" => limits.max_payload_bytes = number(value)?,
        "max-payloads" => limits.max_payloads = number(value)?,
        "max-messages" => limits.max_messages = number(value)?,
        "max-in-flight" => limits.max_in_flight = number(value)?,
        "max-outgoing" => limits.max_outgoing = number(value)?,
        "max-engine-id" => limits.max_engine_id = number(value)?,
        "max-refused" => limits.max_refused = number(value)?,
        "memory" => timeouts.memory = perhaps(value)?,
        "hello" => timeouts.hello = perhaps(value)?,
        "frame" => timeouts.frame = perhaps(value)?,
        "idle" => timeouts.idle = perhaps(value)?,
        "write" => timeouts.write = perhaps(value)?,
        "message" => timeouts.message = perhaps(value)?,
        "drain" => timeouts.drain = duration(value)?,
        "linger" => timeouts.linger = duration(value)?,
        "pipelining" if value == "always" => config.pipelining = PipeliningPolicy::Always,
        "max-waiting-frames" => config.max_waiting_frames = number(value)?,
        "processing" => config.processing = perhaps(value)?,
        "max-age" => config.max_age = perhaps(value)?,
        "drain-timing" if value == "none" => config.drain_timing = None,
        "watch-fragments" => config.watch_fragments = number(value)?,
        "defer-output" => config.defer_output = number(value)?,
        "on-failure" => config.on_failure = on_failure(value)?,
        "layers" if value == "tls" => scenario.layers = Layers::Data,
        _ => return Err(format!("no such setting: {key}")),
    }
    Ok(())
}

fn perhaps(value: &str) -> Result<Option<Duration>, String> {
    if value == "none" { Ok(None) } else { duration(value).map(Some) }
}

/// `set:NAME` answers with a variable of that name; a number disconnects with that status.
fn on_failure(value: &str) -> Result<OnFailure, String> {
    if let Some(name) = value.strip_prefix("set:") {
        let mut actions = Actions::new();
        actions.set_var(Scope::Transaction, name, true);
        return Ok(OnFailure::Answer(actions));
    }
    Ok(OnFailure::Disconnect { status: Status(number(value)?), message: "a handler failed".to_owned() })
}
