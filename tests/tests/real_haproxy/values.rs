//! Values go out as arguments and come back as variables.

use anyhow::{Context, Result, ensure};
use spop_tests::haproxy::{Config, Haproxy};
use spop_tests::http::Request;
use spop_tests::stage::{Verdict, everywhere};

/// Checks the type and the bytes that a variable has, as HAProxy's `debug` converter sees them.
fn expect_type(haproxy: &Haproxy, name: &str, kind: &str) -> Result<()> {
    let log = haproxy.log()?;
    let seen = log.lines().find(|line| line.contains(&format!(" {name}: type=")));
    let seen = seen.with_context(|| format!("the log says nothing of {name}"))?;
    ensure!(seen.contains(&format!(": type={kind} ")), "{name} is not of type {kind}: {seen}");
    Ok(())
}

#[test]
fn every_type_comes_back_as_itself() -> Verdict {
    // Name, sample expression, HAProxy's name of the type, and the value as text or hexadecimal digits.
    let samples = [
        ("int", "int(-5)", "sint", "-5"),
        ("true", "bool(true)", "bool", "1"),
        ("false", "bool(false)", "bool", "0"),
        ("str", "str(text)", "str", "text"),
        ("ipv4", "ipv4(203.0.113.7)", "ipv4", "203.0.113.7"),
        ("ipv6", "ipv6(2001:db8::1)", "ipv6", "2001:db8::1"),
        ("src", "src", "ipv4", "127.0.0.2"),
    ];
    everywhere(|stage| {
        let agent = stage.agent(&[])?;
        let args: Vec<_> = samples.iter().map(|(name, sample, ..)| format!("{name}={sample}")).collect();
        let mut config = Config::new(agent.address()).message("echo", &args.join(" "));
        for (name, ..) in samples {
            config = config.show(&format!("echo.{name},debug({name},stdout)"));
        }
        let haproxy = stage.haproxy(&config)?;
        let reply = haproxy.send(&Request::get("/").source([127, 0, 0, 2]))?;
        for (name, _, kind, value) in samples {
            reply.expect(&[(&format!("echo.{name}"), value)])?;
            expect_type(&haproxy, name, kind)?;
        }
        Ok(())
    })
}

#[test]
fn bytes_come_back_untouched() -> Verdict {
    everywhere(|stage| {
        let agent = stage.agent(&[])?;
        let config = Config::new(agent.address())
            .message(
                "echo",
                "empty=str() raw=req.hdr(x-raw) bin=bin(00ff10c3280a) none=str(),b64dec head=req.hdr(x-long)",
            )
            .show("echo.empty,length")
            .show("echo.raw,debug(raw,stdout),hex")
            .show("echo.bin,debug(bin,stdout),hex")
            .show("echo.none,length")
            .show("echo.head");
        let haproxy = stage.haproxy(&config)?;
        // Not UTF-8, and as long as the first varint of two bytes and the first of three.
        for length in [239, 240, 2287, 2288] {
            let long = "l".repeat(length);
            let request = Request::get("/").header("x-raw", b"\xff\xfe caf\xe9 \x80").header("x-long", &long);
            haproxy.send(&request)?.expect(&[
                ("echo.empty", "0"),
                ("echo.raw", "FFFE20636166E92080"),
                ("echo.bin", "00FF10C3280A"),
                ("echo.none", "0"),
                ("echo.head", &long),
            ])?;
        }
        expect_type(&haproxy, "raw", "str")?;
        expect_type(&haproxy, "bin", "bin")
    })
}

#[test]
fn integers_of_every_encoded_length_come_back() -> Verdict {
    let mut values =
        vec![0, 1, -1, 239, i64::from(i32::MIN), i64::from(u32::MAX), i64::MAX, -i64::MAX, i64::MIN];
    // The smallest value of two bytes, and how many there are of each length.
    let (mut first, mut count) = (240_i64, 2048_i64);
    for _length in 2..=9 {
        values.extend([first, first + count - 1]);
        first += count;
        count = count.saturating_mul(128);
    }
    values.push(first);
    everywhere(|stage| {
        let agent = stage.agent(&[])?;
        let mut config = Config::new(agent.address()).message("echo", "first=int(0)");
        for (index, value) in values.iter().enumerate() {
            config = config.args(&format!("v{index}=int({value})")).show(&format!("echo.v{index}"));
        }
        let reply = stage.haproxy(&config)?.get("/")?;
        for (index, value) in values.iter().enumerate() {
            reply.expect(&[(&format!("echo.v{index}"), &value.to_string())])?;
        }
        Ok(())
    })
}

#[test]
fn null_unsets() -> Verdict {
    everywhere(|stage| {
        let agent = stage.agent(&[])?;
        // Content rules come before the event on-frontend-http-request.
        let config = Config::new(agent.address())
            .frontend("tcp-request content set-var(txn.e.echo.missing) str(before)")
            .message("echo", "before=var(txn.e.echo.missing) missing=req.hdr(x-nowhere) after=int(7)")
            .show("echo.before")
            .show("echo.missing")
            .show("echo.after");
        let reply = stage.haproxy(&config)?.get("/")?;
        reply.expect(&[("echo.before", "before"), ("echo.after", "7")])?;
        reply.expect_unset(&["echo.missing"])
    })
}

#[test]
fn unnamed_arguments_are_named_by_their_position() -> Verdict {
    everywhere(|stage| {
        let agent = stage.agent(&[])?;
        let config = Config::new(agent.address())
            .message("echo", "str(first) second=str(2nd) int(-3)")
            .show("echo.0")
            .show("echo.second")
            .show("echo.2");
        let haproxy = stage.haproxy(&config)?;
        haproxy.get("/")?.expect(&[("echo.0", "first"), ("echo.second", "2nd"), ("echo.2", "-3")])
    })
}

#[test]
fn a_notify_carries_several_messages() -> Verdict {
    everywhere(|stage| {
        let agent = stage.agent(&[])?;
        let config = Config::new(agent.address())
            .message("one", "method path")
            .message_on("on-frontend-http-request if { path /both }", "two", "v=path")
            .message("none", "")
            .message("three", "v=int(3)")
            .show("one.0")
            .show("one.1")
            .show("two.v")
            .show("three.v");
        let haproxy = stage.haproxy(&config)?;
        let both = haproxy.get("/both")?;
        both.expect(&[("one.0", "GET"), ("one.1", "/both"), ("two.v", "/both"), ("three.v", "3")])?;
        let without = haproxy.get("/else")?;
        without.expect(&[("one.0", "GET"), ("one.1", "/else"), ("three.v", "3")])?;
        without.expect_unset(&["two.v"])
    })
}

#[test]
fn a_variable_name_may_have_63_characters() -> Verdict {
    // "txn.e.echo." takes 11 of them.
    let (fits, too_long) = ("n".repeat(52), "n".repeat(53));
    everywhere(|stage| {
        let agent = stage.agent(&[])?;
        let config = Config::new(agent.address())
            .agent("option force-set-var")
            .message("echo", &format!("{too_long}=str(lost) {fits}=str(kept) after=int(1)"))
            .show(&format!("echo.{fits}"))
            .show("echo.after");
        let reply = stage.haproxy(&config)?.get("/")?;
        reply.expect(&[(&format!("echo.{fits}"), "kept"), ("echo.after", "1")])
    })
}
