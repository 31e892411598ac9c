//! What an agent asks of connections before their sessions: certificates, and whom they are passed on for.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use spop_tests::haproxy::Binary;
use spop_tests::load::Load;
use spop_tests::stage::{Stage, Verdict, everywhere, on_those};
use spop_tokio::accept::{AcceptConfig, ExpectProxy, Policy, SourceRules};

use super::inside::{Agent, Entrance, Files, Log, config};

type Ca = CertifiedIssuer<'static, KeyPair>;

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

/// An agent with a certificate of the authority `servers`, for clients of the authority `clients`.
fn with_tls(stage: &Stage, servers: &Ca) -> Result<Agent> {
    let dir = stage.dir();
    leaf(dir, servers, "agent")?;
    let files = Files { agent: dir.join("agent.pem"), clients: dir.join("clients.pem") };
    Agent::start(stage, Entrance { tls: Some(files), ..Entrance::default() })
}

#[test]
fn both_sides_show_certificates_and_a_rotation_loses_no_request() -> Verdict {
    everywhere(|stage| {
        let dir = stage.dir();
        let (first, clients) = (ca(dir, "servers")?, ca(dir, "clients")?);
        leaf(dir, &clients, "haproxy")?;
        let agent = with_tls(stage, &first)?;
        // Each certificate is from a CA of its own. The load trusts all of these CAs; the HAProxy that is started after a
        // rotation trusts only the newest.
        let servers =
            (0..5).map(|number| ca(dir, &format!("servers-{number}"))).collect::<Result<Vec<_>>>()?;
        let all: String = std::iter::once(&first).chain(&servers).map(|ca| ca.as_ref().pem()).collect();
        fs::write(dir.join("all.pem"), all)?;
        let path = dir.display();
        let trusting = |authority: &str| {
            let files = format!("ca-file {path}/{authority}.pem crt {path}/haproxy.pem");
            config(&agent).server_options(&format!("ssl verify required {files}"))
        };
        let haproxy = stage.haproxy(&trusting("all"))?;
        haproxy.get("/?v=1")?.expect(&[("echo.v", "1"), ("echo.certificates", "1")])?;
        let load = Load::start(haproxy.address(), 4, "echo.v");
        for (number, authority) in servers.iter().enumerate() {
            load.run_for(100)?;
            leaf(dir, authority, "agent")?;
            agent.reload()?;
            let started = stage.another_haproxy(&trusting(&format!("servers-{number}")))?;
            started.get("/?v=1")?.expect(&[("echo.v", "1")])?;
        }
        let tally = load.finish()?;
        println!("{stage}: {} served over TLS, slowest {:?}", tally.served, tally.slowest);
        ensure!(tally.failures.is_empty(), "{:?}", tally.failures);
        ensure!(agent.stats().rejected == 0, "{:?}", agent.stats());
        Ok(())
    })
}

/// Checks that HAProxy gets no answer with these options of its server, and that the agent says why: each line the same,
/// and not more lines than the bound on the log allows, however often HAProxy connects.
fn expect_refused(stage: &Stage, log: &Log, agent: &Agent, options: &str, words: &str) -> Result<()> {
    // From an address of its own: all agents of this process write into one log.
    let source = stage.host();
    let config =
        config(agent).server_options(&format!("{options} source {source}")).agent("timeout processing 1s");
    // That it ignores an option, which is what some of these are about.
    let haproxy = stage.haproxy(&config.may_warn())?;
    let reply = haproxy.get("/?v=1")?;
    ensure!(reply.error().is_some() && reply.var("echo.v").is_none(), "it was answered");
    let lines = log.lines_about(source)?;
    ensure!(lines.len() <= 15, "{} lines", lines.len());
    for line in &lines {
        ensure!(line.contains("WARN") && line.contains(words), "no {words:?} in {line}");
    }
    let rejected = agent.stats().rejected;
    println!("{stage}: {rejected} connections refused, {} lines: {:?}", lines.len(), lines.first());
    ensure!(rejected > 0, "{:?}", agent.stats());
    Ok(())
}

