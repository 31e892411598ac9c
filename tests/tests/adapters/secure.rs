//! What is special about TLS.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use spop_server::tls::Tls;
use spop_tests::peer::{Authority, Identity, Peer, trusting};

use super::stage::{Over, Server, Stage, certificates};

pub(super) const OVER: &[Over] = &[Over::Tls];

fn serve_known(stage: &Stage<'_>) -> Result<Server> {
    let clients = certificates().clients.write(stage.file("clients.pem"))?;
    let tls = Tls::from_files(stage.files()?.require_clients_of(clients))?;
    stage.serve_with(|plan| plan.tls = Some(tls))
}

fn connect(server: &Server, agents: &Authority, identity: Option<&Identity>) -> Result<Peer> {
    Peer::tls(server.running.address().parse()?, trusting(agents, identity)?)
}

pub(super) fn a_client_shows_its_certificate_or_is_refused(stage: &Stage<'_>) -> Result<()> {
    let (server, known) = (serve_known(stage)?, certificates());
    let mut peer = connect(&server, &known.agents, Some(&known.client))?;
    peer.greet()?;
    let own = peer.local()?;
    peer.ask(
        "NOTIFY fin 1 1 who",
        &format!("ACK fin 1 1 set txn source=string:{own} ; set txn certificates=uint64:1"),
    )?;
    let foreign = Authority::new("foreign")?.sign()?;
    for identity in [None, Some(&foreign)] {
        let refused = connect(&server, &known.agents, identity)?.greet();
        ensure!(refused.is_err(), "it is let in");
    }
    server.wait_for("they are counted", |stats| stats.rejected == 2)?;
    peer.ask("NOTIFY fin 3 1 m", "ACK fin 3 1")
}

pub(super) fn an_agent_that_the_client_does_not_know_is_left(stage: &Stage<'_>) -> Result<()> {
    let server = stage.serve()?;
    let refused = connect(&server, &Authority::new("others")?, None)?.greet();
    ensure!(refused.is_err(), "it trusts anybody");
    server.wait_for("it is counted", |stats| stats.rejected == 1 && stats.open == 0)?;
    server.expect_alive()
}

pub(super) fn plain_text_and_silence_end(stage: &Stage<'_>) -> Result<()> {
    // Long enough for the handshake of one who means well.
    let server = stage.serve_with(|plan| plan.accept.timeout = Duration::from_secs(2))?;
    let address = server.running.address();
    let mut peers = Vec::new();
    for first in
        [&b""[..], b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n", b"\x00\x00\x00\x50\x01\x00\x00\x00\x01"]
    {
        let mut peer = Peer::connect(&address)?;
        peer.send_bytes(first)?;
        peers.push(peer);
    }
    for mut peer in peers {
        // An alert, perhaps.
        ensure!(peer.rest()?.len() < 50, "it talks");
    }
    server.wait_for("they are counted", |stats| stats.rejected == 4 && stats.open == 0)?;
    server.expect_alive_soon()
}

pub(super) fn it_closes_layer_by_layer(stage: &Stage<'_>) -> Result<()> {
    // The peer does not end its side, and is not waited for.
    let server = stage.serve_with(|plan| plan.config.agent.timeouts.linger = Duration::from_secs(1))?;
    // Before a session, at its end, and by a fault.
    let mut peer = server.session()?;
    peer.send("HAPROXY-DISCONNECT fin 0 0 status-code=uint32:0 message=string:bye")?;
    peer.expect_disconnect(0)?;
    // Without a close_notify, rustls calls the end of the socket an error.
    peer.expect_eof().context("a close_notify")?;
    peer.expect_transport_eof()?;
    let mut peer = server.connect()?;
    peer.send("NOTIFY fin 1 1 m")?;
    peer.expect_disconnect(4)?;
    peer.expect_eof().context("a close_notify")?;
    peer.expect_transport_eof()?;
    let mut peer = server.session()?;
    server.running.drain();
    peer.expect_disconnect(0)?;
    peer.expect_eof().context("a close_notify")?;
    peer.expect_transport_eof()
}

pub(super) fn certificates_are_read_again_while_connections_go_on(stage: &Stage<'_>) -> Result<()> {
    let tls = Tls::from_files(stage.files()?)?;
    let server = stage.serve_with(|plan| plan.tls = Some(tls.clone()))?;
    let mut before = server.session()?;
    before.send("NOTIFY fin 1 1 hold key=string:a")?;
    server.gate.wait("a")?;
    let renewed = Authority::new("renewed")?;
    renewed.sign()?.write(&stage.file("agent.pem"))?;
    tls.reload()?;
    let mut after = connect(&server, &renewed, None)?;
    after.greet()?;
    ensure!(server.session().is_err(), "it still shows the old certificate");
    // What cannot be read changes nothing.
    std::fs::write(stage.file("agent.pem"), "nothing")?;
    ensure!(tls.reload().is_err(), "it takes a file without a certificate");
    connect(&server, &renewed, None)?.greet()?;
    server.gate.release("a")?;
    before.expect("ACK fin 1 1")?;
    after.ask("NOTIFY fin 1 1 m", "ACK fin 1 1")
}

pub(super) fn long_frames_cross_records(stage: &Stage<'_>) -> Result<()> {
    let server = stage.serve()?;
    let mut peer = server.session()?;
    let lines: Vec<_> = (0..40).map(|id| format!("NOTIFY fin {id} 1 m a=string:\"b\"*16000")).collect();
    // As much as a socket takes while nobody reads: the agent reads on.
    peer.send(&lines.join("\n"))?;
    for id in 0..40 {
        peer.expect(&format!("ACK fin {id} 1 set txn a=string:\"b\"*16000"))?;
    }
    Ok(())
}
