//! Requests that do not fit into one frame: 2.6 and 3.0 send them in fragments. Later versions never do; `bodies` has what they
//! do instead.

use std::time::Duration;

use anyhow::{Result, ensure};
use spop_tests::haproxy::{Config, Engine, Haproxy};
use spop_tests::http::Request;
use spop_tests::load::{behind, concurrently};
use spop_tests::stage::{Verdict, everywhere, with_engine};
use spop_tests::wait::{PATIENCE, until_true};

const AT_ONCE: Duration = Duration::from_secs(2);

/// A body in which every place differs from its surroundings, so that nothing is lost or swapped unseen.
pub(super) fn body(length: usize) -> Vec<u8> {
    (0_u32..).flat_map(|number| format!("{number} ").into_bytes()).take(length).collect()
}

/// HAProxy's `crc32`.
pub(super) fn crc32(bytes: &[u8]) -> String {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _bit in 0..8 {
            crc = if crc & 1 == 0 { crc >> 1 } else { (crc >> 1) ^ 0xEDB8_8320 };
        }
    }
    (!crc).to_string()
}

fn config(address: &str) -> Config {
    Config::new(address).frontend("option http-buffer-request")
}

/// The body again and again, as more arguments than HAProxy's buffers hold.
fn many_bodies() -> String {
    (0..50).map(|number| format!("b{number}=req.body")).collect::<Vec<_>>().join(" ")
}

/// HAProxy 2.6 and 3.0 learn from an AGENT-HELLO how large a frame may be. What they have encoded before, for a frame of
/// their own size, they do not cut again: it fails with error 259.
pub(super) fn meet(haproxy: &Haproxy) -> Result<()> {
    haproxy.get("/")?.expect(&[])
}

// The answer has to fit into a frame, yet HAProxy splits what leaves less than 32 bytes of one free: that is just enough
// to see a value again that came in fragments.
#[test]
fn a_value_in_fragments_comes_back_whole() -> Verdict {
    with_engine(Engine::Applet, |stage| {
        for frame_size in [256, 512, 4096, 16380] {
            let agent = stage.agent(&["--max-frame-size", &frame_size.to_string()])?;
            let config = config(agent.address())
                .global("tune.bufsize 65536")
                .message("e", "b=req.body")
                .show("e.b,crc32");
            let haproxy = stage.haproxy(&config)?;
            meet(&haproxy)?;
            for length in frame_size - 48..frame_size - 20 {
                let body = body(length);
                let reply = haproxy.send(&Request::post("/", body.clone()))?;
                reply.expect(&[("e.b", &crc32(&body))])?;
                reply.expect_within(AT_ONCE)?;
            }
            drop(haproxy);
            // The longest of these do need fragments: this is how HAProxy says so.
            let haproxy = stage.haproxy(&config.agent("no option send-frag-payload"))?;
            meet(&haproxy)?;
            haproxy.send(&Request::post("/", body(frame_size - 21)))?.expect_error(3)?;
        }
        Ok(())
    })
}

#[test]
fn what_follows_many_fragments_is_understood() -> Verdict {
    with_engine(Engine::Applet, |stage| {
        let agent = stage.agent(&["--max-frame-size", "512"])?;
        // Of the body only a wrong length could show here: if anything is lost or repeated, the rest makes no sense.
        let config = config(agent.address())
            .global("tune.bufsize 65536")
            .message("before", "v=url_param(v)")
            .message("blob", "b=req.body size=url_param(v),add(0)")
            .message("after", "v=url_param(v)")
            .show("before.v")
            .show("blob,length")
            .show("after.v");
        let haproxy = stage.haproxy(&config)?;
        meet(&haproxy)?;
        concurrently(30, |client| {
            for length in [0, 300, 480, 5_000, 15_000, 60_000] {
                let value = client.to_string();
                let reply = haproxy.send(&Request::post(&format!("/?v={value}"), body(length)))?;
                reply.expect(&[("before.v", &value), ("blob", &value), ("after.v", &value)])?;
            }
            Ok(())
        })?;
        Ok(())
    })
}

