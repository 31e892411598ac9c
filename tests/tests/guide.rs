//! The pages of the guide and the README as they are written: each configuration is loaded into real HAProxy, each command is run.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)] // They are tests.

mod real_haproxy {
    use std::env;
    use std::fs;
    use std::io::{self, Write as _};
    use std::path::{Path, PathBuf};
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use anyhow::{Context, Result, anyhow, bail, ensure};
    use spop_tests::haproxy::{Binary, Engine};
    use spop_tests::session::{self, Mode, Page};
    use spop_tests::stage::Failures;

    /// Most of the time they wait.
    const AT_ONCE: usize = 3;

    /// Set, it writes the output into the pages instead of comparing it.
    const UPDATE: &str = "UPDATE_SESSIONS";

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    /// The pages with something to run.
    fn pages() -> Result<Vec<PathBuf>> {
        let mut pages = vec![root().join("README.md")];
        for entry in fs::read_dir(root().join("spop-server/src/guide"))? {
            pages.push(entry?.path());
        }
        pages.sort();
        Ok(pages)
    }

    fn play(path: &Path, binaries: &[Binary], mode: Mode) -> Result<()> {
        let text = fs::read_to_string(path)?;
        let page = Page::parse(&text)?;
        if let Some((unused, _)) = page.files().find(|(_, used)| !used) {
            bail!("no command runs HAProxy with {unused}");
        }
        if page.blocks.is_empty() {
            return Ok(());
        }
        for binary in binaries {
            if env::var_os(UPDATE).is_some() {
                let done = session::run(&page, binary, mode)?;
                if !done.different.is_empty() {
                    return write(path, &text, &page, &done.different);
                }
            } else if let Err(error) = compare(&page, binary, mode) {
                // The timeouts of a page are for its readers, not for a machine where all pages run at once.
                writeln!(io::stderr(), "{}: {error:#}\nonce more", path.display())?;
                compare(&page, binary, mode)?;
            }
        }
        Ok(())
    }

    /// Runs a page, and fails with what is different.
    fn compare(page: &Page, binary: &Binary, mode: Mode) -> Result<()> {
        let with = || format!("with HAProxy {}", binary.version());
        let done = session::run(page, binary, mode).with_context(with)?;
        let blocks = done.different.iter().map(|(index, lines)| {
            format!("line {}: the output is\n{}\n", page.blocks[*index].line + 1, lines.join("\n"))
        });
        ensure!(done.different.is_empty(), "{}:\n{}", with(), blocks.collect::<String>());
        Ok(())
    }

    /// Puts what was printed in the place of what the page has.
    fn write(path: &Path, text: &str, page: &Page, different: &[(usize, Vec<String>)]) -> Result<()> {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        for (index, actual) in different.iter().rev() {
            let block = &page.blocks[*index];
            lines.splice(block.line..block.line + block.lines.len(), actual.iter().cloned());
        }
        Ok(fs::write(path, lines.join("\n") + "\n")?)
    }

    /// One version of each engine; newest first, because pages show what that prints.
    fn each_engine() -> Result<Vec<Binary>> {
        let binaries = vec![Binary::of("3.4")?, Binary::of("2.6")?];
        ensure!(binaries[0].engine() == Engine::Multiplexer && binaries[1].engine() == Engine::Applet);
        Ok(binaries)
    }

    #[test]
    fn every_page_works_as_it_is_written() -> Result<(), Failures> {
        let binaries = each_engine()?;
        let only = env::var("PAGE").unwrap_or_default();
        let mut pages = pages()?;
        pages.retain(|path| path.to_string_lossy().contains(&only));
        let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| {
                    while let Some(path) = pages.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if let Err(error) = play(path, &binaries, Mode::OfVersion) {
                            failed.lock().unwrap().push(format!("{}: {error:#}\n", path.display()));
                        }
                    }
                });
            }
        });
        let failed = failed.into_inner().unwrap();
        if pages.is_empty() || !failed.is_empty() {
            return Err(anyhow!("{} pages: {}", pages.len(), failed.concat()).into());
        }
        Ok(())
    }

    #[test]
    fn the_first_steps_work_with_every_version() -> Result<(), Failures> {
        let binaries = Binary::all()?;
        for page in ["README.md", "spop-server/src/guide/quick_start.md"] {
            if env::var_os(UPDATE).is_none() {
                play(&root().join(page), &binaries, Mode::AsWritten).context(page)?;
            }
        }
        Ok(())
    }
}
