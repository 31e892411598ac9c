//! The lock on the path of a unix socket: one process at a time replaces or removes its file.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::fcntl::OFlag;

/// How long to wait for another process. It holds the lock for less than a millisecond, unless it is stopped.
const WAIT: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(1);

/// An exclusive lock on a path, until it is dropped.
///
/// Between the check that a socket file is stale and its replacement, another process could have replaced it: its file would be
/// removed, and both would listen. The lock is `flock(2)` on the file `.NAME.lock` in the same directory, which is removed with it.
#[derive(Debug)]
pub(crate) struct PathLock {
    file: PathBuf,
    #[allow(dead_code)] // Held for its drop.
    locked: Locked,
}

impl PathLock {
    /// Waits for the lock for a second at most.
    pub(crate) fn new(path: &Path) -> io::Result<Self> {
        let mut name = OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(".lock");
        let file = path.with_file_name(name);
        let deadline = Instant::now() + WAIT;
        loop {
            // Another process can have put a link or a pipe there.
            let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(false).mode(0o600).custom_flags(flags.bits());
            let opened = options.open(&file).map_err(|error| cannot_open(error, &file))?;
            let opened_identity = identity(&opened.metadata()?);
            if let Some(locked) = try_lock(opened)?
                // Otherwise the previous holder has removed the file, and other processes lock a new one.
                && fs::symlink_metadata(&file).is_ok_and(|found| identity(&found) == opened_identity)
            {
                return Ok(Self { file, locked });
            }
            if Instant::now() >= deadline {
                return Err(in_use(format!(
                    "another process has locked {} for {WAIT:?}: it starts or stops a server there, and seems to hang",
                    file.display()
                )));
            }
            thread::sleep(RETRY);
        }
    }
}

impl Drop for PathLock {
    fn drop(&mut self) {
        // Before it is unlocked: a process that has opened it finds it removed.
        let _ = fs::remove_file(&self.file);
    }
}

/// A lock file that exists and cannot be opened belongs to another user, or is no regular file. Other errors are about the
/// directory.
fn cannot_open(error: io::Error, file: &Path) -> io::Error {
    if fs::symlink_metadata(file).is_err() {
        return error;
    }
    in_use(format!(
        "cannot open the lock file {} ({error}): unless another user starts a server there, remove it",
        file.display()
    ))
}

fn in_use(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::AddrInUse, message)
}

/// Identifies a file among all others.
pub(crate) fn identity(file: &fs::Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

#[cfg(not(any(target_os = "redox", target_os = "solaris")))]
type Locked = nix::fcntl::Flock<File>;

#[cfg(not(any(target_os = "redox", target_os = "solaris")))]
fn try_lock(file: File) -> io::Result<Option<Locked>> {
    use nix::{errno::Errno, fcntl};

    match fcntl::Flock::lock(file, fcntl::FlockArg::LockExclusiveNonblock) {
        Ok(locked) => Ok(Some(locked)),
        Err((_, Errno::EWOULDBLOCK | Errno::EINTR)) => Ok(None),
        Err((_, error)) => Err(error.into()),
    }
}

/// These systems have no `flock(2)`: nothing is locked.
#[cfg(any(target_os = "redox", target_os = "solaris"))]
type Locked = File;

#[cfg(any(target_os = "redox", target_os = "solaris"))]
fn try_lock(file: File) -> io::Result<Option<Locked>> {
    Ok(Some(file))
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::symlink,
        sync::atomic::{AtomicBool, Ordering},
    };

    use super::*;

    #[test]
    fn a_path_is_locked_once_and_its_lock_file_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.sock");
        let lock = PathLock::new(&path).unwrap();
        let error = PathLock::new(&path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains(".agent.sock.lock for 1s"), "{error}");
        drop(lock);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        // One that a process has left behind when it was killed.
        fs::write(directory.path().join(".agent.sock.lock"), "").unwrap();
        drop(PathLock::new(&path).unwrap());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_lock_file_that_is_removed_all_the_time_excludes_others() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.sock");
        let held = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        // The lock is not fair: on a busy machine one of them may wait for more than a second.
                        let is_held = |error: &io::Error| error.to_string().contains("has locked");
                        let mut tries = (0..30).map(|_| PathLock::new(&path));
                        let _lock = tries.find(|lock| !lock.as_ref().is_err_and(is_held)).unwrap().unwrap();
                        assert!(!held.swap(true, Ordering::SeqCst), "locked twice");
                        thread::yield_now();
                        held.store(false, Ordering::SeqCst);
                    }
                });
            }
        });
    }

    #[test]
    fn a_link_in_the_place_of_the_lock_file_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let [target, path] = ["target", "agent.sock"].map(|name| directory.path().join(name));
        symlink(&target, directory.path().join(".agent.sock.lock")).unwrap();
        let error = PathLock::new(&path).unwrap_err().to_string();
        assert!(error.contains("cannot open the lock file") && error.contains("remove it"), "{error}");
        assert!(!target.exists(), "not created");
    }
}
