//! What an agent said.

use std::time::Duration;

use bytes::Bytes;
use spop_core::{
    Scope, Value,
    frame::{AckAction, AckActions},
};

/// The answer to a request: a list of actions.
#[derive(Clone, Debug)]
pub struct Answer {
    pub(super) payload: Bytes,
    pub(super) took: Duration,
}

impl Answer {
    /// The actions, read the way HAProxy does: the first malformed one ends the list, and those before it apply.
    pub fn actions(&self) -> AckActions<'_> {
        AckActions::lenient(&self.payload)
    }

    /// What a variable is after this answer; `None` if the answer does not set it.
    pub fn var(&self, scope: Scope, name: &str) -> Option<Value<'_>> {
        let mut found = None;
        for action in &self.actions() {
            match action {
                AckAction::SetVar { scope: of, name: is, value } if of == scope && is == name.as_bytes() => {
                    found = Some(value).filter(|value| !value.is_null());
                }
                AckAction::UnsetVar { scope: of, name: is } if of == scope && is == name.as_bytes() => {
                    found = None;
                }
                _ => {}
            }
        }
        found
    }

    /// The time from the request to the answer.
    pub const fn took(&self) -> Duration {
        self.took
    }

    /// The payload of the ACK.
    pub const fn payload(&self) -> &Bytes {
        &self.payload
    }
}

#[cfg(test)]
mod tests {
    use spop_core::Actions;

    use super::*;

    #[test]
    fn the_last_action_on_a_variable_counts() {
        let mut actions = Actions::new();
        actions.set_var(Scope::Session, "a", 1_i32).set_var(Scope::Session, "a", 2_i32);
        actions.set_var(Scope::Session, "b", 3_i32).unset_var(Scope::Session, "b");
        actions.set_var(Scope::Session, "c", Value::Null).unset_var(Scope::Transaction, "a");
        let answer = Answer { payload: Bytes::copy_from_slice(actions.as_bytes()), took: Duration::ZERO };
        assert_eq!(answer.var(Scope::Session, "a"), Some(Value::Int32(2)));
        for (scope, name) in [(Scope::Session, "b"), (Scope::Session, "c"), (Scope::Transaction, "a")] {
            assert_eq!(answer.var(scope, name), None, "{scope} {name}");
        }
        assert_eq!(answer.actions().iter().count(), 6);
    }
}
