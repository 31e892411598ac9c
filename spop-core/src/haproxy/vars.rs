//! The variables that HAProxy sets from an answer.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    format,
    string::String,
    vec::Vec,
};
use core::net::{Ipv4Addr, Ipv6Addr};

use crate::{
    Scope, Value,
    frame::{AckAction, AckActions, check_name},
};

/// Which variables HAProxy sets for an agent: `option var-prefix`, `register-var-names` and `option force-set-var` of its
/// `spoe-agent` section. The rules are those of HAProxy 2.5 and later:
///
/// - In the scopes `sess`, `txn`, `req` and `res`, SET-VAR creates the variable, whatever the options.
/// - In scope `proc` it sets only a variable that exists: one that `register-var-names` lists, one that the configuration
///   refers to (`var(proc.prefix.name)`), or one that was set before. With `option force-set-var` it creates the variable.
/// - UNSET-VAR, and SET-VAR with NULL, unset a variable in any scope. Unsetting one that does not exist has no effect. One
///   that the configuration lists can be set again.
/// - An action is dropped silently if the full name, `scope.prefix.name`, exceeds 63 characters or contains others than
///   letters, digits, `.` and `_`.
///
/// HAProxy up to 2.4 required a known name in every scope, as section 2.2 of the specification describes.
#[derive(Clone, Debug, Default)]
pub struct VarRules {
    prefix: String,
    known: BTreeSet<String>,
    force: bool,
}

impl VarRules {
    /// Rules with this prefix (`option var-prefix`, or the agent's name) and no known variable in scope `proc`.
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into(), ..Self::default() }
    }

    /// `register-var-names`: the variables, without scope and prefix, that may be set in scope `proc`. Add those that the
    /// configuration refers to in this scope.
    #[must_use]
    pub fn register<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.known.extend(names.into_iter().map(String::from));
        self
    }

    /// `option force-set-var`: any variable may be set in scope `proc`.
    #[must_use]
    pub fn force(mut self) -> Self {
        self.force = true;
        self
    }

    /// The full name of a variable that HAProxy creates. `None` if it silently drops it: the name is too long, contains a
    /// character that is not allowed, or is not known in scope `proc`.
    pub fn full_name(&self, scope: Scope, name: &[u8]) -> Option<String> {
        self.prefixed(scope, name).filter(|_| self.creates(scope, name))
    }

    /// The full name, if HAProxy accepts it.
    fn prefixed(&self, scope: Scope, name: &[u8]) -> Option<String> {
        check_name(scope, &self.prefix, name).ok()?;
        let name = core::str::from_utf8(name).ok()?;
        Some(format!("{scope}.{}.{name}", self.prefix))
    }

    /// Whether SET-VAR creates a variable with this name.
    fn creates(&self, scope: Scope, name: &[u8]) -> bool {
        let known = || core::str::from_utf8(name).is_ok_and(|name| self.known.contains(name));
        scope != Scope::Process || self.force || known()
    }
}

/// A value as HAProxy stores it: with one type for all integers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The variants are those of `Value`.
pub enum Sample {
    Bool(bool),
    Int(i64),
    Ipv4(Ipv4Addr),
    Ipv6(Ipv6Addr),
    String(Vec<u8>),
    Binary(Vec<u8>),
}

impl Sample {
    /// The sample that HAProxy stores for a value; `None` for NULL. A UINT64 above `i64::MAX` wraps around.
    pub fn of(value: Value<'_>) -> Option<Self> {
        Some(match value {
            Value::Null => return None,
            Value::Bool(value) => Self::Bool(value),
            Value::Int32(value) => Self::Int(value.into()),
            Value::Uint32(value) => Self::Int(value.into()),
            Value::Int64(value) => Self::Int(value),
            Value::Uint64(value) => Self::Int(value.cast_signed()),
            Value::Ipv4(value) => Self::Ipv4(value),
            Value::Ipv6(value) => Self::Ipv6(value),
            Value::String(value) => Self::String(value.into()),
            Value::Binary(value) => Self::Binary(value.into()),
        })
    }
}

/// Variables and their values, by their full names.
///
/// It accepts the scopes `req` and `res` at any time. HAProxy accepts `req` until it looks for a server, and `res` from then
/// on, and silently drops SET-VAR for the other.
///
/// ```
/// use spop_core::{Actions, haproxy::{Sample, VarRules, Vars}, Scope, frame::AckActions};
///
/// let mut actions = Actions::new();
/// actions
///     .set_var(Scope::Session, "score", 77_i32)
///     .set_var(Scope::Process, "total", 1_i32)
///     .set_var(Scope::Process, "other", 1_i32);
/// let mut vars = Vars::default();
/// vars.apply(&VarRules::new("eng").register(["total"]), AckActions::lenient(actions.as_bytes()));
/// assert_eq!(vars.get("sess.eng.score"), Some(&Sample::Int(77)));
/// assert_eq!(vars.get("proc.eng.total"), Some(&Sample::Int(1)));
/// assert_eq!(vars.get("proc.eng.other"), None, "not registered");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vars {
    values: BTreeMap<String, Sample>,
}