#[test]
fn haproxy_without_a_certificate_is_refused() -> Verdict {
    let log = Log::start();
    everywhere(|stage| {
        let (servers, _) = (ca(stage.dir(), "servers")?, ca(stage.dir(), "clients")?);
        let agent = with_tls(stage, &servers)?;
        let options = "ssl verify required ca-file servers.pem";
        expect_refused(stage, &log, &agent, options, "peer sent no certificates")
    })
}

#[test]
fn haproxy_with_a_certificate_of_another_authority_is_refused() -> Verdict {
    let log = Log::start();
    everywhere(|stage| {
        let dir = stage.dir();
        let (servers, _, strangers) = (ca(dir, "servers")?, ca(dir, "clients")?, ca(dir, "strangers")?);
        leaf(dir, &strangers, "haproxy")?;
        let agent = with_tls(stage, &servers)?;
        let options = "ssl verify required ca-file servers.pem crt haproxy.pem";
        expect_refused(stage, &log, &agent, options, "invalid peer certificate")
    })
}

#[test]
fn an_agent_with_a_certificate_of_another_authority_is_refused_by_haproxy() -> Verdict {
    let log = Log::start();
    everywhere(|stage| {
        let dir = stage.dir();
        let (_, clients, strangers) = (ca(dir, "servers")?, ca(dir, "clients")?, ca(dir, "strangers")?);
        leaf(dir, &clients, "haproxy")?;
        let agent = with_tls(stage, &strangers)?;
        let options = "ssl verify required ca-file servers.pem crt haproxy.pem";
        expect_refused(stage, &log, &agent, options, "fatal alert")
    })
}

/// HAProxy 3.3 and later ignore `send-proxy` and `send-proxy-v2` of a server in a backend of agents.
fn sends_proxy_headers(binary: &Binary) -> bool {
    !binary.is_at_least(3, 3)
}

#[test]
fn a_proxy_header_tells_the_agent_where_haproxy_connects_from() -> Verdict {
    on_those(sends_proxy_headers, |stage| {
        for option in ["send-proxy", "send-proxy-v2"] {
            let accept = AcceptConfig::new().with(ExpectProxy::new())?;
            let agent = Agent::start(stage, Entrance { accept, tls: None })?;
            // HAProxy announces the address that it connects from, which is one of its own.
            let config = config(&agent).server_options(&format!("{option} source 127.0.0.9"));
            let haproxy = stage.haproxy(&config)?;
            let reply = haproxy.get("/?v=1")?;
            reply.expect(&[("echo.v", "1")])?;
            println!("{stage}, {option}: {:?}", reply.var("echo.source"));
            ensure!(
                reply.var("echo.source").is_some_and(|source| source.starts_with("127.0.0.")),
                "no source"
            );
        }
        Ok(())
    })
}

// The operator has written it down, so what the agent says must name it.
#[test]
fn haproxy_that_ignores_send_proxy_is_refused_and_the_log_says_so() -> Verdict {
    let log = Log::start();
    on_those(
        |binary| !sends_proxy_headers(binary),
        |stage| {
            let accept = AcceptConfig::new().with(ExpectProxy::new())?;
            let agent = Agent::start(stage, Entrance { accept, tls: None })?;
            expect_refused(stage, &log, &agent, "send-proxy-v2", "send-proxy")
        },
    )
}

#[test]
fn haproxy_without_a_proxy_header_is_refused() -> Verdict {
    let log = Log::start();
    everywhere(|stage| {
        let accept = AcceptConfig::new().with(ExpectProxy::new())?;
        let agent = Agent::start(stage, Entrance { accept, tls: None })?;
        expect_refused(stage, &log, &agent, "", "PROXY")
    })
}

#[test]
fn a_source_that_is_forbidden_is_refused_and_named() -> Verdict {
    let log = Log::start();
    everywhere(|stage| {
        let network = format!("{}/32", stage.host());
        let rules = SourceRules::new(Policy::Allow).deny(network.parse()?);
        let accept = AcceptConfig::new().with(rules)?;
        let agent = Agent::start(stage, Entrance { accept, tls: None })?;
        // From elsewhere it may come.
        let allowed = stage.haproxy(&config(&agent))?;
        allowed.get("/?v=1")?.expect(&[("echo.v", "1")])?;
        drop(allowed);
        let words = format!("{} is denied by the rule for {network}", stage.host());
        expect_refused(stage, &log, &agent, "", &words)
    })
}
