//! `waf`: what clients of HAProxy see of its rules, of rules that are replaced, and of more messages than it can inspect.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use std::{fs, iter};

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::process::Signal;
use spop_tests::agent::Agent;
use spop_tests::haproxy::Binary;
use spop_tests::http::{Client, Reply, Request, record};
use spop_tests::load::concurrently;
use spop_tests::process::{descriptors, resident};
use spop_tests::shipped::{Running, Shipped};
use spop_tests::wait::{PATIENCE, until, until_true};
use tempfile::TempDir;

const AGENT: &str = "127.0.0.1:12403";
const WEB: &str = "127.0.0.1:10403";
const APPLICATION: &str = "127.0.0.1:10404";
const STATUS: &str = "127.0.0.1:9403";

/// The shipped files, the agent, and HAProxy.
struct Scene {
    files: Shipped,
    agent: Agent,
    rules: PathBuf,
    _dir: TempDir,
    _haproxy: Running,
}

/// What a busy machine needs to inspect in time.
const UNHURRIED: [&str; 4] = ["--timeout", "4s", "--processing", "5s"];

/// Replies show what was found.
const SHOWN: (&str, &str, &str) = (
    "haproxy.cfg",
    "    default_backend application\n",
    "    http-after-response set-header x-request \"%[var(txn.waf.request.score)] %[var(txn.waf.request.tags)]\"\n    \
     http-after-response set-header x-response \"%[var(txn.waf.response.score)] %[var(txn.waf.response.tags)]\"\n    \
     default_backend application\n",
);

impl Scene {
    /// With these rules, or the shipped ones.
    fn new(
        binary: &Binary,
        rules: Option<&str>,
        args: &[&str],
        edits: &[(&str, &str, &str)],
    ) -> Result<Self> {
        let files = Shipped::copy("spop-tokio/examples/waf", &[AGENT, WEB, APPLICATION, STATUS])?;
        files.edit("spoe.conf", "timeout processing 200ms", "timeout processing 5s")?;
        for (file, old, new) in edits.iter().chain(iter::once(&SHOWN)) {
            files.edit(file, old, new)?;
        }
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("rules");
        let path = file.to_string_lossy().into_owned();
        let mut all = args.to_vec();
        if let Some(rules) = rules {
            fs::write(&file, format!("{rules}\n"))?;
            all.extend(["--rules", &path]);
        }
        let agent = files.program(&all)?;
        let haproxy = files.haproxy(binary, "haproxy.cfg", WEB)?;
        Ok(Self { files, agent, rules: file, _dir: dir, _haproxy: haproxy })
    }

    fn web(&self) -> Result<SocketAddr> {
        self.files.address(WEB)
    }

    fn send(&self, request: &Request) -> Result<Reply> {
        request.send(self.web()?)
    }

    fn get(&self, path: &str) -> Result<Reply> {
        self.send(&Request::get(path))
    }

    /// Waits until the log says so, behind what it has said before.
    fn logged(&self, before: usize, text: &str) -> Result<String> {
        let line = until(&format!("the log has {text:?}"), PATIENCE, || {
            let log = self.files.log()?;
            Ok(log
                .get(before..)
                .and_then(|new| new.lines().find(|line| line.contains(text)))
                .map(str::to_owned))
        });
        line.with_context(|| self.files.log().unwrap_or_default())
    }

    /// A count that the agent logs when it is asked.
    fn counted(&self, name: &str) -> Result<u64> {
        let before = self.files.log()?.len();
        self.agent.signal(Signal::USR1)?;
        let line = self.logged(before, "counts ")?;
        let count = line.split(&format!(" {name}=")).nth(1).with_context(|| format!("no {name}: {line}"))?;
        Ok(count.split(' ').next().unwrap_or_default().parse()?)
    }
}

/// Plays it with the oldest HAProxy and with the newest.
fn with_each(scenario: impl Fn(&Binary) -> Result<()>) -> Result<()> {
    for version in ["2.6", "3.4"] {
        scenario(&Binary::of(version)?).with_context(|| format!("with HAProxy {version}"))?;
    }
    Ok(())
}

