//! The example of the README, with the configuration that comes with it: one for all versions, and none warns of it.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Child;

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::Signal;
use spop_tests::agent::Agent;
use spop_tests::haproxy::Binary;
use spop_tests::http::Request;
use spop_tests::ports::{self, Port};
use spop_tests::wait::{PATIENCE, until, until_true};

/// The addresses in the files: of the agent, and of HAProxy.
const AGENT: &str = "127.0.0.1:12345";
const WEB: &str = "127.0.0.1:10080";

/// Ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The shipped configuration itself; where others have its ports already, a copy with other ports.
fn configuration(dir: &Path, free: &[Port; 2]) -> Result<(PathBuf, String, String)> {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../spop-tokio/examples/ip-reputation");
    let file = shipped.join("haproxy.cfg");
    if TcpListener::bind(AGENT).is_ok() && TcpListener::bind(WEB).is_ok() {
        return Ok((file, AGENT.to_owned(), WEB.to_owned()));
    }
    let [agent, web] = free.each_ref().map(|port| port.address().to_string());
    let text = fs::read_to_string(file)?;
    ensure!(text.contains(AGENT) && text.contains(WEB), "the file has other addresses");
    fs::write(dir.join("haproxy.cfg"), text.replace(AGENT, &agent).replace(WEB, &web))?;
    fs::copy(shipped.join("spoe-ip-reputation.conf"), dir.join("spoe-ip-reputation.conf"))?;
    Ok((dir.join("haproxy.cfg"), agent, web))
}

#[test]
fn the_shipped_configuration_lets_one_address_in_and_turns_another_away() -> Result<()> {
    for binary in Binary::all()? {
        play(&binary).with_context(|| format!("with HAProxy {}", binary.version()))?;
    }
    Ok(())
}

fn play(binary: &Binary) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let free = <[Port; 2]>::try_from(ports::free(2)?).map_err(|_| anyhow!("no two ports"))?;
    let (file, address, web) = configuration(dir.path(), &free)?;
    let mut agent =
        Agent::start("ip-reputation", &["--listen", &address, "--no-demo"], &dir.path().join("agent.log"))?;
    let log = dir.path().join("haproxy.log");
    let mut haproxy = Running(binary.run(&file, File::create(&log)?)?);
    let web: SocketAddr = web.parse()?;
    let from = |source: [u8; 4]| Request::get("/").source(source).send(web);
    until("HAProxy serves", PATIENCE, || {
        let ended = haproxy.0.try_wait()?;
        ensure!(ended.is_none(), "HAProxy ended: {}", fs::read_to_string(&log)?);
        Ok(from([127, 0, 0, 2]).ok())
    })?;
    // HAProxy waits 500 ms for the score, and without one lets everybody in: on a busy machine more than one may be
    // needed.
    let mut last = String::new();
    until_true("127.0.0.2 is let in with its score", PATIENCE, || {
        let ended = agent.ended()?;
        ensure!(ended.is_none(), "the agent has ended: {ended:?}");
        let reply = from([127, 0, 0, 2])?;
        ensure!(reply.status == 200, "status {}", reply.status);
        last = reply.body;
        Ok(last == "127.0.0.2 has score 90\n")
    })
    .with_context(|| {
        let [agent, haproxy] = [dir.path().join("agent.log"), log.clone()].map(fs::read_to_string);
        format!("{last:?}; the configuration is {}; {agent:?}; {haproxy:?}", file.display())
    })?;
    until_true("127.0.0.3 is turned away", PATIENCE, || Ok(from([127, 0, 0, 3]).is_err()))?;
    let again = from([127, 0, 0, 2])?;
    ensure!(again.status == 200, "status {}", again.status);
    agent.signal(Signal::HUP)?;
    agent.signal(Signal::USR1)?;
    until_true("its signals are logged", PATIENCE, || {
        let log = fs::read_to_string(dir.path().join("agent.log"))?;
        Ok(log.contains(" nothing to reload") && log.contains(" counts requests="))
    })
}
