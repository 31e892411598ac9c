//! A running HAProxy.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::{Binary, Config};
use crate::http::{Reply, Request};
use crate::wait::{PATIENCE, until, until_true};

/// An HAProxy process with its configuration, its log and its admin socket in one directory; killed on drop.
#[derive(Debug)]
pub struct Haproxy {
    child: Child,
    dir: PathBuf,
    address: SocketAddr,
}

impl Haproxy {
    /// Starts HAProxy in `dir` and waits until it serves.
    ///
    /// # Errors
    /// It does not start; the error carries what it said.
    pub fn start(binary: &Binary, dir: &Path, config: &Config) -> Result<Self> {
        config.write(dir, binary.engine())?;
        // HAProxy binds with SO_REUSEPORT: two of them that chose the same "free" port would share it without a word.
        // A socket that already listens when HAProxy inherits it leaves no such gap.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let log = File::create(dir.join("haproxy.log"))?;
        let child = binary
            .command(!config.may_warn)
            .args(["-f", "haproxy.cfg"])
            .current_dir(dir)
            .stdin(OwnedFd::from(listener))
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let mut haproxy = Self { child, dir: dir.to_owned(), address };
        until("HAProxy is ready", PATIENCE, || {
            if let Some(status) = haproxy.child.try_wait()? {
                bail!("HAProxy ended with {status}:\n{}", haproxy.log()?);
            }
            Ok(haproxy.admin("show info").ok())
        })?;
        Ok(haproxy)
    }

    /// Where the frontend listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends a GET request.
    ///
    /// # Errors
    /// See [`Request::send`].
    pub fn get(&self, path: &str) -> Result<Reply> {
        self.send(&Request::get(path))
    }

    /// Sends a request.
    ///
    /// # Errors
    /// See [`Request::send`].
    pub fn send(&self, request: &Request) -> Result<Reply> {
        request.send(self.address)
    }

    /// Runs a command of the admin socket, such as `show info`.
    ///
    /// # Errors
    /// HAProxy does not answer.
    pub fn admin(&self, command: &str) -> Result<String> {
        let mut socket = UnixStream::connect(self.dir.join("admin.sock"))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.write_all(format!("{command}\n").as_bytes())?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Waits until this many requests have come in.
    ///
    /// # Errors
    /// They have not in time.
    pub fn wait_for_requests(&self, count: u64) -> Result<()> {
        until_true(&format!("HAProxy has {count} requests"), PATIENCE, || Ok(self.requests()? >= count))
    }

    /// Waits until the health check has brought the first server of the agents up or down.
    ///
    /// # Errors
    /// It has not in time.
    pub fn wait_for_server(&self, state: &str) -> Result<()> {
        self.wait_for_server_number(0, state)
    }

    /// The same for another server of the agents, counted from 0.
    ///
    /// # Errors
    /// It has not in time.
    pub fn wait_for_server_number(&self, number: usize, state: &str) -> Result<()> {
        until_true(&format!("agent {number} is {state}"), PATIENCE, || {
            Ok(self.stat("agents", &format!("a{number}"), "status")?.split(' ').next() == Some(state))
        })
    }

    /// How many connections to the first agent there have been, health checks apart. Since 3.1 HAProxy counts requests here.
    ///
    /// # Errors
    /// HAProxy does not answer.
    pub fn agent_connections(&self) -> Result<u64> {
        Ok(self.stat("agents", "a0", "stot")?.parse()?)
    }

    /// Waits until no connection to the first agent is open.
    ///
    /// # Errors
    /// One is still open after [`PATIENCE`].
    pub fn wait_for_no_agent_connections(&self) -> Result<()> {
        until_true("HAProxy has no connection to the agent", PATIENCE, || {
            // Since 3.1 `scur` counts requests; idle connections are in the other two.
            for count in ["scur", "idle_conn_cur", "safe_conn_cur"] {
                if self.stat("agents", "a0", count)? != "0" {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }

    /// How many requests have come in.
    ///
    /// # Errors
    /// HAProxy does not answer.
    pub fn requests(&self) -> Result<u64> {
        Ok(self.stat("web", "FRONTEND", "req_tot")?.parse()?)
    }

    /// How many requests were answered with a status of 500 or more.
    ///
    /// # Errors
    /// HAProxy does not answer.
    pub fn refused(&self) -> Result<u64> {
        Ok(self.stat("web", "FRONTEND", "hrsp_5xx")?.parse()?)
    }

    // A field of `show stat`, which is CSV whose first line has the names: `# pxname,svname,…`.
    fn stat(&self, proxy: &str, service: &str, name: &str) -> Result<String> {
        let table = self.admin("show stat")?;
        let field = table.lines().next().and_then(|names| names.split(',').position(|field| field == name));
        let row = table.lines().find(|line| line.starts_with(&format!("{proxy},{service},")));
        let value = row.zip(field).and_then(|(row, field)| row.split(',').nth(field));
        value
            .map(ToOwned::to_owned)
            .with_context(|| format!("no field {name} of {proxy}/{service} in {table}"))
    }

    /// Everything that HAProxy has logged so far.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn log(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(self.dir.join("haproxy.log"))?).into_owned())
    }

    /// Tells HAProxy to finish what it is doing and end.
    ///
    /// # Errors
    /// There is no such process.
    pub fn soft_stop(&self) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), Signal::USR1)?)
    }

    /// Waits until HAProxy has ended.
    ///
    /// # Errors
    /// It has not in time.
    pub fn wait_for_end(&mut self) -> Result<ExitStatus> {
        until("HAProxy has ended", PATIENCE, || Ok(self.child.try_wait()?))
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
