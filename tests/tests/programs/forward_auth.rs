//! `forward-auth`: what clients of HAProxy see of the service's decisions, and of the policy when there is none.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use spop_tests::agent::Agent;
use spop_tests::haproxy::Binary;
use spop_tests::http::{Client, Reply, Request, record};
use spop_tests::load::concurrently;
use spop_tests::ports;
use spop_tests::process::{descriptors, resident};
use spop_tests::shipped::{Running, Shipped, certificate};
use spop_tests::wait::{PATIENCE, until_true};

const AGENT: &str = "127.0.0.1:12401";
const WEB: &str = "127.0.0.1:10401";
const APPLICATION: &str = "127.0.0.1:10402";
const SERVICE: &str = "127.0.0.1:12402";
const STATUS: &str = "127.0.0.1:9401";

/// What hangs would take 20 s, and HAProxy gives up after 500 ms, or 5 s where it is not to be hurried.
const SOON: Duration = Duration::from_secs(4);

/// The shipped files, the agent, and HAProxy.
struct Scene {
    files: Shipped,
    agent: Agent,
    _haproxy: Running,
}

impl Scene {
    fn new(binary: &Binary, args: &[&str], edits: &[(&str, &str, &str)]) -> Result<Self> {
        let files =
            Shipped::copy("spop-tokio/examples/forward-auth", &[AGENT, WEB, APPLICATION, SERVICE, STATUS])?;
        for (file, old, new) in edits {
            files.edit(file, old, new)?;
        }
        let service = format!("http://{}/", files.address(SERVICE)?);
        let args = if args.contains(&"--upstream") {
            args.to_vec()
        } else {
            [&["--upstream", &service], args].concat()
        };
        let agent = files.program(&args)?;
        let haproxy = files.haproxy(binary, "haproxy.cfg", WEB)?;
        Ok(Self { files, agent, _haproxy: haproxy })
    }

    fn web(&self) -> Result<SocketAddr> {
        self.files.address(WEB)
    }

    fn send(&self, request: &Request) -> Result<Reply> {
        request.send(self.web()?)
    }
}

/// What a busy machine needs for the decisions themselves.
const UNHURRIED: [&str; 4] = ["--timeout", "4s", "--processing", "5s"];
const UNHURRIED_HAPROXY: (&str, &str, &str) =
    ("spoe.conf", "timeout processing 500ms", "timeout processing 5s");

/// Plays it with the oldest HAProxy and with the newest.
fn with_each(scenario: impl Fn(&Binary) -> Result<()>) -> Result<()> {
    for version in ["2.6", "3.4"] {
        scenario(&Binary::of(version)?).with_context(|| format!("with HAProxy {version}"))?;
    }
    Ok(())
}

fn expect(reply: &Reply, status: u16, headers: &[(&str, Option<&str>)]) -> Result<()> {
    ensure!(reply.status == status, "{reply:?} has not the status {status}");
    for (name, value) in headers {
        ensure!(reply.header(name) == *value, "{name} is not {value:?}: {reply:?}");
    }
    Ok(())
}

#[test]
fn the_shipped_configuration_does_what_the_service_says() -> Result<()> {
    with_each(|binary| {
        let scene = Scene::new(binary, &UNHURRIED, &[UNHURRIED_HAPROXY])?;
        let denied = scene.send(&Request::get("/a?b"))?;
        expect(&denied, 401, &[("www-authenticate", Some("Bearer realm=demo")), ("set-cookie", None)])?;
        let known = Request::get("/a").header("authorization", "Bearer secret");
        for spoofed in ["remote-user", "Remote_User", "remote-groups"] {
            let allowed = scene.send(&known.clone().header(spoofed, "root"))?;
            expect(&allowed, 200, &[("set-cookie", Some("seen=1")), ("www-authenticate", None)])?;
            ensure!(allowed.body == "hello alice\n", "{allowed:?}");
        }
        let browser = scene.send(&Request::get("/a?b=c").header("accept", "text/html"))?;
        expect(
            &browser,
            302,
            &[("location", Some("https://login.example/?to=http%3A%2F%2Ftest%2Fa%3Fb%3Dc"))],
        )
    })
}

