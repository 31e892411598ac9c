//! A page, taken apart.

use anyhow::{Context, Result, bail, ensure};

/// The blocks of a page that are run.
#[derive(Debug)]
pub struct Page {
    /// In their order.
    pub blocks: Vec<Block>,
}

/// A fenced block.
#[derive(Debug)]
pub struct Block {
    /// The number of its first line, from 0, without the fence.
    pub line: usize,
    /// Its lines.
    pub lines: Vec<String>,
    /// What it is.
    pub kind: Kind,
}

/// What a block is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file with this name.
    File(String),
    /// Commands and their output.
    Console {
        /// The terminal, if the program runs on.
        terminal: Option<String>,
        /// The only version of HAProxy with which the output is compared.
        version: Option<String>,
        /// Whether numbers are left out of the comparison.
        numbers: bool,
    },
}

/// How lines of a configuration begin that belong to no other kind of text.
const DIRECTIVES: &[&str] = &[
    "frontend ",
    "backend ",
    "listen ",
    "filter ",
    "http-request ",
    "tcp-request ",
    "server ",
    "default-server ",
    "option ",
    "spoe-agent ",
    "spoe-message ",
    "use-backend ",
];

impl Page {
    /// Reads a page.
    ///
    /// # Errors
    /// A block is not closed, or is not as it must be; a configuration is in no block of its own.
    pub fn parse(text: &str) -> Result<Self> {
        let mut blocks = Vec::new();
        let mut lines = text.lines().enumerate();
        while let Some((number, line)) = lines.next() {
            let Some(info) = line.strip_prefix("```") else { continue };
            let mut content = Vec::new();
            loop {
                let (_, line) = lines.next().with_context(|| format!("line {}: no end", number + 1))?;
                if line.trim_end() == "```" {
                    break;
                }
                content.push(line.to_owned());
            }
            let kind = kind(info, &content).with_context(|| format!("line {}", number + 1))?;
            blocks.extend(kind.map(|kind| Block { line: number + 1, lines: content, kind }));
        }
        Ok(Self { blocks })
    }

    /// The names of the files that are configurations, and whether a command uses each.
    pub fn files(&self) -> impl Iterator<Item = (&str, bool)> {
        self.blocks.iter().enumerate().filter_map(|(index, block)| {
            let Kind::File(name) = &block.kind else { return None };
            Some((name.as_str(), self.uses(index, name)))
        })
    }

    // A command names the file, or a configuration does that a command names.
    fn uses(&self, index: usize, name: &str) -> bool {
        let later = self.blocks.iter().enumerate();
        later.clone().skip(index).any(|(_, block)| {
            matches!(block.kind, Kind::Console { .. })
                && block
                    .lines
                    .iter()
                    .any(|line| line.starts_with("$ haproxy ") && line.ends_with(&format!(" {name}")))
        }) || later.clone().any(|(other, block)| match &block.kind {
            Kind::File(file) => {
                other != index
                    && file != name
                    && block.lines.iter().any(|line| line.ends_with(&format!(" config {name}")))
                    && self.uses(other, file)
            }
            Kind::Console { .. } => false,
        })
    }
}

fn kind(info: &str, lines: &[String]) -> Result<Option<Kind>> {
    let mut words = info.split([' ', ',']);
    match words.next() {
        Some("haproxy") => {
            let name = lines.first().and_then(|line| line.strip_prefix("# ")).unwrap_or_default();
            let named =
                !name.is_empty() && name.chars().all(|ch| ch.is_ascii_alphanumeric() || "._-".contains(ch));
            ensure!(named, "the first line must be `# ` and the name of the file");
            Ok(Some(Kind::File(name.to_owned())))
        }
        Some("console") => {
            let (mut terminal, mut version, mut numbers) = (None, None, false);
            for word in words {
                match word {
                    "numbers" => numbers = true,
                    _ if word.starts_with(|ch: char| ch.is_ascii_digit()) => version = Some(word.to_owned()),
                    _ => terminal = Some(word.to_owned()),
                }
            }
            ensure!(
                terminal.is_some() || lines.first().is_some_and(|line| line.starts_with("$ ")),
                "no command"
            );
            Ok(Some(Kind::Console { terminal, version, numbers }))
        }
        _ => {
            if let Some(line) = lines.iter().find(|line| is_directive(line)) {
                bail!("{line:?} is a configuration, which no test loads: make it a block `haproxy`");
            }
            Ok(None)
        }
    }
}

fn is_directive(line: &str) -> bool {
    let line = line.trim_start_matches(['#', ' ']);
    let rest = DIRECTIVES.iter().find_map(|word| line.strip_prefix(word));
    rest.is_some_and(|rest| rest.starts_with(|ch: char| ch.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
Text.
```haproxy
# haproxy.cfg
    filter spoe engine e config spoe.conf
```
```haproxy
# spoe.conf
[e]
```
```rust
fn main() {}
```
```console web 3.4
$ haproxy -f haproxy.cfg
```
";

    #[test]
    fn blocks_have_their_kinds_and_lines() {
        let page = Page::parse(PAGE).unwrap();
        assert_eq!(page.blocks.iter().map(|block| block.line).collect::<Vec<_>>(), [2, 6, 13]);
        let (terminal, version) = (Some("web".to_owned()), Some("3.4".to_owned()));
        assert_eq!(page.blocks[2].kind, Kind::Console { terminal, version, numbers: false });
        assert_eq!(page.files().collect::<Vec<_>>(), [("haproxy.cfg", true), ("spoe.conf", true)]);
        let unused = Page::parse(&PAGE.replace("$ haproxy -f haproxy.cfg", "$ true")).unwrap();
        assert_eq!(unused.files().collect::<Vec<_>>(), [("haproxy.cfg", false), ("spoe.conf", false)]);
    }

    #[test]
    fn a_configuration_is_in_a_block_of_its_own() {
        assert!(Page::parse("```haproxy\nbackend x\n```\n").is_err());
        assert!(Page::parse("```text\nbackend x\n```\n").is_err());
        assert!(Page::parse("```text\nno end\n").is_err());
        assert!(Page::parse("```console\nno command\n```\n").is_err());
    }
}
