//! Messages, actions and values as text: the notation of the command line, and JSON.

use std::{borrow::Cow, fmt};

use serde_json::{Value as Json, json};
use spop_core::{
    Actions, Value,
    frame::{AckAction, AckActions},
    notation,
};

/// The messages of one NOTIFY, as they were written, and its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MessageText {
    pub(crate) text: String,
    pub(crate) payload: Vec<u8>,
}

/// Parses the messages of a NOTIFY: `check-ip ip=ipv4:203.0.113.7 ; log text=string:hello`.
pub(crate) fn messages(text: &str) -> Result<MessageText, String> {
    let text = text.trim();
    let payload = messages_of(text, |column| column)?;
    Ok(MessageText { text: text.to_owned(), payload })
}

/// The payload of messages whose text was changed; `column` is the place in the original of one in `text`.
pub(crate) fn messages_of(text: &str, column: impl Fn(usize) -> usize) -> Result<Vec<u8>, String> {
    if text.trim().is_empty() {
        return Err("expected a message, such as check-ip ip=ipv4:203.0.113.7".into());
    }
    payload("NOTIFY fin 0 0 ", text, column)
}

/// Parses actions: `set txn score=int32:42 ; unset sess seen`.
pub(crate) fn actions(text: &str) -> Result<Actions, String> {
    let payload = payload("ACK fin 0 0 ", text.trim(), |column| column)?;
    let list = AckActions::decode(&payload).map_err(|error| error.to_string())?;
    let mut actions = Actions::new();
    for action in &list {
        match action {
            AckAction::SetVar { scope, name, value } => actions.set_var(scope, name, value),
            AckAction::UnsetVar { scope, name } => actions.unset_var(scope, name),
        };
    }
    Ok(actions)
}

/// Parses the payload of a frame whose beginning is `header`. Columns in errors are those of `text`, passed through `column`.
fn payload(header: &str, text: &str, column: impl Fn(usize) -> usize) -> Result<Vec<u8>, String> {
    if text.contains(['\n', '\r']) {
        return Err("a line break: write \\n in a quoted text".into());
    }
    notation::parse(&format!("{header}{text}")).map(|frame| frame.payload).map_err(|mut error| {
        error.column = column(error.column.saturating_sub(header.len()));
        error.to_string()
    })
}

/// A value in the notation, such as `int32:42`.
pub(crate) fn value(value: Value<'_>) -> String {
    let mut actions = Actions::new();
    actions.set_var(spop_core::Scope::Transaction, "v", value);
    let mut frame = notation_of_ack();
    frame.payload = actions.as_bytes().to_vec();
    let line = frame.to_string();
    line.strip_prefix("ACK fin 0 0 set txn v=").unwrap_or_default().to_owned()
}

fn notation_of_ack() -> notation::OwnedFrame {
    use spop_core::frame::{Flags, FrameType, Header, Ids};
    let header = Header { frame_type: FrameType::Ack, flags: Flags::FIN, ids: Ids::ZERO };
    notation::OwnedFrame { header, payload: Vec::new() }
}

/// A value in JSON: text as a string, bytes that are no text as hexadecimal digits.
pub(crate) fn json_value(value: Value<'_>) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(value) => value.into(),
        Value::Int32(value) => value.into(),
        Value::Uint32(value) => value.into(),
        Value::Int64(value) => value.into(),
        Value::Uint64(value) => value.into(),
        Value::Ipv4(value) => value.to_string().into(),
        Value::Ipv6(value) => value.to_string().into(),
        Value::String(bytes) => match str::from_utf8(bytes) {
            // JSON escapes the control characters of ASCII only.
            Ok(text) if !text.contains(|char| matches!(char, '\u{7f}'..='\u{9f}')) => text.into(),
            _ => json!({ "hex": Hex(bytes).to_string() }),
        },
        Value::Binary(bytes) => json!({ "hex": Hex(bytes).to_string() }),
    }
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The text, cut after `max` characters; 0 does not cut.
pub(crate) fn cut(text: &str, max: usize) -> Cow<'_, str> {
    match text.char_indices().nth(max) {
        Some((end, _)) if max > 0 => {
            let (kept, rest) = text.split_at(end);
            format!("{kept}… ({} more characters)", rest.chars().count()).into()
        }
        _ => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_columns_of_the_text() {
        assert_eq!(
            messages("check-ip ip=ipv4:1.2.3").unwrap_err(),
            "column 18: expected an IPv4 address, found `1.2.3`"
        );
        assert!(messages(" ").unwrap_err().starts_with("expected a message"));
        assert!(messages("a\nb").unwrap_err().contains("line break"));
        assert_eq!(
            actions("sit txn a=null").unwrap_err(),
            "column 1: expected `set`, `unset`, or `raw:` or `hex:` data, found `sit`"
        );
        assert!(actions("hex:ff00").unwrap_err().starts_with("at byte "));
    }

    #[test]
    fn values_are_those_of_the_notation() {
        for text in ["null", "bool:true", "int32:-1", "string:\"a b\"", "binary:00ff", "ipv6:::1"] {
            let actions = actions(&format!("set sess x={text}")).unwrap();
            let AckAction::SetVar { value: found, .. } = actions.iter().next().unwrap() else { panic!() };
            assert_eq!(value(found), text);
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_digits_in_json() {
        assert_eq!(json_value(Value::String(b"\xff")), json!({ "hex": "ff" }));
        assert_eq!(json_value(Value::String("é".as_bytes())), json!("é"));
        assert_eq!(json_value(Value::Binary(b"a")), json!({ "hex": "61" }));
        assert_eq!(json_value(Value::Uint64(u64::MAX)), json!(u64::MAX));
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut("ééé", 2), "éé… (1 more characters)");
        assert_eq!((cut("ééé", 3), cut("ééé", 0)), ("ééé".into(), "ééé".into()));
    }
}
