//! The two HELLO frames (sections 3.2.4 and 3.2.5).

use alloc::string::ToString;

use super::{Capabilities, MIN_FRAME_SIZE, Version};
use crate::{
    DecodeError,
    wire::{KvList, Sink, Status, Value, put_pair},
};

const SUPPORTED_VERSIONS: &str = "supported-versions";
const VERSION: &str = "version";
const MAX_FRAME_SIZE: &str = "max-frame-size";
const CAPABILITIES: &str = "capabilities";
const HEALTHCHECK: &str = "healthcheck";
const ENGINE_ID: &str = "engine-id";

/// The payload of a HAPROXY-HELLO, with which HAProxy opens a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HaproxyHello<'a> {
    /// `supported-versions`: a comma-separated list.
    pub supported_versions: &'a [u8],
    /// `max-frame-size`: the longest frame that HAProxy accepts, in bytes without the length prefix.
    pub max_frame_size: u32,
    /// `capabilities`.
    pub capabilities: Capabilities,
    /// `healthcheck`: the session is a health check, and ends with the AGENT-HELLO.
    pub healthcheck: bool,
    /// `engine-id`.
    pub engine_id: Option<&'a [u8]>,
}

/// The payload of an AGENT-HELLO, with which the agent accepts a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentHello {
    /// `version`: the version of the session.
    pub version: Version,
    /// `max-frame-size`: the lower of both sides' limits, in bytes.
    pub max_frame_size: u32,
    /// `capabilities`.
    pub capabilities: Capabilities,
}