fn expect(reply: &Reply, status: u16, request: &str, response: &str) -> Result<()> {
    let found = [reply.header("x-request"), reply.header("x-response")];
    ensure!(reply.status == status, "{reply:?} has not the status {status}");
    ensure!(
        found == [Some(request), Some(response)],
        "{request:?} and {response:?} were not found: {reply:?}"
    );
    Ok(())
}

#[test]
fn requests_and_responses_are_judged_as_the_readme_says() -> Result<()> {
    with_each(|binary| {
        let scene = Scene::new(binary, None, &UNHURRIED, &[])?;
        let reply = scene.get("/?a=b")?;
        expect(&reply, 200, "0", "0")?;
        ensure!(reply.body == "a=b\n", "{reply:?}");
        expect(&scene.get("/?a=1+union+select+2")?, 403, "5 sqli", "")?;
        expect(&scene.get("/?a=1%20UNION%2f**/%73elect")?, 403, "5 sqli", "")?;
        expect(&scene.get("/%2e%2e/.git")?, 403, "8 traversal,scanner", "")?;
        expect(&scene.get("/?ORA-00933")?, 200, "0", "4 leak")?;
        expect(&scene.get("/.git?ORA-00933")?, 502, "3 scanner", "7 leak,scanner")?;
        expect(
            &scene.send(&Request::get("/").header("user-agent", "sqlmap/1"))?,
            200,
            "3 scanner",
            "3 scanner",
        )?;
        let responses = scene.counted("responses")?;
        ensure!(responses == 4 && scene.counted("joined")? == responses, "{}", scene.files.log()?);
        ensure!(scene.counted("unjoined")? == 0 && scene.counted("blocked")? == 4, "{}", scene.files.log()?);
        let line = scene.logged(0, "direction=Response")?;
        ensure!(line.contains("rules matched") && line.contains("line=\"GET /\""), "{line}");
        Ok(())
    })
}

#[test]
fn bodies_are_inspected_and_a_cut_one_is_known() -> Result<()> {
    with_each(|binary| {
        let scene = Scene::new(binary, None, &UNHURRIED, &[])?;
        expect(&scene.send(&Request::post("/", "a=b"))?, 200, "0", "0")?;
        let attack = "a=%3Cscript%3E&b=1+union+select";
        expect(&scene.send(&Request::post("/", attack))?, 403, "9 sqli,xss", "")?;
        let long = "x".repeat(40_000);
        // The application of the shipped file replies without reading the body, and HAProxy loses some of these replies.
        let send_long = |body: String| {
            until("there is a reply", PATIENCE, || Ok(scene.send(&Request::post("/", &*body)).ok()))
        };
        expect(&send_long(format!("{attack}&{long}"))?, 403, "14 sqli,xss,cut", "")?;
        // What was not seen was not matched.
        expect(&send_long(format!("{long}&{attack}"))?, 403, "5 cut", "")?;
        for body in ["3\r\na=b\r\n0\r\n\r\n", "0\r\n\r\n", "0\r\nx-a: ${jndi:x}\r\n\r\n"] {
            let chunked = Request::get("/").header("transfer-encoding", "chunked").body(body);
            ensure!(scene.send(&chunked)?.status == 411, "a body without a length passed: {body}");
        }
        let encoded = Request::post("/", "a=b").header("content-encoding", "gzip");
        ensure!(scene.send(&encoded)?.status == 415, "a body that is encoded passed");
        ensure!(scene.counted("cut")? >= 2, "{}", scene.files.log()?);
        Ok(())
    })
}

#[test]
fn in_detect_mode_everything_passes_and_is_logged() -> Result<()> {
    with_each(|binary| {
        let scene = Scene::new(binary, None, &[&UNHURRIED, ["--mode", "detect"].as_slice()].concat(), &[])?;
        expect(&scene.get("/?a=1+union+select+2")?, 200, "5 sqli", "5 sqli")?;
        scene.logged(0, "score=5 tags=\"sqli\" blocked=false")?;
        ensure!((scene.counted("detected")?, scene.counted("blocked")?) == (2, 0), "{}", scene.files.log()?);
        Ok(())
    })
}

