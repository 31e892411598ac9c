//! The echo agent, as a process.

use std::{
    io::Read as _,
    process::{Child, Command, Stdio},
};

/// It is killed when this is dropped.
pub struct Echo(pub Child);

impl Echo {
    pub fn start(shell: &str, options: &str) -> (Self, String) {
        let program = spop_tests::agent::example("echo-mio").unwrap();
        let mut child = Command::new("sh")
            .args(["-c", &format!("{shell} exec {} --listen 127.0.0.1:0 {options}", program.display())])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = Vec::new();
        let mut out = child.stdout.take().unwrap();
        let mut byte = [0];
        while out.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
            line.push(byte[0]);
        }
        let line = String::from_utf8(line).unwrap();
        let address = line.strip_prefix("listening on ").unwrap().to_owned();
        (Self(child), address)
    }

    pub fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.0.id().to_string()]).status().unwrap().success());
    }
}

impl Echo {
    /// Bytes of memory that it has in use.
    pub fn memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
