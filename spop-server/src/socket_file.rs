//! The files of unix sockets: a process that dies leaves its own behind.

use std::{
    collections::hash_map::RandomState,
    fs,
    hash::BuildHasher as _,
    io,
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::UnixListener,
    },
    path::{Path, PathBuf},
};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::BACKLOG;

/// Listens on a path, without blocking. A socket file that nobody serves is replaced; with `take_over`, also one that is
/// served: whoever serves it keeps the connections that it has, and the next ones come here. With a `mode`, such as
/// `0o660`, the file has these permissions before anybody can connect; without, they follow from the umask.
///
/// # Errors
/// Somebody serves there and is not taken over, the file is no socket, or the system refuses.
pub fn listen_unix(path: &Path, mode: Option<u32>, take_over: bool) -> io::Result<UnixListener> {
    let listener = if take_over || mode.is_some() {
        listen_beside(path, mode, take_over)?
    } else {
        match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale(path) => {
                fs::remove_file(path)?;
                UnixListener::bind(path)?
            }
            other => other?,
        }
    };
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The file gets its name when it has its permissions, so that there is no moment at which it has others, or is not there.
fn listen_beside(path: &Path, mode: Option<u32>, take_over: bool) -> io::Result<UnixListener> {
    let replaceable = if take_over { is_socket(path) } else { is_stale(path) };
    if fs::symlink_metadata(path).is_ok() && !replaceable {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    // In the same folder, of a name that nobody knows, and short: the path of a socket has some 107 bytes.
    let name = RandomState::new().hash_one(path) as u32;
    let new = path.with_file_name(format!(".{name:08x}"));
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(&new)?)?;
    let permissions = mode.map(fs::Permissions::from_mode);
    let done = permissions.map_or(Ok(()), |permissions| fs::set_permissions(&new, permissions));
    // Before it listens, nobody can connect, whatever the permissions are.
    if let Err(error) =
        done.and_then(|()| socket.listen(BACKLOG.into())).and_then(|()| fs::rename(&new, path))
    {
        let _ = fs::remove_file(&new);
        return Err(error);
    }
    Ok(socket.into())
}

/// Whether it is a socket that refuses connections. One whose queue is full does not refuse: somebody serves it.
fn is_stale(path: &Path) -> bool {
    is_socket(path) && connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
}

fn connect(path: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(path)?)
}

/// A socket file that is removed with this, unless another has taken its place.
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
        let identity = identity(&path)?;
        Ok(Self { path, identity })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            // A file that cannot be removed is found stale by the next server.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let file = fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixStream, process};

    use super::*;

    #[test]
    fn a_path_may_be_as_long_with_a_mode_as_without() {
        let folder = std::env::temp_dir().join(format!("spop-{}", process::id()));
        fs::create_dir_all(&folder).unwrap();
        let name = "s".repeat(106 - folder.as_os_str().len());
        let path = folder.join(name);
        assert_eq!(path.as_os_str().len(), 107);
        for take_over in [false, true] {
            let listener = listen_unix(&path, Some(0o600), take_over).unwrap();
            assert_eq!(fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            UnixStream::connect(&path).unwrap();
            assert!(listener.accept().is_ok());
        }
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing else is left");
        fs::remove_dir_all(&folder).unwrap();
    }
}
