//! What the configurations that come with programs rely on.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use spop_tests::haproxy::Binary;
use spop_tests::http::Request;
use spop_tests::ports;
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

#[test]
fn each_program_survives_the_signals_of_an_administrator_and_logs_its_counts() -> Result<()> {
    for (directory, addresses) in PROGRAMS {
        let files = Shipped::copy(directory, addresses)?;
        let mut running = files.program(&[])?;
        let logged = |times: usize, what: &str| {
            until_true("it is logged", PATIENCE, || Ok(files.log()?.matches(what).count() >= times))
                .with_context(|| format!("{directory} {what:?}: {}", files.log().unwrap_or_default()))
        };
        // `rate-limit` has a line for each limit.
        let (counts, lines) = match directory {
            "spop-tokio/examples/forward-auth" => {
                (" cached=0 allowed=0 denied=0 failed=0 policy=\"deny\"", 1)
            }
            "spop-tokio/examples/waf" => (" requests=0 responses=0 ", 1),
            "spop-tokio/examples/mirror" => (" answered=0 not_sampled=0 ", 1),
            _ => (" passed=0 limited=0 ", 2),
        };
        for times in 1..=2 {
            running.signal(Signal::HUP)?;
            logged(times, " nothing to reload")?;
            running.signal(Signal::USR1)?;
            logged(times * lines, counts)?;
        }
        running.terminate()?;
        let status = running.wait_for_end(PATIENCE)?;
        ensure!(status.success(), "{directory}: {status}");
        logged(3 * lines, counts)?;
    }
    Ok(())
}

#[test]
fn a_status_page_answers_for_the_names_that_it_was_given() -> Result<()> {
    for (directory, addresses) in PROGRAMS {
        // An address that no file has: it is free now.
        let status = ports::free(1)?.pop().context("no port")?;
        let files = Shipped::copy(directory, addresses)?;
        let _running =
            files.program(&["--status", &status.address().to_string(), "--status-host", "agents.example"])?;
        for (name, code) in [("agents.example", 200), ("other.example", 421)] {
            let reply = Request::get("/status.json").host(name).send(status.address())?;
            ensure!(reply.status == code, "{directory} {name}: {reply:?}");
        }
    }
    Ok(())
}

#[test]
fn the_log_of_haproxy_says_why_there_was_no_answer() -> Result<()> {
    for version in ["2.6", "3.4"] {
        for (directory, addresses) in PROGRAMS {
            let files = Shipped::copy(directory, addresses)?;
            // No agent runs.
            let _haproxy = files.haproxy(&Binary::of(version)?, "haproxy.cfg", addresses[1])?;
            Request::get("/path?query").send(files.address(addresses[1])?)?;
            let said = || -> Result<bool> {
                let log = files.haproxy_log()?;
                let line = log.lines().find(|line| line.contains("\"GET /path?query HTTP/1.1\""));
                let error = line.and_then(|line| line.split(" error=").nth(1));
                Ok(error.is_some_and(|error| error.trim().parse::<u32>().is_ok_and(|error| error > 0)))
            };
            until_true("the log has the error", PATIENCE, said).with_context(|| {
                format!("{directory} with {version}: {}", files.haproxy_log().unwrap_or_default())
            })?;
        }
    }
    Ok(())
}
