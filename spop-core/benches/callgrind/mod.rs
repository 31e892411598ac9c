//! Counts instructions: the program runs itself under valgrind's callgrind. The result depends only on the code and the
//! compiler, so it can be checked on a busy machine.

#[allow(dead_code)] // Not each program has recorded figures.
pub mod record;

use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
};

/// Whether this is the run under callgrind.
pub fn is_counted() -> bool {
    env::args().any(|arg| arg == "--counted")
}

/// Callgrind counts inside this function, and writes a file each time it returns.
#[inline(never)]
pub fn counted(work: &mut dyn FnMut()) {
    work();
}

/// Runs this program under callgrind with `--counted`; returns the instructions of each call of [`counted`].
pub fn counts() -> Vec<u64> {
    let folder = env::temp_dir().join(format!("spop-instructions-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let out = folder.join("counted");
    let status = Command::new("valgrind")
        .args(["-q", "--tool=callgrind", "--collect-atstart=no"])
        .args(["--toggle-collect=*callgrind::counted", "--dump-after=*callgrind::counted"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(env::current_exe().unwrap())
        .arg("--counted")
        .stdin(Stdio::null())
        .status()
        .unwrap_or_else(|error| panic!("valgrind cannot be run: {error}"));
    assert!(status.success(), "valgrind: {status}");
    let file = |number: usize| folder.join(format!("counted.{number}"));
    let totals = (1..10_000).map(file).take_while(|file| file.exists()).map(|file| total(&file)).collect();
    fs::remove_dir_all(&folder).unwrap();
    totals
}

fn total(file: &Path) -> u64 {
    let text = fs::read_to_string(file).unwrap();
    let total = text.lines().find_map(|line| line.strip_prefix("summary: "));
    total.unwrap().trim().parse().unwrap()
}
