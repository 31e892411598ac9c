//! Messages to systemd about the state of the service (`sd_notify`), for units with `Type=notify`.
//!
//! Each call sends one datagram to the socket that `NOTIFY_SOCKET` names. Without it, as outside systemd, a call reads one
//! variable and returns `Ok`.

use std::{
    env,
    ffi::OsStr,
    io,
    os::unix::{ffi::OsStrExt as _, net::UnixDatagram},
    time::{Duration, Instant},
};

/// How long a call may wait for space in the queue of systemd.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// The service has started, and `status` is what `systemctl status` shows of it, in one line. Also for each later change
/// of the status.
///
/// # Errors
/// The message cannot be sent, or not within a second. Log it and continue: a unit with `Type=notify` then fails to start after
/// its `TimeoutStartSec=`.
pub fn ready(status: &str) -> io::Result<()> {
    notify("READY=1", status, Some(SEND_TIMEOUT))
}

/// The service has begun to stop, and `status` describes the progress. Also for each later change of the status.
///
/// # Errors
/// The message cannot be sent, or not at once: a server that shuts down has requests to serve, and systemd sees the end of the process.
pub fn stopping(status: &str) -> io::Result<()> {
    notify("STOPPING=1", status, None)
}

fn notify(state: &str, status: &str, timeout: Option<Duration>) -> io::Result<()> {
    let Some(socket) = env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    send(&socket, state, status, timeout).map_err(|error| {
        let message =
            format!("cannot send {state} to systemd at NOTIFY_SOCKET={}: {error}", socket.display());
        io::Error::new(error.kind(), message)
    })
}

fn send(to: &OsStr, state: &str, status: &str, timeout: Option<Duration>) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    match to.as_bytes() {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        [b'@', name @ ..] => {
            #[cfg(target_os = "android")]
            use std::os::android::net::SocketAddrExt as _;
            #[cfg(target_os = "linux")]
            use std::os::linux::net::SocketAddrExt as _;

            socket.connect_addr(&std::os::unix::net::SocketAddr::from_abstract_name(name)?)?;
        }
        [b'/', ..] => socket.connect(to)?,
        _ => {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "it is neither a path nor an abstract socket",
            ));
        }
    }
    // A line is a variable: a status with several would set others.
    let message = format!("{state}\nSTATUS={}\n", status.replace(['\n', '\0'], " "));
    // A datagram is sent as a whole or not at all.
    let Some(timeout) = timeout else {
        socket.set_nonblocking(true)?;
        return socket.send(message.as_bytes()).map(drop).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => io::Error::new(error.kind(), "its queue is full"),
            _ => error,
        });
    };
    let full = || io::Error::new(io::ErrorKind::TimedOut, format!("its queue has been full for {timeout:?}"));
    let start = Instant::now();
    loop {
        let rest = timeout.saturating_sub(start.elapsed());
        if rest.is_zero() {
            return Err(full());
        }
        socket.set_write_timeout(Some(rest))?;
        match socket.send(message.as_bytes()) {
            // By a signal, while it waits.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(full()),
            sent => return sent.map(drop),
        }
    }
}
