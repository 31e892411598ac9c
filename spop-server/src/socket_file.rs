//! The files of unix sockets. A process that is killed leaves its file behind.

use std::{
    collections::hash_map::RandomState,
    fmt, fs,
    hash::BuildHasher as _,
    io,
    os::unix::{ffi::OsStrExt as _, fs::FileTypeExt as _, net::UnixListener},
    path::{Path, PathBuf},
};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::{
    BACKLOG,
    file_access::{self, Access},
    path_lock::{PathLock, identity},
};

/// Bytes that a socket's path may have.
const PATH_MAX: usize = if cfg!(any(target_os = "linux", target_os = "android")) { 107 } else { 103 };

/// Listens on a path, without blocking. A socket file that no process serves is replaced; with `take_over`, also one that is
/// served: its server keeps the connections that it has, and the next ones come here. The file has its access rights
/// before a client can connect; what they leave open follows from the umask and the process's user and group.
pub(crate) fn listen_unix(
    path: PathBuf,
    access: Access,
    take_over: bool,
) -> io::Result<(UnixListener, SocketFile)> {
    if path.file_name().is_none() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"));
    }
    // A file can be renamed to a path that is too long to connect to.
    SockAddr::unix(&path).map_err(|error| cannot_create(error, &path))?;
    // Without the lock first, for a precise error where this process cannot write to the directory.
    let stale = check_replaceable(&path, take_over)?;
    // Until this server listens: before that, its file looks stale to other processes.
    let _lock = PathLock::new(&path)
        .map_err(|error| if stale { cannot_replace(error, &path) } else { cannot_create(error, &path) })?;
    let stale = check_replaceable(&path, take_over)?;
    let listener = if take_over || !access.is_default() {
        listen_beside(&path, access)?
    } else {
        if stale {
            fs::remove_file(&path).map_err(|error| cannot_replace(error, &path))?;
        }
        UnixListener::bind(&path).map_err(|error| cannot_create(error, &path))?
    };
    listener.set_nonblocking(true)?;
    Ok((listener, SocketFile::new(path)?))
}

/// Listens under another name, and renames the file when its access rights are set: at no time are they wrong, or is there no
/// file.
fn listen_beside(path: &Path, access: Access) -> io::Result<UnixListener> {
    // In the same directory, with a random name, and short: PATH_MAX.
    let name = RandomState::new().hash_one(path) as u32;
    let new = path.with_file_name(format!(".{name:08x}"));
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    SockAddr::unix(&new)
        .and_then(|address| socket.bind(&address))
        .map_err(|error| cannot_create(error, &new))?;
    // Before it listens, no client can connect, whatever the access rights are.
    let done = file_access::set(&new, access)
        .and_then(|()| socket.listen(BACKLOG.into()))
        .and_then(|()| fs::rename(&new, path).map_err(|error| cannot_replace(error, path)));
    if let Err(error) = done {
        let _ = fs::remove_file(&new);
        return Err(error);
    }
    Ok(socket.into())
}

/// Whether the path has a socket to replace: one that refuses connections, and with `take_over` any. False if it is free.
/// One whose backlog is full does not refuse: it is served.
///
/// # Errors
/// It has something else.
fn check_replaceable(path: &Path, take_over: bool) -> io::Result<bool> {
    let Ok(file) = fs::symlink_metadata(path) else {
        // What is wrong with the directory is found when the file is created.
        return Ok(false);
    };
    let kind = file.file_type();
    if !kind.is_socket() {
        let what = match () {
            () if kind.is_dir() => "a directory",
            () if kind.is_file() => "a regular file",
            () if kind.is_symlink() => "a symbolic link",
            () => "a device or a pipe",
        };
        return Err(with_kind(
            io::ErrorKind::AlreadyExists,
            format!("there is {what} at this path, not a socket: remove it, or choose another path"),
        ));
    }
    if take_over {
        return Ok(true);
    }
    match connect(path).map_err(|error| error.kind()) {
        Err(io::ErrorKind::ConnectionRefused) => Ok(true),
        // Removed meanwhile.
        Err(io::ErrorKind::NotFound) => Ok(false),
        Err(io::ErrorKind::PermissionDenied) => Err(with_kind(
            io::ErrorKind::PermissionDenied,
            "there is a socket of another user at this path, and no permission to find out whether it is served: stop its \
             server and remove the file, or choose another path",
        )),
        _ => Err(with_kind(
            io::ErrorKind::AddrInUse,
            "another server listens there: stop it, choose another path, or replace it with Endpoint::take_over",
        )),
    }
}

