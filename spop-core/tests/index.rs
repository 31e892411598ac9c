//! `README.md` names tests that exist, and every scenario of the transcripts.

#![allow(clippy::unwrap_used)] // It is a test.

use std::{fs, path::Path};

/// Scenarios as `file::title_in_lower_case`, and functions by their names.
fn collect(dir: &Path, names: &mut Vec<String>) {
    for path in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            collect(&path, names);
            continue;
        }
        let text = fs::read_to_string(&path).unwrap_or_default();
        let stem = path.file_stem().unwrap().to_string_lossy();
        let extension = path.extension().unwrap_or_default();
        for line in text.lines().map(str::trim) {
            if extension == "spop"
                && let Some(title) = line.strip_prefix("## ")
            {
                let words = title.split(|ch: char| !ch.is_alphanumeric()).filter(|word| !word.is_empty());
                names.push(format!("{stem}::{}", words.collect::<Vec<_>>().join("_").to_lowercase()));
            } else if extension == "rs"
                && let Some((name, _)) = line.strip_prefix("fn ").and_then(|rest| rest.split_once(['(', '<']))
                && text.contains("#[test]")
            {
                names.push(name.to_owned());
            }
        }
    }
}

#[test]
fn the_index_names_tests_that_exist_and_every_scenario() {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut names = Vec::new();
    collect(&crate_dir.join("src"), &mut names);
    collect(&crate_dir.join("tests"), &mut names);
    let index = fs::read_to_string(crate_dir.join("tests/README.md")).unwrap();
    let mut missing = Vec::new();
    let mut all = Vec::new();
    for row in index.lines().filter(|line| line.starts_with('|')) {
        let filters = row.trim_end_matches(['|', ' ']).rsplit_once('|').unwrap().1;
        for filter in filters.split('`').skip(1).step_by(2) {
            all.push(filter);
            if !names.iter().any(|name| name.contains(filter)) {
                missing.push(filter);
            }
        }
    }
    assert!(missing.is_empty(), "no test has these words in its name: {missing:#?}");
    assert!(all.len() > 100, "{} filters", all.len());

    let scenarios = names.iter().filter(|name| name.contains("::"));
    let unlisted: Vec<_> = scenarios.filter(|name| !all.iter().any(|filter| name.contains(filter))).collect();
    assert!(
        unlisted.is_empty(),
        "no row of spop-core/tests/README.md has a filter that finds these: {unlisted:#?}"
    );
}
