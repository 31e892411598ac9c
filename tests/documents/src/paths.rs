//! The documents of the repository name files that exist, and the README of a crate has all of its features.

use std::{fs, path::Path};

use crate::root;

const CRATES: [&str; 4] = ["spop-core", "spop-server", "spop-mio", "spop-tokio"];

/// Files and folders of the repository, relative to the root, without what is built.
fn collect(dir: &Path, paths: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let relative = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        if matches!(relative.as_str(), "target" | "fuzz/target" | ".git") {
            continue;
        }
        paths.push(relative);
        if path.is_dir() {
            collect(&path, paths);
        }
    }
}

fn is_path(name: &str) -> bool {
    let by_extension =
        [".rs", ".md", ".toml", ".txt", ".yml"].iter().any(|extension| name.ends_with(extension));
    let is_pattern = name.contains(['*', '<', ':']) || name.contains("FILE") || name.starts_with("target/");
    !is_pattern && (by_extension || name.contains('/'))
}

/// A path begins at the root or beside its document, or is the end of one: inside of the crates that the heading names, if it
/// names some.
fn exists(name: &str, folder: &str, heading: &str, paths: &[String]) -> bool {
    let name = name.trim_end_matches('/');
    let of_heading: Vec<&str> = CRATES.into_iter().filter(|&name| heading.contains(name)).collect();
    let inside = |path: &str| of_heading.is_empty() || of_heading.iter().any(|name| path.starts_with(name));
    paths.iter().any(|path| {
        path == name
            || path.strip_prefix(folder).is_some_and(|path| path.trim_start_matches('/') == name)
            || path.ends_with(&format!("/{name}")) && inside(path)
    })
}

#[test]
fn every_path_that_the_documents_of_contributors_name_exists() {
    let mut paths = Vec::new();
    collect(&root(), &mut paths);
    let mut missing = Vec::new();
    let mut count = 0;
    for document in [
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "RELEASING.md",
        "tests/README.md",
        "tests/benches/README.md",
        "tests/haproxy.md",
        "spop-core/tests/README.md",
    ] {
        let folder = document.rsplit_once('/').map_or("", |(folder, _)| folder);
        let text = fs::read_to_string(root().join(document)).unwrap();
        let (mut heading, mut is_in_block) = ("", false);
        for line in text.lines() {
            is_in_block ^= line.trim_start().starts_with("```");
            if is_in_block {
                continue;
            }
            if line.starts_with("## ") {
                heading = line;
            }
            for code in line.split('`').skip(1).step_by(2) {
                let Some(name) = code.split(' ').next().filter(|name| is_path(name)) else { continue };
                count += 1;
                if !exists(name, folder, heading, &paths) {
                    missing.push(format!("{document}, {heading}: {name}"));
                }
            }
        }
    }
    assert!(missing.is_empty(), "no such file or folder: {missing:#?}");
    assert!(count > 100, "{count} paths");
}

#[test]
fn architecture_has_every_file_of_the_server() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for entry in fs::read_dir(root().join("spop-server/src")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let is_of_another = root().join("spop-server/src").join(format!("{name}.rs")).exists();
        let is_named = text.contains(&format!("`{name}`")) || text.contains(&format!("`{name}/`"));
        assert!(is_named || is_of_another || name == "lib.rs", "ARCHITECTURE.md does not have {name}");
    }
}

#[test]
fn every_link_of_a_document_leads_to_a_file() {
    let mut paths = Vec::new();
    collect(&root(), &mut paths);
    // The links of the guide have a test of their own.
    let is_page = |path: &str| Path::new(path).extension().is_some_and(|extension| extension == "md");
    let documents = paths.iter().filter(|path| is_page(path) && !path.contains("/guide/"));
    let mut count = 0;
    for document in documents {
        let file = root().join(document);
        for link in fs::read_to_string(&file).unwrap().split("](").skip(1) {
            let to = link.split([')', '#']).next().unwrap();
            if !to.is_empty() && !to.contains("://") {
                assert!(file.with_file_name("").join(to).exists(), "{document} links to {to}");
                count += 1;
            }
        }
    }
    assert!(count > 50, "{count} links");
}

/// The features of a manifest, and those that docs.rs builds with.
fn features(manifest: &str) -> (Vec<&str>, Vec<&str>) {
    let section = manifest.split("\n[features]\n").nth(1).unwrap().split("\n[").next().unwrap();
    let names = section.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name);
    let rendered = manifest.split("\nfeatures = [").nth(1).unwrap().split(']').next().unwrap();
    (
        names.filter(|name| *name != "default" && !name.starts_with(['#', ' '])).collect(),
        rendered.split('"').skip(1).step_by(2).collect(),
    )
}

/// The names in the first column of the table of features.
fn documented(readme: &str) -> Vec<&str> {
    let table = readme.split("\n| feature").nth(1).unwrap();
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.split('`').nth(1).unwrap()).collect()
}

#[test]
fn readmes_have_every_feature() {
    let overview = fs::read_to_string(root().join("README.md")).unwrap();
    for name in CRATES {
        let manifest = fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap();
        let readme = fs::read_to_string(root().join(name).join("README.md")).unwrap();
        let (mut features, rendered) = features(&manifest);
        let not_rendered = features.iter().find(|&name| *name != "cli" && !rendered.contains(name));
        assert_eq!(not_rendered, None, "{name}: docs.rs builds without");
        let mut rows = documented(&readme);
        if ["spop-mio", "spop-tokio"].contains(&name) {
            let all = documented(&overview);
            assert!(features.iter().all(|feature| all.contains(feature)), "{name}: README.md has {all:?}");
        }
        features.sort_unstable();
        rows.sort_unstable();
        assert_eq!(rows, features, "{name}/README.md");
    }
}

/// The comparison with other libraries has the verdicts of `spop conform` as `tests/conform/README.md` has them.
#[test]
fn the_comparison_has_the_verdicts_of_conform() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let table = readme.split("\n## Other libraries\n").nth(1).unwrap();
    let row = |label: &str| -> Vec<&str> {
        let row = table.lines().find(|line| line.starts_with(label)).unwrap();
        row.split('|').map(str::trim).collect()
    };
    let (libraries, compared) = (row("| |"), row("| must, should, survives"));
    let mut count = 0;
    for played in fs::read_to_string(root().join("tests/conform/README.md")).unwrap().lines() {
        let cells: Vec<&str> = played.split('|').map(str::trim).collect();
        let [_, agent, version, _, must, should, survives, verdict, _] = cells[..] else { continue };
        if !verdict.ends_with("conform") && !verdict.ends_with("conforms") {
            continue;
        }
        let counts =
            [must, should, survives].map(|cell| cell.split(',').next().unwrap().replace(" of ", "/"));
        let name =
            if version == "this version" { "these crates".to_owned() } else { format!("{agent} {version}") };
        let column = libraries.iter().position(|library| *library == name);
        let column = column.unwrap_or_else(|| panic!("{name} is not compared: {libraries:?}"));
        assert_eq!(compared[column], counts.join(", "), "{name}");
        count += 1;
    }
    assert!(count >= 5, "{count} agents");
}
