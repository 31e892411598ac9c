//! The pages of the guide are complete: each is documented and tested, and the table of error numbers is that of the code.

#![allow(clippy::unwrap_used)] // It is a test.

use std::{env, fmt::Write as _, fs, path::Path};

use spop_core::haproxy::{Explanation, explain};

const PAGES: &str = "../spop-server/src/guide";
const BEGIN: &str = "<!-- errors: written by the test of this page -->\n";
const END: &str = "<!-- end -->\n";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn every_page_is_documented_and_its_examples_are_tested() {
    let documented = fs::read_to_string(root().join(PAGES).with_extension("rs")).unwrap();
    let tested = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let readme = fs::read_to_string(root().join("../README.md")).unwrap();
    let mut count = 0;
    for entry in fs::read_dir(root().join(PAGES)).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            documented.contains(&format!("include_str!(\"guide/{name}\")")),
            "{name} is not in the documentation"
        );
        assert!(tested.contains(&format!("/guide/{name}\")")), "the examples of {name} are not tested");
        let module = format!("[`{}`]", name.strip_suffix(".md").unwrap());
        assert!(documented.contains(&module), "{name} is not in the list of pages");
        assert!(readme.contains(&format!("](spop-server/src/guide/{name})")), "{name} is not in the README");
        count += 1;
    }
    assert!(count > 15, "{count} pages");
}

/// The definitions of links: labels and where they lead.
fn links(text: &str) -> Vec<(&str, &str)> {
    let definitions = text.lines().filter_map(|line| line.strip_prefix('[')?.split_once("]: "));
    definitions.filter(|(label, _)| !label.contains(']')).collect()
}

/// Whether a text has a link by this label.
fn uses(text: &str, label: &str) -> bool {
    let other = [": ", "(", "["];
    text.split(&format!("[{label}]")).skip(1).any(|rest| !other.iter().any(|next| rest.starts_with(next)))
}

#[test]
fn links_of_pages_lead_somewhere_in_rustdoc_and_on_a_forge() {
    let documented = fs::read_to_string(root().join(PAGES).with_extension("rs")).unwrap();
    let in_rustdoc = links(&documented);
    let mut used = 0;
    for entry in fs::read_dir(root().join(PAGES)).unwrap() {
        let path = entry.unwrap().path();
        let (page, name) = (fs::read_to_string(&path).unwrap(), path.display());
        for path in ["](crate", "](spop_core", "](spop_server", ".md)"] {
            assert!(
                !page.contains(path),
                "{name}: {path:?} is a link of rustdoc or of a forge only: name it"
            );
        }
        let on_forge = links(&page);
        for (label, to) in &on_forge {
            assert!(in_rustdoc.iter().any(|(known, _)| known == label), "{name}: {label} is not in guide.rs");
            let file = to.split('#').next().unwrap();
            assert!(
                to.starts_with("https://") || path.with_file_name(file).is_file(),
                "{name}: {label} leads to {to}"
            );
        }
        for (label, _) in &in_rustdoc {
            let defined = on_forge.iter().any(|(known, _)| known == label);
            assert_eq!(uses(&page, label), defined, "{name}: the definition of {label}");
            used += usize::from(defined);
        }
    }
    assert!(used >= in_rustdoc.len(), "{used} links");
}

/// A user has `spop-tokio` or `spop-mio` among the dependencies, and not what these are made of. Drivers are made of `spop-core`.
#[test]
fn programs_of_pages_use_what_the_adapters_re_export() {
    let mut programs = 0;
    for entry in fs::read_dir(root().join(PAGES)).unwrap() {
        let path = entry.unwrap().path();
        let page = fs::read_to_string(&path).unwrap();
        for line in page.lines().map(|line| line.trim_start_matches("# ")) {
            let Some(used) = line.strip_prefix("use spop_") else { continue };
            let driver = path.ends_with("drivers.md") && used.starts_with("core::");
            let adapter = used.starts_with("tokio::") || used.starts_with("mio::");
            assert!(adapter || driver, "{}: {line}", path.display());
            programs += 1;
        }
    }
    assert!(programs > 8, "{programs} programs");
}

/// The numbers that are explained. Those with the same explanation share the first one's row.
fn table() -> String {
    let mut rows: Vec<(String, Explanation)> = Vec::new();
    for number in 0..=256 + 1000 {
        let Some(found) = explain(number) else { continue };
        match rows.iter_mut().find(|(_, earlier)| *earlier == found) {
            Some((numbers, _)) if numbers.ends_with("others") => {}
            Some((numbers, _)) => numbers.push_str(" and others"),
            None => rows.push((number.to_string(), found)),
        }
    }
    let mut text = String::from("| number | name | what happened | usual causes |\n|---|---|---|---|\n");
    for (number, found) in rows {
        let mut causes = String::new();
        for cause in found.causes {
            let versions = match cause.versions {
                "all" => String::new(),
                versions => format!(" (HAProxy {versions})"),
            };
            let space = if causes.is_empty() { "" } else { "<br>" };
            write!(causes, "{space}{}{versions} *{}*", cause.cause, cause.remedy).unwrap();
        }
        writeln!(text, "| {number} | {} | {} | {causes} |", found.name, found.meaning).unwrap();
    }
    text
}

#[test]
fn the_table_of_the_guide_is_what_the_code_explains() {
    let path = root().join(PAGES).join("errors.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (table_of_page, after) = rest.split_once(END).unwrap();
    if env::var_os("UPDATE_SESSIONS").is_some() {
        fs::write(path, format!("{before}{BEGIN}\n{}\n{END}{after}", table())).unwrap();
        return;
    }
    assert_eq!(table_of_page.trim(), table().trim(), "run it with UPDATE_SESSIONS=1");
}
