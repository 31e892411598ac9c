//! Figures that are recorded in a file, and may not grow.

use std::{
    env, fs,
    process::{Command, ExitCode},
};

/// The tolerated increase over the recorded figures, in percent.
const TOLERANCE: u64 = 3;

/// The compiler, for the head of a table.
pub fn compiler() -> String {
    let version =
        Command::new(env::var("RUSTC").unwrap_or("rustc".into())).arg("--version").output().unwrap();
    String::from_utf8(version.stdout).unwrap()
}

/// Prints a table and compares it with the recorded one, or records it with `--record`. Lines that begin with `#` are no rows;
/// `figures` takes the name and the figures of a row.
pub fn check(path: &str, table: &str, figures: fn(&str) -> (&str, Vec<u64>)) -> ExitCode {
    print!("{table}");
    if env::args().any(|arg| arg == "--record") {
        fs::write(path, table).unwrap();
        return ExitCode::SUCCESS;
    }
    let recorded = fs::read_to_string(path).unwrap();
    let rows = |table: &'_ str| -> Vec<(String, Vec<u64>)> {
        let rows = table.lines().filter(|line| !line.starts_with('#')).map(figures);
        rows.map(|(name, figures)| (name.to_owned(), figures)).collect()
    };
    let (before, now) = (rows(&recorded), rows(table));
    assert_eq!(before.len(), now.len(), "other cases than those of {path}");
    let mut code = ExitCode::SUCCESS;
    for ((name, before), (_, now)) in before.iter().zip(&now) {
        if now.iter().zip(before).any(|(now, before)| now * 100 > before * (100 + TOLERANCE)) {
            println!("{name}: {now:?} instructions, {before:?} were recorded");
            code = ExitCode::FAILURE;
        }
    }
    let compilers = [&recorded, table].map(|table| table.lines().next().unwrap_or_default());
    if code == ExitCode::FAILURE && compilers[0] != compilers[1] {
        println!("recorded with another compiler:\n{}\n{}", compilers[0], compilers[1]);
    }
    code
}
