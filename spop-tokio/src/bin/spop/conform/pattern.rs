//! What a frame must be: the notation, with a choice where the agent has one.
//!
//! ```text
//! AGENT-HELLO fin 0 0 version=string:2.0 max-frame-size=uint32:256..16380 capabilities=string:*
//! AGENT-DISCONNECT fin 0 0 status-code=int:4|10 *
//! ACK fin 5 1 *
//! AGENT-HELLO *
//! ```
//!
//! The last is any frame of this type, well-formed or not. In the others, type, flags and identifiers are exact. Items may stand in any order; those that are not named are allowed behind a `*` only.
//! `int:` is any type of integer. The payload behind a `*` must be well-formed.

use std::ops::RangeInclusive;

use spop_core::{
    Value,
    excerpt::Escaped,
    frame::{AckActions, Frame, FrameType, Header},
    notation,
    wire::{KvList, ValueType},
};

use crate::text;

/// A frame that may come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    /// As it was written.
    pub(super) text: String,
    header: Header,
    /// Any frame of the type.
    any: bool,
    items: Vec<Item>,
    /// The payload may have more than the items.
    open: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Item {
    key: String,
    /// The value as it was written.
    text: String,
    /// `None` is any integer.
    value_type: Option<ValueType>,
    accepted: Accepted,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Accepted {
    Anything,
    Integers(Vec<RangeInclusive<i128>>),
    Text(String),
}

impl Pattern {
    /// Parses a pattern.
    pub(super) fn parse(line: &str) -> Result<Self, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let any = matches!(words[..], [_, "*"]);
        let words =
            if any { vec![words.first().copied().unwrap_or_default(), "-", "0", "0", "*"] } else { words };
        let (header, items) = words.split_at_checked(4).ok_or("a frame has a type, flags and two numbers")?;
        let header = notation::parse(&header.join(" ")).map_err(|error| error.to_string())?.header;
        let (open, items) = match items.split_last() {
            Some((&"*", items)) => (true, items),
            _ => (false, items),
        };
        let items = items.iter().map(|item| Item::parse(item)).collect::<Result<_, _>>()?;
        Ok(Self { text: line.trim().to_owned(), header, any, items, open })
    }

    pub(super) const fn frame_type(&self) -> FrameType {
        self.header.frame_type
    }

    /// Whether the frame, which has no length prefix, is one of these.
    ///
    /// # Errors
    /// Why it is not.
    pub(super) fn matches(&self, frame: &[u8]) -> Result<(), String> {
        let frame = Frame::decode(frame).map_err(|error| format!("the frame is malformed, {error}"))?;
        let (wanted, found) = (self.header, frame.header);
        if wanted.frame_type != found.frame_type {
            return Err(format!("the type is {}", crate::shown::type_name(found.frame_type)));
        }
        if self.any {
            return Ok(());
        }
        if wanted.ids != found.ids {
            let ids = found.ids;
            return Err(format!("the stream-id and the frame-id are {} and {}", ids.stream, ids.frame));
        }
        if wanted.flags != found.flags {
            return Err(format!("the flags are {:#x}, and must be {:#x}", found.flags.0, wanted.flags.0));
        }
        match frame.header.frame_type {
            FrameType::AgentHello | FrameType::AgentDisconnect => self.matches_items(frame.payload),
            FrameType::Ack => {
                AckActions::decode(frame.payload)
                    .map_err(|error| format!("its actions are malformed, {error}"))?;
                self.matches_empty(frame.payload)
            }
            _ => self.matches_empty(frame.payload),
        }
    }

    fn matches_empty(&self, payload: &[u8]) -> Result<(), String> {
        if self.open || payload.is_empty() { Ok(()) } else { Err("it has a payload".into()) }
    }

    fn matches_items(&self, payload: &[u8]) -> Result<(), String> {
        let list = KvList::decode(payload).map_err(|error| format!("its items are malformed, {error}"))?;
        for Item { key, text, value_type, accepted } in &self.items {
            let Some(value) = list.get(key) else { return Err(format!("it has no {key}")) };
            let right_type = value_type.map_or(value.as_integer().is_some(), |of| of == value.value_type());
            if !right_type || !accepted.contains(value) {
                return Err(format!("{key} is {}, and must be {text}", text::cut(&text::value(value), 80)));
            }
        }
        let named = |key: &[u8]| self.items.iter().any(|item| item.key.as_bytes() == key);
        match list.iter().find(|(key, _)| !self.open && !named(key)) {
            Some((key, _)) => Err(format!("it has another item, {}", Escaped(key))),
            None => Ok(()),
        }
    }
}

