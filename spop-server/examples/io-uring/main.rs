//! A server on `io_uring`: frames are processed in the buffers that the kernel receives into. Every policy is in `Conn`; there
//! is no TLS. `io-uring ADDRESS` echoes each argument as the variable `MESSAGE.ARGUMENT`; SIGTERM drains.

#[cfg(target_os = "linux")]
mod driver;

#[cfg(target_os = "linux")]
fn main() -> std::io::Result<()> {
    use signal_hook::{consts::SIGTERM, iterator::Signals};
    use spop_core::{Actions, Clock, Scope};
    use spop_server::{Agent, Request};

    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:12345".into());
    let listener = std::net::TcpListener::bind(address)?;
    println!("listening on {}", listener.local_addr()?);
    let agent = Agent::with_defaults(Clock::start());
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
fn main() {} // io_uring is a part of Linux.
