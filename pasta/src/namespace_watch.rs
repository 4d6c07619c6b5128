//! Notices the end of a namespace that we are attached to.
//!
//! A descriptor of a network namespace keeps it alive, and so does the tap: its end cannot be seen from
//! either. What ends is the reference that the caller gave us:
//!
//! | reference | is watched by | has ended when |
//! | --- | --- | --- |
//! | a process (PID, or a path below `/proc/PID`) | a pidfd | the process ends |
//! | another file below `/proc/PID` than `ns/net` | a look once a second, too | the file is gone or is another namespace |
//! | a path | inotify(7) on its directory, and the table of mounts | the file is gone or is another namespace |
//!
//! Where neither inotify nor a pidfd can be had, the path is looked at once a second.

use crate::deferred_close::DeferredClose;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

/// Interval at which a path is looked at where the kernel reports no event.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The directory of a namespace cannot be watched.
#[derive(Debug)]
pub(crate) struct WatchError {
    path: PathBuf,
    cause: io::Error,
}

impl fmt::Display for WatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        write!(f, "cannot watch for the end of namespace {path} (--no-netns-quit does without)")
    }
}

impl std::error::Error for WatchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

/// The watch on a namespace; without any part it never ends.
#[derive(Debug, Default)]
pub(crate) struct NamespaceWatch {
    /// Wakes when any part below has something to report.
    epoll: Option<Epoll>,
    process: Option<OwnedFd>,
    file: Option<FileWatch>,
}

/// The watch on a path.
#[derive(Debug)]
struct FileWatch {
    directory: OwnedFd,
    name: OsString,
    /// Device and inode of the namespace.
    identity: (u64, u64),
    inotify: Option<DeferredClose<Inotify>>,
    mounts: Option<OwnedFd>,
    /// When the path is looked at next, where nothing reports events.
    next_look: Option<Instant>,
}

/// What an event of the epoll instance is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
enum Token {
    Process,
    File,
}

impl NamespaceWatch {
    /// Watches nothing.
    pub(crate) fn never() -> Self {
        Self::default()
    }

    /// Watches `path`, behind which is the namespace `net`, and the process, if one was named or the path
    /// is below its directory.
    ///
    /// # Errors
    ///
    /// If the directory of the path cannot be opened.
    pub(crate) fn new(
        path: &Path,
        net: &OwnedFd,
        process: Option<OwnedFd>,
    ) -> Result<Self, WatchError> {
        let failed = |cause: Errno| WatchError { path: path.to_owned(), cause: cause.into() };
        let named = process_of(path);
        let file = FileWatch::new(path, net, named).map_err(failed)?;
        // This file of a process goes with it; others below its directory, those of descriptors and of
        // threads, may go before.
        let goes_with_it =
            named.is_some_and(|pid| path == Path::new(&format!("/proc/{pid}/ns/net")));
        let file =
            Some(file).filter(|file| file.inotify.is_some() || process.is_none() || !goes_with_it);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed)?;
        if let Some(process) = &process {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, Token::Process as u64);
            epoll.add(process, event).map_err(failed)?;
        }
        if let Some(file) = &file {
            file.add_to(&epoll).map_err(failed)?;
        }
        Ok(Self { epoll: Some(epoll), process, file })
    }

    /// The descriptor that becomes readable when [`NamespaceWatch::has_ended`] is to be called.
    pub(crate) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.epoll.as_ref().map(|epoll| epoll.0.as_fd())
    }

    /// When it is to be called if the descriptor does not become readable before.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.file.as_ref()?.next_look
    }

    /// Whether the reference to the namespace is gone. Calling it early is harmless.
    pub(crate) fn has_ended(&mut self, now: Instant) -> bool {
        let Some(epoll) = &self.epoll else { return false };
        let mut events = [EpollEvent::empty(); 4];
        let count = epoll.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
        let mut woken = events.iter().take(count).map(EpollEvent::data);
        let process_ended = self.process.is_some() && woken.any(|it| it == Token::Process as u64);
        // A look costs little, and other wake-ups are rare.
        process_ended || self.file.as_mut().is_some_and(|file| file.has_ended(now))
    }
}

