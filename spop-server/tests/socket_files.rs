//! Files of unix sockets: access rights, replacement, error messages.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // It is a test.

mod support;

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, symlink},
        net::{UnixListener, UnixStream},
    },
    path::Path,
    sync::Barrier,
    thread,
};

use nix::unistd::{Gid, getegid, geteuid, getgroups};
use spop_server::Endpoint;

use self::support::soon;

fn error(endpoint: Endpoint) -> (ErrorKind, String) {
    let error = endpoint.listen(false).unwrap_err();
    (error.kind(), error.to_string())
}

fn is_root() -> bool {
    geteuid().is_root()
}

/// A group that this process may give a file to.
fn other_group() -> Option<Gid> {
    if is_root() {
        return Some(12_345.into());
    }
    getgroups().unwrap().into_iter().find(|group| *group != getegid())
}

#[test]
fn owner_and_group_are_set() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.sock");
    let mut endpoint = Endpoint::from(path.as_path()).mode(0o620);
    let (mut user, mut group) = (geteuid().as_raw(), getegid().as_raw());
    if let Some(other) = other_group() {
        group = other.as_raw();
        endpoint = endpoint.group(group);
    }
    if is_root() {
        user = 54_321;
    }
    let listening = endpoint.owner(user).listen(false).unwrap();
    let file = fs::symlink_metadata(&path).unwrap();
    assert_eq!((file.uid(), file.gid(), file.mode() & 0o777), (user, group, 0o620));
    UnixStream::connect(&path).unwrap();
    drop(listening);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is left");
}

#[test]
fn names_are_looked_up() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.sock");
    if is_root() {
        let _listening = Endpoint::from(path.as_path()).owner("root").group(0).listen(false).unwrap();
        assert_eq!(fs::symlink_metadata(&path).unwrap().uid(), 0);
    }
    for (endpoint, unknown) in [
        (Endpoint::from(path.as_path()).owner("no-such-user"), "the system knows no user \"no-such-user\""),
        (
            Endpoint::from(path.as_path()).group("no-such-group"),
            "the system knows no group \"no-such-group\"",
        ),
    ] {
        let (_, error) = error(endpoint);
        assert!(error.contains(unknown), "{error}");
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is left");
}

#[test]
fn only_root_gives_a_file_away() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.sock");
    unprivileged(directory.path(), "only_root_gives_a_file_away", || {
        let (kind, error) = error(Endpoint::from(path.as_path()).owner(0));
        assert_eq!(kind, ErrorKind::PermissionDenied);
        assert!(error.contains("no permission to give the socket to user 0: only root"), "{error}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is left");
    });
}

#[test]
fn what_is_at_the_path_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.sock");
    let all = || {
        let at = || Endpoint::from(path.as_path());
        [at(), at().mode(0o600), at().take_over(true)]
    };

    fs::write(&path, "precious").unwrap();
    for endpoint in all() {
        let (kind, error) = error(endpoint);
        assert_eq!(kind, ErrorKind::AlreadyExists);
        assert!(error.contains("there is a regular file at this path, not a socket: remove it"), "{error}");
    }
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    fs::remove_file(&path).unwrap();

    fs::create_dir(&path).unwrap();
    for endpoint in all() {
        assert!(error(endpoint).1.contains("there is a directory at this path"));
    }
    fs::remove_dir(&path).unwrap();

    let elsewhere = directory.path().join("elsewhere");
    for target in ["", "served"] {
        let _served = (!target.is_empty()).then(|| UnixListener::bind(&elsewhere).unwrap());
        symlink(&elsewhere, &path).unwrap();
        for endpoint in all() {
            assert!(error(endpoint).1.contains("there is a symbolic link at this path"));
        }
        fs::remove_file(&path).unwrap();
    }

    let served = UnixListener::bind(&path).unwrap();
    for endpoint in [Endpoint::from(path.as_path()), Endpoint::from(path.as_path()).mode(0o600)] {
        let (kind, error) = error(endpoint);
        assert_eq!(kind, ErrorKind::AddrInUse);
        assert!(error.contains("another server listens there: stop it"), "{error}");
        assert!(error.contains("Endpoint::take_over"), "{error}");
    }
    drop(served);
    Endpoint::from(path.as_path()).listen(false).unwrap();
}

