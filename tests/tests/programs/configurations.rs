//! What the configurations that come with programs rely on.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use spop_tests::haproxy::Binary;
use spop_tests::shipped::Shipped;
use spop_tests::wait::{PATIENCE, until_true};

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

/// The programs: their directory, and all addresses in their files. The first is that of the agent, the second that of clients.
const PROGRAMS: [(&str, &[&str]); 4] = [
    (
        "spop-tokio/examples/forward-auth",
        &["127.0.0.1:12401", "127.0.0.1:10401", "127.0.0.1:10402", "127.0.0.1:12402"],
    ),
    ("spop-tokio/examples/waf", &["127.0.0.1:12403", "127.0.0.1:10403", "127.0.0.1:10404"]),
    (
        "spop-tokio/examples/mirror",
        &["127.0.0.1:12405", "127.0.0.1:10405", "127.0.0.1:10406", "127.0.0.1:12406"],
    ),
    ("spop-mio/examples/rate-limit", &["127.0.0.1:12407", "127.0.0.1:10407", "127.0.0.1:10408"]),
];

#[test]
fn each_version_loads_each_configuration_without_a_warning() -> Result<()> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for binary in Binary::all()? {
        for (directory, _) in PROGRAMS {
            let mut command = Command::new(binary.program());
            command.args(["-dW", "-c", "-f"]).arg(workspace.join(directory).join("haproxy.cfg"));
            let output = command.stdin(Stdio::null()).output()?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "{directory} with {}: {said}", binary.version());
        }
    }
    Ok(())
}

#[test]
fn haproxy_notices_that_an_agent_is_gone() -> Result<()> {
    for version in ["2.6", "3.4"] {
        for (directory, addresses) in PROGRAMS {
            let files = Shipped::copy(directory, addresses)?;
            let mut running = files.program(&[])?;
            let _haproxy = files.haproxy(&Binary::of(version)?, "haproxy.cfg", addresses[1])?;
            running.kill()?;
            until_true("HAProxy takes it out", PATIENCE, || {
                Ok(files.haproxy_log()?.contains("agents/agent1 is DOWN"))
            })
            .with_context(|| {
                format!("{directory} with {version}: {}", files.haproxy_log().unwrap_or_default())
            })?;
        }
    }
    Ok(())
}
