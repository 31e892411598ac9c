//! Requests and answers over real sockets.

use std::{
    collections::HashSet,
    io::Write as _,
    net::Shutdown,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use spop_mio::{
    Actions, AgentConfig, ArgError, Cancelled, Outcome, Reply, Request, Responder, Route, Router, Scope,
    Status, Unknown, Value,
};

use crate::support::{Running, bytes, hand_out, log::Log, logged, until, within};

/// Answers each message with its first argument.
fn echo(request: Request<'_>) -> Actions {
    let mut actions = Actions::new();
    for message in request.messages() {
        for (_, value) in message.args().take(1) {
            actions.set_var(Scope::Transaction, message.name(), value);
        }
    }
    actions
}

#[test]
fn a_request_is_answered() {
    within(|| {
        let server = Running::start(echo);
        let mut client = server.session();
        client.ask("NOTIFY fin 1 1 m x=int32:7", "ACK fin 1 1 set txn m=int32:7");
        client.ask("NOTIFY fin 3 1 m x=string:abc", "ACK fin 3 1 set txn m=string:abc");
    });
}

#[test]
fn a_router_is_a_handler() {
    within(|| {
        let fails = Route::new(|_| Err::<(), _>("on purpose".into()));
        let panics = Route::new(|message| Ok((Scope::Session, "zero", 1 / message.arg::<i32>("zero")?)));
        let router = Router::new()
            .on("score", |message| Ok((Scope::Session, "score", message.arg::<u32>("n")?)))
            .route("fails", fails.on_failure((Scope::Session, "failed", 1)))
            .route("panics", panics.on_failure((Scope::Session, "failed", 2)));
        let server = Running::start(router.unknown(Unknown::Fail));
        let mut client = server.session();
        let (asked, answer) =
            ("score n=int64:7 ; score n=int64:8", "set sess score=uint32:7 ; set sess score=uint32:8");
        client.ask(&format!("NOTIFY fin 1 1 {asked}"), &format!("ACK fin 1 1 {answer}"));
        client.ask("NOTIFY fin 3 1 score n=int64:-1", "ACK fin 3 1");
        client.ask("NOTIFY fin 5 1 score n=int64:7 ; other", "ACK fin 5 1");
        client.ask(
            "NOTIFY fin 7 1 fails ; score n=int64:7 ; panics zero=int32:0",
            "ACK fin 7 1 set sess failed=int32:1 ; set sess score=uint32:7 ; set sess failed=int32:2",
        );
    });
}

#[test]
fn handshake_and_requests_may_come_in_any_pieces() {
    within(|| {
        let server = Running::start(echo);
        let mut client = server.connect();
        let all = bytes(
            "HAPROXY-HELLO fin 0 0 supported-versions=string:2.0 max-frame-size=uint32:16380 capabilities=string:\"\"
             NOTIFY fin 1 1 m x=int32:7
             NOTIFY fin 2 1 m x=int32:8",
        );
        for byte in all.chunks(1) {
            client.io.write_all(byte).unwrap();
        }
        assert!(client.receive().unwrap().starts_with("AGENT-HELLO"));
        client.expect("ACK fin 1 1 set txn m=int32:7\nACK fin 2 1 set txn m=int32:8");
    });
}

#[test]
fn frames_of_all_sizes_arrive() {
    within(|| {
        let server = Running::start(|request: Request<'_>| {
            let size =
                request.message("m").and_then(|message| message.get("x")?.as_bytes()).map_or(0, <[u8]>::len);
            let mut actions = Actions::new();
            actions.set_var(Scope::Transaction, "size", size as u64);
            actions
        });
        let mut client = server.session();
        for size in [0, 100, 4_000, 5_000, 16_000] {
            let text = "x".repeat(size);
            let request = bytes(&format!("NOTIFY fin {size} 1 m x=string:\"{text}\""));
            for piece in [request.len(), 1000, 4096, 77] {
                for chunk in request.chunks(piece) {
                    client.io.write_all(chunk).unwrap();
                }
                client.expect(&format!("ACK fin {size} 1 set txn size=uint64:{size}"));
            }
        }
    });
}

#[test]
fn a_thousand_pipelined_requests_are_answered_in_order() {
    within(|| {
        let server = Running::start(echo);
        let client = server.session();
        let mut writer = client.io.try_clone().unwrap();
        let mut client = client;
        let sending = thread::spawn(move || {
            for id in 0..1000 {
                writer.write_all(&bytes(&format!("NOTIFY fin {id} 1 m x=int32:{id}"))).unwrap();
            }
        });
        for id in 0..1000 {
            client.expect(&format!("ACK fin {id} 1 set txn m=int32:{id}"));
        }
        sending.join().unwrap();
    });
}

