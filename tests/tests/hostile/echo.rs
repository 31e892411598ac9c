//! The echo agents do what they are documented to do, for a peer that says exactly what it wants.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use spop_tests::stage::Verdict;

use super::arena::each;

const SILENCE: Duration = Duration::from_millis(60);

#[test]
fn arguments_come_back_as_variables_named_after_their_messages() -> Verdict {
    each(|arena| {
        let target = arena.start(&[])?;
        let mut peer = target.session()?;
        peer.ask(
            "NOTIFY fin 1 1 one a=null b=bool:true c=bool:false d=int32:-1 e=uint32:1 f=int64:-1 g=uint64:1 \
             h=ipv4:192.0.2.1 i=ipv6:2001:db8::1 j=string:\"\\xff\" k=binary:00ff =string:\"\" =null ; two ; \
             three a=int32:1 a=int32:2",
            "ACK fin 1 1 set txn one.a=null ; set txn one.b=bool:true ; set txn one.c=bool:false ; \
             set txn one.d=int32:-1 ; set txn one.e=uint32:1 ; set txn one.f=int64:-1 ; set txn one.g=uint64:1 ; \
             set txn one.h=ipv4:192.0.2.1 ; set txn one.i=ipv6:2001:db8::1 ; set txn one.j=string:\"\\xff\" ; \
             set txn one.k=binary:00ff ; set txn one.11=string:\"\" ; set txn one.12=null ; \
             set txn three.a=int32:1 ; set txn three.a=int32:2",
        )?;
        peer.ask("NOTIFY fin 3 1", "ACK fin 3 1")
    })
}

