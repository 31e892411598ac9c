//! What a command prints: text with colours on a terminal, or JSON, one object per line.

use std::{
    env,
    fmt::{self, Write as _},
    io::{self, IsTerminal as _, Write as _},
};

use clap::{
    Args, ValueEnum,
    builder::styling::{AnsiColor, Style},
};
use serde::Serialize;

use crate::exit::Failure;

/// The options of all commands.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct OutputOptions {
    /// Prints JSON, one object per line
    #[arg(long, global = true)]
    json: bool,
    /// When to use colors
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", hide_possible_values = true)]
    color: When,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum When {
    /// On a terminal, unless the variable `NO_COLOR` is set
    Auto,
    Always,
    Never,
}

/// Standard output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
    color: bool,
}

/// What a part of a text is; colours depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paint {
    Good,
    Warning,
    Bad,
    /// Of less interest than the rest.
    Dim,
    Heading,
    ToAgent,
    ToHaproxy,
}

impl Paint {
    const fn style(self) -> Style {
        let color = match self {
            Self::Good => AnsiColor::Green,
            Self::Warning => AnsiColor::Yellow,
            Self::Bad => return AnsiColor::Red.on_default().bold(),
            Self::Dim => return Style::new().dimmed(),
            Self::Heading => return Style::new().bold(),
            Self::ToAgent => AnsiColor::Cyan,
            Self::ToHaproxy => AnsiColor::Magenta,
        };
        color.on_default()
    }
}

impl From<OutputOptions> for Output {
    fn from(options: OutputOptions) -> Self {
        let color = match options.color {
            When::Always => true,
            When::Never => false,
            When::Auto => {
                env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()) && io::stdout().is_terminal()
            }
        };
        Self { json: options.json, color }
    }
}

impl Output {
    /// Prints a line of text; nothing with `--json`.
    pub(crate) fn line(self, line: impl fmt::Display) -> Result<(), Failure> {
        if self.json {
            return Ok(());
        }
        write(&format!("{line}\n"))
    }

    /// Prints an object as a line of JSON; nothing without `--json`.
    pub(crate) fn object(self, object: &impl Serialize) -> Result<(), Failure> {
        if !self.json {
            return Ok(());
        }
        let mut line = serde_json::to_string(object).map_err(Failure::io)?;
        line.push('\n');
        write(&line)
    }

    /// The text in its colour.
    pub(crate) fn paint(self, paint: Paint, text: impl fmt::Display) -> String {
        if !self.color {
            return text.to_string();
        }
        let style = paint.style();
        format!("{style}{text}{style:#}")
    }

    /// Prints aligned columns, each line behind `indent`.
    pub(crate) fn table(self, indent: &str, table: &Table) -> Result<(), Failure> {
        if self.json {
            return Ok(());
        }
        write(&table.render(self, indent))
    }
}

fn write(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|error| Failure::output(&error))
}

/// Columns of text, aligned.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<(Option<Paint>, Vec<String>)>,
}

impl Table {
    /// A table with these headings.
    pub(crate) fn new<const N: usize>(headings: [&str; N]) -> Self {
        Self { rows: vec![(Some(Paint::Dim), headings.map(str::to_owned).into())] }
    }

    /// Adds a row.
    pub(crate) fn row<const N: usize>(&mut self, paint: Option<Paint>, cells: [String; N]) {
        self.rows.push((paint, cells.into()));
    }

    fn render(&self, output: Output, indent: &str) -> String {
        let mut widths = Vec::new();
        for (column, cell) in self.rows.iter().flat_map(|(_, cells)| cells.iter().enumerate()) {
            let width = cell.chars().count();
            match widths.get_mut(column) {
                Some(widest) => *widest = width.max(*widest),
                None => widths.push(width),
            }
        }
        let mut text = String::new();
        for (paint, cells) in &self.rows {
            let mut line = String::new();
            for (cell, width) in cells.iter().zip(&widths) {
                // Writing to a string cannot fail.
                let _ = write!(line, "{cell:width$}  ");
            }
            let line = line.trim_end();
            let line = paint.map_or_else(|| line.to_owned(), |paint| output.paint(paint, line));
            let _ = writeln!(text, "{indent}{line}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_spaces_at_their_ends() {
        let mut table = Table::new(["A", "BC"]);
        table.row(None, ["long".into(), String::new()]);
        table.row(Some(Paint::Bad), ["é".into(), "x".into()]);
        let plain = Output { json: false, color: false };
        assert_eq!(table.render(plain, "  "), "  A     BC\n  long\n  é     x\n");
        let colored = table.render(Output { color: true, ..plain }, "");
        assert!(colored.ends_with("\u{1b}[1m\u{1b}[31mé     x\u{1b}[0m\n"), "{colored:?}");
    }
}