impl Vars {
    /// Applies the actions of an answer, in order.
    pub fn apply(&mut self, rules: &VarRules, actions: AckActions<'_>) {
        for action in &actions {
            let (scope, name, value) = match action {
                AckAction::SetVar { scope, name, value } => (scope, name, Sample::of(value)),
                AckAction::UnsetVar { scope, name } => (scope, name, None),
            };
            let Some(full) = rules.prefixed(scope, name) else { continue };
            match value {
                Some(value) if rules.creates(scope, name) => {
                    self.values.insert(full, value);
                }
                Some(value) => {
                    self.values.entry(full).and_modify(|existing| *existing = value);
                }
                None => {
                    self.values.remove(&full);
                }
            }
        }
    }

    pub(super) fn set(&mut self, full_name: String, value: Sample) {
        self.values.insert(full_name, value);
    }

    /// The value of a variable.
    pub fn get(&self, full_name: &str) -> Option<&Sample> {
        self.values.get(full_name)
    }

    /// All variables, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Sample)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notation;

    fn after(rules: &VarRules, line: &str) -> Vec<(String, Sample)> {
        let mut vars = Vars::default();
        vars.apply(rules, AckActions::lenient(&notation::parse(line).unwrap().payload));
        vars.iter().map(|(name, value)| (name.into(), value.clone())).collect()
    }

    #[test]
    fn a_name_has_63_characters_at_most() {
        let rules = VarRules::new("eng").force();
        let longest = "x".repeat(63 - "proc.eng.".len());
        assert!(rules.full_name(Scope::Process, longest.as_bytes()).is_some());
        assert!(rules.full_name(Scope::Process, (longest.clone() + "x").as_bytes()).is_none());
        assert!(rules.full_name(Scope::Transaction, (longest + "x").as_bytes()).is_some());
    }

    #[test]
    fn names_have_plain_characters() {
        let rules = VarRules::new("eng").force();
        assert_eq!(rules.full_name(Scope::Request, b"a.b_1").as_deref(), Some("req.eng.a.b_1"));
        for bad in ["", "a-b", "é"] {
            assert_eq!(rules.full_name(Scope::Request, bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn only_scope_proc_needs_a_known_name() {
        let rules = VarRules::new("eng").register(["known"]);
        for scope in Scope::ALL {
            assert!(rules.full_name(scope, b"known").is_some(), "{scope}");
            assert_eq!(rules.full_name(scope, b"other").is_some(), scope != Scope::Process, "{scope}");
            assert!(rules.clone().force().full_name(scope, b"other").is_some(), "{scope}");
        }
    }

    #[test]
    fn a_process_variable_that_exists_is_set_and_unset_by_any_agent() {
        let (owner, other) = (VarRules::new("p").force(), VarRules::new("p"));
        let mut vars = Vars::default();
        let mut apply = |rules: &VarRules, line: &str| {
            vars.apply(rules, AckActions::lenient(&notation::parse(line).unwrap().payload));
            vars.get("proc.p.a").cloned()
        };
        assert_eq!(apply(&other, "ACK fin 1 1 set proc a=int32:1"), None, "not created");
        assert_eq!(apply(&owner, "ACK fin 1 1 set proc a=int32:2"), Some(Sample::Int(2)));
        assert_eq!(apply(&other, "ACK fin 1 1 set proc a=int32:3"), Some(Sample::Int(3)));
        assert_eq!(apply(&other, "ACK fin 1 1 unset proc a"), None);
        assert_eq!(apply(&other, "ACK fin 1 1 set proc a=int32:4"), None, "gone with its value");
        let known = VarRules::new("p").register(["a"]);
        let again = "ACK fin 1 1 set proc a=int32:5 ; unset proc a ; set proc a=int32:6";
        assert_eq!(apply(&known, again), Some(Sample::Int(6)), "what is registered stays known");
        assert_eq!(apply(&other, "ACK fin 1 1 set proc a=null"), None);
    }

    #[test]
    fn actions_apply_in_order_up_to_the_first_malformed_one() {
        let rules = VarRules::new("p").force();
        let set =
            "ACK fin 1 1 set txn a=int32:1 ; set txn a=uint64:18446744073709551615 ; set txn b=bool:true";
        assert_eq!(
            after(&rules, set),
            [("txn.p.a".into(), Sample::Int(-1)), ("txn.p.b".into(), Sample::Bool(true))]
        );
        assert_eq!(after(&rules, "ACK fin 1 1 set txn a=int32:1 ; set txn a=null"), []);
        assert_eq!(after(&rules, "ACK fin 1 1 set txn a=int32:1 ; unset txn a ; unset txn b"), []);
        assert_eq!(
            after(&rules, "ACK fin 1 1 set txn a=int32:1 ; hex:0900 ; set txn b=int32:2"),
            [("txn.p.a".into(), Sample::Int(1))]
        );
    }

    #[test]
    fn each_value_becomes_a_sample_of_one_of_six_types() {
        let line = "ACK fin 1 1 set txn a=bool:true ; set txn b=int64:-1 ; set txn c=uint32:7 ; set txn d=ipv4:192.0.2.1 ; \
                    set txn e=ipv6:2001:db8::1 ; set txn f=string:x ; set txn g=binary:00ff";
        let samples: Vec<_> =
            after(&VarRules::new("p").force(), line).into_iter().map(|(_, sample)| sample).collect();
        assert_eq!(
            samples,
            [
                Sample::Bool(true),
                Sample::Int(-1),
                Sample::Int(7),
                Sample::Ipv4([192, 0, 2, 1].into()),
                Sample::Ipv6("2001:db8::1".parse().unwrap()),
                Sample::String(b"x".to_vec()),
                Sample::Binary(b"\x00\xff".to_vec()),
            ]
        );
    }
}
