//! What the configurations that come with programs rely on.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use spop_tests::haproxy::Binary;

/// A configuration with so many filters of the same file, beside it.
fn configuration(filters: usize) -> String {
    let filter = |number: usize| {
        format!(
            "frontend f{number}\n    bind 127.0.0.1:1000{number}\n    filter spoe engine e config spoe.conf\n"
        )
    };
    let filters: String = (0..filters).map(filter).collect();
    format!(
        "global\n    default-path config\ndefaults\n    mode http\n    timeout connect 1s\n    timeout client 1s\n    \
         timeout server 1s\n{filters}backend agents\n    mode tcp\n    server a 127.0.0.1:10009\n"
    )
}

const SPOE: &str = "[e]\nspoe-agent a\n    messages m\n    timeout processing 1s\n    use-backend agents\n\
                    spoe-message m\n    event on-frontend-http-request\n";

#[test]
fn only_one_filter_of_a_configuration_finds_its_file_beside_it() -> Result<()> {
    let dir = tempfile::tempdir()?;
    fs::write(dir.path().join("spoe.conf"), SPOE)?;
    let file = dir.path().join("haproxy.cfg");
    for binary in Binary::all()? {
        for (filters, found) in [(1, true), (2, false)] {
            fs::write(&file, configuration(filters))?;
            let mut command = Command::new(binary.program());
            // From elsewhere; what it has read itself it would find.
            command.arg("-c").arg("-f").arg(&file).current_dir("/").stdin(Stdio::null());
            let output = command.output()?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success() == found, "{filters} with {}: {said}", binary.version());
            ensure!(found || said.contains("spoe.conf"), "{said}");
        }
    }
    Ok(())
}