#[test]
fn late_answers_come_in_the_order_they_are_given() {
    within(|| {
        let (handler, responders) = hand_out();
        let server = Running::start(handler);
        let mut client = server.session();
        client.send("NOTIFY fin 1 1 m x=int32:1\nNOTIFY fin 2 1 m x=int32:2\nNOTIFY fin 3 1 m x=int32:3");
        let mut kept: Vec<Responder> = responders.iter().take(3).collect();
        for id in [2, 3, 1] {
            let at = kept.iter().position(|responder| responder.ids().stream == id).unwrap();
            let responder = kept.remove(at);
            let x: i64 = responder.message("m").unwrap().arg("x").unwrap();
            let mut actions = Actions::new();
            actions.set_var(Scope::Session, "x", x);
            thread::spawn(move || responder.reply(actions)).join().unwrap();
            client.expect(&format!("ACK fin {id} 1 set sess x=int64:{id}"));
        }
    });
}

#[test]
fn a_request_that_fails_costs_itself_only() {
    within(|| {
        let (sender, responders) = mpsc::channel();
        let handler = move |request: Request<'_>| -> Result<Outcome, ArgError> {
            let Some(message) = request.messages().iter().next() else { return Ok(Actions::new().into()) };
            Ok(match message.name() {
                b"panic" => panic!("as the test wants"),
                b"later" => request.defer(|responder| drop(sender.send(responder))),
                b"drop" => request.defer(drop),
                b"panic-late" => {
                    let _ = request.defer(|responder| drop(sender.send(responder)));
                    panic!("as the test wants")
                }
                b"big" => {
                    let mut actions = Actions::new();
                    actions.set_var(Scope::Transaction, "x", Value::String(&vec![b'x'; 20_000]));
                    actions.into()
                }
                _ => {
                    let mut actions = Actions::new();
                    actions.set_var(Scope::Transaction, "x", message.arg::<u32>("x")?);
                    actions.into()
                }
            })
        };
        let server = Running::start(handler);
        let mut client = server.session();
        client.ask("NOTIFY fin 1 1 panic", "ACK fin 1 1");
        client.ask("NOTIFY fin 2 1 missing", "ACK fin 2 1");
        client.ask("NOTIFY fin 3 1 drop", "ACK fin 3 1");
        client.ask("NOTIFY fin 4 1 big", "ACK fin 4 1");
        client.send("NOTIFY fin 5 1 later");
        let responder = responders.recv().unwrap();
        thread::spawn(move || {
            let _mine = responder;
            panic!("as the test wants");
        });
        client.expect("ACK fin 5 1");
        client.send("NOTIFY fin 6 1 later");
        responders.recv().unwrap().reply(Reply::failed("no"));
        client.expect("ACK fin 6 1");
        client.send("NOTIFY fin 7 1 later");
        let mut big = Actions::new();
        big.set_var(Scope::Transaction, "x", Value::String(&vec![b'x'; 20_000]));
        responders.recv().unwrap().reply(big);
        client.expect("ACK fin 7 1");
        // Who has the responder answers, whatever became of the handler.
        client.send("NOTIFY fin 8 1 panic-late");
        let mut actions = Actions::new();
        actions.set_var(Scope::Transaction, "x", true);
        responders.recv().unwrap().reply(actions);
        client.expect("ACK fin 8 1 set txn x=bool:true");
        client.ask("NOTIFY fin 9 1 m x=int32:9", "ACK fin 9 1 set txn x=uint32:9");
    });
}

#[test]
fn the_log_says_which_failure_it_was() {
    within(|| {
        let log = Log::start();
        let (sender, responders) = mpsc::channel();
        let handler = move |request: Request<'_>| -> Outcome {
            match request.stream_id() {
                1 => Err::<Actions, _>("no such thing").into(),
                2 => panic!("on purpose"),
                3 => request.defer(drop),
                4 => {
                    let mut actions = Actions::new();
                    actions.set_var(Scope::Transaction, "long", Value::String(&vec![b'x'; 20_000]));
                    actions.into()
                }
                _ => request.defer(|responder| drop(sender.send(responder))),
            }
        };
        // Only the last has so little time that a busy machine may use it up.
        let server = Running::start(handler.clone());
        let mut config = AgentConfig::default();
        config.timeouts.message = Some(Duration::from_millis(100));
        let hasty = Running::with(handler, config, |server| server.workers(1));
        let (mut client, mut hurried) = (server.session(), hasty.session());
        for (id, [what, error]) in [
            ["handler_failed", "no such thing"],
            ["handler_panicked", "on purpose"],
            ["responder_dropped", "the responder was dropped"],
            ["answer_unsendable", "20012 bytes, more than the 16373"],
            ["timed_out", "no answer in time"],
        ]
        .into_iter()
        .enumerate()
        {
            let id = id + 1;
            let client = if what == "timed_out" { &mut hurried } else { &mut client };
            client.ask(&format!("NOTIFY fin {id} 1 m"), &format!("ACK fin {id} 1"));
            let line = logged(&log);
            assert!(line.contains(what) && line.contains(error), "{line}");
        }
        drop(responders.recv().unwrap());
        client.ask("NOTIFY fin 1 2 m", "ACK fin 1 2");
        // What is dropped when nobody waits is no failure.
        assert!(logged(&log).contains("handler_failed"));
    });
}

