//! Access rights of a socket file.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::Path,
};

use nix::unistd::{User, geteuid};

use crate::socket_file::connect;

/// The access rights of a new file. `None` keeps what the system has set.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Access {
    pub(crate) mode: Option<u32>,
    pub(crate) owner: Option<u32>,
    pub(crate) group: Option<u32>,
}

impl Access {
    pub(crate) const fn is_default(self) -> bool {
        self.mode.is_none() && self.owner.is_none() && self.group.is_none()
    }
}

/// Sets the access rights of the socket that this process has just bound at `path` and that does not listen yet.
///
/// Other users who can write to the directory can replace the file meanwhile: symbolic links are not followed, and any other
/// file is left alone.
pub(crate) fn set(path: &Path, access: Access) -> io::Result<()> {
    if access.is_default() {
        return Ok(());
    }
    with_inode(path, |inode, found| {
        // The socket has one name and refuses connections. One of another server that was moved here accepts them.
        let refuses = connect(inode).is_err_and(|error| {
            matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::PermissionDenied)
        });
        if !found.file_type().is_socket() || found.nlink() != 1 || !refuses {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "another process has replaced the new socket: let only this user write to its directory",
            ));
        }
        // The owner last: only root may set the mode of another user's file.
        if let Some(mode) = access.mode {
            set_mode(inode, mode)?;
        }
        if access.owner.is_some() || access.group.is_some() {
            set_owner(inode, access.owner, access.group).map_err(|error| cannot_give(error, access))?;
        }
        Ok(())
    })
}

/// Runs a function with a path to the inode, which stays valid when the file is renamed or replaced.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn with_inode(path: &Path, run: impl FnOnce(&Path, &fs::Metadata) -> io::Result<()>) -> io::Result<()> {
    use std::os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _};

    use nix::fcntl::OFlag;

    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW;
    let handle = fs::OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    let inode = format!("/proc/self/fd/{}", handle.as_raw_fd());
    if !Path::new(&inode).exists() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "/proc is not mounted, and without it the mode, owner and group of a socket cannot be set safely: mount it",
        ));
    }
    run(Path::new(&inode), &handle.metadata()?)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
use std::os::unix::fs::chown as set_owner;

#[cfg(any(target_os = "linux", target_os = "android"))]
fn set_mode(inode: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;

    fs::set_permissions(inode, fs::Permissions::from_mode(mode))
}

/// Other systems have no such path, but calls that do not follow a symbolic link.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn with_inode(path: &Path, run: impl FnOnce(&Path, &fs::Metadata) -> io::Result<()>) -> io::Result<()> {
    run(path, &fs::symlink_metadata(path)?)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
use std::os::unix::fs::lchown as set_owner;

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};

    let mode = Mode::from_bits_truncate(mode as _);
    Ok(fchmodat(nix::fcntl::AT_FDCWD, path, mode, FchmodatFlags::NoFollowSymlink)?)
}

fn cannot_give(error: io::Error, Access { owner, group, .. }: Access) -> io::Error {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return error;
    }
    let to = match (owner, group) {
        (Some(owner), Some(group)) => format!("user {owner} and group {group}"),
        (Some(owner), None) => format!("user {owner}"),
        (None, group) => format!("group {}", group.unwrap_or_default()),
    };
    io::Error::new(
        error.kind(),
        format!(
            "{} has no permission to give the socket to {to}: only root may give it to another user, and others only to a \
             group that they are in",
            this_user()
        ),
    )
}

/// The user of this process, for messages.
pub(crate) fn this_user() -> String {
    let id = geteuid();
    match User::from_uid(id) {
        Ok(Some(user)) => format!("user {}", user.name),
        _ => format!("user {id}"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::{
        fs::{PermissionsExt as _, symlink},
        net::UnixListener,
    };

    use socket2::{Domain, SockAddr, Socket, Type};

    use super::*;

    const OPEN_FOR_ALL: Access = Access { mode: Some(0o666), owner: None, group: None };

    fn bound(path: &Path) -> Socket {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.bind(&SockAddr::unix(path).unwrap()).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        socket
    }

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn refused(path: &Path, target: &Path) {
        let error = set(path, OPEN_FOR_ALL).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
        assert_eq!(mode(target), 0o600, "left alone");
    }

    #[test]
    fn a_symbolic_link_that_comes_later_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let [target, path, moved] = ["target", "agent.sock", "moved"].map(|name| directory.path().join(name));
        fs::write(&target, "secret").unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).unwrap();
        let _socket = bound(&path);
        with_inode(&path, |inode, _| {
            fs::rename(&path, &moved)?;
            symlink(&target, &path)?;
            let _ = set_mode(inode, 0o666);
            let _ = set_owner(inode, Some(geteuid().as_raw()), None);
            Ok(())
        })
        .unwrap();
        assert_eq!(mode(&target), 0o600, "left alone");
        #[cfg(target_os = "linux")]
        assert_eq!(mode(&moved), 0o666, "the socket itself");
    }

    #[test]
    fn a_file_put_in_the_place_of_the_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let [target, link] = ["target", "link"].map(|name| directory.path().join(name));

        fs::write(&target, "secret").unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).unwrap();
        refused(&target, &target);
        symlink(&target, &link).unwrap();
        refused(&link, &target);

        // A symbolic link to a socket that would be taken otherwise, and another name of it.
        fs::remove_file(&target).unwrap();
        let _socket = bound(&target);
        refused(&link, &target);
        fs::remove_file(&link).unwrap();
        fs::hard_link(&target, &link).unwrap();
        refused(&link, &target);
        fs::remove_file(&link).unwrap();
        set(&target, OPEN_FOR_ALL).unwrap();
        assert_eq!(mode(&target), 0o666);

        // One that is served.
        fs::remove_file(&target).unwrap();
        let _listener = UnixListener::bind(&target).unwrap();
        fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).unwrap();
        refused(&target, &target);
    }
}
