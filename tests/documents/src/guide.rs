//! The pages of the guide are complete: each is documented and tested, and the error numbers are those of the code.

use std::{env, fmt::Write as _, fs};

use spop_core::haproxy::{Cause, Explanation, explain};

use crate::root;

const PAGES: &str = "spop-server/src/guide";
const END: &str = "<!-- end -->\n";

#[test]
fn every_page_is_documented_and_its_examples_are_tested() {
    let documented = fs::read_to_string(root().join(PAGES).with_extension("rs")).unwrap();
    let tested = fs::read_to_string(root().join("tests/src/lib.rs")).unwrap();
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
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
            let target = fs::read_to_string(path.with_file_name(to.split('#').next().unwrap()));
            let target = target.unwrap_or_else(|error| panic!("{name}: {label} leads to {to}: {error}"));
            // An item of a crate is in its source, where a forge shows it before a release and after it.
            if let Some(item) = label.strip_prefix('`').filter(|_| !to.contains(".md")) {
                let item = item.trim_end_matches('`').rsplit("::").next().unwrap();
                let module = to.split('/').any(|part| part == item);
                assert!(module || target.contains(item), "{name}: {label} is not in {to}");
            }
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

/// The error numbers that are explained, with those that have the same explanation, or the same in a row, as one.
struct Errors {
    numbers: String,
    name: String,
    /// What happened, or the name of each number.
    meaning: String,
    found: Explanation,
}

impl Errors {
    fn all() -> Vec<Self> {
        let mut all: Vec<(u32, u32, Explanation, Self)> = Vec::new();
        for number in 0..=256 + 1000 {
            let Some(found) = explain(number) else { continue };
            let same = |first: &Explanation| (first.meaning, first.causes) == (found.meaning, found.causes);
            match all
                .iter_mut()
                .find(|(_, last, first, _)| *first == found || (same(first) && last + 1 == number))
            {
                Some((from, last, first, errors)) if *first != found => {
                    // The names say which item is wrong, the meaning what they have in common.
                    if *from == *last {
                        errors.name = found.meaning.trim_end_matches('.').to_lowercase();
                        errors.meaning = format!("{from}: {}", first.name);
                    }
                    write!(errors.meaning, "; {number}: {}", found.name).unwrap();
                    (*last, errors.numbers) = (number, format!("{from} to {number}"));
                }
                Some((from, .., errors)) => errors.numbers = format!("{from} and others"),
                None => {
                    let (numbers, name, meaning) =
                        (number.to_string(), found.name.to_owned(), found.meaning.to_owned());
                    all.push((number, number, found, Self { numbers, name, meaning, found }));
                }
            }
        }
        all.into_iter().map(|(.., errors)| errors).collect()
    }

    fn heading(&self) -> String {
        format!("{}: {}", self.numbers, self.name)
    }

    /// Where a forge and rustdoc have the heading.
    fn anchor(&self) -> String {
        let lower = self.heading().to_lowercase().replace(' ', "-");
        lower.chars().filter(|ch| ch.is_alphanumeric() || *ch == '-').collect()
    }

    fn causes(&self, versions: &'static str) -> impl Iterator<Item = &'static Cause> {
        self.found.causes.iter().filter(move |cause| cause.versions == versions)
    }

    /// The remedy of the first cause, for each implementation of HAProxy if they differ.
    fn first(&self) -> String {
        let first =
            |versions| self.found.causes.iter().find(|cause| ["all", versions].contains(&cause.versions));
        match (first("3.1 and later"), first("up to 3.0")) {
            (None, None) => "–".to_owned(),
            (Some(new), Some(old)) if new.remedy != old.remedy => {
                format!("3.1 and later: {} Up to 3.0: {}", new.remedy, old.remedy)
            }
            (Some(only), _) | (_, Some(only)) => only.remedy.to_owned(),
        }
    }
}

fn table() -> String {
    let mut text = String::from("| number | name | first thing to do |\n|---|---|---|\n");
    for errors in Errors::all() {
        let (numbers, name) = (&errors.numbers, &errors.name);
        writeln!(text, "| [{numbers}](#{}) | {name} | {} |", errors.anchor(), errors.first()).unwrap();
    }
    text
}

fn details() -> String {
    let mut text = String::new();
    for errors in Errors::all() {
        writeln!(text, "## {}\n\n{}\n", errors.heading(), errors.meaning).unwrap();
        for versions in ["all", "3.1 and later", "up to 3.0"] {
            let causes =
                errors.causes(versions).map(|cause| format!("- {} *{}*\n", cause.cause, cause.remedy));
            let causes: String = causes.collect();
            let title =
                if versions == "all" { String::new() } else { format!("**HAProxy {versions}:**\n\n") };
            if !causes.is_empty() {
                writeln!(text, "{title}{causes}").unwrap();
            }
        }
    }
    text
}

#[test]
fn the_errors_of_the_guide_are_what_the_code_explains() {
    let path = root().join(PAGES).join("errors.md");
    let mut page = fs::read_to_string(&path).unwrap();
    for (name, written) in [("table", table()), ("details", details())] {
        let begin = format!("<!-- {name} of errors: written by the test of this page -->\n");
        let (before, rest) = page.split_once(&begin).unwrap();
        let (on_page, after) = rest.split_once(END).unwrap();
        if env::var_os("UPDATE_SESSIONS").is_some() {
            page = format!("{before}{begin}\n{}\n\n{END}{after}", written.trim());
            fs::write(&path, &page).unwrap();
            continue;
        }
        assert_eq!(
            on_page.trim(),
            written.trim(),
            "written by UPDATE_SESSIONS=1 cargo test -p spop-documents"
        );
    }
}

/// A user pastes the commands of one page and the program of another.
#[test]
fn first_programs_are_the_same_with_the_same_dependencies() {
    let pages = ["README.md", "spop-tokio/src/lib.rs", "spop-server/src/guide/quick_start.md"];
    let pages = pages.map(|page| (page, fs::read_to_string(root().join(page)).unwrap()));
    for command in ["cargo add tokio ", "cargo add tracing-subscriber"] {
        let used = pages.each_ref().map(|(page, text)| {
            let mut lines = text.lines().map(|line| line.trim_start_matches("//! "));
            lines.find(|line| line.starts_with(command)).unwrap_or_else(|| panic!("{page}: no {command}"))
        });
        assert!(used.iter().all(|line| *line == used[0]), "{used:?}");
    }
    let program =
        |text: &str| text.split("```").find(|block| block.contains(".end_on_signals(")).map(str::to_owned);
    let programs = [program(&pages[0].1), program(&pages[2].1)];
    assert!(programs[0].is_some() && programs[0] == programs[1], "the program for production");
    for (page, text) in &pages {
        for line in text.lines().filter(|line| line.starts_with("cargo install ")) {
            assert!(line.contains(" --locked "), "{page}: {line}");
        }
    }
}