#[test]
fn rules_are_replaced_under_load_and_no_request_is_lost() -> Result<()> {
    with_each(|binary| {
        let scene = Scene::new(binary, Some("query 5 old contains old"), &UNHURRIED, &[])?;
        let (web, running) = (scene.web()?, AtomicBool::new(true));
        ensure!(scene.get("/?old")?.status == 403 && scene.get("/?new")?.status == 200, "the first rules");
        let hang_up = |rules: &str, said: &str| -> Result<String> {
            let before = scene.files.log()?.len();
            // As the README says.
            let beside = scene.rules.with_extension("new");
            fs::write(&beside, format!("{rules}\n"))?;
            fs::rename(beside, &scene.rules)?;
            scene.agent.signal(Signal::HUP)?;
            scene.logged(before, said)
        };
        thread::scope(|scope| {
            let clients: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        let (mut client, mut count) = (Client::connect(web)?, 0);
                        while running.load(Ordering::Relaxed) {
                            let reply = client.send(&Request::get("/?good"))?;
                            ensure!(reply.status == 200, "{reply:?}: {}", scene.files.log()?);
                            count += 1;
                        }
                        Ok(count)
                    })
                })
                .collect();
            let replaced = (0..10).try_for_each(|n| -> Result<()> {
                hang_up(
                    &format!("query 5 new contains new\nquery 1 n contains {n}"),
                    "rules were read again rules=2",
                )?;
                ensure!(
                    scene.get("/?new")?.status == 403 && scene.get("/?old")?.status == 200,
                    "the new rules"
                );
                hang_up("query 5 old contains old", "rules were read again rules=1")?;
                ensure!(
                    scene.get("/?old")?.status == 403 && scene.get("/?new")?.status == 200,
                    "the old rules"
                );
                Ok(())
            });
            running.store(false, Ordering::Relaxed);
            for client in clients {
                let served: Result<usize> = client.join().map_err(|_| anyhow!("a client panicked"))?;
                ensure!(served? > 20, "a client was hardly served");
            }
            replaced
        })?;
        // A file with an error leaves the rules as they are.
        let line =
            hang_up("query 5 new contains new\nquery five a contains a", "the rules stay as they were")?;
        ensure!(line.contains("line 2: the score of query is not a number"), "{line}");
        ensure!(scene.get("/?old")?.status == 403 && scene.get("/?new")?.status == 200, "the old rules");
        // So does one without any.
        hang_up("", "the rules stay as they were")?;
        ensure!(scene.get("/?old")?.status == 403, "the old rules");
        Ok(())
    })
}

#[test]
fn a_client_does_not_choose_whether_a_response_is_inspected() -> Result<()> {
    let leak = "ORA-00933";
    let types = [
        ("text/plain", 502),
        ("Text/Plain; charset=utf-8", 502),
        ("application/problem+json", 502),
        ("application/json", 502),
        ("image/png", 200),
    ];
    with_each(|binary| {
        for (kind, status) in types {
            let length = leak.len();
            let head =
                format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{leak}");
            let (application, requests) = record(head)?;
            let server = format!("server app1 {application} #");
            let rules = "response.body 5 leak contains ORA-";
            let scene =
                Scene::new(binary, Some(rules), &UNHURRIED, &[("haproxy.cfg", "server app1 ", &server)])?;
            let reply = scene.send(&Request::get("/").header("accept-encoding", "gzip"))?;
            ensure!(reply.status == status, "{kind}: {reply:?}");
            let request = requests.recv_timeout(PATIENCE)?;
            ensure!(!request.contains("accept-encoding"), "{request}");
        }
        Ok(())
    })
}

/// An application that sends the head, and the body after a time.
fn slow(kind: &'static str, time: Duration) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || -> Result<()> {
                let (mut stream, mut request) = (stream, [0; 4096]);
                ensure!(stream.read(&mut request)? > 0, "the end");
                write!(stream, "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n1")?;
                thread::sleep(time);
                Ok(write!(stream, "2")?)
            });
        }
    });
    Ok(address)
}