impl FileWatch {
    /// Watches `path`; `process` is the process below whose directory of procfs it is.
    fn new(path: &Path, net: &OwnedFd, process: Option<Pid>) -> Result<Self, Errno> {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = open(parent, flags, Mode::empty())?;
        let name = path.file_name().ok_or(Errno::EINVAL)?.to_owned();
        // procfs reports no events.
        let in_proc = fstatfs(&directory).is_ok_and(|it| it.filesystem_type() == PROC_SUPER_MAGIC);
        let inotify = if in_proc { None } else { watch_directory(parent).ok() };
        let next_look = inotify.is_none().then(|| Instant::now() + POLL_INTERVAL);
        // A path below /proc/PID/root is in the mount namespace of that process.
        let mounts = match process {
            Some(pid) => format!("/proc/{pid}/mountinfo"),
            None => "/proc/self/mountinfo".into(),
        };
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        Ok(Self {
            directory,
            name,
            identity: fstat(net).map(identity)?,
            inotify: inotify.map(DeferredClose::new),
            mounts: open(mounts.as_str(), flags, Mode::empty()).ok(),
            next_look,
        })
    }

    fn add_to(&self, epoll: &Epoll) -> Result<(), Errno> {
        if let Some(inotify) = &self.inotify {
            epoll.add(inotify.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, Token::File as u64))?;
        }
        if let Some(mounts) = &self.mounts {
            // A change of the table of mounts is reported as exceptional (proc_pid_mounts(5)).
            epoll.add(mounts, EpollEvent::new(EpollFlags::EPOLLPRI, Token::File as u64))?;
        }
        Ok(())
    }

    fn has_ended(&mut self, now: Instant) -> bool {
        if self.next_look.is_some_and(|at| at <= now) {
            self.next_look = Some(now + POLL_INTERVAL);
        }
        // The queue is emptied in any case. Events count too because the directory may be one that the
        // user we have become may not search.
        if self.was_removed() {
            return true;
        }
        match fstatat(&self.directory, self.name.as_os_str(), AtFlags::empty()) {
            Ok(found) => identity(found) != self.identity,
            // Nothing is known then, so it goes on.
            Err(Errno::EACCES | Errno::EPERM) => false,
            Err(_) => true,
        }
    }

    /// Whether an event says that the file is gone.
    fn was_removed(&self) -> bool {
        let Some(inotify) = &self.inotify else { return false };
        let gone = AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVED_FROM;
        let mut removed = false;
        while let Ok(events) = inotify.read_events() {
            removed |= events.iter().any(|event| {
                event.mask.intersects(gone) && event.name.as_deref() == Some(self.name.as_os_str())
            });
        }
        removed
    }
}

fn watch_directory(directory: &Path) -> Result<Inotify, Errno> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    let what = AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVE
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_ONLYDIR;
    inotify.add_watch(directory, what)?;
    Ok(inotify)
}

/// The process that a path below `/proc` names.
pub(crate) fn process_of(path: &Path) -> Option<Pid> {
    let mut parts = path.components();
    let in_proc = parts.next() == Some(Component::RootDir)
        && parts.next().is_some_and(|part| part.as_os_str() == "proc");
    let number = parts.next().filter(|_| in_proc)?.as_os_str().to_str()?;
    number.parse().ok().filter(|pid| *pid > 0).map(Pid::from_raw)
}

