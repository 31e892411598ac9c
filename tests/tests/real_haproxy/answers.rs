//! What an agent can answer besides a value: nothing, too much, a failure, an end.

use std::time::Duration;

use anyhow::ensure;
use spop_tests::haproxy::{Config, Engine};
use spop_tests::http::WebServer;
use spop_tests::load::behind;
use spop_tests::relay::Relay;
use spop_tests::stage::{Verdict, everywhere};

/// Far below the processing timeout of 8 s: nobody waited for it.
const AT_ONCE: Duration = Duration::from_secs(2);

#[test]
fn unset_removes_a_variable() -> Verdict {
    everywhere(|stage| {
        let agent = stage.agent(&[])?;
        let config = Config::new(agent.address())
            .message("echo", "gone=str(here) kept=str(here)")
            .message("unset", "echo.gone=int(0)")
            .show("echo.gone")
            .show("echo.kept");
        let reply = stage.haproxy(&config)?.get("/")?;
        reply.expect(&[("echo.kept", "here")])?;
        reply.expect_unset(&["echo.gone"])
    })
}

#[test]
fn every_scope_can_be_set() -> Verdict {
    everywhere(|stage| {
        let (agent, web) = (stage.agent(&[])?, WebServer::start()?);
        let config = Config::new(agent.address())
            .web_server(web.address)
            .message("scopes", "v=path")
            // What `req` holds is gone when the reply is there to show it.
            .frontend("http-request set-var(txn.e.req) var(req.e.scopes.v)")
            .show("req")
            .show_in("proc", "scopes.v")
            .show_in("sess", "scopes.v")
            .show_in("txn", "scopes.v")
            .show_in("res", "scopes.v");
        let haproxy = stage.haproxy(&config)?;
        for path in ["/first", "/second"] {
            let reply = haproxy.get(path)?;
            let expected = ["req", "proc.scopes.v", "sess.scopes.v", "txn.scopes.v"].map(|name| (name, path));
            reply.expect(&expected)?;
            // There is no response yet when the agent answers.
            reply.expect_unset(&["res.scopes.v"])?;
        }
        Ok(())
    })
}

#[test]
fn the_response_scope_can_be_set_once_there_is_a_response() -> Verdict {
    everywhere(|stage| {
        let (agent, web) = (stage.agent(&[])?, WebServer::start()?);
        let config = Config::new(agent.address())
            .web_server(web.address)
            .message_on("on-http-response", "scopes", "v=status")
            .show_in("txn", "scopes.v")
            .show_in("res", "scopes.v");
        let reply = stage.haproxy(&config)?.get("/")?;
        reply.expect(&[("txn.scopes.v", "200"), ("res.scopes.v", "200")])
    })
}

#[test]
fn every_event_is_answered() -> Verdict {
    let events = [
        "on-client-session",
        "on-frontend-tcp-request",
        "on-frontend-http-request",
        "on-backend-tcp-request",
        "on-backend-http-request",
        "on-server-session",
        "on-tcp-response",
        "on-http-response",
    ];
    everywhere(|stage| {
        let (agent, web) = (stage.agent(&[])?, WebServer::start()?);
        let mut config = Config::new(agent.address()).web_server(web.address);
        for (number, event) in events.iter().enumerate() {
            let name = format!("event{number}");
            config = config.message_on(event, &name, &format!("v=str({event})")).show(&format!("{name}.v"));
        }
        let haproxy = stage.haproxy(&config)?;
        let reply = haproxy.get("/")?;
        for (number, event) in events.iter().enumerate() {
            reply.expect(&[(&format!("event{number}.v"), event)])?;
        }
        Ok(())
    })
}

#[test]
fn a_failed_handler_answers_at_once_with_nothing() -> Verdict {
    everywhere(|stage| {
        let agent = stage.agent(&[])?;
        let config = Config::new(agent.address())
            .message("before", "v=int(1)")
            .message_on("on-frontend-http-request if { path /fail }", "fail", "v=int(1)")
            .message("after", "v=int(1)")
            .show("before.v")
            .show("after.v");
        let haproxy = stage.haproxy(&config)?;
        let reply = haproxy.get("/fail")?;
        reply.expect_unset(&["before.v", "after.v"])?;
        reply.expect_within(AT_ONCE)?;
        haproxy.get("/good")?.expect(&[("before.v", "1"), ("after.v", "1")])
    })
}

