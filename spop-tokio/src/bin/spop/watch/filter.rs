//! `--filter`: which events are shown.

use std::{fmt, str::FromStr};

use spop_core::frame::FrameType;

use super::event::Event;

/// What an event must have to be shown; one of the values of each key that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    connections: Vec<u64>,
    types: Vec<FrameType>,
    streams: Vec<u64>,
    messages: Vec<Vec<u8>>,
}

impl Filter {
    /// Adds what another filter asks for.
    pub(crate) fn add(&mut self, other: Self) {
        let Self { connections, types, streams, messages } = other;
        self.connections.extend(connections);
        self.types.extend(types);
        self.streams.extend(streams);
        self.messages.extend(messages);
    }

    /// Whether an event is shown. What belongs to no frame has no type, stream and message.
    pub(crate) fn matches(&self, event: &Event) -> bool {
        let about = &event.about;
        one_of(&self.connections, Some(&event.connection))
            && one_of(&self.types, about.frame_type.as_ref())
            && one_of(&self.streams, about.ids.map(|ids| ids.stream).as_ref())
            && (self.messages.is_empty()
                || about.names.iter().any(|name| self.messages.iter().any(|wanted| **wanted == **name)))
    }
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut filter = Self::default();
        for term in text.split_whitespace() {
            let (key, values) = term.split_once('=').ok_or_else(|| expected(term))?;
            for value in values.split(',') {
                let number = || value.parse::<u64>().map_err(|_| format!("{value:?} is no number: {term}"));
                match key {
                    "connection" => filter.connections.push(number()?),
                    "stream" => filter.streams.push(number()?),
                    "type" => filter.types.push(frame_type_by_name(value)?),
                    "message" if !value.is_empty() => filter.messages.push(value.into()),
                    _ => return Err(expected(term)),
                }
            }
        }
        if filter == Self::default() { Err(expected(text)) } else { Ok(filter) }
    }
}

fn one_of<T: PartialEq>(wanted: &[T], found: Option<&T>) -> bool {
    wanted.is_empty() || found.is_some_and(|found| wanted.contains(found))
}

fn expected(found: impl fmt::Debug) -> String {
    format!("expected connection=N, type=TYPE, stream=ID or message=NAME, found {found:?}")
}

/// The type of this name.
pub(crate) fn frame_type_by_name(name: &str) -> Result<FrameType, String> {
    let known = FrameType::KNOWN.into_iter().find(|known| known.to_string().eq_ignore_ascii_case(name));
    known.ok_or_else(|| {
        let names = FrameType::KNOWN.map(|known| known.to_string()).join(", ");
        format!("{name:?} is no type of a frame: there are {names}")
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use spop_core::frame::Ids;

    use super::*;
    use crate::watch::event::{About, What};

    fn event(connection: u64, frame_type: Option<FrameType>, names: &[&str]) -> Event {
        let names = names.iter().map(|name| name.as_bytes().into()).collect();
        let about = About { frame_type, ids: frame_type.map(|_| Ids::new(7, 1)), names };
        Event { connection, time: Duration::ZERO, what: What::Note { at: None, text: String::new() }, about }
    }

    #[test]
    fn all_keys_and_one_value_of_each_must_match() {
        let ack = event(1, Some(FrameType::Ack), &["a", "b"]);
        for (text, matches) in [
            ("connection=1", true),
            ("connection=2", false),
            ("connection=2,1", true),
            ("type=ack", true),
            ("type=NOTIFY,ACK stream=7", true),
            ("type=NOTIFY", false),
            ("stream=8", false),
            ("message=b", true),
            ("message=c,a connection=1", true),
            ("message=c", false),
        ] {
            assert_eq!(text.parse::<Filter>().unwrap().matches(&ack), matches, "{text}");
        }
        let note = event(1, None, &[]);
        assert!("connection=1".parse::<Filter>().unwrap().matches(&note));
        assert!(!"type=ACK".parse::<Filter>().unwrap().matches(&note));
        assert!(Filter::default().matches(&note));
        let mut both: Filter = "connection=2".parse().unwrap();
        both.add("connection=1 type=ACK".parse().unwrap());
        assert!(both.matches(&ack));
    }

    #[test]
    fn what_is_no_filter_is_an_error() {
        for text in ["", "x", "x=1", "connection=", "stream=a", "type=PING", "message=", "type"] {
            assert!(text.parse::<Filter>().is_err(), "{text}");
        }
    }
}