fn identity(stat: FileStat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys;
    use std::fs::{self, File};

    /// A directory of this test with a file in it, and the watch on the file.
    fn watched(name: &str) -> (PathBuf, PathBuf, NamespaceWatch) {
        let directory =
            std::env::temp_dir().join(format!("pasta-watch-{name}-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let path = directory.join("ns");
        let file = OwnedFd::from(File::create(&path).unwrap());
        let watch = NamespaceWatch::new(&path, &file, None).unwrap();
        (directory, path, watch)
    }

    /// Whether the watch has become readable, and what it says.
    fn woken(watch: &mut NamespaceWatch) -> (bool, bool) {
        let readable = {
            let epoll = Epoll::new(EpollCreateFlags::empty()).unwrap();
            epoll.add(watch.as_fd().unwrap(), EpollEvent::new(EpollFlags::EPOLLIN, 0)).unwrap();
            epoll.wait(&mut [EpollEvent::empty()], EpollTimeout::ZERO) == Ok(1)
        };
        (readable, watch.has_ended(Instant::now()))
    }

    #[test]
    fn a_file_that_is_removed_or_replaced_has_ended() {
        for (name, end) in [
            ("unlink", (|path| fs::remove_file(path).unwrap()) as fn(&Path)),
            ("rename", |path| fs::rename(path, path.with_extension("old")).unwrap()),
            ("replace", |path| {
                let new = path.with_extension("new");
                File::create(&new).unwrap();
                fs::rename(new, path).unwrap();
            }),
        ] {
            let (directory, path, mut watch) = watched(name);
            assert_eq!(woken(&mut watch), (false, false), "{name}");
            end(&path);
            assert_eq!(woken(&mut watch), (true, true), "{name}");
            fs::remove_dir_all(directory).unwrap();
        }
    }

    #[test]
    fn other_files_of_the_directory_do_not_count() {
        let (directory, path, mut watch) = watched("other");
        File::create(path.with_extension("other")).unwrap();
        fs::remove_file(path.with_extension("other")).unwrap();
        assert_eq!(woken(&mut watch), (true, false));
        assert_eq!(woken(&mut watch), (false, false), "the queue is empty");
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn namespace_of_a_process_ends_with_it() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let path = PathBuf::from(format!("/proc/{}/ns/net", child.id()));
        let process = sys::pidfd_open_any(process_of(&path).unwrap()).unwrap();
        let net = OwnedFd::from(File::open(&path).unwrap());
        let mut watch = NamespaceWatch::new(&path, &net, Some(process)).unwrap();
        assert_eq!(woken(&mut watch), (false, false));
        assert_eq!(watch.next_deadline(), None, "nothing is polled");
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(woken(&mut watch), (true, true));
    }

    #[test]
    fn path_without_events_is_looked_at_every_second() {
        let net = OwnedFd::from(File::open("/proc/self/ns/net").unwrap());
        let mut watch = NamespaceWatch::new(Path::new("/proc/self/ns/net"), &net, None).unwrap();
        let first = watch.next_deadline().unwrap();
        assert!(!watch.has_ended(first));
        assert_eq!(watch.next_deadline(), Some(first + POLL_INTERVAL));
    }

    #[test]
    fn descriptor_of_a_process_may_be_closed_before_its_end() {
        let net = OwnedFd::from(File::open("/proc/self/ns/net").unwrap());
        // A number that no other test gets meanwhile.
        let named = sys::duplicate_above(net.as_fd(), 700).unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&named);
        let path = PathBuf::from(format!("/proc/{}/fd/{number}", std::process::id()));
        let mut watch = NamespaceWatch::new(&path, &net, None).unwrap();
        let look = watch.next_deadline().unwrap();
        assert!(!watch.has_ended(look));
        drop(named);
        assert!(watch.has_ended(look + POLL_INTERVAL));
    }

    #[test]
    fn only_numbers_below_proc_are_processes() {
        let pid = |path: &str| process_of(Path::new(path)).map(Pid::as_raw);
        assert_eq!(pid("/proc/12/ns/net"), Some(12));
        assert_eq!(pid("/proc/12/root/run/ns"), Some(12));
        assert_eq!(pid("/proc/self/ns/net"), None);
        assert_eq!(pid("/run/12/ns"), None);
        assert_eq!(pid("proc/12"), None);
    }
}