// HAProxy 2.6 and 3.0 send nothing more on a connection on which a request was refused: they count one less in flight than
// there is, and -1 is over every limit. So this one gives HAProxy more connections than it needs before it refuses any.
#[test]
fn a_request_refused_in_mid_fragments_fails_alone() -> Verdict {
    with_engine(Engine::Applet, |stage| {
        // Little room between the two, so that the refusal comes before the last fragment was sent.
        let socket = stage.dir().join("agent.sock");
        let agent = stage.agent(&["--max-frame-size", "512", "--listen", &socket.to_string_lossy()])?;
        let config = config(agent.address())
            .global("tune.sndbuf.server 4096")
            .message_on("on-frontend-http-request if { path /refused }", "abort", &many_bodies())
            .message_on(
                "on-frontend-http-request if { url_param(ms) -m found }",
                "sleep",
                "ms=url_param(ms),add(0)",
            )
            .message("echo", "v=path")
            .show("echo.v");
        let haproxy = stage.haproxy(&config)?;
        meet(&haproxy)?;
        concurrently(20, |_| haproxy.get("/?ms=100")?.expect(&[]))?;
        for _round in 0..3 {
            let slow = || haproxy.get("/slow?ms=3000")?.expect(&[("echo.v", "/slow")]);
            behind(&haproxy, slow, 1, |_| {
                let reply = haproxy.send(&Request::post("/refused", body(15_000)))?;
                reply.expect_error(4)?;
                reply.expect_within(AT_ONCE)
            })?;
            haproxy.get("/next")?.expect(&[("echo.v", "/next")])?;
        }
        Ok(())
    })
}

#[test]
fn a_request_in_one_frame_is_not_refused() -> Verdict {
    everywhere(|stage| {
        let agent = stage.agent(&[])?;
        let config = config(agent.address())
            .message("abort", "b=req.body")
            .message("echo", "v=path")
            .show("echo.v")
            .show("abort.b");
        let reply = stage.haproxy(&config)?.send(&Request::post("/whole", body(1000)))?;
        reply.expect_unset(&["abort.b"])
    })
}

#[test]
fn a_timeout_in_mid_fragments_leaves_the_connection_usable() -> Verdict {
    with_engine(Engine::Applet, |stage| {
        // While its one place is taken the agent does not read, and HAProxy cannot get rid of its fragments.
        let socket = stage.dir().join("agent.sock");
        let path = socket.to_string_lossy();
        let agent = stage.agent(&[
            "--max-in-flight",
            "1",
            "--processing",
            "60000",
            "--max-frame-size",
            "4096",
            "--listen",
            &path,
        ])?;
        let config = config(agent.address())
            .global("tune.sndbuf.server 4096")
            .one_connection()
            .agent("timeout processing 3s")
            .message_on(
                "on-frontend-http-request if { url_param(ms) -m found }",
                "sleep",
                "ms=url_param(ms),add(0)",
            )
            .message_on("on-frontend-http-request if { path /large }", "large", &many_bodies())
            .message("echo", "v=path")
            .show("echo.v");
        let haproxy = stage.haproxy(&config)?;
        meet(&haproxy)?;
        let slow = || haproxy.get("/slow?ms=6000")?.expect_error(1);
        behind(&haproxy, slow, 1, |_| haproxy.send(&Request::post("/large", body(15_000)))?.expect_error(1))?;
        // HAProxy logs how many requests are being sent and how many are waiting for their answer. The first timeout is
        // that of the slow one, and the large one must not be waiting yet.
        let log = haproxy.log()?;
        let timeout = log.lines().find(|line| line.contains(" st=1 ")).unwrap_or_default();
        ensure!(
            timeout.split(' ').nth_back(1) == Some("1/0"),
            "the large request was not in mid-fragments: {timeout}"
        );
        until_true("the agent answers again", PATIENCE, || Ok(haproxy.get("/again")?.error().is_none()))?;
        for path in ["/one", "/two"] {
            haproxy.get(path)?.expect(&[("echo.v", path)])?;
        }
        ensure!(haproxy.agent_connections()? == 1, "there was more than one connection");
        Ok(())
    })
}