#[test]
fn slow_texts_and_events_arrive() -> Result<()> {
    with_each(|binary| {
        for (kind, time, status) in [
            ("text/plain", 1, 200),
            ("text/plain", 6, 504),
            ("text/event-stream", 6, 200),
            ("Text/Event-Stream; charset=utf-8", 6, 200),
        ] {
            let application = slow(kind, Duration::from_secs(time))?;
            let server = format!("server app1 {application} #");
            let edits = [
                ("haproxy.cfg", "server app1 ", &*server),
                ("haproxy.cfg", "time 10s if text", "time 3s if text"),
            ];
            let scene = Scene::new(binary, None, &UNHURRIED, &edits)?;
            let reply = scene.get("/")?;
            ensure!(reply.status == status, "{kind} after {time} s: {reply:?}");
            ensure!(status == 504 || reply.body.contains('2'), "{kind} after {time} s: {reply:?}");
        }
        Ok(())
    })
}

/// A rule that takes a long time for a long text: wherever it is, any of 500 states is possible.
const SLOW: &str = "header:x-long 1 slow regex a[ab]{500}c";

/// So long that it just fits HAProxy's buffer with the rest of a request.
fn long() -> Vec<u8> {
    let mut state = 1_u32;
    let letters = (0..13_000).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if state >> 31 == 0 { b'a' } else { b'b' }
    });
    letters.collect()
}

#[test]
fn what_cannot_be_inspected_in_time_has_the_policy_that_was_chosen() -> Result<()> {
    const CLIENTS: usize = 32;
    const TIMES: usize = 6;
    let request = Request::get("/").header("x-long", long());
    with_each(|binary| {
        for (policy, status) in [("block", 503), ("pass", 200)] {
            let args = [
                "--on-failure",
                policy,
                "--timeout",
                "30ms",
                "--processing",
                "5s",
                "--workers",
                "1",
                "--max-in-flight",
                "8",
            ];
            let scene = Scene::new(binary, Some(SLOW), &args, &[])?;
            let web = scene.web()?;
            let load = || {
                concurrently(CLIENTS, |_| {
                    let mut client = Client::connect(web)?;
                    (0..TIMES).map(|_| client.send(&request)).collect::<Result<Vec<_>>>()
                })
            };
            let held =
                || Ok::<_, anyhow::Error>((resident(scene.agent.id())?, descriptors(scene.agent.id())?));
            // Each worker has memory of its own for patterns.
            for _ in 0..3 {
                load()?;
            }
            let (memory, open) = held()?;
            let (mut statuses, mut slowest) = (BTreeMap::<u16, usize>::new(), Duration::ZERO);
            for reply in (0..3).map(|_| load()).collect::<Result<Vec<_>>>()?.into_iter().flatten().flatten() {
                *statuses.entry(reply.status).or_default() += 1;
                slowest = slowest.max(reply.took);
            }
            let (memory_after, open_after) = held()?;
            let grown = memory_after.saturating_sub(memory);
            println!(
                "{policy}: {statuses:?} within {slowest:?}; {memory} KiB and {grown} more, {open} descriptors and then {open_after}"
            );
            let others: Vec<_> = statuses.keys().filter(|seen| **seen != status && **seen != 200).collect();
            ensure!(others.is_empty() && statuses.contains_key(&status), "{statuses:?}");
            if policy == "block" {
                ensure!(
                    statuses.get(&503).is_some_and(|shed| *shed > CLIENTS),
                    "nothing was too much: {statuses:?}"
                );
            }
            // What hangs would take 20 s.
            ensure!(slowest < Duration::from_secs(4), "{slowest:?}");
            ensure!(grown < 2048, "{grown} KiB more than {memory}");
            ensure!(open_after < open + CLIENTS, "{open_after} descriptors, and {open} before");
            let log = scene.files.log()?;
            ensure!(log.contains("max_in_flight"), "{log}");
            ensure!(log.lines().count() < 300, "each failure is logged: {} lines", log.lines().count());
            // And what is quick is inspected again at once.
            until_true("it inspects again", PATIENCE, || {
                Ok(scene.get("/")?.header("x-request") == Some("0"))
            })?;
        }
        Ok(())
    })
}

/// Responses are not inspected.
const NO_TEXT: (&str, &str, &str) =
    ("haproxy.cfg", "text/plain lf-string \"%[query", "image/png lf-string \"%[query");

