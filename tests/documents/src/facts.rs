//! `tests/haproxy.md` names tests that exist.

use std::{fs, path::Path};

use crate::root;

fn collect(dir: &Path, all: &mut String) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.push_str("\n## ");
            all.push_str(path.file_name().unwrap().to_str().unwrap());
            all.push('\n');
            collect(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "rs" || extension == "spop") {
            all.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_test_that_the_facts_name_exists() {
    let dir = root().join("tests");
    let mut all = String::new();
    for sources in ["tests", "captures", "../spop-core/tests"] {
        collect(&dir.join(sources), &mut all);
    }
    let facts = fs::read_to_string(dir.join("haproxy.md")).unwrap();
    let mut named = 0;
    for line in facts.lines().filter(|line| line.starts_with('|')) {
        let tests = line.trim_end_matches(['|', ' ']).rsplit_once('|').unwrap().1;
        for name in tests.split('"').skip(1).step_by(2) {
            let exists = all.contains(&format!("fn {name}(")) || all.contains(&format!("## {name}\n"));
            assert!(exists, "{name:?} is gone");
            named += 1;
        }
    }
    assert!(named > 40, "{named} names");
}
