//! The instructions per NOTIFY of the adapters, counted by valgrind's callgrind, and a check against the recorded figures.
//!
//! Everything that the agent's process runs is counted, outside of the kernel: the event loop or the runtime, the server, the
//! handler. It has one thread, so the result depends only on the code and the compiler. `instructions.txt` has the recorded
//! figures and names the compiler. `cargo run --release -p spop-instructions` checks them; `-- --record` writes the file.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod load;
#[path = "../../benches/end_to_end/question.rs"]
#[allow(dead_code)] // The others of its questions.
mod question;
#[path = "../../../spop-core/benches/callgrind/record.rs"]
mod record;

use std::{
    env,
    fmt::Write as _,
    fs,
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use spop_server::Request;
use spop_tokio::Router;

const RECORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.txt");

/// An agent, and the shapes of load that it gets.
type Agent = (&'static str, fn(&Path, usize, usize), &'static [usize]);

const AGENTS: [Agent; 6] = [
    ("mio", mio, &[0, 1, 2]),
    ("mio router", mio_router, &[1, 2]),
    ("tokio", tokio, &[0, 1, 2]),
    ("tokio later", tokio_later, &[0, 1, 2]),
    ("tokio router", tokio_router, &[1, 2]),
    ("tokio router, not async", tokio_router_not_async, &[1, 2]),
];

/// Connections that are asked in a round, and the requests in flight on each.
const SHAPES: [(usize, usize); 3] = [(64, 1), (16, 16), (1, 32)];

fn main() -> ExitCode {
    let args: Vec<_> = env::args().collect();
    if args.iter().any(|arg| arg == "--counted") {
        let numbers: Vec<usize> = args.iter().filter_map(|arg| arg.parse().ok()).collect();
        let (connections, depth) = SHAPES[numbers[1]];
        let folder = tempfile::tempdir().unwrap();
        AGENTS[numbers[0]].1(&folder.path().join("socket"), connections, depth);
        return ExitCode::FAILURE;
    }
    // `--only NAME` counts one agent.
    if let Some(only) = args.iter().position(|arg| arg == "--only").and_then(|index| args.get(index + 1)) {
        print!("{}", table(|name| name == only));
        return ExitCode::SUCCESS;
    }
    record::check(RECORD, &table(|_| true), |row| {
        let (name, figure) = row.split_at(47);
        (name, vec![figure.trim().parse().unwrap()])
    })
}

// ---- the agents ----

fn mio(path: &Path, connections: usize, depth: usize) {
    let answer = |request: Request<'_>| {
        load::arrived();
        question::answer(request.messages().iter())
    };
    let server = spop_mio::Server::new(answer).workers(1).bind(path).unwrap();
    load::start(path, connections, depth);
    server.serve().unwrap();
}

/// A router of the core with five routes.
fn mio_router(path: &Path, connections: usize, depth: usize) {
    let server = spop_mio::Server::new(question::router(load::arrived)).workers(1).bind(path).unwrap();
    load::start(path, connections, depth);
    server.serve().unwrap();
}

/// A handler that answers at once.
fn tokio(path: &Path, connections: usize, depth: usize) {
    serve(path, connections, depth, async |request: spop_tokio::Request| {
        load::arrived();
        question::answer(request.messages().iter())
    });
}

/// A handler that waits once.
fn tokio_later(path: &Path, connections: usize, depth: usize) {
    serve(path, connections, depth, async |request: spop_tokio::Request| {
        load::arrived();
        tokio::task::yield_now().await;
        question::answer(request.messages().iter())
    });
}

/// A router of five routes, with state.
fn tokio_router(path: &Path, connections: usize, depth: usize) {
    async fn route(_: &State, request: spop_tokio::Request) -> spop_core::Actions {
        load::arrived();
        question::answer(request.messages().iter())
    }
    let router =
        question::ROUTES.into_iter().fold(Router::with_state(State), |router, name| router.on(name, route));
    serve(path, connections, depth, router);
}

/// The same, with a function that is not async.
fn tokio_router_not_async(path: &Path, connections: usize, depth: usize) {
    #[expect(clippy::needless_pass_by_value, reason = "what routes take")]
    fn route(_: &State, request: spop_tokio::Request) -> spop_core::Actions {
        load::arrived();
        question::answer(request.messages().iter())
    }
    let router =
        question::ROUTES.into_iter().fold(Router::with_state(State), |router, name| router.on(name, route));
    serve(path, connections, depth, router);
}

struct State;

fn serve(path: &Path, connections: usize, depth: usize, handler: impl spop_tokio::Handler) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let server = spop_tokio::Server::new(handler).bind(path).await.unwrap();
        load::start(path, connections, depth);
        let _ = server.serve().await;
    });
}

// ---- counting ----

/// Runs this program under callgrind; returns the instructions per NOTIFY.
fn count(agent: usize, shape: usize) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("counted");
    let status = Command::new("valgrind")
        .args(["-q", "--tool=callgrind", "--toggle-collect=*load::uncounted", "--collect-atstart=yes"])
        .args(["--zero-before=*load::begin", "--dump-before=*load::end"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(env::current_exe().unwrap())
        .args(["--counted", &agent.to_string(), &shape.to_string()])
        .stdin(Stdio::null())
        .status()
        .unwrap_or_else(|error| panic!("valgrind cannot be run: {error}"));
    assert!(status.success(), "valgrind: {status}");
    let text = fs::read_to_string(folder.path().join("counted.1")).unwrap();
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    let total: u64 = total.unwrap().trim().parse().unwrap();
    let (connections, depth) = SHAPES[shape];
    total / (connections * depth * load::ROUNDS) as u64
}

fn table(counts: impl Fn(&str) -> bool) -> String {
    let mut table = format!("# Instructions per NOTIFY, outside of the kernel. {}", record::compiler());
    table += "# agent                 connections x in flight   instructions\n";
    for (agent, (name, _, shapes)) in AGENTS.iter().enumerate().filter(|(_, (name, ..))| counts(name)) {
        for &shape in *shapes {
            let (connections, depth) = SHAPES[shape];
            let shape_name = format!("{connections} x {depth}");
            let _ = writeln!(table, "{name:<23} {shape_name:>23} {:>14}", count(agent, shape));
        }
    }
    table
}
