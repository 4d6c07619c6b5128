//! The file of the control socket (`-c`): made early, with the caller's rights, and removed at the end.
//!
//! It is for its owner alone. Where there is one already, it is tried: one that somebody listens on is an error, one
//! of an instance that has died is replaced, and anything else is left alone. The directory is locked meanwhile, so
//! that of two instances that start at once only one gets the path.

use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag, open};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
};
use nix::sys::stat::{Mode, SFlag, fchmod, fstatat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, unlinkat};
use std::ffi::OsString;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Connections that may wait for us; others are refused. Chosen: more than clients that are served at once.
const WAITING: i32 = 64;

/// How long another instance may hold the directory's lock. Chosen: it does for a few system calls.
const LOCK_LIMIT: Duration = Duration::from_secs(2);

/// Interval of attempts to get it.
const LOCK_INTERVAL: Duration = Duration::from_millis(5);

/// Device and number of a file.
type FileId = (u64, u64);

/// The socket, and where its file is.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    listener: OwnedFd,
    directory: OwnedFd,
    name: OsString,
    /// Device and number of our file: another one at the path is not ours to remove.
    file: FileId,
    path: PathBuf,
}

/// The socket cannot be made.
#[derive(Debug)]
pub(crate) struct ControlSocketError {
    path: PathBuf,
    why: Why,
}

#[derive(Debug)]
enum Why {
    InUse,
    NotASocket,
    NoName,
    Locked,
    System(Errno),
}

impl fmt::Display for ControlSocketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot make control socket {} (-c): ", self.path.display())?;
        match self.why {
            Why::InUse => f.write_str("another instance is listening there"),
            Why::NotASocket => f.write_str("there is something else that is no socket"),
            Why::NoName => f.write_str("it does not name a file"),
            Why::Locked => f.write_str("its directory is locked by another process"),
            Why::System(errno) => f.write_str(errno.desc()),
        }
    }
}

impl std::error::Error for ControlSocketError {}

impl From<Errno> for Why {
    fn from(errno: Errno) -> Self {
        Self::System(errno)
    }
}

impl ControlSocket {
    /// Makes the socket at `path`; `owner` is the user that root becomes.
    ///
    /// # Errors
    ///
    /// [`ControlSocketError`].
    pub(crate) fn open(path: &Path, owner: Option<(Uid, Gid)>) -> Result<Self, ControlSocketError> {
        make(path, owner).map_err(|why| ControlSocketError { path: path.to_owned(), why })
    }

    /// What clients connect to.
    pub(crate) fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Where the file is.
    pub(crate) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Removes the file, if it is still ours; a line for the log if that fails.
    pub(crate) fn remove(&self) -> Option<String> {
        let failed = |errno: Errno| {
            format!(
                "control socket {} is left behind: {} (the next instance replaces it)",
                self.path.display(),
                errno.desc()
            )
        };
        match identity(&self.directory, &self.name) {
            Ok(Some((file, _))) if file == self.file => {
                let removed = unlinkat(&self.directory, &*self.name, UnlinkatFlags::NoRemoveDir);
                removed.err().map(failed)
            }
            Ok(_) => None,
            Err(errno) => Some(failed(errno)),
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // After `remove` there is nothing; a start that has failed has no other place to do it.
        let _ = self.remove();
    }
}

fn make(path: &Path, owner: Option<(Uid, Gid)>) -> Result<ControlSocket, Why> {
    let name = path.file_name().ok_or(Why::NoName)?.to_owned();
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let directory = open(parent.unwrap_or(Path::new(".")), flags, Mode::empty())?;
    let lock = lock(&directory)?;
    // By the descriptor, so that it is this directory whatever its path leads to, and of any length.
    let at = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(&name);
    let address = UnixAddr::new(&at)?;
    match identity(&directory, &name)? {
        None => {}
        Some((_, SFlag::S_IFSOCK)) => {
            if is_live(&address)? {
                return Err(Why::InUse);
            }
            unlinkat(&directory, &*name, UnlinkatFlags::NoRemoveDir)?;
        }
        Some(_) => return Err(Why::NotASocket),
    }
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let listener = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    // The file gets the mode of the socket (`unix_bind_bsd()`, net/unix/af_unix.c).
    fchmod(&listener, Mode::from_bits_truncate(0o600))?;
    bind(listener.as_raw_fd(), &address)?;
    let Some((file, _)) = identity(&directory, &name)? else { return Err(Errno::ENOENT.into()) };
    let made = ControlSocket { listener, directory, name, file, path: path.to_owned() };
    if let Some((uid, gid)) = owner {
        let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
        fchownat(&made.directory, &*made.name, Some(uid), Some(gid), flags)?;
    }
    // Whoever finds it before this is refused, and takes it for one of an instance that has died; but not while the
    // directory is locked.
    listen(&made.listener, Backlog::new(WAITING)?)?;
    drop(lock);
    Ok(made)
}

/// Locks `directory`; not where its files may be used and not listed.
fn lock(directory: &OwnedFd) -> Result<Option<Flock<OwnedFd>>, Why> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let at = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string());
    let deadline = Instant::now() + LOCK_LIMIT;
    let mut file = match open(&at, flags, Mode::empty()) {
        Err(Errno::EACCES) => return Ok(None),
        opened => opened?,
    };
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(Some(lock)),
            Err((again, Errno::EAGAIN | Errno::EINTR)) if Instant::now() < deadline => {
                file = again;
                std::thread::sleep(LOCK_INTERVAL);
            }
            Err((_, Errno::EAGAIN)) => return Err(Why::Locked),
            Err((_, errno)) => return Err(errno.into()),
        }
    }
}

