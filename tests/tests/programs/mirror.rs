//! `mirror`: what clients of HAProxy see of a service that gets copies (nothing), and what the service sees.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::Signal;
use spop_tests::agent::Agent;
use spop_tests::haproxy::Binary;
use spop_tests::http::{Client, Request};
use spop_tests::load::concurrently;
use spop_tests::process::{descriptors, resident};
use spop_tests::shipped::{Running, Shipped, certificate};
use spop_tests::wait::{PATIENCE, until, until_true};

const AGENT: &str = "127.0.0.1:12405";
const WEB: &str = "127.0.0.1:10405";
const APPLICATION: &str = "127.0.0.1:10406";
const SERVICE: &str = "127.0.0.1:12406";
const STATUS: &str = "127.0.0.1:9405";

/// No request waits for the service, which would take much longer. HAProxy does not wait longer than this for the agent.
const SOON: Duration = Duration::from_secs(2);

/// The shipped files, the agent, and HAProxy.
struct Scene {
    files: Shipped,
    agent: Agent,
    _haproxy: Running,
}

impl Scene {
    /// Copies go to this service; if there is none, to that of the shipped configuration.
    fn new(binary: &Binary, service: Option<SocketAddr>, args: &[&str]) -> Result<Self> {
        Self::edited(binary, service, args, &[])
    }

    /// The same with changes to the shipped configuration.
    fn edited(
        binary: &Binary,
        service: Option<SocketAddr>,
        args: &[&str],
        edits: &[(&str, &str)],
    ) -> Result<Self> {
        let files = Shipped::copy("spop-tokio/examples/mirror", &[AGENT, WEB, APPLICATION, SERVICE, STATUS])?;
        // On a busy machine an answer may take longer than it should.
        files.edit("spoe.conf", "timeout processing 50ms", "timeout processing 5s")?;
        files.edit("haproxy.cfg", "timeout connect 5s", "timeout connect 5s\n    timeout check 2s")?;
        files.edit("haproxy.cfg", "inter 1s", "inter 50ms")?;
        for (old, new) in edits {
            files.edit("haproxy.cfg", old, new)?;
        }
        let service = format!("http://{}", service.map_or_else(|| files.address(SERVICE), Ok)?);
        let processing = ["--processing", "5s"];
        let upstream = if args.contains(&"--upstream") { vec![] } else { vec!["--upstream", &*service] };
        let agent = files.program(&[&upstream, &processing[..], args].concat())?;
        let haproxy = files.haproxy(binary, "haproxy.cfg", WEB)?;
        Ok(Self { files, agent, _haproxy: haproxy })
    }

    /// Sends a request, which the application answers.
    fn send(&self, request: &Request) -> Result<()> {
        let reply = request.send(self.files.address(WEB)?)?;
        ensure!((reply.status, &*reply.body) == (200, "the application\n"), "{reply:?}");
        reply.expect_within(SOON)
    }

    /// The counts that the agent logs when it is asked.
    fn counts(&self) -> Result<Counts> {
        let before = self.files.log()?.len();
        self.agent.signal(Signal::USR1)?;
        until("the counts are logged", PATIENCE, || {
            Ok(Counts::last(self.files.log()?.get(before..).unwrap_or_default()))
        })
    }

    /// Waits until this many copies have come to some end.
    fn wait_for(&self, copies: u64) -> Result<Counts> {
        until("all copies have ended", PATIENCE, || {
            Ok(Some(self.counts()?).filter(|counts| counts.sum() == copies))
        })
        .with_context(|| format!("{:?}", self.counts()))
    }
}

/// Numbers of copies, by the names of the log.
#[derive(Debug)]
struct Counts(BTreeMap<String, u64>);

impl Counts {
    fn last(log: &str) -> Option<Self> {
        let line = log.lines().rfind(|line| line.contains(" answered="))?;
        let pairs = line.split(' ').filter_map(|word| word.split_once('='));
        Some(Self(pairs.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect()))
    }

    fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or_default()
    }

    fn sum(&self) -> u64 {
        ["answered", "queue_full", "memory_full", "waited", "late", "failed", "invalid", "looped"]
            .iter()
            .map(|name| self.get(name))
            .sum()
    }
}

/// Plays it with the oldest HAProxy and with the newest.
fn with_each(scenario: impl Fn(&Binary) -> Result<()>) -> Result<()> {
    for version in ["2.6", "3.4"] {
        scenario(&Binary::of(version)?).with_context(|| format!("with HAProxy {version}"))?;
    }
    Ok(())
}

/// A request as the service gets it.
#[derive(Debug)]
struct Copy {
    /// The first line and the headers.
    head: String,
    body: Vec<u8>,
}

impl Copy {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// A service that answers after a time, and hands out what it gets.
fn service(delay: Duration) -> Result<(SocketAddr, Receiver<Copy>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let (told, heard) = channel();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let told = told.clone();
            // A copy that the agent has given up ends its connection.
            thread::spawn(move || serve(stream, delay, &told));
        }
    });
    Ok((address, heard))
}

fn serve(stream: TcpStream, delay: Duration, told: &Sender<Copy>) -> Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            ensure!(stream.read_line(&mut head)? > 0, "the end");
        }
        let mut copy = Copy { head, body: Vec::new() };
        copy.body.resize(copy.header("content-length").unwrap_or("0").parse()?, 0);
        stream.read_exact(&mut copy.body)?;
        sleep(delay);
        // The test may have what it wants.
        let _ = told.send(copy);
        stream.get_mut().write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?;
    }
}

fn next(copies: &Receiver<Copy>) -> Result<Copy> {
    copies.recv_timeout(PATIENCE).context("no copy")
}

#[test]
fn the_service_gets_what_the_client_has_sent() -> Result<()> {
    with_each(|binary| {
        let (service, copies) = service(Duration::ZERO)?;
        let scene = Scene::new(binary, Some(service), &[])?;
        scene.send(&Request::get("/a?b=%20c").header("cookie", "d=e"))?;
        let copy = next(&copies)?;
        ensure!(copy.head.starts_with("GET /a?b=%20c HTTP/1.1\r\n"), "{copy:?}");
        let headers = [
            ("host", Some("test")),
            ("cookie", Some("d=e")),
            ("x-forwarded-for", Some("127.0.0.1")),
            ("x-mirror-body", None),
            ("content-length", None),
            ("connection", None),
        ];
        for (name, value) in headers {
            ensure!(copy.header(name) == value, "{name}: {copy:?}");
        }
        for size in [1, 10_000, 50_000] {
            let body: Vec<u8> = (0..size).map(|n: usize| n.to_le_bytes()[0]).collect();
            scene.send(&Request::post("/form", body.clone()))?;
            let copy = next(&copies)?;
            ensure!(copy.head.starts_with("POST /form HTTP/1.1\r\n"), "{}", copy.head);
            ensure!(copy.body == body, "{} of {size} bytes", copy.body.len());
            ensure!(copy.header("x-mirror-body") == Some("whole"), "{}", copy.head);
        }
        let counts = scene.wait_for(4)?;
        ensure!(counts.get("answered") == 4 && counts.get("cut") == 0, "{counts:?}");
        Ok(())
    })
}

#[test]
fn a_client_cannot_choose_to_have_no_copy_uncounted() -> Result<()> {
    with_each(|binary| {
        let (service, copies) = service(Duration::ZERO)?;
        let scene = Scene::new(binary, Some(service), &[])?;
        for (path, sent) in [
            ("/<script>", "/%3Cscript%3E"),
            ("/q?<script>", "/q?%3Cscript%3E"),
            ("/q?a=\"b\"", "/q?a=%22b%22"),
        ] {
            scene.send(&Request::get(path))?;
            let copy = next(&copies)?;
            ensure!(copy.head.starts_with(&format!("GET {sent} HTTP/1.1\r\n")), "{copy:?}");
        }
        scene.send(&Request::options("*"))?;
        let copy = next(&copies)?;
        ensure!(copy.head.starts_with("OPTIONS * HTTP/1.1\r\n"), "{copy:?}");
        scene.send(&Request::get("/").header("x-a", "\x01"))?;
        next(&copies)?;
        let counts = scene.wait_for(5)?;
        ensure!((counts.get("answered"), counts.get("invalid")) == (5, 0), "{counts:?}");
        Ok(())
    })
}

