//! An AGENT-HELLO as it was sent, right or wrong.

use spop_core::{
    Value,
    excerpt::Escaped,
    frame::{Capabilities, Frame, FrameType},
    wire::KvList,
};

/// The items of an AGENT-HELLO.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hello {
    pub(crate) version: Option<String>,
    pub(crate) max_frame_size: Option<i128>,
    /// As they were sent.
    pub(crate) capabilities: Option<String>,
    pub(crate) known: Capabilities,
    /// Names in `capabilities` that the specification does not have.
    pub(crate) unknown: Vec<String>,
    /// Keys that the specification does not have, and known ones that are repeated.
    pub(crate) odd_keys: Vec<String>,
}

impl Hello {
    /// Reads what can be read of a frame without its length prefix. `None` if it is no AGENT-HELLO, or has no list.
    pub(crate) fn read(frame: &[u8]) -> Option<Self> {
        let frame =
            Frame::decode(frame).ok().filter(|frame| frame.header.frame_type == FrameType::AgentHello)?;
        let list = KvList::decode(frame.payload).ok()?;
        let mut hello = Self::default();
        for (key, value) in &list {
            let repeated = match key {
                b"version" => put(&mut hello.version, text(value)),
                b"max-frame-size" => put(&mut hello.max_frame_size, value.as_integer()),
                b"capabilities" => {
                    let first = hello.capabilities.is_none();
                    if let (true, Some(list)) = (first, value.as_bytes()) {
                        hello.known = Capabilities::parse(list);
                        let names = list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
                        hello.unknown = names
                            .filter(|name| !name.is_empty() && Capabilities::by_name(name).is_none())
                            .map(|name| Escaped(name).to_string())
                            .collect();
                    }
                    put(&mut hello.capabilities, text(value))
                }
                _ => true,
            };
            if repeated {
                hello.odd_keys.push(Escaped(key).to_string());
            }
        }
        Some(hello)
    }
}

/// Sets the item if it is the first of its name. Whether it is not.
fn put<T>(item: &mut Option<T>, value: Option<T>) -> bool {
    let repeated = item.is_some();
    if !repeated {
        *item = value;
    }
    repeated
}

fn text(value: Value<'_>) -> Option<String> {
    value.as_bytes().map(|bytes| Escaped(bytes).to_string())
}

#[cfg(test)]
mod tests {
    use spop_core::notation;

    use super::*;

    fn read(line: &str) -> Option<Hello> {
        let bytes = notation::parse_bytes(line).unwrap();
        Hello::read(&bytes[4..])
    }

    #[test]
    fn a_hello_is_read_as_it_is() {
        let hello = read(
            "AGENT-HELLO fin 0 0 version=string:2.1 max-frame-size=int64:-1 capabilities=string:\"async, teleport\" \
             x=null version=string:2.0",
        );
        let hello = hello.unwrap();
        assert_eq!((hello.version.as_deref(), hello.max_frame_size), (Some("2.1"), Some(-1)));
        assert_eq!(hello.capabilities.as_deref(), Some("async, teleport"));
        assert_eq!((hello.known, hello.unknown), (Capabilities::ASYNC, vec!["teleport".to_owned()]));
        assert_eq!(hello.odd_keys, ["x", "version"]);
        assert_eq!(read("AGENT-HELLO fin 0 0 version=null"), Some(Hello::default()));
        assert_eq!(read("AGENT-HELLO fin 0 0 hex:ff"), None);
        assert_eq!(read("ACK fin 0 0"), None);
    }
}
