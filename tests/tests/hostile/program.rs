//! The echo agents as programs: their command line, their sockets, their end.

use std::fs;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use spop_tests::agent::{Agent, run};
use spop_tests::peer::Peer;
use spop_tests::stage::Verdict;
use spop_tests::wait::{PATIENCE, until_true};

use super::arena::each;

#[test]
fn what_cannot_be_is_an_error_and_an_exit_status() -> Verdict {
    each(|arena| {
        let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
        let taken = taken.local_addr()?.to_string();
        let file = arena.file("notes.txt");
        fs::write(&file, "keep me")?;
        let file = file.display().to_string();
        for (args, statuses, words) in [
            (&["--listen", &taken][..], 1..=1, taken.as_str()),
            (&["--listen", "/nowhere/at/all.sock"], 1..=1, "/nowhere/at/all.sock"),
            (&["--listen", "127.0.0.1:0", "--listen", &file], 1..=1, "notes.txt"),
            (&["--listen", "nonsense"], 1..=1, "nonsense"),
            (&["--listen", "127.0.0.1:0", "--unknown"], 2..=2, "--unknown"),
            (&["--listen", "127.0.0.1:0", "--capabilities", "teleport"], 2..=2, "teleport"),
            (&["--listen", "127.0.0.1:0", "--max-in-flight", "many"], 2..=2, "many"),
            (&["--listen", "127.0.0.1:0", "--workers", "0"], 2..=2, "0"),
            (&[], 2..=2, "--listen"),
        ] {
            let output = run(arena.name, args)?;
            let (status, errors) =
                (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned());
            ensure!(
                status.is_some_and(|status| statuses.contains(&status)),
                "{args:?}: {status:?}, {errors}"
            );
            ensure!(errors.contains(words), "{args:?}: {errors}");
            ensure!(!errors.contains("panicked"), "{args:?}: {errors}");
        }
        ensure!(fs::read(&file)? == b"keep me", "a file that is no socket was touched");
        Ok(())
    })
}

#[test]
fn it_listens_wherever_it_is_told() -> Verdict {
    each(|arena| {
        let (first, second) = (arena.file("one.sock"), arena.file("two.sock"));
        // Left behind by a process that died.
        drop(UnixListener::bind(&first)?);
        ensure!(first.exists(), "the socket file is gone already");
        let (one, two) = (first.display().to_string(), second.display().to_string());
        let listen =
            ["--listen", &one, "--listen", "127.0.0.1:0", "--listen", "127.0.0.9:0", "--listen", &two];
        let mut target = arena.start(&listen)?;
        let addresses = target.agent.addresses().to_vec();
        ensure!(addresses.first() == Some(&one) && addresses.last() == Some(&two), "{addresses:?}");
        for address in &addresses {
            let mut peer = Peer::connect(address)?;
            peer.greet()?;
            peer.ask("NOTIFY fin 1 1 m a=null", "ACK fin 1 1 set txn m.a=null")?;
        }
        // Somebody serves it.
        let output = run(arena.name, &["--listen", &one])?;
        ensure!(output.status.code() == Some(1), "{output:?}");
        Peer::connect(&one)?.greet()?;
        target.expect_end()?;
        ensure!(!first.exists() && !second.exists(), "the socket files are still there");
        ensure!(fs::read_dir(arena.dir())?.count() == 1, "it leaves something behind");
        Ok(())
    })
}

#[test]
fn the_first_signal_drains_and_the_second_ends_it() -> Verdict {
    each(|arena| {
        let mut target = arena.start(&["--drain-timeout", "60000"])?;
        let mut peer = target.session()?;
        let mut idle = target.session()?;
        peer.send("NOTIFY fin 1 1 sleep ms=int32:300 ; m a=null\nNOTIFY fin 3 1 sleep ms=int32:60000\nNOTIFY fin 5 1 m")?;
        peer.expect("ACK fin 5 1")?;
        target.agent.terminate()?;
        idle.expect_status(0)?;
        until_true("it listens no more", PATIENCE, || Ok(target.connect().is_err()))?;
        // It serves on.
        peer.expect("ACK fin 1 1 set txn m.a=null")?;
        peer.ask("NOTIFY fin 7 1 m", "ACK fin 7 1")?;
        let start = Instant::now();
        target.agent.terminate()?;
        peer.expect_disconnect(0)?;
        let status = target.agent.wait_for_end(PATIENCE)?;
        ensure!(status.success(), "it ended with {status}");
        println!("{}: the second signal ended it after {:?}", arena.name, start.elapsed());
        Ok(())
    })
}

#[test]
fn a_drain_ends_when_its_time_is_over() -> Verdict {
    each(|arena| {
        let mut target = arena.start(&["--drain-timeout", "300"])?;
        let mut peer = target.session()?;
        peer.send("NOTIFY fin 1 1 sleep ms=int32:60000\nNOTIFY fin 3 1 m")?;
        peer.expect("ACK fin 3 1")?;
        let start = Instant::now();
        target.agent.terminate()?;
        peer.expect_status(0)?;
        let took = start.elapsed();
        ensure!(took >= Duration::from_millis(250), "it ended after {took:?}");
        drop(peer);
        let status = target.agent.wait_for_end(PATIENCE)?;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    })
}

#[test]
fn the_service_manager_is_told() -> Verdict {
    each(|arena| {
        let path = arena.file("notify");
        let manager = UnixDatagram::bind(&path)?;
        manager.set_read_timeout(Some(PATIENCE))?;
        let message = |what: &str| -> Result<String> {
            let mut message = [0; 1024];
            let length = manager.recv(&mut message).with_context(|| format!("waiting for {what}"))?;
            Ok(String::from_utf8_lossy(message.get(..length).unwrap_or_default()).into_owned())
        };
        let args = ["--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0", "--workers", "2"];
        let variables = [("NOTIFY_SOCKET", path.to_str().context("the path is text")?)];
        let mut agent = Agent::start_with(arena.name, &args, &arena.file("agent.log"), variables)?;
        let ready = message("READY")?;
        ensure!(ready == "READY=1\nSTATUS=serving, 2 listener(s)\n", "{ready:?}");
        let mut peer = Peer::connect(agent.address())?;
        peer.greet()?;
        peer.send("NOTIFY fin 1 1 sleep ms=int32:300")?;
        peer.ask("NOTIFY fin 3 1 m", "ACK fin 3 1")?;
        agent.terminate()?;
        let stopping = message("STOPPING")?;
        ensure!(stopping == "STOPPING=1\nSTATUS=shutting down, 1 connection(s) open\n", "{stopping:?}");
        // It was told before the drain was over.
        peer.expect("ACK fin 1 1")?;
        peer.expect_status(0)?;
        let status = agent.wait_for_end(PATIENCE)?;
        ensure!(status.success(), "it ended with {status}");
        manager.set_nonblocking(true)?;
        ensure!(message("nothing").is_err(), "it is told more than once");
        Ok(())
    })
}