/// Connects without waiting.
pub(crate) fn connect(path: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)
}

/// The reason why a file cannot be created, and what to do.
fn cannot_create(error: io::Error, path: &Path) -> io::Error {
    let directory = directory_of(path);
    let shown = directory.display();
    let length = path.as_os_str().as_bytes().len();
    let message = match error.kind() {
        io::ErrorKind::NotFound if !directory.exists() => {
            format!(
                "the directory {shown} does not exist: create it (systemd: RuntimeDirectory=), or choose another path"
            )
        }
        io::ErrorKind::NotADirectory => {
            format!("{shown} is not a directory, or one of its parents is not: choose another path")
        }
        io::ErrorKind::PermissionDenied => format!(
            "{} has no permission to create a file in the directory {shown}: allow it to write there, or choose another path",
            file_access::this_user()
        ),
        io::ErrorKind::ReadOnlyFilesystem => {
            format!("the directory {shown} is on a file system that is read-only: choose another path")
        }
        io::ErrorKind::InvalidInput if length > PATH_MAX => {
            format!(
                "{} has {length} bytes, and a socket's path at most {PATH_MAX}: choose a shorter one",
                path.display()
            )
        }
        _ => return error,
    };
    with_kind(error.kind(), message)
}

/// The reason why the file at the path cannot be replaced, and what to do.
fn cannot_replace(error: io::Error, path: &Path) -> io::Error {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return error;
    }
    let message = format!(
        "{} has no permission to replace the socket in the directory {}: remove the file, or choose another path",
        file_access::this_user(),
        directory_of(path).display()
    );
    with_kind(error.kind(), message)
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn with_kind(kind: io::ErrorKind, message: impl fmt::Display) -> io::Error {
    io::Error::new(kind, message.to_string())
}

/// A socket file, which is removed when this is dropped, unless another file has replaced it.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    /// The file at this path.
    ///
    /// # Errors
    /// There is none.
    pub fn new(path: PathBuf) -> io::Result<Self> {
        let identity = identity(&fs::symlink_metadata(&path)?);
        Ok(Self { path, identity })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_own = || fs::symlink_metadata(&self.path).is_ok_and(|found| identity(&found) == self.identity);
        // The lock: another server could replace the file between the check and the removal.
        if is_own()
            && let Ok(_lock) = PathLock::new(&self.path)
            && is_own()
        {
            // A file that cannot be removed is found stale by the next server.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::{fs::PermissionsExt as _, net::UnixStream};

    use super::*;

    #[test]
    fn a_path_may_be_as_long_with_a_mode_as_without() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let name = "s".repeat(106 - directory.as_os_str().len());
        let path = directory.join(name);
        assert_eq!(path.as_os_str().len(), 107);
        let mut files = Vec::new();
        for take_over in [false, true] {
            let access = Access { mode: Some(0o600), ..Access::default() };
            let (listener, file) = listen_unix(path.clone(), access, take_over).unwrap();
            files.push(file);
            assert_eq!(fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            UnixStream::connect(&path).unwrap();
            assert!(listener.accept().is_ok());
        }
        assert_eq!(fs::read_dir(directory).unwrap().count(), 1, "nothing else is left");
    }
}
