//! `rate-limit`: what clients of HAProxy see of limits, of a full table, and of an agent that is gone.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::process::Signal;
use spop_tests::agent::Agent;
use spop_tests::haproxy::Binary;
use spop_tests::http::{Client, Reply, Request};
use spop_tests::load::concurrently;
use spop_tests::peer::{Peer, bytes};
use spop_tests::process::resident;
use spop_tests::shipped::{Running, Shipped};
use spop_tests::wait::{PATIENCE, until, until_true};

const AGENT: &str = "127.0.0.1:12407";
const OPEN: &str = "127.0.0.1:10407";
const CLOSED: &str = "127.0.0.1:10408";
const STATUS: &str = "127.0.0.1:9407";

/// The shipped files, the agent with these options, and HAProxy, which sees the agent up.
struct Scene {
    files: Shipped,
    agent: Agent,
    _haproxy: Running,
}

impl Scene {
    fn new(binary: &Binary, args: &[&str]) -> Result<Self> {
        let files = Shipped::copy("spop-mio/examples/rate-limit", &[AGENT, OPEN, CLOSED, STATUS])?;
        // On a busy machine an answer may take longer than it should.
        files.edit("spoe.conf", "timeout processing 500ms", "timeout processing 5s")?;
        files.edit("haproxy.cfg", "timeout connect 5s", "timeout connect 5s\n    timeout check 2s")?;
        files.edit("haproxy.cfg", "inter 1s", "inter 50ms")?;
        let agent = files.program(args)?;
        let haproxy = files.haproxy(binary, "haproxy.cfg", OPEN)?;
        Ok(Self { files, agent, _haproxy: haproxy })
    }

    fn send(&self, to: &str, request: &Request, last: u8) -> Result<Reply> {
        request.clone().source([127, 0, 0, last]).send(self.files.address(to)?)
    }

    fn get(&self, path: &str, last: u8) -> Result<Reply> {
        self.send(OPEN, &Request::get(path), last)
    }
}

/// Plays it with the oldest HAProxy and with the newest.
fn with_each(scenario: impl Fn(&Binary) -> Result<()>) -> Result<()> {
    for version in ["2.6", "3.4"] {
        scenario(&Binary::of(version)?).with_context(|| format!("with HAProxy {version}"))?;
    }
    Ok(())
}

fn expect(reply: &Reply, status: u16, body: &str) -> Result<()> {
    ensure!((reply.status, &*reply.body) == (status, body), "{reply:?} is not {status} {body:?}");
    Ok(())
}

/// The reply to a request that is limited, with a time until the next in this range of seconds.
fn expect_limited(reply: &Reply, limit: &str, seconds: std::ops::RangeInclusive<u64>) -> Result<()> {
    expect(reply, 429, &format!("too many {limit}\n"))?;
    let wait = reply.header("retry-after").context("no Retry-After")?;
    ensure!(seconds.contains(&wait.parse()?), "Retry-After is {wait}");
    Ok(())
}

#[test]
fn clients_have_limits_and_costs_of_their_own() -> Result<()> {
    with_each(|binary| {
        let scene = Scene::new(binary, &["--limit", "requests=40/1h", "--limit", "login=2/1h"])?;
        expect(&scene.get("/", 2)?, 200, "remaining 39\n")?;
        expect(&scene.get("/reports/today", 2)?, 200, "remaining 29\n")?;
        let login = Request::post("/login", "user=a");
        for remaining in [1, 0] {
            expect(&scene.send(OPEN, &login, 2)?, 200, &format!("remaining {remaining}\n"))?;
        }
        expect_limited(&scene.send(OPEN, &login, 2)?, "login", 1_700..=1_800)?;
        // It counted with the other limit, which has some left.
        expect(&scene.get("/", 2)?, 200, "remaining 25\n")?;
        expect(&scene.send(OPEN, &login, 3)?, 200, "remaining 1\n")?;
        // Both frontends ask the same agent.
        for remaining in [15, 5] {
            let reply = scene.send(CLOSED, &Request::get("/reports/"), 2)?;
            expect(&reply, 200, &format!("remaining {remaining}\n"))?;
        }
        // Five more are a report away: 5 of 10 take half an hour of 40/h: 450 s.
        expect_limited(&scene.get("/reports/", 2)?, "requests", 350..=450)?;
        for remaining in (0..5).rev() {
            expect(&scene.get("/", 2)?, 200, &format!("remaining {remaining}\n"))?;
        }
        expect_limited(&scene.get("/", 2)?, "requests", 1..=90)?;
        expect_limited(&scene.send(CLOSED, &Request::get("/"), 2)?, "requests", 1..=90)
    })
}