#[test]
fn copies_that_come_back_are_not_copied_again() -> Result<()> {
    with_each(|binary| {
        let files = Shipped::copy("spop-tokio/examples/mirror", &[AGENT, WEB, APPLICATION, SERVICE])?;
        files.edit("spoe.conf", "timeout processing 50ms", "timeout processing 5s")?;
        let itself = format!("http://{}", files.address(WEB)?);
        let agent = files.program(&["--upstream", &itself, "--processing", "5s"])?;
        let haproxy = files.haproxy(binary, "haproxy.cfg", WEB)?;
        let scene = Scene { files, agent, _haproxy: haproxy };
        for _ in 0..3 {
            scene.send(&Request::get("/"))?;
        }
        let counts = scene.wait_for(6)?;
        ensure!((counts.get("answered"), counts.get("looped")) == (3, 3), "{counts:?}");
        Ok(())
    })
}

#[test]
fn a_copy_says_that_its_body_was_cut() -> Result<()> {
    with_each(|binary| {
        let (service, copies) = service(Duration::ZERO)?;
        // It reads the whole request before it answers; that of the configuration does not.
        let (application, originals) = self::service(Duration::ZERO)?;
        let application = format!("server app1 {application} #");
        let scene = Scene::edited(binary, Some(service), &[], &[("server app1 ", &application)])?;
        // Longer than HAProxy's buffer.
        let reply = Request::post("/long", vec![b'x'; 200_000]).send(scene.files.address(WEB)?)?;
        ensure!(reply.status == 204 && next(&originals)?.body.len() == 200_000, "{reply:?}");
        let copy = next(&copies)?;
        let length = copy.body.len();
        ensure!((60_000..65_536).contains(&length), "{length} bytes");
        let cut = format!("cut; {length} of 200000 bytes");
        ensure!(copy.header("x-mirror-body") == Some(&*cut), "{}", copy.head);
        let counts = scene.wait_for(1)?;
        ensure!(counts.get("answered") == 1 && counts.get("cut") == 1, "{counts:?}");
        Ok(())
    })
}

#[test]
fn the_shipped_configuration_shows_the_copies() -> Result<()> {
    with_each(|binary| {
        let scene = Scene::new(binary, None, &["--host", "shadow"])?;
        scene.send(&Request::post("/try", "it"))?;
        let line = "copy: POST /try of 127.0.0.1, body whole";
        until_true("HAProxy logs the copy", PATIENCE, || Ok(scene.files.haproxy_log()?.contains(line)))
            .with_context(|| scene.files.haproxy_log().unwrap_or_default())
    })
}

#[test]
fn a_share_of_the_requests_is_copied() -> Result<()> {
    with_each(|binary| {
        let (service, _copies) = service(Duration::ZERO)?;
        let scene = Scene::new(binary, Some(service), &["--sample", "30"])?;
        let mut client = Client::connect(scene.files.address(WEB)?)?;
        for _ in 0..500 {
            ensure!(client.send(&Request::get("/"))?.status == 200, "not served");
        }
        let counts = until("all have ended", PATIENCE, || {
            Ok(Some(scene.counts()?).filter(|counts| counts.sum() + counts.get("not_sampled") == 500))
        })?;
        // Six standard deviations.
        ensure!((88..=212).contains(&counts.sum()), "{counts:?}");
        Ok(())
    })
}

