//! The answers that were asked for.

use std::{collections::HashMap, str::FromStr, time::Duration};

use spop_core::{
    Actions, Scope, Value,
    frame::{Messages, NameError},
};

use crate::{text, time};

/// An answer, or a part of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) actions: Actions,
    pub(super) delay: Duration,
    /// The size that the ACK is filled up to.
    pub(super) size: Option<usize>,
    pub(super) end: End,
}

/// How a request is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum End {
    /// With an ACK.
    #[default]
    Ack,
    /// As a handler that fails.
    Fail,
    /// With ABORT.
    Abort,
    /// Not at all.
    Ignore,
    /// With a DISCONNECT of this status.
    Disconnect(u32),
}

impl From<Actions> for Rule {
    fn from(actions: Actions) -> Self {
        Self { actions, ..Self::default() }
    }
}

impl Rule {
    pub(super) fn ending(end: End) -> Self {
        Self { end, ..Self::default() }
    }

    /// Adds the parts of another: all actions, the longest delay and size, and the first end.
    pub(super) fn join(&mut self, other: &Self) {
        self.actions.append(&other.actions);
        self.delay = self.delay.max(other.delay);
        self.size = self.size.max(other.size);
        if self.end == End::Ack {
            self.end = other.end;
        }
    }

    /// The actions, filled up so that the ACK has the size that was asked for. `header` is the length of the rest of the frame.
    pub(super) fn filled(&self, header: usize) -> Actions {
        const NAME: &str = "padding";
        let mut actions = self.actions.clone();
        let Some(size) = self.size else { return actions };
        let missing = size.saturating_sub(header + actions.as_bytes().len());
        let len_with = |text: &[u8]| {
            let mut one = Actions::new();
            one.set_var(Scope::Transaction, NAME, Value::String(text));
            one.as_bytes().len()
        };
        let text = vec![b'x'; missing];
        // The length of the text is a varint in front of it: of one more byte, one size cannot be had.
        let most = text.len().saturating_sub(len_with(b""));
        let fits = (most.saturating_sub(8)..=most)
            .rev()
            .find(|len| len_with(text.get(..*len).unwrap_or_default()) <= missing);
        if let Some(padding) = fits.and_then(|len| text.get(..len)) {
            actions.set_var(Scope::Transaction, NAME, Value::String(padding));
        }
        actions
    }
}

/// The parts of an answer, separated by semicolons: actions, and `delay`, `size`, `fail`, `abort`, `ignore` and `disconnect`.
impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut rule = Self::default();
        for part in parts(text) {
            let part = part.trim();
            let mut words = part.split_whitespace();
            let next = match (words.next(), words.next(), words.next()) {
                (None, ..) => continue,
                (Some("fail"), None, None) => Self::ending(End::Fail),
                (Some("abort"), None, None) => Self::ending(End::Abort),
                (Some("ignore"), None, None) => Self::ending(End::Ignore),
                (Some("disconnect"), Some(status), None) => Self::ending(End::Disconnect(
                    status.parse().map_err(|_| format!("expected a status, found `{status}`"))?,
                )),
                (Some("delay"), Some(delay), None) => {
                    Self { delay: time::duration(delay)?, ..Self::default() }
                }
                (Some("size"), Some(size), None) => {
                    let bytes = size.parse().ok().filter(|bytes| *bytes <= 1 << 20);
                    let bytes =
                        bytes.ok_or_else(|| format!("expected a size up to 1048576, found `{size}`"))?;
                    Self { size: Some(bytes), ..Self::default() }
                }
                (Some("set" | "unset"), ..) => text::actions(part)?.into(),
                _ => {
                    return Err(format!(
                        "expected set, unset, delay TIME, size BYTES, fail, abort, ignore or disconnect STATUS, found `{}`",
                        text::cut(part, 40)
                    ));
                }
            };
            rule.join(&next);
        }
        Ok(rule)
    }
}

/// Splits at semicolons that are in no quoted text.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |ch| {
        let is_end = ch == ';' && !quoted;
        quoted ^= ch == '"' && !escaped;
        escaped = ch == '\\' && !escaped;
        is_end
    })
}

/// The answers to all messages.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    default: Rule,
    messages: HashMap<Vec<u8>, Rule>,
}

impl Rules {
    pub(super) fn new(default: Rule) -> Self {
        Self { default, messages: HashMap::new() }
    }

    /// The answer to one message. A second one for the same message is joined to the first.
    pub(super) fn on(&mut self, message: &str, rule: &Rule) {
        self.messages.entry(message.as_bytes().to_vec()).or_default().join(rule);
    }

    /// The answer to the messages of a NOTIFY.
    pub(super) fn answer(&self, messages: Messages<'_>) -> Rule {
        let mut answer = Rule::default();
        let mut joined_default = false;
        for message in messages {
            match self.messages.get(message.name()) {
                Some(rule) => answer.join(rule),
                None if !joined_default => {
                    joined_default = true;
                    answer.join(&self.default);
                }
                None => {}
            }
        }
        answer
    }

    /// The variables that HAProxy drops with any prefix.
    pub(super) fn dropped_names(&self) -> Vec<NameError> {
        let rules = self.messages.values().chain([&self.default]);
        rules.flat_map(|rule| rule.actions.dropped_names().map(|dropped| dropped.error())).collect()
    }
}

#[cfg(test)]
mod tests {
    use spop_core::notation;

    use super::*;

    #[test]
    fn parts_of_an_answer_are_joined() {
        let rule: Rule =
            "delay 2ms ; set txn a=string:\"x ; \\\" y\" ; size 50 ; disconnect 7;fail; delay 1ms"
                .parse()
                .unwrap();
        let mut actions = Actions::new();
        actions.set_var(Scope::Transaction, "a", Value::String(b"x ; \" y"));
        let delay = Duration::from_millis(2);
        assert_eq!(rule, Rule { actions, delay, size: Some(50), end: End::Disconnect(7) });
        assert_eq!("".parse(), Ok(Rule::default()));
        for bad in ["x", "fail now", "delay", "delay x", "size -1", "disconnect x", "set txn", "unset txn"] {
            assert!(bad.parse::<Rule>().is_err(), "{bad}");
        }
    }

    #[test]
    fn each_message_has_its_answer() {
        let mut rules = Rules::new("set txn d=null".parse().unwrap());
        rules.on("a", &"set txn a=null".parse().unwrap());
        rules.on("a", &"fail".parse().unwrap());
        let answer = |messages: &str| {
            let payload = notation::parse(&format!("NOTIFY fin 1 1 {messages}")).unwrap().payload;
            rules.answer(Messages::decode(&payload).unwrap())
        };
        assert_eq!(answer("x ; y"), "set txn d=null".parse().unwrap());
        assert_eq!(answer("x ; a"), "set txn d=null ; set txn a=null ; fail".parse().unwrap());
        assert_eq!(answer("a"), "set txn a=null ; fail".parse().unwrap());
    }

    #[test]
    fn an_answer_is_filled_to_its_size() {
        for size in [0, 20, 30, 252, 253, 254, 255, 256, 300, 5_000] {
            let rule: Rule = format!("set txn a=int32:1 ; size {size}").parse().unwrap();
            let len = 11 + rule.filled(11).as_bytes().len();
            assert!(len == size || size < 40 || len + 1 == size, "{size}: {len}");
        }
    }
}