#[test]
fn a_handler_may_disconnect_now_or_later() {
    within(|| {
        let (sender, responders) = mpsc::channel();
        let end = || Reply::Disconnect { status: Status(77), message: "enough".into() };
        let handler = move |request: Request<'_>| {
            if request.message("now").is_some() {
                return Outcome::from(end());
            }
            request.defer(|responder| drop(sender.send(responder)))
        };
        let server = Running::start(handler);
        let mut client = server.session();
        client.send("NOTIFY fin 1 1 now");
        client.expect("AGENT-DISCONNECT fin 0 0 status-code=uint32:77 message=string:enough");
        assert_eq!(client.receive(), None);
        let mut client = server.session();
        client.send("NOTIFY fin 1 1 later");
        responders.recv().unwrap().reply(end());
        client.expect("AGENT-DISCONNECT fin 0 0 status-code=uint32:77 message=string:enough");
        assert_eq!(client.receive(), None);
    });
}

#[test]
fn a_responder_sees_that_nobody_waits() {
    within(|| {
        let (handler, responders) = hand_out();
        let mut config = AgentConfig::default();
        // Longer than the steps before it take on a machine that is busy.
        config.timeouts.message = Some(Duration::from_secs(4));
        let server = Running::with(handler, config, |server| server.workers(1));
        let mut client = server.session();
        client.send("NOTIFY fin 1 1 m");
        let older = responders.recv().unwrap();
        assert!(!older.is_cancelled() && older.deadline().is_some());
        client.send("NOTIFY fin 1 1 m");
        let newer = responders.recv().unwrap();
        assert_eq!((older.reason(), newer.reason()), (Some(Cancelled::Superseded), None));
        older.reply(Actions::new());
        // It is answered in its stead, with nothing.
        client.expect("ACK fin 1 1");
        until(|| newer.is_cancelled());
        assert_eq!(newer.reason(), Some(Cancelled::TimedOut));

        client.send("NOTIFY fin 3 1 m\nHAPROXY-DISCONNECT fin 0 0 status-code=uint32:0 message=string:bye");
        let late = responders.recv().unwrap();
        until(|| late.is_cancelled());
        assert_eq!(late.reason(), Some(Cancelled::Disconnected));

        let (handler, responders) = hand_out();
        let mut config = AgentConfig::default();
        config.timeouts.message = Some(Duration::from_millis(500));
        let server = Running::with(handler, config, |server| server.workers(1));
        let mut client = server.session();
        client.send("NOTIFY fin 2 1 m");
        let orphan = responders.recv().unwrap();
        drop(client);
        // The answer is still owed when the input has ended; it is given up when the connection is gone.
        until(|| orphan.is_cancelled());
        orphan.reply(Actions::new());
        until(|| server.handle.stats().open == 0);
    });
}

#[test]
fn at_the_limit_in_flight_reading_waits_and_goes_on() {
    within(|| {
        let (handler, responders) = hand_out();
        let mut config = AgentConfig::default();
        config.limits.max_in_flight = 2;
        // None gives way to those that wait, however long this takes.
        config.processing = None;
        let server = Running::with(handler, config, |server| server.workers(1));
        let mut client = server.session();
        client.send("NOTIFY fin 1 1 m\nNOTIFY fin 2 1 m\nNOTIFY fin 3 1 m\nNOTIFY fin 4 1 m");
        let (first, second) = (responders.recv().unwrap(), responders.recv().unwrap());
        assert!(responders.recv_timeout(Duration::from_millis(100)).is_err());
        second.reply(Actions::new());
        client.expect("ACK fin 2 1");
        let third = responders.recv().unwrap();
        third.reply(Actions::new());
        client.expect("ACK fin 3 1");
        first.reply(Actions::new());
        client.expect("ACK fin 1 1");
        responders.recv().unwrap().reply(Actions::new());
        client.expect("ACK fin 4 1");
    });
}