#[test]
fn messages_with_a_meaning_do_what_they_mean() -> Verdict {
    each(|arena| {
        let target = arena.start(&[])?;
        let mut peer = target.session()?;
        for (id, (messages, actions)) in (1..).zip([
            ("blob size=int32:3", "set txn blob=string:xxx"),
            ("blob size=uint64:16000", "set txn blob=string:\"x\"*16000"),
            // More than a frame has room for: the handler's failure.
            ("blob size=int32:17000", ""),
            ("unset a=int32:1 =null b=null", "unset txn a ; unset txn 1 ; unset txn b"),
            (
                "scopes a=int32:1 =bool:true",
                "set proc scopes.a=int32:1 ; set sess scopes.a=int32:1 ; set txn scopes.a=int32:1 ; \
                 set req scopes.a=int32:1 ; set res scopes.a=int32:1 ; set proc scopes.1=bool:true ; \
                 set sess scopes.1=bool:true ; set txn scopes.1=bool:true ; set req scopes.1=bool:true ; \
                 set res scopes.1=bool:true",
            ),
            ("a x=int32:1 ; unset y=null ; b z=null", "set txn a.x=int32:1 ; unset txn y ; set txn b.z=null"),
            ("abort a=int32:1", ""),
            ("sleep ms=int32:1", ""),
            // A handler that fails answers nothing, whatever came before.
            ("a x=int32:1 ; fail", ""),
            ("fail", ""),
            ("sleep", ""),
            ("sleep ms=string:1", ""),
            ("sleep ms=int64:-1", ""),
            ("blob", ""),
            ("blob size=null", ""),
            ("blob size=int64:-1", ""),
            ("blob size=uint64:18446744073709551615", ""),
            ("disconnect", ""),
            ("disconnect code=string:x", ""),
            ("disconnect code=int64:-1", ""),
        ]) {
            let answer = format!("ACK fin {id} 1 {actions}");
            peer.ask(&format!("NOTIFY fin {id} 1 {messages}"), answer.trim_end())
                .with_context(|| messages.to_owned())?;
        }
        let lines = target.log_lines()?;
        ensure!(lines.iter().any(|line| line.contains(r#"message \"fail\" fails"#)), "{lines:?}");
        Ok(())
    })
}

#[test]
fn a_message_disconnects_with_its_code() -> Verdict {
    each(|arena| {
        let target = arena.start(&[])?;
        for code in [0, 2, 13, 99, 4_000_000_000_u32] {
            let mut peer = target.session()?;
            peer.send(&format!(
                "NOTIFY fin 1 1 m\nNOTIFY fin 3 1 a b=null ; disconnect code=int64:{code} ; fail"
            ))?;
            peer.expect("ACK fin 1 1")?;
            peer.expect_status(code)?;
        }
        target.until_open(0)
    })
}

#[test]
fn a_message_sleeps_and_lets_others_by() -> Verdict {
    each(|arena| {
        let target = arena.start(&[])?;
        let mut peer = target.session()?;
        let start = Instant::now();
        peer.send(
            "NOTIFY fin 1 1 sleep ms=int32:400 ; m a=int32:1 ; sleep ms=uint64:100
             NOTIFY fin 3 1 sleep ms=int32:150 ; m a=int32:3
             NOTIFY fin 5 1 m a=int32:5",
        )?;
        peer.expect("ACK fin 5 1 set txn m.a=int32:5\nACK fin 3 1 set txn m.a=int32:3")?;
        ensure!(start.elapsed() >= Duration::from_millis(150), "after {:?}", start.elapsed());
        peer.expect("ACK fin 1 1 set txn m.a=int32:1")?;
        ensure!(start.elapsed() >= Duration::from_millis(500), "after {:?}", start.elapsed());
        peer.expect_silence(SILENCE)
    })
}

#[test]
fn a_message_is_refused_as_soon_as_its_name_has_arrived() -> Verdict {
    each(|arena| {
        let target = arena.start(&[])?;
        let mut peer = target.session()?;
        let payload = r#"abort body=string:"x"*300"#;
        // The name is complete with its number of arguments.
        peer.send(&format!("NOTIFY - 1 1 messages[..4] {payload}"))?;
        peer.expect_silence(SILENCE)?;
        // The rest is swallowed. Sent at once: a connection that is quiet after a refusal is drained.
        peer.send(&format!(
            "UNSET - 1 1 messages[4..20] {payload}
             UNSET fin 1 1 messages[20..] {payload}
             NOTIFY fin 3 1 m"
        ))?;
        peer.expect("ACK fin,abort 1 1\nACK fin 3 1")?;
        // It must be the first.
        peer.send(
            "NOTIFY - 5 1 messages[..9] m a=null ; abort\nUNSET fin 5 1 messages[9..] m a=null ; abort",
        )?;
        peer.expect("ACK fin 5 1 set txn m.a=null")
    })
}

#[test]
fn for_measuring_there_is_a_score() -> Verdict {
    each(|arena| {
        let target = arena.start(&["--score"])?;
        let mut peer = target.session()?;
        for messages in ["m a=int32:1 ; n", "m", "fail", "disconnect code=int32:1", "sleep ms=int32:60000"] {
            peer.ask(&format!("NOTIFY fin 1 1 {messages}"), "ACK fin 1 1 set txn score=int32:42")?;
        }
        Ok(())
    })
}

#[test]
fn frame_size_and_capabilities_are_what_the_options_say() -> Verdict {
    let hello = "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:20000 \
                 capabilities=string:pipelining,async engine-id=string:e1";
    each(|arena| {
        for (args, size, capabilities) in [
            (&[][..], 20000, "fragmentation,pipelining"),
            (&["--max-frame-size", "1024"], 1024, "fragmentation,pipelining"),
            (&["--max-frame-size", "30000"], 20000, "fragmentation,pipelining"),
            (&["--capabilities", "fragmentation,pipelining,async"], 20000, "fragmentation,pipelining,async"),
            (&["--capabilities", "async, pipelining"], 20000, "pipelining,async"),
            (&["--capabilities", "pipelining"], 20000, "pipelining"),
            (&["--capabilities", ""], 20000, "\"\""),
        ] {
            let target = arena.start(args)?;
            let mut peer = target.connect()?;
            peer.ask(
                hello,
                &format!(
                    "AGENT-HELLO fin 0 0 version=string:2.0 max-frame-size=uint32:{size} \
                     capabilities=string:{capabilities}"
                ),
            )
            .with_context(|| format!("{args:?}"))?;
            peer.ask("NOTIFY fin 1 1 m a=null", "ACK fin 1 1 set txn m.a=null")?;
            if !capabilities.contains("fragmentation") {
                peer.send("NOTIFY - 3 1")?;
                peer.expect_status(10)?;
            }
        }
        Ok(())
    })
}

#[test]
fn limits_are_what_the_options_say() -> Verdict {
    each(|arena| {
        let target = arena.start(&[
            "--max-in-flight",
            "2",
            "--max-payload",
            "200",
            "--max-connections",
            "3",
            "--workers",
            "1",
        ])?;
        let (mut peer, mut other) = (target.session()?, target.session()?);
        // The third is read when one of the others was answered.
        peer.send(
            "NOTIFY fin 1 1 sleep ms=int32:300
             NOTIFY fin 3 1 sleep ms=int32:1500
             NOTIFY fin 5 1 m",
        )?;
        other.ask("NOTIFY fin 1 1 m", "ACK fin 1 1")?;
        peer.expect("ACK fin 1 1\nACK fin 5 1\nACK fin 3 1")?;
        // Two hundred bytes are what a payload may have, and two hundred and one are not.
        let message = |body: usize| format!("m a=string:\"x\"*{body}");
        let fragments = |body: usize| {
            let payload = message(body);
            format!("NOTIFY - 7 1 messages[..50] {payload}\nUNSET fin 7 1 messages[50..] {payload}")
        };
        peer.ask(&fragments(193), "ACK fin 7 1 set txn m.a=string:\"x\"*193")?;
        peer.send(&format!("{}\nNOTIFY fin 9 1 m", fragments(194)))?;
        peer.expect("ACK fin,abort 7 1\nACK fin 9 1")?;
        let third = target.session()?;
        target.connect()?.expect_end()?;
        drop(third);
        target.until_open(2)?;
        target.expect_alive()
    })
}

#[test]
fn timeouts_are_what_the_options_say() -> Verdict {
    each(|arena| {
        let times = ["--hello-timeout", "800", "--idle-timeout", "1500", "--frame-timeout", "1000"];
        let target = arena.start(&times)?;
        let start = Instant::now();
        let (mut silent, mut idle, mut half, mut gap) =
            (target.connect()?, target.session()?, target.session()?, target.session()?);
        half.send_bytes(&[0, 0, 0, 20])?;
        gap.send("NOTIFY - 1 1 messages[..2] m")?;
        for (what, peer, least) in
            [("hello", &mut silent, 800), ("frame", &mut half, 1000), ("idle", &mut idle, 1500)]
        {
            peer.expect_status(2).context(what)?;
            ensure!(start.elapsed() >= Duration::from_millis(least), "{what} after {:?}", start.elapsed());
        }
        gap.expect("ACK fin,abort 1 1")?;
        // Quiet after a refusal: drained.
        gap.expect_status(0)
    })
}