#[test]
fn headers_that_the_application_trusts_come_from_the_service_alone() -> Result<()> {
    // The service allows and names nobody; the application says what it got.
    let service = ("haproxy.cfg", "hdr remote-user alice", "");
    let application = (
        "haproxy.cfg",
        "hello %[req.hdr(remote-user)]",
        "%[req.hdr(remote-user)]%[req.hdr(remote_user)]%[req.hdr(remote-email)]",
    );
    with_each(|binary| {
        let scene = Scene::new(binary, &UNHURRIED, &[UNHURRIED_HAPROXY, service, application])?;
        let known = Request::get("/").header("authorization", "Bearer secret");
        for spoofed in ["remote-user", "Remote_User", "remote-email"] {
            let allowed = scene.send(&known.clone().header(spoofed, "root"))?;
            expect(&allowed, 200, &[])?;
            ensure!(allowed.body == "\n", "{allowed:?}");
        }
        Ok(())
    })
}

#[test]
fn a_denial_has_the_status_and_the_headers_of_the_service() -> Result<()> {
    let replies = "acl known req.hdr(authorization) \"Bearer secret\"\n    \
        http-request return status 429 hdr retry-after 7 hdr set-cookie a=1 hdr set-cookie b=2 hdr remote-user root if { req.hdr(x-original-uri) /429 }\n    \
        http-request return status 404 if { req.hdr(x-original-uri) /404 }\n    \
        http-request return status 307 hdr location /login if { req.hdr(x-original-uri) /307 }\n    \
        http-request return status 418 hdr cache-control no-store if { req.hdr(x-original-uri) /418 }\n    \
        http-request return status 403 if { req.hdr(x-forwarded-method) POST }";
    let edit = ("haproxy.cfg", "acl known req.hdr(authorization) \"Bearer secret\"", replies);
    with_each(|binary| {
        let scene = Scene::new(binary, &UNHURRIED, &[UNHURRIED_HAPROXY, edit])?;
        let get = |path| scene.send(&Request::get(path));
        let limited = get("/429")?;
        expect(
            &limited,
            429,
            &[("retry-after", Some("7")), ("set-cookie", Some("a=1")), ("remote-user", None)],
        )?;
        let cookies: Vec<_> = limited.header_all("set-cookie").collect();
        ensure!(cookies == ["a=1", "b=2"], "{cookies:?}");
        expect(&get("/404")?, 404, &[])?;
        expect(&get("/307")?, 307, &[("location", Some("/login"))])?;
        expect(&get("/418")?, 403, &[("cache-control", Some("no-store"))])?;
        expect(&scene.send(&Request::post("/", "a=b"))?, 403, &[])
    })
}

#[test]
fn several_values_of_a_header_reach_the_application_as_one() -> Result<()> {
    let service = (
        "haproxy.cfg",
        "hdr remote-user alice",
        "hdr remote-user alice hdr remote-groups users hdr remote-groups admins",
    );
    let application = ("haproxy.cfg", "hello %[req.hdr(remote-user)]", "%[req.fhdr(remote-groups)]");
    with_each(|binary| {
        let scene = Scene::new(binary, &UNHURRIED, &[UNHURRIED_HAPROXY, service, application])?;
        let allowed = scene.send(&Request::get("/").header("authorization", "Bearer secret"))?;
        ensure!(allowed.body == "users, admins\n", "{allowed:?}");
        Ok(())
    })
}

#[test]
fn a_client_takes_no_header_from_the_application_and_adds_none_behind_the_body() -> Result<()> {
    with_each(|binary| {
        let (application, requests) =
            record("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")?;
        let server = format!("server app1 {application} #");
        let edits = [UNHURRIED_HAPROXY, ("haproxy.cfg", "server app1 ", &server)];
        let scene = Scene::new(binary, &UNHURRIED, &edits)?;
        let got = |request: Request| -> Result<String> {
            let reply = scene.web().and_then(|web| {
                let known = request.header("authorization", "Bearer secret");
                Client::connect(web)?.send(&known)
            })?;
            ensure!(reply.status == 200, "{reply:?}");
            Ok(requests.recv_timeout(PATIENCE)?)
        };
        for named in ["remote-user", "close, Remote-User", "keep-alive, remote-user, x"] {
            let request = got(Request::get("/").header("connection", named))?;
            ensure!(request.contains("remote-user: alice\r\n"), "{request}");
            ensure!(!request.to_ascii_lowercase().contains("connection: "), "{request}");
        }
        let upgrade =
            Request::get("/").header("connection", "Upgrade, remote-user").header("upgrade", "example");
        let request = got(upgrade)?.to_ascii_lowercase();
        ensure!(
            request.contains("connection: upgrade\r\n") && request.contains("upgrade: example"),
            "{request}"
        );
        let trailer = Request::get("/").header("transfer-encoding", "chunked");
        let request = got(trailer.body("1\r\na\r\n0\r\nremote-user: root\r\n\r\n"))?;
        // As the README says, HAProxy before 3.2 cannot drop it.
        ensure!(request.contains("root") != binary.is_at_least(3, 2), "{request}");
        Ok(())
    })
}