#[test]
fn each_worker_has_a_handler_of_its_own() {
    #[derive(Clone)]
    struct Counting {
        mine: u64,
        all: Arc<Mutex<HashSet<thread::ThreadId>>>,
    }
    impl spop_mio::Handler for Counting {
        fn handle(&mut self, _: Request<'_>) -> Outcome {
            self.mine += 1;
            self.all.lock().unwrap().insert(thread::current().id());
            let mut actions = Actions::new();
            actions.set_var(Scope::Session, "count", self.mine);
            actions.into()
        }
    }
    within(|| {
        let all = Arc::new(Mutex::new(HashSet::new()));
        let handler = Counting { mine: 0, all: Arc::clone(&all) };
        let server = Running::with(handler, AgentConfig::default(), |server| server.workers(3));
        let mut clients: Vec<_> = (0..64).map(|_| server.session()).collect();
        for client in &mut clients {
            client.send("NOTIFY fin 1 1 m");
            assert!(client.receive().unwrap().contains("count"));
        }
        assert_eq!(all.lock().unwrap().len(), 3);
    });
}

#[test]
fn a_busy_connection_starves_nobody() {
    within(|| {
        let server = Running::start(echo);
        let stop = Arc::new(AtomicBool::new(false));
        let mut busy = server.session();
        let mut writer = busy.io.try_clone().unwrap();
        let stopped = Arc::clone(&stop);
        let flood = thread::spawn(move || {
            let many: Vec<u8> =
                (0..500).flat_map(|id| bytes(&format!("NOTIFY fin {id} 1 m x=int32:1"))).collect();
            let mut sent = 0;
            while !stopped.load(Ordering::Relaxed) {
                writer.write_all(&many).unwrap();
                sent += 500;
            }
            writer.shutdown(Shutdown::Write).unwrap();
            sent
        });
        // Answers, and then the words of the end.
        let reader = thread::spawn(move || {
            std::iter::from_fn(|| busy.receive()).filter(|frame| frame.starts_with("ACK")).count()
        });
        let mut other = server.session();
        let mut times: Vec<_> = (0..50)
            .map(|id| {
                let start = Instant::now();
                let answer = format!("ACK fin {id} 1 set txn m=int32:7");
                other.ask(&format!("NOTIFY fin {id} 1 m x=int32:7"), &answer);
                start.elapsed()
            })
            .collect();
        // Of fifty all but five: the machine may be busy with something else for a while.
        times.sort_unstable();
        let usual = times[44];
        stop.store(true, Ordering::Relaxed);
        assert_eq!(reader.join().unwrap(), flood.join().unwrap());
        let mut last = server.session();
        last.ask("NOTIFY fin 1 1 m x=int32:1", "ACK fin 1 1 set txn m=int32:1");
        assert!(usual < Duration::from_millis(250), "{times:?}");
    });
}

#[test]
fn fragments_are_put_together_and_may_be_refused() {
    #[derive(Clone)]
    struct Picky;
    impl spop_mio::Handler for Picky {
        fn handle(&mut self, request: Request<'_>) -> Outcome {
            echo(request).into()
        }
        fn watch(&mut self, arriving: spop_mio::Partial<'_>) -> spop_mio::Watch {
            match arriving.messages().next() {
                Some(message) if message.name() == b"no" => spop_mio::Watch::Refuse,
                Some(message) if message.name() == b"panic" => panic!("as the test wants"),
                _ => spop_mio::Watch::Continue,
            }
        }
    }
    within(|| {
        let mut config = AgentConfig::default();
        config.watch_fragments = true;
        // However long this thread is held up after a refusal.
        config.drain_after_refusal = None;
        let server = Running::with(Picky, config, |server| server.workers(1));
        let mut client = server.session();
        for (id, name, answer) in [
            (1_u8, "yes", "ACK fin 1 1 set txn yes=int32:5"),
            (2, "no", "ACK fin,abort 2 1"),
            (3, "panic", "ACK fin 3 1 set txn panic=int32:5"),
        ] {
            let whole = bytes(&format!("NOTIFY fin {id} 1 {name} x=int32:5"));
            let payload = &whole[4 + 7..];
            let (front, back) = payload.split_at(payload.len() - 2);
            let frame = |head: &[u8], payload: &[u8]| {
                let len = (head.len() + payload.len()) as u32;
                [&len.to_be_bytes()[..], head, payload].concat()
            };
            client.io.write_all(&frame(&[3, 0, 0, 0, 0, id, 1], front)).unwrap();
            client.io.write_all(&frame(&[0, 0, 0, 0, 1, id, 1], back)).unwrap();
            client.expect(answer);
        }
    });
}
