//! Every scenario of `transcripts/` as a test, with every way to cut its bytes. Its name is that of the file and the title in
//! lower case, as in `ends::a_drain_waits_for_answers`; `cargo test -p spop-core drain` runs those whose names contain `drain`.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, clippy::indexing_slicing)] // It is a test.

extern crate alloc;

// The sources of `spop_core::testing::transcript`, so that this test does not require the feature `testing`.
#[allow(dead_code, unused_imports, unreachable_pub)] // The fuzz targets need more of it.
#[path = "../src/testing/transcript/mod.rs"]
mod transcript;

use std::{
    collections::HashSet,
    fs,
    panic::{self, AssertUnwindSafe},
    path::Path,
    process::ExitCode,
    sync::Arc,
};

use libtest_mimic::{Arguments, Failed, Trial};
use transcript::{Scenario, Way, parse, run};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    libtest_mimic::run(&arguments, trials()).exit_code()
}

fn trials() -> Vec<Trial> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let (mut trials, mut names) = (Vec::new(), HashSet::new());
    for path in files {
        let file: Arc<str> = path.file_name().unwrap().to_string_lossy().into();
        let stem = path.file_stem().unwrap().to_string_lossy();
        let text = fs::read_to_string(&path).unwrap();
        let scenarios = parse(&text).unwrap_or_else(|wrong| panic!("{file}:{wrong}"));
        assert!(!scenarios.is_empty(), "{file} is empty");
        for scenario in scenarios {
            let name = format!("{stem}::{}", snake_case(&scenario.title));
            assert!(names.insert(name.clone()), "{file}:{}: this title is taken", scenario.line);
            let file = Arc::clone(&file);
            trials.push(Trial::test(name, move || each_way(&file, &scenario)));
        }
    }
    trials
}

fn each_way(file: &str, scenario: &Scenario) -> Result<(), Failed> {
    let title = &scenario.title;
    let mut whole = None;
    for way in Way::all() {
        let at = |line: usize| format!("{file}:{line}: \"{title}\", {way}");
        // The driver panics if the reactor violates an invariant.
        let trace = match panic::catch_unwind(AssertUnwindSafe(|| run(scenario, way))) {
            Ok(Ok(trace)) => trace,
            Ok(Err(failure)) => return Err(format!("{}: {}", at(failure.line), failure.message).into()),
            Err(panic) => {
                let message = panic
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or_else(|| panic.downcast_ref::<&str>().copied())
                    .unwrap_or_default();
                return Err(format!("{}: a panic: {message}", at(scenario.line)).into());
            }
        };
        let whole = whole.get_or_insert_with(|| trace.clone());
        if trace != *whole {
            let (now, then) = (trace.log.join("\n  "), whole.log.join("\n  "));
            return Err(format!("{}: not as whole\n  {now}\nwhole:\n  {then}", at(scenario.line)).into());
        }
    }
    Ok(())
}

fn snake_case(title: &str) -> String {
    let words: Vec<_> =
        title.split(|ch: char| !ch.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    words.join("_").to_lowercase()
}
