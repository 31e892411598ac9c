//! Programs that come with configurations for HAProxy, started as they are documented, on addresses that are free.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Child;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::agent::Agent;
use crate::haproxy::Binary;
use crate::http::Request;
use crate::ports::{self, Port};
use crate::wait::{PATIENCE, until};

/// A copy of the files of a program, in which free addresses stand for those that are there.
#[derive(Debug)]
pub struct Shipped {
    name: String,
    dir: TempDir,
    addresses: Vec<(String, String)>,
    /// Those that stand for them.
    _ports: Vec<Port>,
}

/// A running HAProxy; killed on drop.
#[derive(Debug)]
pub struct Running(Child);

impl Shipped {
    /// Copies the files of a directory of the workspace, which has the name of the program. Each of the addresses must be in one of
    /// them.
    ///
    /// # Errors
    /// There is no such directory, or an address is not used.
    pub fn copy(directory: &str, addresses: &[&str]) -> Result<Self> {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(directory);
        let name = from.file_name().context("no name")?.to_string_lossy().into_owned();
        let dir = tempfile::Builder::new().prefix("spop-").tempdir()?;
        let ports = ports::free(addresses.len())?;
        let free = ports.iter().map(|port| port.address().to_string());
        let addresses: Vec<_> = addresses.iter().map(|one| (*one).to_owned()).zip(free).collect();
        let mut all = String::new();
        for entry in fs::read_dir(&from).with_context(|| format!("no {}", from.display()))? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                let text = fs::read_to_string(entry.path())?;
                let changed = addresses.iter().fold(text.clone(), |text, (old, new)| text.replace(old, new));
                fs::write(dir.path().join(entry.file_name()), changed)?;
                all.push_str(&text);
            }
        }
        let unused = addresses.iter().find(|(address, _)| !all.contains(address));
        ensure!(unused.is_none(), "no file has {unused:?}");
        Ok(Self { name, dir, addresses, _ports: ports })
    }

    /// A text with the addresses that stand for those in it.
    fn stand_in(&self, text: &str) -> String {
        let replace = |text: String, (old, new): &(String, String)| text.replace(old, new);
        self.addresses.iter().fold(text.to_owned(), replace)
    }

    /// Replaces a part of a file.
    ///
    /// # Errors
    /// The file does not have it.
    pub fn edit(&self, file: &str, old: &str, new: &str) -> Result<()> {
        let path = self.dir.path().join(file);
        let text = fs::read_to_string(&path)?;
        let [old, new] = [old, new].map(|text| self.stand_in(text));
        ensure!(text.contains(&old), "{file} has no {old:?}");
        Ok(fs::write(path, text.replace(&old, &new))?)
    }

    /// The address that stands for this one.
    ///
    /// # Errors
    /// It is none of those that were named.
    pub fn address(&self, shipped: &str) -> Result<SocketAddr> {
        let found = self.addresses.iter().find(|(address, _)| address == shipped);
        Ok(found.with_context(|| format!("{shipped} was not named"))?.1.parse()?)
    }

    /// Starts the program on the first address, with these arguments, where an address stands for itself.
    ///
    /// # Errors
    /// It does not start.
    pub fn program(&self, args: &[&str]) -> Result<Agent> {
        let (first, _) = self.addresses.first().context("no address")?;
        let args = ["--listen", first].into_iter().chain(args.iter().copied());
        let args: Vec<_> = args.map(|arg| self.stand_in(arg)).collect();
        Agent::start(&self.name, &args.iter().map(String::as_str).collect::<Vec<_>>(), &self.log_file())
    }

    /// Starts the program on a socket that is open, as systemd does.
    ///
    /// # Errors
    /// It does not start.
    pub fn program_on(&self, socket: &TcpListener, args: &[&str]) -> Result<Agent> {
        Agent::start_on(socket, &self.name, args, &self.log_file())
    }

    /// Starts HAProxy with one of the files, and waits until it serves on this address.
    ///
    /// # Errors
    /// It does not start, or warns.
    pub fn haproxy(&self, binary: &Binary, file: &str, address: &str) -> Result<Running> {
        let (log, web) = (self.dir.path().join("haproxy.log"), self.address(address)?);
        let mut running = Running(binary.run(&self.dir.path().join(file), File::create(&log)?)?);
        until("HAProxy serves", PATIENCE, || {
            let ended = running.0.try_wait()?;
            ensure!(ended.is_none(), "HAProxy ended: {}", fs::read_to_string(&log)?);
            Ok(TcpStream::connect(web).ok())
        })?;
        Ok(running)
    }

    /// The metrics of the status page on this address, by their names with labels. The rest of the page is there as well.
    ///
    /// # Errors
    /// Something is not there.
    pub fn metrics(&self, shipped: &str) -> Result<BTreeMap<String, f64>> {
        let address = self.address(shipped)?;
        for (path, part) in
            [("/", "<!DOCTYPE html>"), ("/status.json", "\"stage\":\"serve\""), ("/healthy", "serves\n")]
        {
            let reply = Request::get(path).host("localhost").send(address)?;
            ensure!(reply.status == 200 && reply.body.contains(part), "{path}: {reply:?}");
        }
        let reply = Request::get("/metrics").host("localhost").send(address)?;
        ensure!(reply.status == 200, "{reply:?}");
        let lines = reply.body.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        lines
            .map(|line| {
                let (name, value) = line.rsplit_once(' ').with_context(|| line.to_owned())?;
                Ok((name.to_owned(), value.parse()?))
            })
            .collect()
    }

    /// What the program that was started last has logged.
    ///
    /// # Errors
    /// None was started.
    pub fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(self.log_file())?)
    }

    /// What HAProxy has logged.
    ///
    /// # Errors
    /// It was not started.
    pub fn haproxy_log(&self) -> Result<String> {
        Ok(fs::read_to_string(self.dir.path().join("haproxy.log"))?)
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("program.log")
    }
}

/// A certificate of 127.0.0.1 with its key, and that of its authority: two files in this directory.
///
/// # Errors
/// They cannot be written.
pub fn certificate(dir: &Path) -> Result<[String; 2]> {
    let key = rcgen::KeyPair::generate()?;
    let certificate = rcgen::CertificateParams::new(["127.0.0.1".to_owned()])?.self_signed(&key)?;
    let files = [
        ("service.pem", certificate.pem() + &key.serialize_pem()),
        // It is its own.
        ("authority.pem", certificate.pem()),
    ];
    for (name, text) in &files {
        fs::write(dir.join(name), text)?;
    }
    Ok(files.map(|(name, _)| dir.join(name).to_string_lossy().into_owned()))
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