/// What clients see, and what the agent takes, while the service is as it is. How many requests were served.
fn load(scene: &Scene, clients: usize, time: Duration) -> Result<u64> {
    let (web, body) = (scene.files.address(WEB)?, vec![b'x'; 2_000]);
    let served = concurrently(clients, |_| {
        let (mut client, mut count, start) = (Client::connect(web)?, 0, Instant::now());
        while start.elapsed() < time {
            let reply = client.send(&Request::post("/load", body.clone()))?;
            ensure!(reply.status == 200, "{reply:?}");
            reply.expect_within(SOON)?;
            count += 1;
        }
        Ok(count)
    })?;
    Ok(served.iter().sum())
}

/// Clients see nothing of this service, and it takes no memory, no more connections than it may, and no more copies. How many requests there
/// were, and what became of their copies.
fn is_not_noticed(scene: &Scene) -> Result<(u64, Counts)> {
    let start = Instant::now();
    let first = load(scene, 8, Duration::from_secs(3))?;
    scene.wait_for(first)?;
    let before = resident(scene.agent.id())?;
    let second = load(scene, 8, Duration::from_secs(3))?;
    let open = descriptors(scene.agent.id())?;
    ensure!(open < 64, "{open} descriptors");
    let counts = scene.wait_for(first + second)?;
    let grown = resident(scene.agent.id())?.saturating_sub(before);
    ensure!(grown < 2_048, "{grown} KiB more");
    // Clients that waited for the service would have 480.
    ensure!(first > 600 && second > 600, "{first} and {second} requests");
    // Each copy of the queue takes 300 ms or is answered; 200 are there at once.
    let most =
        200 * (start.elapsed().as_millis() as u64 / 300 + 2) + counts.get("answered") + counts.get("failed");
    ensure!(counts.sum() - counts.get("queue_full") < most, "{counts:?} and not {most}");
    Ok((first + second, counts))
}

const LIMITS: [&str; 6] = ["--timeout", "300ms", "--queue", "200", "--connections", "8"];

#[test]
fn clients_do_not_notice_a_slow_service() -> Result<()> {
    with_each(|binary| {
        // Eight connections have 160 replies a second.
        let (service, copies) = service(Duration::from_millis(50))?;
        let drain = thread::spawn(move || copies.into_iter().count());
        let scene = Scene::new(binary, Some(service), &LIMITS)?;
        let (sent, counts) = is_not_noticed(&scene)?;
        // It has as many as it can answer in six seconds; half of that, on a busy machine.
        ensure!(counts.get("answered") > 480, "{counts:?} of {sent}");
        ensure!(counts.get("waited") > 0 && counts.get("queue_full") > 0, "{counts:?} of {sent}");
        // On a busy machine a few wait for longer than the service makes them.
        let given_up = counts.get("late") * 20 > counts.get("answered");
        ensure!(!given_up, "what it has begun to answer was given up: {counts:?} of {sent}");
        let log = scene.files.log()?;
        for reason in ["loss=Waited", "loss=Queue"] {
            ensure!(log.matches(reason).count() == 1, "{log}");
        }
        drop((scene, drain));
        Ok(())
    })
}

#[test]
fn clients_do_not_notice_a_service_that_does_not_answer() -> Result<()> {
    with_each(|binary| {
        // The system accepts its connections.
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let scene = Scene::new(binary, Some(listener.local_addr()?), &LIMITS)?;
        let (sent, counts) = is_not_noticed(&scene)?;
        ensure!(counts.get("answered") == 0, "{counts:?} of {sent}");
        ensure!(counts.get("late") > 8 && counts.get("queue_full") > 0, "{counts:?} of {sent}");
        let log = scene.files.log()?;
        ensure!(log.matches("loss=Late").count() == 1 && log.matches("loss=Queue").count() == 1, "{log}");
        Ok(())
    })
}