/// What is called `name` in `directory`: device and number, and what kind of file.
fn identity(directory: &OwnedFd, name: &OsString) -> Result<Option<(FileId, SFlag)>, Errno> {
    match fstatat(directory, &**name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(found) => {
            let kind = SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits());
            Ok(Some(((found.st_dev, found.st_ino), kind)))
        }
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Whether somebody listens there.
fn is_live(address: &UnixAddr) -> Result<bool, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let probe = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    match connect(probe.as_raw_fd(), address) {
        Err(Errno::ECONNREFUSED) => Ok(false),
        // As many wait as may; or it is a socket of another type, that somebody has open.
        Ok(()) | Err(Errno::EAGAIN | Errno::EPROTOTYPE) => Ok(true),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("control-{}-{name}", std::process::id()));
            std::fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn path(&self) -> PathBuf {
            self.0.join("socket")
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn socket_in_use_is_an_error_and_one_of_the_dead_is_replaced() {
        use std::os::unix::fs::PermissionsExt;
        let directory = Directory::new("use");
        let first = ControlSocket::open(&directory.path(), None).unwrap();
        let mode = std::fs::metadata(directory.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "for its owner alone");
        let second = ControlSocket::open(&directory.path(), None).unwrap_err();
        assert!(second.to_string().contains("another instance"), "{second}");
        // As after SIGKILL: the listener is closed, the file is there.
        let ControlSocket { listener, .. } = &first;
        let listener = listener.try_clone().unwrap();
        std::mem::forget(first);
        drop(listener);
        let stale = Directory::new("stale");
        drop(std::os::unix::net::UnixListener::bind(stale.path()).unwrap());
        let replaced = ControlSocket::open(&stale.path(), None).unwrap();
        assert_eq!(replaced.remove(), None);
        assert!(!stale.path().exists());
    }

    #[test]
    fn other_files_are_left_alone() {
        let directory = Directory::new("other");
        std::fs::write(directory.path(), "mine").unwrap();
        let error = ControlSocket::open(&directory.path(), None).unwrap_err();
        assert!(error.to_string().contains("no socket"), "{error}");
        assert_eq!(std::fs::read(directory.path()).unwrap(), b"mine");
        std::fs::remove_file(directory.path()).unwrap();
        std::os::unix::fs::symlink("/nowhere", directory.path()).unwrap();
        assert!(ControlSocket::open(&directory.path(), None).is_err());
        assert!(std::fs::symlink_metadata(directory.path()).unwrap().is_symlink());
    }

    #[test]
    fn stream_socket_of_another_program_is_in_use() {
        let directory = Directory::new("stream");
        let listener = std::os::unix::net::UnixListener::bind(directory.path()).unwrap();
        let error = ControlSocket::open(&directory.path(), None).unwrap_err();
        assert!(error.to_string().contains("another instance"), "{error}");
        drop(listener);
        assert!(ControlSocket::open(&directory.path(), None).is_ok());
    }

    #[test]
    fn file_of_a_successor_is_not_removed() {
        let directory = Directory::new("successor");
        let first = ControlSocket::open(&directory.path(), None).unwrap();
        // A file that is made right after another may get its number.
        std::fs::rename(directory.path(), directory.path().with_extension("old")).unwrap();
        let second = ControlSocket::open(&directory.path(), None).unwrap();
        drop(first);
        assert!(directory.path().exists());
        drop(second);
        assert!(!directory.path().exists());
    }
}