#[test]
fn of_forty_concurrent_starts_at_a_stale_file_one_listens() {
    for mode in [None, Some(0o660)] {
        for round in 0..20 {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("agent.sock");
            drop(UnixListener::bind(&path).unwrap());
            let start = Barrier::new(40);
            let results: Vec<_> = thread::scope(|scope| {
                let threads: Vec<_> = (0..40)
                    .map(|_| {
                        scope.spawn(|| {
                            let endpoint = Endpoint::from(path.as_path());
                            let endpoint = mode.into_iter().fold(endpoint, Endpoint::mode);
                            start.wait();
                            endpoint.listen(false)
                        })
                    })
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let (listening, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
            assert_eq!(listening.len(), 1, "mode {mode:?}, round {round}");
            for error in refused.into_iter().map(Result::unwrap_err) {
                assert_eq!(error.kind(), ErrorKind::AddrInUse, "{error}");
                assert!(error.to_string().contains("another server listens there: stop it"), "{error}");
            }
            UnixStream::connect(&path).unwrap();
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing else is left");
            drop(listening);
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is left");
        }
    }
}

#[test]
fn what_is_wrong_with_the_folder_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    for mode in [None, Some(0o600)] {
        let at = |path: &Path| match mode {
            Some(mode) => Endpoint::from(path).mode(mode),
            None => Endpoint::from(path),
        };
        let (kind, message) = error(at(&missing.join("agent.sock")));
        assert_eq!(kind, ErrorKind::NotFound);
        assert!(
            message.contains(&format!("the directory {} does not exist: create it", missing.display())),
            "{message}"
        );

        let (_, message) = error(at(&file.join("agent.sock")));
        assert!(message.contains(&format!("{} is not a directory", file.display())), "{message}");

        let long = directory.path().join("s".repeat(200));
        let (kind, message) = error(at(&long));
        assert_eq!(kind, ErrorKind::InvalidInput);
        assert!(message.contains("bytes, and a socket's path at most 10"), "{message}");

        let (_, message) = error(at(Path::new("/")));
        assert!(message.contains("the path names no file"), "{message}");
    }
}

#[test]
fn a_directory_without_permission_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let closed = directory.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).unwrap();
    let served = directory.path().join("served.sock");
    let listener = UnixListener::bind(&served).unwrap();
    fs::set_permissions(&served, fs::Permissions::from_mode(0o600)).unwrap();
    let stale = closed.join("stale.sock");
    drop(UnixListener::bind(&stale).unwrap());
    fs::set_permissions(&stale, fs::Permissions::from_mode(0o666)).unwrap();

    unprivileged(directory.path(), "a_directory_without_permission_is_named", || {
        let directory = std::env::var_os(DIRECTORY).unwrap();
        let directory = Path::new(&directory);
        let closed = directory.join("closed");
        let message = format!("has no permission to create a file in the directory {}", closed.display());
        for endpoint in
            [Endpoint::from(closed.join("agent.sock")), Endpoint::from(closed.join("agent.sock")).mode(0o600)]
        {
            let (kind, error) = error(endpoint);
            assert_eq!(kind, ErrorKind::PermissionDenied);
            assert!(error.contains(&message), "{error}");
        }
        let (_, message) = error(Endpoint::from(closed.join("stale.sock")));
        assert!(message.contains("has no permission to replace the socket"), "{message}");
        let (_, message) = error(Endpoint::from(directory.join("served.sock")));
        assert!(message.contains("a socket of another user"), "{message}");
    });
    drop(listener);
}

/// The directory of the test, for its other process.
const DIRECTORY: &str = "SPOP_TEST_DIRECTORY";

/// Runs the test as an unprivileged user: in a process of its own if this one runs as root.
fn unprivileged(directory: &Path, test: &str, run: impl FnOnce()) {
    use std::{os::unix::process::CommandExt as _, process::Command};

    if std::env::var_os(DIRECTORY).is_some() {
        return run();
    }
    if !is_root() {
        // The files are its own: there is nothing to test.
        return;
    }
    fs::set_permissions(directory, fs::Permissions::from_mode(0o777)).unwrap();
    let copy = directory.join("test");
    fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let mut command = Command::new(&copy);
    command
        .args(["--exact", test])
        .env(DIRECTORY, directory)
        .env("TMPDIR", directory)
        .uid(65_534)
        .gid(65_534);
    // A child of another test that was forked during the copy holds it open for writing until its exec.
    let busy = |error: &io::Error| error.kind() == ErrorKind::ExecutableFileBusy;
    let mut status = command.status();
    let started = soon(|| {
        if status.as_ref().is_err_and(busy) {
            status = command.status();
        }
        !status.as_ref().is_err_and(busy)
    });
    assert!(started && status.unwrap().success());
}