#[test]
fn clients_do_not_notice_a_dead_service_and_it_gets_copies_when_it_is_back() -> Result<()> {
    with_each(|binary| {
        // No other test has ports of this address.
        let listener = TcpListener::bind("127.0.77.1:0")?;
        let address = listener.local_addr()?;
        drop(listener);
        let scene = Scene::new(binary, Some(address), &LIMITS)?;
        let (sent, counts) = is_not_noticed(&scene)?;
        ensure!(counts.get("answered") == 0, "{counts:?} of {sent}");
        ensure!(counts.get("failed") > 8, "{counts:?} of {sent}");
        let log = scene.files.log()?;
        ensure!(log.matches("loss=Failed").count() == 1, "{log}");
        ensure!(log.contains("Connection refused"), "it does not say why: {log}");
        let listener = TcpListener::bind(address)?;
        scene.send(&Request::get("/back"))?;
        let (mut stream, mut line) = (BufReader::new(listener.accept()?.0), String::new());
        stream.read_line(&mut line)?;
        ensure!(line == "GET /back HTTP/1.1\r\n", "{line}");
        Ok(())
    })
}

#[test]
fn a_shutdown_waits_for_copies_within_its_time() -> Result<()> {
    with_each(|binary| {
        let (service, copies) = service(Duration::from_millis(700))?;
        let mut scene = Scene::new(binary, Some(service), &["--connections", "1"])?;
        for number in 0..3 {
            scene.send(&Request::get(&format!("/{number}")))?;
        }
        scene.agent.terminate()?;
        for number in 0..3 {
            let copy = next(&copies)?;
            ensure!(copy.head.starts_with(&format!("GET /{number} ")), "{copy:?}");
        }
        let status = scene.agent.wait_for_end(PATIENCE)?;
        let counts = Counts::last(&scene.files.log()?).context("no counts")?;
        ensure!(status.success() && counts.get("answered") == 3, "{status}: {counts:?}");

        // What does not end in time is left.
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let args = ["--timeout", "60s", "--drain", "1s"];
        let mut scene = Scene::new(binary, Some(listener.local_addr()?), &args)?;
        scene.send(&Request::get("/"))?;
        let start = Instant::now();
        scene.agent.terminate()?;
        let status = scene.agent.wait_for_end(PATIENCE)?;
        let took = start.elapsed();
        ensure!(status.success() && took >= Duration::from_millis(900), "{status} after {took:?}");
        ensure!(took < Duration::from_secs(5), "{took:?}");
        Ok(())
    })
}

#[test]
fn the_status_page_has_what_became_of_the_copies() -> Result<()> {
    with_each(|binary| {
        let scene = Scene::new(binary, None, &["--status", STATUS])?;
        scene.send(&Request::get("/"))?;
        scene.wait_for(1)?;
        let metrics = scene.files.metrics(STATUS)?;
        for (name, count) in [("answered", 1.0), ("failed", 0.0)] {
            ensure!(metrics.get(&format!("mirror_{name}_total")) == Some(&count), "{name}: {metrics:?}");
        }
        ensure!(metrics.get("spop_acks_total") == Some(&1.0), "{metrics:?}");
        Ok(())
    })
}

#[test]
fn a_service_with_tls_gets_copies_if_its_certificate_is_trusted() -> Result<()> {
    let dirs = [tempfile::tempdir()?, tempfile::tempdir()?];
    let [service, authority] = certificate(dirs[0].path())?;
    let [_, other] = certificate(dirs[1].path())?;
    let (plain, tls) = (format!("bind {SERVICE}\n"), format!("bind {SERVICE} ssl crt {service}\n"));
    let url = format!("https://{SERVICE}");
    with_each(|binary| {
        for (authority, end) in [(&authority, "answered"), (&other, "failed")] {
            let args = ["--upstream", &url, "--upstream-ca", authority];
            let scene = Scene::edited(binary, None, &args, &[(&plain, &tls)])?;
            scene.send(&Request::get("/"))?;
            let counts = scene.wait_for(1)?;
            ensure!(counts.get(end) == 1, "{end}: {counts:?}");
            let log = scene.files.log()?;
            ensure!(log.contains("invalid peer certificate") == (end == "failed"), "{log}");
        }
        Ok(())
    })
}