// ---- failures ----

/// A service that is slow, until it is told to allow all.
struct Service {
    url: String,
    allows: Arc<AtomicBool>,
    questions: Arc<AtomicUsize>,
}

impl Service {
    fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}/", listener.local_addr()?);
        let (allows, questions) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let service = Self { url, allows: Arc::clone(&allows), questions: Arc::clone(&questions) };
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (allows, questions) = (Arc::clone(&allows), Arc::clone(&questions));
                // It ends when the agent closes.
                thread::spawn(move || serve(stream, &allows, &questions));
            }
        });
        Ok(service)
    }
}

fn serve(mut stream: TcpStream, allows: &AtomicBool, questions: &AtomicUsize) -> Result<()> {
    let mut head = Vec::new();
    let mut part = [0; 4096];
    loop {
        let read = stream.read(&mut part)?;
        ensure!(read > 0, "the end");
        head.extend_from_slice(&part[..read]);
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            questions.fetch_add(1, Ordering::Relaxed);
            if allows.load(Ordering::Relaxed) {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nremote-user: bob\r\n\r\n")?;
            }
        }
    }
}

/// What clients saw, and the longest wait of any.
#[derive(Debug)]
struct Seen {
    statuses: BTreeMap<u16, usize>,
    slowest: Duration,
}

/// Clients that ask so many times each, one question after the other.
fn load(web: SocketAddr, clients: usize, times: usize) -> Result<Seen> {
    let replies = concurrently(clients, |client| {
        let mut connection = Client::connect(web)?;
        (0..times)
            .map(|time| connection.send(&Request::get(&format!("/{client}/{time}")).header("cookie", "a=b")))
            .collect::<Result<Vec<_>>>()
    })?;
    let mut seen = Seen { statuses: BTreeMap::new(), slowest: Duration::ZERO };
    for reply in replies.into_iter().flatten() {
        *seen.statuses.entry(reply.status).or_default() += 1;
        seen.slowest = seen.slowest.max(reply.took);
    }
    Ok(seen)
}

/// That clients see nothing but this status, wait no longer than HAProxy would, and the agent keeps nothing of it.
fn expect_policy(scene: &Scene, status: u16, rounds: usize) -> Result<()> {
    const CLIENTS: usize = 32;
    let held =
        || -> Result<(u64, usize)> { Ok((resident(scene.agent.id())?, descriptors(scene.agent.id())?)) };
    let web = scene.web()?;
    // Its threads and their memory.
    load(web, CLIENTS, rounds)?;
    let (memory, open) = held()?;
    for _ in 0..3 {
        let start = Instant::now();
        let seen = load(web, CLIENTS, rounds)?;
        ensure!(seen.statuses == BTreeMap::from([(status, CLIENTS * rounds)]), "{seen:?}");
        ensure!(seen.slowest < SOON, "{seen:?} after {:?}", start.elapsed());
    }
    let (memory_after, open_after) = held()?;
    let grown = memory_after.saturating_sub(memory);
    println!("{status}: {memory} KiB and {grown} more, {open} descriptors and then {open_after}");
    ensure!(grown < 1024, "{grown} KiB more than {memory}");
    ensure!(open_after < open + CLIENTS, "{open_after} descriptors, and {open} before");
    Ok(())
}

