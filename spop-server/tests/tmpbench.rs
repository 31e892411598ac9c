#![allow(warnings, missing_docs, clippy::all)]
#[path = "../examples/io-uring/driver.rs"]
mod new;
#[path = "/tmp/uring503/driver.rs"]
mod old;
#[path = "examples/peer.rs"]
mod peer;
#[path = "../examples/foreign-poll.rs"]
mod poll;
use spop_core::*;
use spop_server::*;
use std::{fs, io::*, net::*, thread, time::*};
fn cpu() -> u64 {
    fs::read_to_string("/proc/thread-self/schedstat")
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap()
}
#[test]
fn bench() {
    for round in 0..5 {
        for (conns, depth) in [(64usize, 1usize), (1, 32), (16, 16)] {
            for name in ["multi", "once", "poll"] {
                let agent = Agent::new(ServerConfig::default(), Clock::start()).unwrap();
                let l = TcpListener::bind("127.0.0.1:0").unwrap();
                let a = l.local_addr().unwrap().to_string();
                let h = agent.handle();
                let t = thread::spawn(move || {
                    let mut f = |r: Request<'_>| {
                        let mut x = Actions::new();
                        for m in r.messages() {
                            for (n, v) in m.args() {
                                x.set_var(Scope::Transaction, [m.name(), b".", n].concat(), v);
                            }
                        }
                        x
                    };
                    match name {
                        "multi" => old::serve(l, &agent, None, &mut f).unwrap(),
                        "once" => new::serve(l, &agent, None, &mut f).unwrap(),
                        _ => poll::serve(l, &agent, None, &mut f).unwrap(),
                    };
                    cpu()
                });
                let mut ps: Vec<_> = (0..conns).map(|_| peer::Peer::session(&a, "")).collect();
                let one = peer::bytes(r#"NOTIFY fin 1 1 m a=int32:1 b=string:"x"*50"#);
                let q: Vec<u8> = one.repeat(depth);
                ps[0].stream.write_all(&one).unwrap();
                let ans = {
                    let mut l = [0; 4];
                    ps[0].stream.read_exact(&mut l).unwrap();
                    let n = u32::from_be_bytes(l) as usize;
                    let mut b = vec![0; n];
                    ps[0].stream.read_exact(&mut b).unwrap();
                    n + 4
                };
                let mut b = vec![0; ans * depth];
                let start = Instant::now();
                let mut n = 0;
                while start.elapsed() < Duration::from_millis(600) {
                    for p in &mut ps {
                        p.stream.write_all(&q).unwrap();
                    }
                    for p in &mut ps {
                        p.stream.read_exact(&mut b).unwrap();
                    }
                    n += conns * depth;
                }
                let e = start.elapsed();
                drop(ps);
                h.stop();
                let c = t.join().unwrap();
                println!(
                    "{conns}x{depth} {name}: {:.0}/s, {} ns cpu each",
                    n as f64 / e.as_secs_f64(),
                    c / n as u64
                );
            }
        }
    }
}