#[test]
fn a_disconnect_is_reported_with_its_code() -> Verdict {
    everywhere(|stage| {
        let agent = stage.agent(&[])?;
        let config = Config::new(agent.address())
            .message_on(
                "on-frontend-http-request if { url_param(code) -m found }",
                "disconnect",
                "code=url_param(code),add(0)",
            )
            .message_on("on-frontend-http-request unless { url_param(code) -m found }", "echo", "v=path")
            .show("echo.v");
        let haproxy = stage.haproxy(&config)?;
        for code in [0, 7, 99] {
            let reply = haproxy.get(&format!("/?code={code}"))?;
            reply.expect_error(stage.binary().error_of_disconnect(code))?;
            reply.expect_within(AT_ONCE)?;
            // The next request finds another connection.
            haproxy.get("/on")?.expect(&[("echo.v", "/on")])?;
        }
        Ok(())
    })
}

// HAProxy reads the DISCONNECT and the end of the connection at once when the agent is quick to close, and then 3.1 and later may
// forget to tell the request.
#[test]
fn each_of_many_disconnects_is_reported_at_once() -> Verdict {
    const CODE: u64 = 42;
    everywhere(|stage| {
        let agent = stage.agent(&[])?;
        let config = Config::new(agent.address())
            .agent("timeout processing 4s")
            .message("disconnect", &format!("code=int({CODE})"));
        let haproxy = stage.haproxy(&config)?;
        let mut late = Vec::new();
        for number in 0..60 {
            let reply = haproxy.get("/")?;
            if reply.expect_error(256 + CODE).and(reply.expect_within(AT_ONCE)).is_err() {
                late.push((number, reply.error().map(ToOwned::to_owned), reply.took));
            }
        }
        ensure!(late.is_empty(), "{} of 60 were not reported at once: {late:?}", late.len());
        Ok(())
    })
}

#[test]
fn an_answer_too_large_for_a_frame_fails_at_once() -> Verdict {
    everywhere(|stage| {
        let agent = stage.agent(&[])?;
        let config = Config::new(agent.address())
            .message("blob", "size=url_param(size),add(0)")
            .message("echo", "v=int(1)")
            .show("blob,length")
            .show("echo.v");
        let haproxy = stage.haproxy(&config)?;
        for size in [0, 1, 239, 240, 2287, 2288, 15_000] {
            let reply = haproxy.get(&format!("/?size={size}"))?;
            reply.expect(&[("blob", &size.to_string()), ("echo.v", "1")])?;
            reply.expect_within(AT_ONCE)?;
        }
        for size in [16_380, 20_000, 300_000] {
            let reply = haproxy.get(&format!("/?size={size}"))?;
            reply.expect_unset(&["blob", "echo.v"])?;
            reply.expect_within(AT_ONCE)?;
        }
        haproxy.get("/?size=5")?.expect(&[("blob", "5")])
    })
}

#[test]
fn a_slow_answer_delays_no_other_on_the_same_connection() -> Verdict {
    everywhere(|stage| {
        let agent = stage.agent(&["--capabilities", "fragmentation,pipelining"])?;
        let relay = Relay::start(agent.address())?;
        let mut config = Config::new(&relay.address())
            .message_on(
                "on-frontend-http-request if { url_param(ms) -m found }",
                "sleep",
                "ms=url_param(ms),add(0)",
            )
            .message("echo", "v=url_param(v)")
            .show("echo.v");
        // Later versions open another connection only when twenty wait on one that they know.
        if stage.binary().engine() == Engine::Applet {
            config = config.one_connection();
        }
        let haproxy = stage.haproxy(&config)?;
        haproxy.get("/?v=first")?.expect(&[("echo.v", "first")])?;
        let slow = || {
            let reply = haproxy.get("/?v=slow&ms=5000")?;
            reply.expect(&[("echo.v", "slow")])?;
            ensure!(reply.took >= Duration::from_secs(5), "the slow answer came after {:?}", reply.took);
            Ok(())
        };
        behind(&haproxy, slow, 10, |client| {
            let reply = haproxy.get(&format!("/?v={client}"))?;
            reply.expect(&[("echo.v", &client.to_string())])?;
            reply.expect_within(Duration::from_secs(4))
        })?;
        ensure!(relay.pipes().len() == 1, "there were {} connections", relay.pipes().len());
        Ok(())
    })
}