#[test]
fn a_slow_service_costs_its_timeout_and_has_the_policy_that_was_chosen() -> Result<()> {
    with_each(|binary| {
        for (policy, status) in [("deny", 503), ("allow", 200)] {
            let service = Service::start()?;
            let args = [
                "--upstream",
                &service.url,
                "--on-failure",
                policy,
                "--timeout",
                "100ms",
                "--processing",
                "5s",
            ];
            let scene = Scene::new(binary, &args, &[UNHURRIED_HAPROXY])?;
            expect_policy(&scene, status, 5)?;
            ensure!(service.questions.load(Ordering::Relaxed) > 500, "it was not asked");
            // As soon as it decides again, its decisions count.
            service.allows.store(true, Ordering::Relaxed);
            until_true("the service is believed", PATIENCE, || {
                Ok(scene.send(&Request::get("/"))?.body == "hello bob\n")
            })?;
            let log = scene.files.log()?;
            ensure!(log.contains("no answer within 100ms"), "{log}");
            ensure!(log.lines().count() < 100, "each failure is logged: {} lines", log.lines().count());
        }
        Ok(())
    })
}

#[test]
fn a_dead_service_has_the_policy_that_was_chosen() -> Result<()> {
    with_each(|binary| {
        for (policy, status) in [("deny", 503), ("allow", 200)] {
            let nowhere = ports::free(1)?.pop().context("no port")?;
            let url = format!("http://{}/", nowhere.address());
            let args = [&["--upstream", &url, "--on-failure", policy], UNHURRIED.as_slice()].concat();
            let scene = Scene::new(binary, &args, &[UNHURRIED_HAPROXY])?;
            expect_policy(&scene, status, 50)?;
            let log = scene.files.log()?;
            ensure!(log.contains("onnection refused"), "{log}");
        }
        Ok(())
    })
}

#[test]
fn more_questions_than_the_limit_do_not_wait() -> Result<()> {
    with_each(|binary| {
        let service = Service::start()?;
        let args =
            ["--upstream", &service.url, "--max-in-flight", "4", "--timeout", "400ms", "--processing", "5s"];
        let scene = Scene::new(binary, &args, &[UNHURRIED_HAPROXY])?;
        let (web, times) = (scene.web()?, Duration::from_millis(400) * 4);
        let start = Instant::now();
        let seen = load(web, 32, 4)?;
        ensure!(seen.statuses == BTreeMap::from([(503, 128)]), "{seen:?}");
        // All in a row would take eight times as long.
        ensure!(start.elapsed() < times * 2, "{:?}", start.elapsed());
        let asked = service.questions.load(Ordering::Relaxed);
        ensure!((4..64).contains(&asked), "{asked} questions");
        let log = scene.files.log()?;
        ensure!(log.contains("max_in_flight"), "{log}");
        Ok(())
    })
}

#[test]
fn without_the_agent_requests_are_denied_unless_the_rules_are_those_of_the_readme() -> Result<()> {
    let readme = include_str!("../../../spop-tokio/examples/forward-auth/README.md");
    let open =
        readme.split("```haproxy\n").nth(1).and_then(|rest| rest.split("```").next()).context("no recipe")?;
    let closed = "    http-request return status 503 content-type text/plain string \"no decision\\n\" unless { var(txn.auth.allowed) -m found }\n";
    let edits = [
        ("haproxy.cfg", closed, ""),
        ("haproxy.cfg", "    acl allowed var(txn.auth.allowed) -m bool\n", open),
    ];
    with_each(|binary| {
        for (edits, status) in [([].as_slice(), 503), (&edits, 200)] {
            let mut scene = Scene::new(binary, &[], edits)?;
            until_true("a decision", PATIENCE, || Ok(scene.send(&Request::get("/"))?.status == 401))?;
            scene.agent.kill()?;
            for _ in 0..3 {
                let reply = scene.send(&Request::get("/"))?;
                expect(&reply, status, &[("www-authenticate", None)])?;
                reply.expect_within(SOON)?;
            }
            // Another error with HAProxy up to 3.0.
            until_true("HAProxy takes the agent out", PATIENCE, || {
                Ok(scene.files.haproxy_log()?.contains("agents/agent1 is DOWN"))
            })?;
            expect(&scene.send(&Request::get("/"))?, status, &[("www-authenticate", None)])?;
        }
        Ok(())
    })
}

