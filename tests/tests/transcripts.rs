//! Every transcript, each way its bytes can be cut.

use std::{fs, panic, path::Path};

use anyhow::{Context as _, ensure};
use spop_tests::transcript::{Scenario, Way, parse, run};

#[test]
fn every_transcript_goes_as_written_however_it_is_cut() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("transcripts");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let (mut failures, mut count) = (Vec::new(), 0);
    for file in &files {
        let name = file.file_name().unwrap().to_string_lossy();
        let text = fs::read_to_string(file).unwrap();
        let scenarios = parse(&text).unwrap_or_else(|error| panic!("{name}:{error:#}"));
        assert!(!scenarios.is_empty(), "{name} is empty");
        for scenario in &scenarios {
            count += 1;
            match panic::catch_unwind(|| each_way(scenario)) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => failures.push(format!("{name}:{error:#}")),
                // A promise of the reactor was broken on the way; what it was is told above.
                Err(_) => failures.push(format!("{name}:{}: \"{}\" panicked", scenario.line, scenario.title)),
            }
        }
    }
    assert!(failures.is_empty(), "{} of {count} scenarios:\n{}", failures.len(), failures.join("\n"));
}

fn each_way(scenario: &Scenario) -> anyhow::Result<()> {
    let whole = run(scenario, Way::Whole)?;
    for way in [Way::Joined, Way::Bytes].into_iter().chain((0..8).map(Way::Random)) {
        let cut = run(scenario, way).map_err(|error| {
            let text = format!("{error:#}");
            anyhow::anyhow!("{text} ({way:?}; whole it goes well)")
        })?;
        ensure!(
            cut == whole,
            "{}: {way:?} differs\n  {}\n  {}",
            scenario.line,
            cut.log.join("\n  "),
            whole.log.join("\n  ")
        );
    }
    Ok(())
}

#[test]
fn a_transcript_that_is_wrong_names_its_line() {
    for (line, text) in [
        ("2: nothing more happened", "## x\n* expect Established"),
        ("2: nothing more leaves", "## x\n< ACK fin 5 1"),
        ("4: before this happened: RunMessages", "## x\n* hello\n> NOTIFY fin 5 1 m\n* drain"),
        ("3: there is no ticket", "## x\n* hello\n* answer 5/1"),
        (
            "4: what happened is: RunMessages 5/1 m",
            "## x\n* hello\n> NOTIFY fin 5 1 m\n* expect RunMessages 5/2",
        ),
        (
            "6: what leaves is: ACK fin 5 1",
            "## x\n* hello\n> NOTIFY fin 5 1 m\n* expect RunMessages\n* answer 5/1\n< ACK fin 5 2",
        ),
        (
            "5: at the end of \"x\": this frame is left: ACK fin 5 1",
            "## x\n* hello\n> NOTIFY fin 5 1 m\n* expect RunMessages\n* answer 5/1",
        ),
        ("2: it wants read", "## x\n* wants write"),
        ("2: the next timer is hello 5s", "## x\n* timer hello 4s"),
    ] {
        let scenarios = parse(text).with_context(|| text.to_owned()).unwrap();
        let error = format!("{:#}", run(&scenarios[0], Way::Whole).unwrap_err());
        assert!(error.starts_with(line), "{error}");
    }
    for text in ["> NOTIFY fin 5 1 m", "## x\nhello", "## x\n* dance", "## x\n> NOTIFY fin 5 1 ;"] {
        parse(text).unwrap_err();
    }
}