#[test]
fn requests_without_a_response_take_no_more_memory_than_they_may() -> Result<()> {
    const CLIENTS: usize = 8;
    const TIMES: usize = 600;
    // Each is kept, and its response is not inspected.
    let rules = "path 1 x contains x\nstatus 1 error regex ^5";
    let args = [&UNHURRIED, ["--keep-size", "1"].as_slice()].concat();
    with_each(|binary| {
        let scene = Scene::new(binary, Some(rules), &args, &[NO_TEXT])?;
        let web = scene.web()?;
        let load = || {
            concurrently(CLIENTS, |number| {
                let mut client = Client::connect(web)?;
                (0..TIMES).try_for_each(|time| {
                    let reply = client.send(&Request::get(&format!("/x/{number}/{time}")))?;
                    ensure!(reply.status == 200, "{reply:?}");
                    Ok(())
                })
            })
        };
        load()?;
        let before = resident(scene.agent.id())?;
        for _ in 0..2 {
            load()?;
        }
        let grown = resident(scene.agent.id())?.saturating_sub(before);
        let evicted = scene.counted("evicted")?;
        println!("{evicted} evicted; {before} KiB and {grown} more");
        ensure!(grown < 1024, "{grown} KiB more than {before}");
        ensure!(evicted as usize > CLIENTS * TIMES, "{evicted} were evicted");
        Ok(())
    })
}

#[test]
fn without_the_agent_nothing_passes() -> Result<()> {
    let in_time = ("spoe.conf", "timeout processing 5s", "timeout processing 200ms");
    // Each of the rules by itself: a response that is not inspected, and a request that is let through.
    let let_through = (
        "haproxy.cfg",
        "unless { var(txn.waf.request.block) -m found }",
        "if { var(txn.waf.nothing) -m found }",
    );
    // What a failure at the request has set does not count for the response.
    let set_before = (
        "haproxy.cfg",
        "http-request return status 503 content-type text/plain string \"not inspected\\n\" unless { var(txn.waf.request.block) -m found }",
        "http-request set-var(txn.waf.response.block) bool(false)",
    );
    with_each(|binary| {
        for edit in [NO_TEXT, let_through, set_before] {
            let mut scene = Scene::new(binary, None, &[], &[in_time, edit])?;
            until_true("a request is inspected", PATIENCE, || Ok(scene.get("/")?.status == 200))?;
            scene.agent.kill()?;
            for _ in 0..3 {
                let reply = scene.get("/")?;
                ensure!(reply.status == 503 && reply.body == "not inspected\n", "{edit:?}: {reply:?}");
                reply.expect_within(Duration::from_secs(4))?;
            }
        }
        Ok(())
    })
}

#[test]
fn it_ends_when_it_is_told_to_and_says_what_it_has_counted() -> Result<()> {
    let mut scene = Scene::new(&Binary::of("3.4")?, None, &UNHURRIED, &[])?;
    ensure!(scene.get("/?a=1+union+select+2")?.status == 403, "it passed");
    scene.agent.terminate()?;
    let status = scene.agent.wait_for_end(PATIENCE)?;
    ensure!(status.success(), "{status}");
    let line = scene.logged(0, "counts ")?;
    ensure!(line.contains("requests=1 responses=0") && line.contains("blocked=1"), "{line}");
    Ok(())
}

#[test]
fn the_status_page_has_what_it_has_counted() -> Result<()> {
    with_each(|binary| {
        let scene = Scene::new(binary, None, &[&UNHURRIED[..], &["--status", STATUS]].concat(), &[])?;
        ensure!(scene.get("/?a=1+union+select+2")?.status == 403, "it passed");
        ensure!(scene.get("/")?.status == 200, "it was refused");
        let metrics = scene.files.metrics(STATUS)?;
        for (name, count) in [("requests", 2.0), ("responses", 1.0), ("blocked", 1.0), ("joined", 1.0)] {
            ensure!(metrics.get(&format!("waf_{name}_total")) == Some(&count), "{name}: {metrics:?}");
        }
        Ok(())
    })
}