#[test]
fn a_path_has_its_limit_however_it_is_written() -> Result<()> {
    with_each(|binary| {
        let scene = Scene::new(binary, &["--limit", "requests=1000/1h", "--limit", "login=1/1h"])?;
        ensure!(scene.send(OPEN, &Request::post("/login", ""), 2)?.status == 200, "the first");
        for path in
            ["/%6cogin", "/%2Flogin", "//login", "/login/", "/LOGIN", "/login;x", "/./login", "/login?x"]
        {
            let reply = scene.send(OPEN, &Request::post(path, ""), 2)?;
            ensure!(reply.status == 429, "{path}: {reply:?}");
        }
        ensure!(scene.send(OPEN, &Request::post("/logout", ""), 2)?.status == 200, "another");
        for (number, path) in (1..).zip(["/reports/a", "/%72eports/a", "//reports/a", "/Reports/"]) {
            expect(&scene.get(path, 3)?, 200, &format!("remaining {}\n", 1000 - 10 * number))?;
        }
        Ok(())
    })
}

#[test]
fn a_client_that_waits_for_retry_after_passes() -> Result<()> {
    with_each(|binary| {
        let scene = Scene::new(binary, &["--limit", "requests=1/3s,burst=1"])?;
        let start = Instant::now();
        expect(&scene.get("/", 2)?, 200, "remaining 0\n")?;
        let reply = scene.get("/", 2)?;
        ensure!(start.elapsed() < Duration::from_secs(3), "too slow to tell");
        expect_limited(&reply, "requests", 1..=3)?;
        sleep(Duration::from_secs(reply.header("retry-after").context("no Retry-After")?.parse()?));
        expect(&scene.get("/", 2)?, 200, "remaining 0\n")
    })
}

#[test]
fn without_the_agent_one_port_lets_all_pass_and_the_other_none() -> Result<()> {
    with_each(|binary| {
        let mut scene = Scene::new(binary, &["--limit", "requests=100/1h", "--limit", "login=5/1h"])?;
        let get = |scene: &Scene, to| scene.send(to, &Request::get("/"), 2);
        expect(&get(&scene, OPEN)?, 200, "remaining 99\n")?;
        expect(&get(&scene, CLOSED)?, 200, "remaining 98\n")?;
        scene.agent.kill()?;
        until_true("HAProxy takes the server out", PATIENCE, || Ok(get(&scene, CLOSED)?.status == 503))?;
        expect(&get(&scene, OPEN)?, 200, "remaining \n")?;
        scene.agent = scene.files.program(&["--limit", "requests=100/1h"])?;
        until("it is asked again", PATIENCE, || {
            let reply = get(&scene, CLOSED)?;
            Ok(reply.body.starts_with("remaining 9").then_some(()))
        })?;
        // A limit that it does not have is a failure: the same policy.
        let login = Request::post("/login", "user=a");
        expect(&scene.send(OPEN, &login, 2)?, 200, "remaining \n")?;
        ensure!(scene.send(CLOSED, &login, 2)?.status == 503, "it passed");
        ensure!(scene.files.log()?.contains("there is no limit"), "{}", scene.files.log()?);
        Ok(())
    })
}

