//! Prints the public API of a crate from its rustdoc JSON: one item per line, without blanket, auto trait and derived impls.

use std::{
    collections::HashSet,
    env,
    io::{self, Write as _},
    process::ExitCode,
};

use public_api::{Builder, PublicApi};

fn main() -> ExitCode {
    let Some(path) = env::args_os().nth(1) else {
        eprintln!("usage: spop-public-api RUSTDOC_JSON");
        return ExitCode::from(2);
    };
    let api = Builder::from_rustdoc_json(&path)
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build();
    let printed = match api {
        Ok(api) => print(&api),
        Err(error) => {
            eprintln!("{}: {error}", path.display());
            return ExitCode::FAILURE;
        }
    };
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stdout: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The impls of a type that is re-exported are listed once, where they come first.
fn print(api: &PublicApi) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let mut listed = HashSet::new();
    for item in api.items() {
        let line = item.to_string();
        if !listed.contains(&line) {
            writeln!(out, "{line}")?;
            listed.insert(line);
        }
    }
    out.flush()
}
