//! A handler that is replaced while it is in use.

use anyhow::Result;

use super::stage::{Over, Stage};

pub(super) const OVER: &[Over] = &[Over::Tcp];

pub(super) fn a_handler_is_replaced_without_waiting_for_slow_requests(stage: &Stage<'_>) -> Result<()> {
    let server = stage.serve()?;
    // More than there are threads: all of them hear of it.
    let mut peers = Vec::new();
    for index in 0..8 {
        let mut peer = server.session()?;
        peer.ask("NOTIFY fin 1 1 generation", "ACK fin 1 1 set txn generation=uint64:0")?;
        peer.send(&format!("NOTIFY fin 3 1 hold key=string:{index} ; generation"))?;
        server.gate.wait(&index.to_string())?;
        peers.push(peer);
    }
    server.running.swap(1);
    for peer in &mut peers {
        peer.ask("NOTIFY fin 5 1 generation", "ACK fin 5 1 set txn generation=uint64:1")?;
    }
    server.running.swap(2);
    for (index, peer) in peers.iter_mut().enumerate() {
        peer.ask("NOTIFY fin 5 1 generation", "ACK fin 5 1 set txn generation=uint64:2")?;
        // What was asked of the first is answered by the first.
        server.gate.release(&index.to_string())?;
        peer.expect("ACK fin 3 1 set txn generation=uint64:0")?;
    }
    Ok(())
}