#[test]
fn a_restart_on_a_socket_of_systemd_loses_next_to_nothing() -> Result<()> {
    const CLIENTS: usize = 4;
    let args = ["--limit", "requests=1000000/s", "--limit", "login=5/1m"];
    with_each(|binary| {
        let files = Shipped::copy("spop-mio/examples/rate-limit", &[AGENT, OPEN, CLOSED])?;
        files.edit("spoe.conf", "timeout processing 500ms", "timeout processing 5s")?;
        let socket = TcpListener::bind(files.address(AGENT)?)?;
        let mut agent = files.program_on(&socket, &args)?;
        let _haproxy = files.haproxy(binary, "haproxy.cfg", CLOSED)?;
        let (web, restarting) = (files.address(CLOSED)?, AtomicBool::new(true));
        let (asked, lost) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let ask_on = |_| {
            let mut client = Client::connect(web)?;
            while restarting.load(Ordering::Relaxed) {
                let reply = client.send(&Request::get("/"))?;
                ensure!(matches!(reply.status, 200 | 503), "{reply:?}");
                let count = if reply.status == 200 { &asked } else { &lost };
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        let mut lost_until = Vec::new();
        thread::scope(|scope| {
            let clients = scope.spawn(|| concurrently(CLIENTS, ask_on));
            let mut restart = || {
                let before = asked.load(Ordering::Relaxed);
                let goes_on = || Ok(asked.load(Ordering::Relaxed) > before + 100 || clients.is_finished());
                until_true("the clients ask on", PATIENCE, goes_on)?;
                lost_until.push(lost.load(Ordering::Relaxed));
                agent.terminate()?;
                let status = agent.wait_for_end(PATIENCE)?;
                ensure!(status.success(), "{status}");
                agent = files.program_on(&socket, &args)?;
                Ok(())
            };
            let restarted = (0..5).try_for_each(|_| restart());
            restarting.store(false, Ordering::Relaxed);
            clients.join().map_err(|_| anyhow!("the clients panicked"))??;
            restarted
        })?;
        // What HAProxy has sent when it reads the DISCONNECT is lost, if it was kept from running just then: by one of the restarts.
        lost_until.push(lost.into_inner());
        let unlucky = lost_until.windows(2).filter(|pair| pair[0] != pair[1]).count();
        ensure!(unlucky <= 1, "lost until each restart, and in all: {lost_until:?}; answered: {asked:?}");
        Ok(())
    })
}

/// A client that uses so many keys, each once. How many of its requests passed.
fn flood(agent: SocketAddr, keys: std::ops::Range<u32>) -> Result<usize> {
    const BATCH: usize = 500;
    let mut peer = Peer::tcp(agent)?;
    peer.greet()?;
    let (mut passed, mut id) = (0, 0);
    let mut keys = keys.peekable();
    while keys.peek().is_some() {
        let mut batch = String::new();
        let mut count = 0;
        for key in keys.by_ref().take(BATCH) {
            id += 1;
            count += 1;
            writeln!(batch, "NOTIFY fin {id} 1 requests key=uint32:{key}")?;
        }
        peer.send_bytes(&bytes(&batch)?)?;
        for _ in 0..count {
            passed += usize::from(peer.receive()?.contains("limited=bool:false"));
        }
    }
    Ok(passed)
}

#[test]
fn a_client_with_more_keys_than_fit_takes_no_memory() -> Result<()> {
    const KEYS: u32 = 250_000;
    const FIT: u32 = 10_000;
    for (version, policy, newcomer) in [("2.6", "open", 200), ("3.4", "closed", 429)] {
        let limit = format!("requests=10/1h,keys={FIT},full={policy}");
        let scene = Scene::new(&Binary::of(version)?, &["--limit", &limit])?;
        for remaining in (0..10).rev() {
            expect(&scene.get("/", 2)?, 200, &format!("remaining {remaining}\n"))?;
        }
        expect_limited(&scene.get("/", 2)?, "requests", 300..=360)?;
        let agent = scene.files.address(AGENT)?;
        flood(agent, 0..FIT)?;
        let before = resident(scene.agent.id())?;
        let passed = flood(agent, FIT..KEYS)?;
        let grown = resident(scene.agent.id())?.saturating_sub(before);
        ensure!(grown < 256, "{grown} KiB more");
        // The key that has used the most is not forgotten, whatever the policy.
        expect_limited(&scene.get("/", 2)?, "requests", 250..=360)?;
        let reply = scene.get("/", 3)?;
        ensure!(reply.status == newcomer, "{policy}: {reply:?}");
        let (counts, sent) = (counts(&scene, "requests")?, (KEYS - FIT) as usize);
        // Half of the slots are for the keys that fit.
        let slots = u64::from(2 * FIT)..=u64::from(2 * FIT + 100);
        if policy == "open" {
            ensure!(passed == sent, "{passed} of {sent} passed");
            ensure!(slots.contains(&(counts.passed - 9 - counts.forgotten)), "{counts:?}");
        } else {
            ensure!(slots.contains(&(counts.passed - 9)), "{counts:?}");
            ensure!(counts.refused as usize >= sent - passed, "{counts:?}");
        }
        ensure!(scene.files.log()?.matches("raise keys=").count() == 1, "{}", scene.files.log()?);
    }
    Ok(())
}

/// The counts of a limit, as the log has them.
#[derive(Debug)]
struct Counts {
    passed: u64,
    limited: u64,
    forgotten: u64,
    refused: u64,
}

/// Asks the agent to log its counts.
fn counts(scene: &Scene, limit: &str) -> Result<Counts> {
    let before = scene.files.log()?.len();
    scene.agent.signal(Signal::USR1)?;
    let line = until("the counts are logged", PATIENCE, || {
        let log = scene.files.log()?;
        Ok(log[before..].lines().find(|line| line.contains(&format!("limit=\"{limit}\""))).map(str::to_owned))
    })?;
    Counts::read(&line)
}

impl Counts {
    fn read(line: &str) -> Result<Self> {
        let number = |name: &str| -> Result<u64> {
            let text =
                line.split(&format!(" {name}=")).nth(1).with_context(|| format!("no {name}: {line}"))?;
            Ok(text.split(' ').next().unwrap_or_default().parse()?)
        };
        Ok(Self {
            passed: number("passed")?,
            limited: number("limited")?,
            forgotten: number("forgotten")?,
            refused: number("refused")?,
        })
    }
}

#[test]
fn it_ends_when_it_is_told_to_and_says_what_it_has_counted() -> Result<()> {
    with_each(|binary| {
        let limits = ["--limit", "requests=3/1h", "--limit", "login=1/1h", "--lame-duck", "5s"];
        let mut scene = Scene::new(binary, &limits)?;
        for _ in 0..5 {
            scene.get("/", 2)?;
        }
        let Counts { passed, limited, .. } = counts(&scene, "requests")?;
        ensure!((passed, limited) == (3, 2), "{passed} and {limited}");
        scene.agent.terminate()?;
        let in_log = |what: &str| Ok(scene.files.log()?.contains(what));
        until_true("the shutdown begins", PATIENCE, || in_log("lame duck"))?;
        // Until the end of that stage it serves on.
        let mut late = Peer::tcp(scene.files.address(AGENT)?)?;
        late.greet()?;
        late.ask("NOTIFY fin 1 1 requests", "ACK fin 1 1 set txn limited=bool:false")?;
        late.expect_disconnect(0)?;
        late.shut()?;
        let status = scene.agent.wait_for_end(PATIENCE)?;
        ensure!(status.success(), "{status}");
        let log = scene.files.log()?;
        let last = log.lines().rfind(|line| line.contains("limit=\"requests\"")).context("no counts")?;
        let Counts { passed, limited, .. } = Counts::read(last)?;
        ensure!(passed == 3 && limited >= 2, "{last}");
        Ok(())
    })
}

#[test]
fn the_status_page_has_the_counts_of_each_limit() -> Result<()> {
    with_each(|binary| {
        let limits = ["--limit", "requests=40/1h", "--limit", "login=1/1h", "--workers", "2"];
        let scene = Scene::new(binary, &[&limits[..], &["--status", STATUS]].concat())?;
        let login = Request::post("/login", "user=a");
        expect(&scene.send(OPEN, &login, 2)?, 200, "remaining 0\n")?;
        expect_limited(&scene.send(OPEN, &login, 2)?, "login", 3_500..=3_600)?;
        let metrics = scene.files.metrics(STATUS)?;
        for (name, limit, number) in [
            ("passed_total", "login", 1.0),
            ("limited_total", "login", 1.0),
            ("passed_total", "requests", 2.0),
            ("slots_used", "login", 1.0),
        ] {
            let name = format!("rate_limit_{name}{{limit=\"{limit}\"}}");
            ensure!(metrics.get(&name) == Some(&number), "{name}: {metrics:?}");
        }
        Ok(())
    })
}
