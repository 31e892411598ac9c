//! Requests larger than HAProxy's usual buffers. 2.6 and 3.0 send them in fragments where the agent's frame size asks for it; to
//! later versions that size is the limit of a request, so it must not be below that of HAProxy's buffers.

use std::time::Duration;

use spop_tests::haproxy::Config;
use spop_tests::http::Request;
use spop_tests::load::concurrently;
use spop_tests::stage::{Verdict, everywhere};

use super::fragments::{body, crc32, meet};

const AT_ONCE: Duration = Duration::from_secs(2);

fn config(address: &str) -> Config {
    Config::new(address).global("tune.bufsize 65536").frontend("option http-buffer-request")
}

const LENGTHS: [usize; 6] = [16_300, 17_000, 20_000, 33_000, 48_000, 60_000];

#[test]
fn a_large_body_comes_back_whole_with_large_buffers() -> Verdict {
    everywhere(|stage| {
        let agent = stage.agent(&[])?;
        let config = config(agent.address()).message("e", "b=req.body").show("e.b,crc32");
        let haproxy = stage.haproxy(&config)?;
        meet(&haproxy)?;
        for length in LENGTHS {
            let body = body(length);
            let reply = haproxy.send(&Request::post("/", body.clone()))?;
            reply.expect(&[("e.b", &crc32(&body))])?;
            reply.expect_within(AT_ONCE)?;
        }
        Ok(())
    })
}

#[test]
fn large_bodies_of_many_clients_are_understood() -> Verdict {
    everywhere(|stage| {
        let agent = stage.agent(&[])?;
        let config = config(agent.address())
            .message("before", "v=url_param(v)")
            .message("blob", "b=req.body size=url_param(v),add(0)")
            .message("after", "v=url_param(v)")
            .show("before.v")
            .show("blob,length")
            .show("after.v");
        let haproxy = stage.haproxy(&config)?;
        meet(&haproxy)?;
        concurrently(10, |client| {
            for length in LENGTHS {
                let value = client.to_string();
                let reply = haproxy.send(&Request::post(&format!("/?v={value}"), body(length)))?;
                reply.expect(&[("before.v", &value), ("blob", &value), ("after.v", &value)])?;
            }
            Ok(())
        })?;
        Ok(())
    })
}
