//! The options of a `spoe-agent` section that concern streams.

use alloc::string::String;

use super::{Sample, VarRules, Vars};
use crate::{Scope, engine::EngineError, frame::AckActions};

/// The options of a `spoe-agent` section (section 2.2) that apply to the end of an event: which variables are set, whether it
/// is logged, and whether an error disables the engine for the stream. The others are in
/// [`EngineConfig`](crate::EngineConfig) and [`PoolConfig`](crate::engine::pool::PoolConfig).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AgentSection {
    /// The agent's name, for the log.
    pub name: String,
    /// `option var-prefix`, `register-var-names` and `option force-set-var`. The default prefix is the agent's name.
    pub rules: VarRules,
    /// `option continue-on-error`: an error ends only its event. Otherwise it disables the engine for the stream. Default
    /// false.
    pub continue_on_error: bool,
    /// `option dontlog-normal`: events without an error are not logged. Default false.
    pub dontlog_normal: bool,
    on_error: Option<String>,
    process_time: Option<String>,
    total_time: Option<String>,
}

impl AgentSection {
    /// The defaults, for an agent with this name.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            rules: VarRules::new(name),
            continue_on_error: false,
            dontlog_normal: false,
            on_error: None,
            process_time: None,
            total_time: None,
        }
    }

    /// `option set-on-error`: the variable, in scope `txn`, that gets the [`EngineError::code`] of an error.
    #[must_use]
    pub fn set_on_error(mut self, name: &str) -> Self {
        self.on_error = Some(name.into());
        self
    }

    /// `option set-process-time`: the variable, in scope `txn`, that gets the processing time of the last event, in
    /// milliseconds.
    #[must_use]
    pub fn set_process_time(mut self, name: &str) -> Self {
        self.process_time = Some(name.into());
        self
    }

    /// `option set-total-time`: the variable, in scope `txn`, that gets the processing time of all events of the stream, in
    /// milliseconds.
    #[must_use]
    pub fn set_total_time(mut self, name: &str) -> Self {
        self.total_time = Some(name.into());
        self
    }

    /// Whether an event with this outcome is logged.
    pub const fn logs(&self, error: Option<EngineError>) -> bool {
        error.is_some() || !self.dontlog_normal
    }

    /// Sets the variables at the end of an event.
    pub(super) fn set_vars(
        &self,
        vars: &mut Vars,
        outcome: Result<AckActions<'_>, EngineError>,
        last: u128,
        total: u128,
    ) {
        let error = outcome.as_ref().err().map(|error| u128::from(error.code()));
        if let Ok(actions) = outcome {
            vars.apply(&self.rules, actions);
        }
        let own =
            [(&self.process_time, Some(last)), (&self.total_time, Some(total)), (&self.on_error, error)];
        for (name, number) in own {
            if let (Some(name), Some(number)) = (name, number)
                && let Some(full) = self.rules.full_name(Scope::Transaction, name.as_bytes())
            {
                vars.set(full, Sample::Int(i64::try_from(number).unwrap_or(i64::MAX)));
            }
        }
    }
}
