//! Plays HAProxy: an engine asks the agent about some addresses, over a socket, as HAProxy would about its clients.

use std::{
    io::{self, Write},
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use spop_tokio::{Address, Engine, EngineClient, EngineConfig, MessageList, Scope};

/// Below this, `haproxy.cfg` rejects a client.
const GOOD_ENOUGH: i128 = 20;

/// Asks, waits this long for each answer, and prints a table of what comes of it.
pub(crate) async fn run(agent: Address, patience: Duration, out: &mut impl Write) -> io::Result<()> {
    // The profile of HAProxy 3.1 and later.
    let mut config = EngineConfig::haproxy_3_1();
    config.timeouts.hello = Some(Duration::from_secs(2));
    config.timeouts.message = Some(patience);
    let engine = Engine::new(config).agent(agent).start()?;

    writeln!(out)?;
    writeln!(out, "{:<22} {:>5}  {:<8} {:>9}", "ADDRESS", "SCORE", "VERDICT", "TIME")?;
    let addresses: [IpAddr; 8] = [
        [127, 0, 0, 2].into(),
        [127, 0, 0, 3].into(),
        [192, 168, 1, 20].into(),
        [203, 0, 113, 6].into(),
        [203, 0, 113, 7].into(),
        [8, 8, 8, 8].into(),
        Ipv6Addr::LOCALHOST.into(),
        [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into(),
    ];
    for address in addresses {
        writeln!(out, "{}", line(&engine, address).await)?;
    }
    writeln!(out)?;
    engine.drain().await;
    Ok(())
}

/// What HAProxy would do with a client from this address.
async fn line(engine: &EngineClient, address: IpAddr) -> String {
    let mut question = MessageList::new();
    question.message("get-ip-reputation").arg("ip", address);
    let answer = match engine.notify(&question).await {
        Ok(answer) => answer,
        Err(error) => return format!("{address:<22} {:>5}  {:<8} error {error}", "-", "let in"),
    };
    let score = answer.var(Scope::Session, "ip_score").and_then(|score| score.as_integer());
    let verdict = if score.is_some_and(|score| score < GOOD_ENOUGH) { "rejected" } else { "let in" };
    let score = score.map_or_else(|| "-".to_owned(), |score| score.to_string());
    format!("{address:<22} {score:>5}  {verdict:<8} {:>6} \u{b5}s", answer.took().as_micros())
}

#[cfg(test)]
mod tests {
    use spop_tokio::Server;

    use super::*;
    use crate::{Reputation, networks::Networks, router};

    #[tokio::test]
    async fn the_table_says_what_the_agent_says() {
        let networks = Networks::parse(include_str!("networks.txt")).unwrap();
        let server = Server::new(router(Reputation { networks, default_score: 50 }))
            .bind("127.0.0.1:0")
            .await
            .unwrap();
        let (agent, handle) = (server.addresses().unwrap().remove(0), server.handle());
        let serving = tokio::spawn(server.serve());
        let mut table = Vec::new();
        run(agent, Duration::from_secs(5), &mut table).await.unwrap();
        let table = String::from_utf8(table).unwrap();
        for row in [
            ["127.0.0.2", "90", "let in"],
            ["127.0.0.3", "5", "rejected"],
            ["203.0.113.6", "0", "rejected"],
            ["203.0.113.7", "100", "let in"],
            ["8.8.8.8", "50", "let in"],
            ["2001:db8::1", "0", "rejected"],
        ] {
            let [address, score, verdict] = row;
            let row = format!("{address:<22} {score:>5}  {verdict:<8} ");
            assert!(
                table.lines().any(|line| line.starts_with(&row) && line.ends_with('s')),
                "{row}\n{table}"
            );
        }
        handle.drain();
        serving.await.unwrap().unwrap();
    }
}
