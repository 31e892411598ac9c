//! What an agent asks of connections before their sessions: certificates, and whom they are passed on for.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use spop_tests::haproxy::Config;
use spop_tests::load::Load;
use spop_tests::stage::{Verdict, everywhere};
use spop_tokio::accept::{AcceptConfig, ExpectProxy};
use spop_tokio::tls::{Tls, TlsFiles};
use spop_tokio::{Actions, ArgError, Endpoint, Request, Scope, Server, ServerHandle};
use tokio::runtime::Runtime;

type Ca = CertifiedIssuer<'static, KeyPair>;

/// An agent inside the test, for what the echo agent has no options for.
struct Agent {
    address: String,
    handle: ServerHandle,
    _runtime: Runtime,
}

impl Agent {
    fn start(endpoint: Endpoint) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let server = runtime.block_on(Server::new(echo).bind(endpoint))?;
        let address = server.addresses()?.first().map(ToString::to_string).unwrap_or_default();
        let handle = server.handle();
        runtime.spawn(server.serve());
        Ok(Self { address, handle, _runtime: runtime })
    }
}

async fn echo(request: Request) -> Result<Actions, ArgError> {
    let mut actions = Actions::new();
    if let Some(message) = request.message("echo") {
        actions.set_var(Scope::Transaction, "echo.v", message.arg::<&str>("v")?);
    }
    if let Some(source) = request.source() {
        actions.set_var(Scope::Transaction, "echo.source", source.ip());
    }
    let certificates = request.tls().map_or(0, |tls| tls.certificates.len());
    actions.set_var(Scope::Transaction, "echo.certificates", certificates as u64);
    Ok(actions)
}

fn config(agent: &Agent) -> Config {
    Config::new(&agent.address)
        .message("echo", "v=url_param(v)")
        .show("echo.v")
        .show("echo.source")
        .show("echo.certificates")
}

fn ca(dir: &Path, name: &str) -> Result<Ca> {
    let mut params = CertificateParams::new([])?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    fs::write(dir.join(format!("{name}.pem")), ca.pem())?;
    Ok(ca)
}

/// Writes a certificate and its key into one file.
fn leaf(dir: &Path, ca: &Ca, name: &str) -> Result<()> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new([name.to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, name);
    let pem = params.signed_by(&key, ca)?.pem() + &key.serialize_pem();
    Ok(fs::write(dir.join(format!("{name}.pem")), pem)?)
}

#[test]
fn both_sides_show_certificates_and_a_rotation_loses_no_request() -> Verdict {
    everywhere(|stage| {
        let dir = stage.dir();
        let (servers, clients) = (ca(dir, "servers")?, ca(dir, "clients")?);
        leaf(dir, &servers, "agent")?;
        leaf(dir, &clients, "haproxy")?;
        let files = TlsFiles::new(dir.join("agent.pem"), dir.join("agent.pem"));
        let tls = Tls::from_files(files.require_clients_of(dir.join("clients.pem")))?;
        let agent = Agent::start(Endpoint::from("127.0.0.1:0").tls(&tls))?;
        let options = "ssl verify required ca-file servers.pem crt haproxy.pem";
        // Connections come and go all the time.
        let config = config(&agent).server_options(options).agent("timeout idle 100ms");
        let haproxy = stage.haproxy(&config)?;
        haproxy.get("/?v=1")?.expect(&[("echo.v", "1"), ("echo.certificates", "1")])?;
        let load = Load::start(haproxy.address(), 4, "echo.v");
        for _ in 0..5 {
            load.run_for(100)?;
            leaf(dir, &servers, "agent")?;
            tls.reload()?;
            sleep(Duration::from_millis(150));
        }
        let tally = load.finish()?;
        println!("{} served over TLS, slowest {:?}", tally.served, tally.slowest);
        ensure!(tally.failures.is_empty(), "{:?}", tally.failures);
        ensure!(agent.handle.stats().rejected == 0, "{:?}", agent.handle.stats());
        Ok(())
    })
}

#[test]
fn haproxy_without_a_certificate_is_refused() -> Verdict {
    everywhere(|stage| {
        let dir = stage.dir();
        let (servers, _) = (ca(dir, "servers")?, ca(dir, "clients")?);
        leaf(dir, &servers, "agent")?;
        let files = TlsFiles::new(dir.join("agent.pem"), dir.join("agent.pem"));
        let tls = Tls::from_files(files.require_clients_of(dir.join("clients.pem")))?;
        let agent = Agent::start(Endpoint::from("127.0.0.1:0").tls(&tls))?;
        let config = config(&agent)
            .server_options("ssl verify required ca-file servers.pem")
            .agent("timeout processing 1s");
        let haproxy = stage.haproxy(&config)?;
        // HAProxy hears of it too late to know whose request it was.
        haproxy.get("/?v=1")?.expect_error(1)?;
        ensure!(agent.handle.stats().rejected > 0, "{:?}", agent.handle.stats());
        Ok(())
    })
}

#[test]
fn a_proxy_header_tells_the_agent_where_haproxy_connects_from() -> Verdict {
    everywhere(|stage| {
        for option in ["send-proxy", "send-proxy-v2"] {
            let accept = AcceptConfig::new().with(ExpectProxy::new())?;
            let agent = Agent::start(Endpoint::from("127.0.0.1:0").accept(accept))?;
            // HAProxy announces the address that it connects from, which is one of its own.
            let config = config(&agent).server_options(&format!("{option} source 127.0.0.9"));
            let haproxy = stage.haproxy(&config)?;
            let reply = haproxy.get("/?v=1")?;
            reply.expect(&[("echo.v", "1")])?;
            println!("{option}: {:?}", reply.var("echo.source"));
            ensure!(
                reply.var("echo.source").is_some_and(|source| source.starts_with("127.0.0.")),
                "no source"
            );
        }
        Ok(())
    })
}
