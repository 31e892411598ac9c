//! A server on `io_uring`: frames are processed in the buffers that the kernel receives into. Every policy is in `Conn`; there
//! is no TLS. `io-uring 127.0.0.1:12345` echoes each argument as the variable `MESSAGE.ARGUMENT`, and drains on SIGTERM.
//! `tests/benches/README.md` compares it with epoll.

#[cfg(target_os = "linux")]
mod driver;

#[cfg(target_os = "linux")]
fn main() -> std::io::Result<()> {
    use signal_hook::{consts::SIGTERM, iterator::Signals};
    use spop_core::{Actions, Clock, Scope};
    use spop_server::{Agent, Request, ServerConfig};

    let listener =
        std::net::TcpListener::bind(std::env::args().nth(1).as_deref().unwrap_or("127.0.0.1:12345"))?;
    println!("listening on {}", listener.local_addr()?);
    let agent = Agent::new(ServerConfig::default(), Clock::start())?;
    let (handle, mut signals) = (agent.handle(), Signals::new([SIGTERM])?);
    std::thread::spawn(move || signals.forever().for_each(|_| handle.drain()));
    driver::serve(listener, &agent, None, &mut |request: Request<'_>| {
        let mut actions = Actions::new();
        for message in request.messages() {
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
