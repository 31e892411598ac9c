//! What HAProxy makes of the actions of an ACK.

use clap::Args;
use serde::Serialize;
use serde_json::Value as Json;
use spop_core::{
    Scope, Value,
    excerpt::Escaped,
    frame::{AckAction, AckActions, check_name},
    haproxy::VarRules,
    wire::ValueType,
};

use crate::{
    output::{Paint, Table},
    text,
};

/// The options of a `spoe-agent` section that decide on variables.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "HAProxy's configuration")]
pub(crate) struct VariableOptions {
    /// The prefix of variables: `option var-prefix`, or the name of the `spoe-agent`
    #[arg(long, value_name = "PREFIX", default_value = "PREFIX")]
    prefix: String,
    /// A name of `register-var-names`, or of a variable of scope `proc` that the configuration uses
    #[arg(long, value_name = "NAME")]
    register: Vec<String>,
    /// `option force-set-var`
    #[arg(long)]
    force_set_var: bool,
}

impl VariableOptions {
    /// The rules by which HAProxy sets variables.
    pub(crate) fn rules(&self) -> Rules {
        let rules = VarRules::new(&self.prefix).register(self.register.iter().map(String::as_str));
        let rules = if self.force_set_var { rules.force() } else { rules };
        Rules { prefix: self.prefix.clone(), rules }
    }
}

/// The rules by which HAProxy sets variables.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    prefix: String,
    rules: VarRules,
}

/// One action, and its effect.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Effect {
    /// `set` or `unset`.
    action: &'static str,
    scope: &'static str,
    /// The name in the action.
    name: String,
    /// The name in HAProxy's configuration, whether HAProxy accepts it or not.
    variable: String,
    /// The type of the value, if there is one.
    #[serde(rename = "type")]
    value_type: Option<&'static str>,
    value: Json,
    /// Why HAProxy silently drops the action.
    pub(crate) dropped: Option<String>,
    /// What else is to be known.
    note: Option<&'static str>,
    /// The value in the notation.
    #[serde(skip)]
    shown: String,
}

impl Rules {
    /// The effects of the actions, in order.
    pub(crate) fn effects(&self, actions: AckActions<'_>) -> Vec<Effect> {
        actions.iter().map(|action| self.effect(action)).collect()
    }

    fn effect(&self, action: AckAction<'_>) -> Effect {
        let (scope, name, value) = match action {
            AckAction::SetVar { scope, name, value } => (scope, name, Some(value)),
            AckAction::UnsetVar { scope, name } => (scope, name, None),
        };
        let shown = Escaped(name).to_string();
        Effect {
            action: if value.is_some() { "set" } else { "unset" },
            scope: scope.name(),
            variable: format!("{scope}.{}.{shown}", self.prefix),
            name: shown,
            value_type: value.map(|value| value.value_type().name()),
            value: value.map_or(Json::Null, text::json_value),
            dropped: self.dropped(scope, name, value),
            note: value.and_then(note),
            shown: value.map(text::value).unwrap_or_default(),
        }
    }

    fn dropped(&self, scope: Scope, name: &[u8], value: Option<Value<'_>>) -> Option<String> {
        if let Err(error) = check_name(scope, &self.prefix, name) {
            return Some(error.to_string());
        }
        // NULL unsets, which needs no known name.
        let sets = value.is_some_and(|value| value.value_type() != ValueType::Null);
        (sets && self.rules.full_name(scope, name).is_none()).then(|| {
            "scope proc takes only known names: register-var-names, or option force-set-var".to_owned()
        })
    }
}

fn note(value: Value<'_>) -> Option<&'static str> {
    match value {
        Value::Null => Some("NULL unsets the variable"),
        Value::Uint64(number) if i64::try_from(number).is_err() => {
            Some("HAProxy's integers have 64 bits and a sign: it wraps around")
        }
        _ => None,
    }
}

/// The effects as a table.
pub(crate) fn table(effects: &[Effect]) -> Table {
    let mut table = Table::new(["ACTION", "VARIABLE", "VALUE", ""]);
    for effect in effects {
        let (paint, note) = match (&effect.dropped, effect.note) {
            (Some(why), _) => (Some(Paint::Bad), format!("dropped: {why}")),
            (None, note) => (None, note.unwrap_or_default().to_owned()),
        };
        let value = text::cut(&effect.shown, 60).into_owned();
        table.row(paint, [effect.action.to_owned(), effect.variable.clone(), value, note]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effects(actions: &str) -> Vec<Effect> {
        let options =
            VariableOptions { prefix: "e".into(), register: vec!["known".into()], force_set_var: false };
        let actions = text::actions(actions).unwrap();
        options.rules().effects(AckActions::lenient(actions.as_bytes()))
    }

    #[test]
    fn what_haproxy_drops_is_flagged() {
        let long = "x".repeat(57);
        for (action, dropped) in [
            ("set txn score=int32:1", None),
            ("set proc known=int32:1", None),
            ("set proc other=null", None),
            ("unset proc other", None),
            ("set proc other=int32:1", Some("scope proc takes only known names")),
            ("set txn a-b=int32:1", Some("the name of variable \"a-b\" has more than letters")),
            (&format!("set txn {long}=null"), None),
            (&format!("set txn {long}x=null"), Some("the name of variable \"xxx")),
        ] {
            let [effect] = &effects(action)[..] else { panic!() };
            let found = effect.dropped.as_deref();
            assert_eq!(found.is_some(), dropped.is_some(), "{action}: {found:?}");
            assert!(found.unwrap_or_default().starts_with(dropped.unwrap_or_default()), "{found:?}");
        }
    }

    #[test]
    fn integers_above_those_of_haproxy_are_noted() {
        let found = effects("set sess n=uint64:18446744073709551615 ; set sess n=uint64:1 ; set sess n=null");
        let notes: Vec<_> = found.iter().map(|effect| effect.note.is_some()).collect();
        assert_eq!(notes, [true, false, true]);
        assert_eq!(found[0].variable, "sess.e.n");
    }
}
