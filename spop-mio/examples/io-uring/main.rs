//! An agent on `io_uring`: the core handles frames in the buffers that the kernel has received into.
//!
//! ```text
//! cargo run --release -p spop-mio --example io-uring -- 127.0.0.1:12345
//! ```
//!
//! It echoes every argument of every message as the variable `MESSAGE.ARGUMENT`, and drains on SIGTERM. What it takes next to
//! epoll is in `tests/benches/README.md`.

#[cfg(target_os = "linux")]
#[allow(
    unsafe_code,
    reason = "to give an address to the kernel is unsafe, and io_uring works with nothing else"
)]
mod driver;

#[cfg(target_os = "linux")]
fn main() -> std::io::Result<()> {
    use signal_hook::{consts::SIGTERM, low_level::pipe};
    use spop_core::{Actions, AgentConfig, Scope};

    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:12345".to_owned());
    let listener = std::net::TcpListener::bind(&address)?;
    let (signal, on_signal) = std::io::pipe()?;
    pipe::register(SIGTERM, on_signal)?;
    println!("listening on {}", listener.local_addr()?);
    driver::serve(listener, &signal, AgentConfig::default(), |messages| {
        let mut actions = Actions::new();
        for message in messages {
            for (name, value) in message.args() {
                actions.set_var(Scope::Transaction, [message.name(), b".", name].concat(), value);
            }
        }
        actions
    })
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("io_uring is a part of Linux");
    std::process::exit(1);
}
