//! Many requests, each with a value of its own.

use std::time::Duration;

use anyhow::ensure;
use spop_tests::haproxy::{Config, Engine};
use spop_tests::load::concurrently;
use spop_tests::stage::{Verdict, everywhere, with_engine};

const ECHO_PATH: &str = "v=path n=url_param(n),add(0)";

fn config(address: &str) -> Config {
    Config::new(address).message("echo", ECHO_PATH).show("echo.v").show("echo.n")
}

#[test]
fn of_500_concurrent_requests_each_gets_its_own_value_back() -> Verdict {
    everywhere(|stage| {
        let agent = stage.agent(&[])?;
        let haproxy = stage.haproxy(&config(agent.address()))?;
        concurrently(500, |client| {
            let path = format!("/client/{client}");
            haproxy
                .get(&format!("{path}?n={client}"))?
                .expect(&[("echo.v", &path), ("echo.n", &client.to_string())])
        })?;
        Ok(())
    })
}

#[test]
fn answers_of_async_connections_find_their_requests() -> Verdict {
    with_engine(Engine::Applet, |stage| {
        let agent = stage.agent(&["--capabilities", "fragmentation,pipelining,async"])?;
        // Two threads are two engines to the agent. The sleep shuffles the answers.
        let config = config(agent.address()).threads(2).message_on(
            "on-frontend-http-request if { rand(4) 0 }",
            "sleep",
            "ms=rand(100)",
        );
        let haproxy = stage.haproxy(&config)?;
        concurrently(100, |client| {
            for round in 0..5 {
                let path = format!("/client/{client}/{round}");
                haproxy.get(&format!("{path}?n={round}"))?.expect(&[("echo.v", &path)])?;
            }
            Ok(())
        })?;
        Ok(())
    })
}

#[test]
fn without_capabilities_requests_take_turns() -> Verdict {
    everywhere(|stage| {
        let agent = stage.agent(&["--capabilities", ""])?;
        let haproxy = stage.haproxy(&config(agent.address()).message("sleep", "ms=int(100)"))?;
        let replies = concurrently(20, |client| {
            let path = format!("/client/{client}");
            let reply = haproxy.get(&path)?;
            reply.expect(&[("echo.v", &path)])?;
            Ok(reply)
        })?;
        let slowest = replies.iter().map(|reply| reply.took).max().unwrap_or_default();
        ensure!(slowest >= Duration::from_millis(100), "the agent did not sleep");
        Ok(())
    })
}

#[test]
fn an_agent_behind_a_unix_socket_serves() -> Verdict {
    everywhere(|stage| {
        let path = stage.dir().join("agent.sock");
        let path = path.to_string_lossy();
        let mut agent = stage.agent(&["--listen", &path])?;
        ensure!(agent.address() == path, "the agent says it listens on {}", agent.address());
        let haproxy = stage.haproxy(&config(&path))?;
        concurrently(20, |client| {
            let path = format!("/client/{client}");
            haproxy.get(&path)?.expect(&[("echo.v", &path)])
        })?;
        agent.terminate()?;
        let status = agent.wait_for_end(Duration::from_secs(5))?;
        ensure!(status.success(), "the agent ended with {status}");
        ensure!(!stage.dir().join("agent.sock").exists(), "the agent left its socket behind");
        Ok(())
    })
}