#[test]
fn it_ends_when_it_is_told_to() -> Result<()> {
    let mut scene = Scene::new(&Binary::of("3.4")?, &UNHURRIED, &[UNHURRIED_HAPROXY])?;
    expect(&scene.send(&Request::get("/"))?, 401, &[])?;
    scene.agent.terminate()?;
    let status = scene.agent.wait_for_end(PATIENCE)?;
    ensure!(status.success(), "{status}");
    Ok(())
}

#[test]
fn the_status_page_has_what_the_server_counts() -> Result<()> {
    with_each(|binary| {
        let args = [&UNHURRIED[..], &["--status", STATUS]].concat();
        let scene = Scene::new(binary, &args, &[UNHURRIED_HAPROXY])?;
        for _ in 0..3 {
            expect(&scene.send(&Request::get("/"))?, 401, &[])?;
        }
        let metrics = scene.files.metrics(STATUS)?;
        let counted = ["asked", "denied"].map(|name| format!("forward_auth_{name}_total"));
        ensure!(counted.iter().all(|name| metrics.get(name) == Some(&3.0)), "{metrics:?}");
        let failed = "forward_auth_failed_total{policy=\"deny\"}";
        ensure!(metrics.get(failed) == Some(&0.0), "{metrics:?}");
        let took = "spop_handler_seconds_count{message=\"check-request\"}";
        ensure!([took, "spop_acks_total"].iter().all(|name| metrics.get(*name) == Some(&3.0)), "{metrics:?}");
        Ok(())
    })
}

#[test]
fn the_service_and_the_application_are_in_the_trace_of_the_request() -> Result<()> {
    // The service names its trace as the user, and the application says both.
    let service = ("haproxy.cfg", "hdr remote-user alice", "hdr remote-user %[req.hdr(traceparent)]");
    let application =
        ("haproxy.cfg", "hello %[req.hdr(remote-user)]", "%[req.hdr(remote-user)] %[req.hdr(traceparent)]");
    with_each(|binary| {
        let scene = Scene::new(binary, &UNHURRIED, &[UNHURRIED_HAPROXY, service, application])?;
        let known = Request::get("/").header("authorization", "Bearer secret");
        let given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let mut traces = Vec::new();
        for request in [known.clone(), known.clone(), known.header("traceparent", given)] {
            let reply = scene.send(&request)?;
            let of = |traceparent: &str| -> Option<[String; 4]> {
                traceparent.split('-').map(str::to_owned).collect::<Vec<_>>().try_into().ok()
            };
            let both = reply
                .body
                .trim_end()
                .split_once(' ')
                .and_then(|(service, application)| Some((of(service)?, of(application)?)));
            let (service, application) = both.with_context(|| format!("{reply:?}"))?;
            ensure!(service[1] == application[1], "not the same trace: {reply:?}");
            ensure!(service[2] != application[2] && service[2].len() == 16, "no span: {reply:?}");
            traces.push(application.join("-"));
        }
        ensure!(traces[0] != traces[1] && traces[2] == given, "{traces:?}");
        Ok(())
    })
}

#[test]
fn a_service_with_tls_decides_if_its_certificate_is_trusted() -> Result<()> {
    let dirs = [tempfile::tempdir()?, tempfile::tempdir()?];
    let [service, authority] = certificate(dirs[0].path())?;
    let [_, other] = certificate(dirs[1].path())?;
    let (plain, tls) = (format!("bind {SERVICE}\n"), format!("bind {SERVICE} ssl crt {service}\n"));
    let edits = [UNHURRIED_HAPROXY, ("haproxy.cfg", &plain, &tls)];
    let url = format!("https://{SERVICE}/");
    let known = Request::get("/").header("authorization", "Bearer secret");
    with_each(|binary| {
        for (authority, status) in [(&authority, 200), (&other, 503)] {
            let args = [&UNHURRIED[..], &["--upstream", &url, "--upstream-ca", authority]].concat();
            let scene = Scene::new(binary, &args, &edits)?;
            expect(&scene.send(&known)?, status, &[])?;
            let log = scene.files.log()?;
            ensure!(log.contains("invalid peer certificate") == (status == 503), "{log}");
        }
        Ok(())
    })
}