impl Item {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no KEY=TYPE:VALUE");
        let (key, value) = text.split_once('=').ok_or_else(wrong)?;
        let (value_type, accepted) = value.split_once(':').ok_or_else(wrong)?;
        let value_type = match value_type {
            "int" => None,
            "uint32" => Some(ValueType::Uint32),
            "string" => Some(ValueType::String),
            _ => return Err(wrong()),
        };
        let accepted = match accepted {
            "*" => Accepted::Anything,
            text if value_type == Some(ValueType::String) => Accepted::Text(text.to_owned()),
            list => {
                let ranges = list.split('|').map(range).collect::<Option<_>>();
                Accepted::Integers(ranges.ok_or_else(wrong)?)
            }
        };
        Ok(Self { key: key.to_owned(), text: value.to_owned(), value_type, accepted })
    }
}

/// `4`, or `256..16380` with both ends.
fn range(text: &str) -> Option<RangeInclusive<i128>> {
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    Some(first.parse().ok()?..=last.parse().ok()?)
}

impl Accepted {
    fn contains(&self, value: Value<'_>) -> bool {
        match self {
            Self::Anything => true,
            Self::Integers(ranges) => {
                value.as_integer().is_some_and(|value| ranges.iter().any(|range| range.contains(&value)))
            }
            Self::Text(text) => value.as_bytes() == Some(text.as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, frame: &str) -> Result<(), String> {
        let frame = notation::parse_bytes(frame).unwrap();
        Pattern::parse(pattern).unwrap().matches(&frame[4..])
    }

    #[test]
    fn a_frame_is_what_its_pattern_says() {
        let hello =
            "AGENT-HELLO fin 0 0 version=string:2.0 max-frame-size=uint32:256..16380 capabilities=string:*";
        let good =
            "AGENT-HELLO fin 0 0 capabilities=string:\"\" version=string:2.0 max-frame-size=uint32:256";
        assert_eq!(matches(hello, good), Ok(()));
        assert_eq!(matches("AGENT-HELLO fin 0 0 max-frame-size=int:9|256 *", good), Ok(()));
        assert_eq!(matches("ACK fin 5 1 *", "ACK fin 5 1 set txn x=null"), Ok(()));
        assert_eq!(matches("ACK fin 5 1", "ACK fin 5 1"), Ok(()));
        assert_eq!(matches("AGENT-HELLO *", "AGENT-HELLO - 1 1 hex:ff"), Ok(()));
        assert_eq!(matches("AGENT-HELLO *", "ACK fin 0 0"), Err("the type is ACK".to_owned()));
        for (pattern, frame, reason) in [
            (
                hello,
                &*good.replace("uint32:256", "uint32:255"),
                "max-frame-size is uint32:255, and must be uint32:256..16380",
            ),
            (
                hello,
                &good.replace("uint32:256", "int32:256"),
                "max-frame-size is int32:256, and must be uint32:256..16380",
            ),
            (hello, &good.replace("version", "x"), "it has no version"),
            (hello, &format!("{good} \"\\x1b[2J\"=null"), "it has another item, \\x1b[2J"),
            (
                hello,
                &format!("{good} hex:ff"),
                "its items are malformed, at byte 47: the data ends in the middle of a varint",
            ),
            (hello, "ACK fin 0 0", "the type is ACK"),
            ("ACK fin 5 1 *", "ACK fin 5 2", "the stream-id and the frame-id are 5 and 2"),
            ("ACK fin 5 1 *", "ACK - 5 1", "the flags are 0x0, and must be 0x1"),
            ("ACK fin 5 1", "ACK fin 5 1 unset txn x", "it has a payload"),
        ] {
            assert_eq!(matches(pattern, frame), Err(reason.to_owned()), "{frame}");
        }
        assert!(
            matches("ACK fin 5 1 *", "ACK fin 5 1 hex:ff")
                .unwrap_err()
                .starts_with("its actions are malformed")
        );
    }

    #[test]
    fn a_wrong_pattern_is_an_error() {
        for line in [
            "ACK fin 5",
            "ACK fin 5 x *",
            "ACK fin 5 1 x",
            "ACK fin 5 1 x=1",
            "ACK fin 5 1 x=int:a",
            "ACK fin 5 1 x=y:*",
        ] {
            assert!(Pattern::parse(line).is_err(), "{line}");
        }
    }
}
