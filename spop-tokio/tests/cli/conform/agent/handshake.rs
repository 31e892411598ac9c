//! The handshake of the agent.

use std::{thread, time::Duration};

use spop_core::{
    Value,
    frame::{Frame, Ids},
    wire::KvList,
};

use super::{Connection, Done, End};
use crate::conform::fault::Fault;

impl Connection {
    pub(super) fn greet(&mut self, frame: &Frame<'_>) -> Done {
        if self.greeted || frame.header.ids != Ids::ZERO {
            return Err(End::Status(4));
        }
        if !frame.header.flags.is_fin() {
            return Err(End::Status(10));
        }
        let items = KvList::decode(frame.payload).map_err(|_| End::Status(4))?;
        let text = |key| items.get(key).and_then(|value| value.as_bytes()).map(String::from_utf8_lossy);
        let known = ["supported-versions", "max-frame-size", "capabilities", "engine-id", "healthcheck"];
        if self.has(Fault::RejectsUnknownItems)
            && items.iter().any(|(key, _)| !known.iter().any(|known| known.as_bytes() == key))
        {
            return Err(End::Status(4));
        }
        if self.has(Fault::WantsItemsInOrder)
            && items.iter().next().is_none_or(|(key, _)| key != b"supported-versions")
        {
            return Err(End::Status(5));
        }
        let versions = text("supported-versions").ok_or(End::Status(5))?;
        let size = items.get("max-frame-size").and_then(|value| value.as_integer()).ok_or(End::Status(6))?;
        let capabilities = text("capabilities").ok_or(End::Status(7))?;
        if size < 256 {
            return Err(End::Status(9));
        }
        let trims = !self.has(Fault::KeepsSpaces);
        let supported =
            versions.split(',').any(|version| (if trims { version.trim() } else { version }) == "2.0");
        let later = self.has(Fault::AcceptsLaterVersions) && versions == "9.0";
        if !supported && !later && !self.has(Fault::AcceptsAnyVersion) {
            return Err(End::Status(8));
        }
        if self.has(Fault::RejectsUnknownCapabilities) && capabilities.contains("teleportation") {
            return Err(End::Status(4));
        }
        if self.has(Fault::NeedsEngineId)
            && items.get("engine-id").is_none()
            && items.get("healthcheck").is_none()
        {
            return Err(End::Status(4));
        }
        self.greeted = true;
        self.agreed = usize::try_from(size.min(1 << 20)).unwrap();
        self.is_async = capabilities.contains("async");
        self.engine = items.get("engine-id").and_then(|value| value.as_bytes()).unwrap_or_default().to_vec();
        self.shared.sessions.lock().unwrap().push((self.socket.try_clone().unwrap(), self.engine.clone()));
        let healthcheck = items.get("healthcheck") == Some(Value::Bool(true));
        self.send_hello()?;
        match healthcheck {
            true if self.has(Fault::LeavesHealthCheckOpen) => thread::sleep(Duration::from_secs(20)),
            true if self.has(Fault::TalksAfterHealthCheck) => {
                thread::sleep(Duration::from_millis(10));
                return self.disconnect(0).and(Err(End::Closed));
            }
            false => return Ok(()),
            true => {}
        }
        Err(End::Closed)
    }

    fn send_hello(&mut self) -> Done {
        let size = match self.fault {
            Some(Fault::FrameSizeAboveOffer) => "max-frame-size=uint32:65536".to_owned(),
            Some(Fault::FrameSizeIsInt64) => format!("max-frame-size=int64:{}", self.agreed),
            Some(Fault::NoFrameSize) => String::new(),
            Some(Fault::SmallFrames) => "max-frame-size=uint32:256".to_owned(),
            _ => format!("max-frame-size=uint32:{}", self.agreed),
        };
        let version = match self.fault {
            Some(Fault::NoVersion) => "",
            Some(Fault::OldVersion) => "version=string:1.0",
            _ => "version=string:2.0",
        };
        let capabilities = match self.fault {
            Some(Fault::NoCapabilities) => "",
            _ => "capabilities=string:fragmentation,pipelining,async",
        };
        let ids = if self.has(Fault::HelloHasIds) { "1 1" } else { "0 0" };
        let hello = format!("AGENT-HELLO fin {ids} {version} {size} {capabilities}");
        self.send_or_split(&hello, Fault::HelloInTwoSegments)
    }
}