/// Why a HELLO was rejected. Each error has a [status code](Self::status).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HelloError {
    /// The payload is not a key/value list.
    #[error("the payload is malformed {0}")]
    Malformed(#[from] DecodeError),
    /// An item has a wrong type.
    #[error("\"{key}\" is a {found}, not a {expected}")]
    #[non_exhaustive]
    WrongType {
        /// The item.
        key: &'static str,
        /// The type that the specification requires.
        expected: &'static str,
        /// The type of the received value.
        found: &'static str,
    },
    /// `supported-versions` or `version` is missing.
    #[error("\"{0}\" is missing")]
    NoVersion(&'static str),
    /// `max-frame-size` is missing.
    #[error("\"max-frame-size\" is missing")]
    NoFrameSize,
    /// `capabilities` is missing.
    #[error("\"capabilities\" is missing")]
    NoCapabilities,
    /// The sides have no version in common.
    #[error("no common version: this side speaks 2.0")]
    UnsupportedVersion,
    /// `max-frame-size` is below 256 or above `most`.
    #[error("max-frame-size {found} is outside {MIN_FRAME_SIZE}..={most}")]
    #[non_exhaustive]
    BadFrameSize {
        /// The value that the peer sent.
        found: i128,
        /// The highest accepted value.
        most: u32,
    },
}

impl HelloError {
    /// The status code (section 3.5).
    pub const fn status(&self) -> Status {
        match self {
            Self::Malformed(_) | Self::WrongType { .. } => Status::INVALID,
            Self::NoVersion(_) => Status::NO_VERSION,
            Self::NoFrameSize => Status::NO_FRAME_SIZE,
            Self::NoCapabilities => Status::NO_CAPABILITIES,
            Self::UnsupportedVersion => Status::BAD_VERSION,
            Self::BadFrameSize { .. } => Status::BAD_FRAME_SIZE,
        }
    }
}

impl<'a> HaproxyHello<'a> {
    /// Decodes the payload of a HAPROXY-HELLO. Unknown items are skipped; of repeated items the first counts.
    ///
    /// # Errors
    /// [`HelloError`] if an item is malformed, missing, of a wrong type or out of range, or if 2.0 is not among the supported
    /// versions.
    pub fn decode(payload: &'a [u8]) -> Result<Self, HelloError> {
        let list = KvList::decode(payload)?;
        let supported_versions = string(&list, SUPPORTED_VERSIONS)?;
        let max_frame_size = integer(&list, MAX_FRAME_SIZE)?;
        let capabilities = string(&list, CAPABILITIES)?;
        let healthcheck = match list.get(HEALTHCHECK) {
            None => false,
            Some(value) => value.as_bool().ok_or(wrong_type(HEALTHCHECK, "BOOL", value))?,
        };
        let engine_id = string(&list, ENGINE_ID)?;

        let supported_versions = supported_versions.ok_or(HelloError::NoVersion(SUPPORTED_VERSIONS))?;
        let max_frame_size = max_frame_size.ok_or(HelloError::NoFrameSize)?;
        let capabilities = Capabilities::parse(capabilities.ok_or(HelloError::NoCapabilities)?);
        if !Version::V2_0.is_announced_by(supported_versions) {
            return Err(HelloError::UnsupportedVersion);
        }
        let max_frame_size = checked_size(max_frame_size, u32::MAX)?;
        Ok(Self { supported_versions, max_frame_size, capabilities, healthcheck, engine_id })
    }

    /// Appends the payload.
    pub fn encode(&self, out: &mut (impl Sink + ?Sized)) {
        put_pair(out, SUPPORTED_VERSIONS, Value::String(self.supported_versions));
        put_pair(out, MAX_FRAME_SIZE, self.max_frame_size);
        put_pair(out, CAPABILITIES, self.capabilities.to_string().as_str());
        if self.healthcheck {
            put_pair(out, HEALTHCHECK, true);
        }
        if let Some(engine_id) = self.engine_id {
            put_pair(out, ENGINE_ID, Value::String(engine_id));
        }
    }
}

impl AgentHello {
    /// Decodes the payload of an AGENT-HELLO as HAProxy does: the agent's `max-frame-size` must not exceed `announced`, the one
    /// that HAProxy announced.
    ///
    /// # Errors
    /// [`HelloError`] if an item is malformed, missing, of a wrong type or out of range, or if the version is not 2.0.
    pub fn decode(payload: &[u8], announced: u32) -> Result<Self, HelloError> {
        let list = KvList::decode(payload)?;
        let version = string(&list, VERSION)?;
        let max_frame_size = integer(&list, MAX_FRAME_SIZE)?;
        let capabilities = string(&list, CAPABILITIES)?;

        let version = version.ok_or(HelloError::NoVersion(VERSION))?;
        let max_frame_size = max_frame_size.ok_or(HelloError::NoFrameSize)?;
        let capabilities = Capabilities::parse(capabilities.ok_or(HelloError::NoCapabilities)?);
        let version = Version::parse(version).filter(|version| *version == Version::V2_0);
        let version = version.ok_or(HelloError::UnsupportedVersion)?;
        Ok(Self { version, max_frame_size: checked_size(max_frame_size, announced)?, capabilities })
    }

    /// Appends the payload.
    pub fn encode(&self, out: &mut (impl Sink + ?Sized)) {
        put_pair(out, VERSION, self.version.to_string().as_str());
        put_pair(out, MAX_FRAME_SIZE, self.max_frame_size);
        put_pair(out, CAPABILITIES, self.capabilities.to_string().as_str());
    }
}

fn string<'a>(list: &KvList<'a>, key: &'static str) -> Result<Option<&'a [u8]>, HelloError> {
    match list.get(key) {
        None => Ok(None),
        Some(Value::String(bytes)) => Ok(Some(bytes)),
        Some(value) => Err(wrong_type(key, "STRING", value)),
    }
}

fn integer(list: &KvList<'_>, key: &'static str) -> Result<Option<i128>, HelloError> {
    let Some(value) = list.get(key) else { return Ok(None) };
    value.as_integer().map(Some).ok_or(wrong_type(key, "UINT32", value))
}

fn wrong_type(key: &'static str, expected: &'static str, found: Value<'_>) -> HelloError {
    HelloError::WrongType { key, expected, found: found.value_type().name() }
}

/// A size above `u32::MAX` saturates where any size is allowed: the lower of both sides' limits applies.
fn checked_size(found: i128, most: u32) -> Result<u32, HelloError> {
    let bad = HelloError::BadFrameSize { found, most };
    if found < i128::from(MIN_FRAME_SIZE) || (most < u32::MAX && found > i128::from(most)) {
        return Err(bad);
    }
    Ok(u32::try_from(found).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    type Item = (&'static str, Value<'static>);

    const GOOD: [Item; 3] = [
        (SUPPORTED_VERSIONS, Value::String(b"2.0")),
        (MAX_FRAME_SIZE, Value::Uint32(16_380)),
        (CAPABILITIES, Value::String(b"pipelining, async")),
    ];

    fn payload(items: &[Item]) -> Vec<u8> {
        let mut out = Vec::new();
        for (key, value) in items {
            put_pair(&mut out, key, *value);
        }
        out
    }

    fn status(items: &[Item]) -> Status {
        HaproxyHello::decode(&payload(items)).unwrap_err().status()
    }

    #[test]
    fn what_is_encoded_decodes() {
        let hello = HaproxyHello {
            supported_versions: b"2.0",
            max_frame_size: 4_096,
            capabilities: Capabilities::PIPELINING | Capabilities::ASYNC,
            healthcheck: true,
            engine_id: Some(b"an id"),
        };
        let mut bytes = Vec::new();
        hello.encode(&mut bytes);
        assert_eq!(HaproxyHello::decode(&bytes), Ok(hello));

        let hello = AgentHello {
            version: Version::V2_0,
            max_frame_size: 256,
            capabilities: Capabilities::FRAGMENTATION,
        };
        let mut bytes = Vec::new();
        hello.encode(&mut bytes);
        assert_eq!(AgentHello::decode(&bytes, 16_380), Ok(hello));
        assert_eq!(AgentHello::decode(&bytes, 256), Ok(hello));
        assert_eq!(AgentHello::decode(&bytes, 255).unwrap_err().status(), Status::BAD_FRAME_SIZE);
    }

    #[test]
    fn order_and_unknown_items_do_not_matter() {
        let mut items = Vec::from(GOOD);
        items.reverse();
        items.insert(1, ("x-unknown", Value::Null));
        let bytes = payload(&items);
        let hello = HaproxyHello::decode(&bytes).unwrap();
        assert_eq!((hello.max_frame_size, hello.healthcheck, hello.engine_id), (16_380, false, None));
    }

    #[test]
    fn each_missing_item_has_its_status() {
        let [version, size, capabilities] = GOOD;
        assert_eq!(status(&[size, capabilities]), Status::NO_VERSION);
        assert_eq!(status(&[version, capabilities]), Status::NO_FRAME_SIZE);
        assert_eq!(status(&[version, size]), Status::NO_CAPABILITIES);
        assert_eq!(status(&[]), Status::NO_VERSION);
    }

    #[test]
    fn each_wrong_type_is_an_invalid_frame() {
        for (index, wrong) in
            [Value::Uint32(2), Value::String(b"16380"), Value::Binary(b"async")].into_iter().enumerate()
        {
            let mut items = GOOD;
            items[index].1 = wrong;
            assert_eq!(status(&items), Status::INVALID, "{wrong:?}");
        }
        let [version, size, capabilities] = GOOD;
        assert_eq!(status(&[version, size, capabilities, (HEALTHCHECK, Value::Uint32(1))]), Status::INVALID);
        assert_eq!(status(&[version, size, capabilities, (ENGINE_ID, Value::Null)]), Status::INVALID);
    }

    #[test]
    fn the_frame_size_may_be_any_integer_of_at_least_256() {
        for size in [Value::Int32(256), Value::Uint32(256), Value::Int64(256), Value::Uint64(256)] {
            let mut items = GOOD;
            items[1].1 = size;
            assert_eq!(HaproxyHello::decode(&payload(&items)).unwrap().max_frame_size, 256);
        }
        for size in [Value::Int32(-1), Value::Uint32(255), Value::Int64(i64::MIN), Value::Uint64(0)] {
            let mut items = GOOD;
            items[1].1 = size;
            assert_eq!(status(&items), Status::BAD_FRAME_SIZE);
        }
        let mut items = GOOD;
        items[1].1 = Value::Uint64(u64::MAX);
        assert_eq!(HaproxyHello::decode(&payload(&items)).unwrap().max_frame_size, u32::MAX);
    }

    #[test]
    fn versions_without_2_0_are_unsupported() {
        let mut items = GOOD;
        items[0].1 = Value::String(b"1.0, 3.0");
        assert_eq!(status(&items), Status::BAD_VERSION);
        let agent = payload(&[(VERSION, Value::String(b"2.1")), GOOD[1], GOOD[2]]);
        assert_eq!(AgentHello::decode(&agent, 16_380).unwrap_err().status(), Status::BAD_VERSION);
    }
}
