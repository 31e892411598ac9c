//! Traffic that was recorded between HAProxy and a small agent; see `captures/README.md`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use spop_core::{
    AgentConfig,
    frame::{Capabilities, Frame, FrameType},
    wire::KvList,
};

/// One recorded connection.
#[derive(Clone, Debug)]
pub struct Capture {
    /// `VERSION/SCENARIO/conn-N`.
    pub name: String,
    /// What HAProxy sent, where it was kept.
    pub input: Option<Vec<u8>>,
    /// What the agent sent, where it was kept.
    pub output: Option<Vec<u8>>,
    /// What the recorder made of it.
    pub lines: Vec<Line>,
    /// Whether the agent closed the connection, after all that it sent.
    pub agent_closed: bool,
}

/// A frame as the recorder described it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When, in milliseconds.
    pub at: u64,
    /// Whether HAProxy sent it.
    pub to_agent: bool,
    /// Its type.
    pub frame_type: FrameType,
    /// Its flags as they are printed: `-`, `FIN`, `FIN|ABORT`.
    pub flags: String,
    /// STREAM-ID and FRAME-ID.
    pub ids: (u64, u64),
    /// The length of the frame and of its payload.
    pub len: (usize, usize),
    /// The payload, abbreviated.
    pub payload: String,
}

impl Capture {
    /// All recorded connections, in order.
    ///
    /// # Errors
    /// A file that cannot be read, or a description that makes no sense.
    pub fn all() -> anyhow::Result<Vec<Self>> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("captures");
        let mut texts: Vec<PathBuf> = Vec::new();
        for scenario in folders(&root)?.iter().flat_map(|version| folders(version)).flatten() {
            for entry in fs::read_dir(scenario)? {
                let path = entry?.path();
                if path.extension().is_some_and(|extension| extension == "txt") {
                    texts.push(path);
                }
            }
        }
        texts.sort();
        texts.iter().map(|text| Self::read(&root, text)).collect()
    }

    fn read(root: &Path, text: &Path) -> anyhow::Result<Self> {
        let name = text.strip_prefix(root)?.with_extension("").display().to_string();
        let whole = fs::read_to_string(text)?;
        let lines = whole.lines().filter(|line| line.contains("H>A") || line.contains("A>H"));
        Ok(Self {
            input: fs::read(text.with_extension("in.bin")).ok(),
            output: fs::read(text.with_extension("out.bin")).ok(),
            lines: lines
                .map(|line| parse(line).with_context(|| format!("{name}: {line}")))
                .collect::<Result<_, _>>()?,
            name,
            agent_closed: whole.contains("-- agent closes"),
        })
    }

    /// What the recorder saw of one direction.
    pub fn lines(&self, to_agent: bool) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(move |line| line.to_agent == to_agent)
    }

    /// A configuration that announces what the recorded agent announced; without its AGENT-HELLO, one that announces all.
    ///
    /// # Errors
    /// An AGENT-HELLO that makes no sense.
    pub fn config(&self) -> anyhow::Result<AgentConfig> {
        let mut config = AgentConfig::default();
        config.capabilities = Capabilities::FRAGMENTATION | Capabilities::PIPELINING | Capabilities::ASYNC;
        if let Some(output) = &self.output
            && let Some(hello) =
                frames(output)?.first().filter(|f| f.header.frame_type == FrameType::AgentHello)
        {
            let list = KvList::decode(hello.payload)?;
            let size = list.get("max-frame-size").and_then(|value| value.as_integer());
            let names = list.get("capabilities").and_then(|value| value.as_bytes());
            config.max_frame_size = u32::try_from(size.context("no size")?)?;
            config.capabilities = Capabilities::parse(names.context("no capabilities")?);
        }
        Ok(config)
    }
}

fn folders(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path()));
    let mut folders = entries.collect::<Result<Vec<_>, _>>()?;
    folders.retain(|path| path.is_dir());
    Ok(folders)
}

/// The frames of one direction.
///
/// # Errors
/// Bytes that are no frames.
pub fn frames(mut bytes: &[u8]) -> anyhow::Result<Vec<Frame<'_>>> {
    let mut frames = Vec::new();
    while let Some((prefix, rest)) = bytes.split_first_chunk::<4>() {
        let len = u32::from_be_bytes(*prefix) as usize;
        let (frame, rest) = rest.split_at_checked(len).context("the last frame is not whole")?;
        frames.push(Frame::decode(frame)?);
        bytes = rest;
    }
    ensure!(bytes.is_empty(), "the last frame is not whole");
    Ok(frames)
}

/// `0.001 H>A NOTIFY(3) len=32 flags=FIN sid=1 fid=1 paylen=25 | …`
fn parse(line: &str) -> anyhow::Result<Line> {
    let (head, payload) = line.split_once('|').filter(|(head, _)| head.contains("paylen=")).map_or_else(
        || {
            // The flags may hold a bar themselves.
            let at = line.find("paylen=").context("no paylen")?;
            let bar = at + line.get(at..).and_then(|rest| rest.find('|')).context("no bar")?;
            Ok::<_, anyhow::Error>((line.get(..bar).unwrap_or(""), line.get(bar + 1..).unwrap_or("")))
        },
        Ok,
    )?;
    let to_agent = head.contains("H>A");
    let (_, head) = head.split_once(if to_agent { "H>A " } else { "A>H " }).context("no direction")?;
    let number = |key: &str| -> anyhow::Result<u64> { Ok(word(head, key)?.parse()?) };
    let frame_type = head.split_once('(').and_then(|(_, rest)| rest.split_once(')')).context("no type")?.0;
    let at = line.split_whitespace().next().and_then(|at| at.split_once('.')).context("no time")?;
    Ok(Line {
        at: at.0.parse::<u64>()? * 1_000 + at.1.parse::<u64>()?,
        to_agent,
        frame_type: FrameType::from_byte(frame_type.parse()?),
        flags: word(head, "flags=")?.to_owned(),
        ids: (number("sid=")?, number("fid=")?),
        len: (usize::try_from(number(" len=")?)?, usize::try_from(number("paylen=")?)?),
        payload: payload.trim().to_owned(),
    })
}

fn word<'a>(head: &'a str, key: &str) -> anyhow::Result<&'a str> {
    let (_, rest) = head.split_once(key).with_context(|| format!("no {key}"))?;
    Ok(rest.split_whitespace().next().unwrap_or_default())
}
