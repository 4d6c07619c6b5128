//! Watches names in directories by inotify(7), or by polling where inotify is not available.
//!
//! There is one inotify descriptor for the life of the process; its watches are renewed after each
//! event. Only system calls that the supervisor's policy allows are used here.

use super::chain::{Chain, PathKind, follow};
use super::debounce::ReadOutcome;
use crate::deferred_close::DeferredClose;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, open, readlinkat};
use nix::libc;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::unistd::read;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Interval of polling.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// How often the chain is resolved again because it changed while watches were added.
const MAX_WALKS: usize = 4;

/// Most octets of the file that are read. Chosen: thousands of lines fit.
const MAX_LEN: usize = 64 * 1024;

/// Changes with the file: device, inode, size, mtime and ctime.
type Fingerprint = Option<(u64, u64, i64, (i64, i64), (i64, i64))>;

/// How changes are detected.
#[derive(Debug)]
enum ChangeDetection {
    Inotify {
        inotify: DeferredClose<Inotify>,
        names: BTreeMap<WatchDescriptor, BTreeSet<OsString>>,
    },
    Polling {
        fingerprints: Vec<Fingerprint>,
        next: Instant,
    },
}

/// The file that a path resolves to, watched for changes.
#[derive(Debug)]
pub(super) struct FileWatch {
    path: PathBuf,
    chain: Chain,
    detection: ChangeDetection,
}

impl FileWatch {
    /// Watches the file that `path` resolves to.
    pub(super) fn new(path: &Path, now: Instant) -> Self {
        let chain = walk(path);
        let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
        let detection = match Inotify::init(flags) {
            Ok(inotify) => ChangeDetection::Inotify {
                inotify: DeferredClose::new(inotify),
                names: BTreeMap::new(),
            },
            Err(_) => polling(&chain, now),
        };
        let mut watch = Self { path: path.to_owned(), chain, detection };
        watch.renew(now);
        watch
    }

    /// The descriptor that becomes readable when something has changed, if there is one.
    pub(super) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.detection {
            ChangeDetection::Inotify { inotify, .. } => Some(inotify.as_fd()),
            ChangeDetection::Polling { .. } => None,
        }
    }

    /// The chain as it was resolved last.
    pub(super) fn chain(&self) -> &Chain {
        &self.chain
    }

    /// When to poll, if this polls.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        match &self.detection {
            ChangeDetection::Inotify { .. } => None,
            ChangeDetection::Polling { next, .. } => Some(*next),
        }
    }

    /// Whether the chain or the file may have changed since the last call.
    pub(super) fn has_changed(&mut self, now: Instant) -> bool {
        match &mut self.detection {
            ChangeDetection::Inotify { inotify, names } => {
                let mut changed = false;
                // Read until empty: epoll is level-triggered, and the queue is bounded.
                while let Ok(events) = inotify.read_events() {
                    changed |= events.iter().any(|event| concerns(event, names));
                }
                changed
            }
            ChangeDetection::Polling { fingerprints, next } => {
                if now < *next {
                    return false;
                }
                *next = now + POLL_INTERVAL;
                let found = fingerprint(&self.chain);
                let changed = found != *fingerprints;
                *fingerprints = found;
                changed
            }
        }
    }

    /// Resolves the path again and watches the new chain.
    pub(super) fn renew(&mut self, now: Instant) {
        for _ in 0..MAX_WALKS {
            let refused = match &mut self.detection {
                ChangeDetection::Inotify { inotify, names } => {
                    watch_all(inotify, &self.chain, names).err()
                }
                ChangeDetection::Polling { fingerprints, .. } => {
                    *fingerprints = fingerprint(&self.chain);
                    None
                }
            };
            // The limit of watches is reached.
            if refused.is_some() {
                self.detection = polling(&self.chain, now);
            }
            // The chain may have changed before the watches were added.
            let again = walk(&self.path);
            if again == self.chain {
                return;
            }
            self.chain = again;
        }
    }

    /// Reads the file at the end of the chain; `text` parses it.
    pub(super) fn read<T>(&self, text: impl FnOnce(&str) -> T) -> Result<T, ReadOutcome> {
        let path = self.chain.file.as_deref().ok_or(ReadOutcome::Missing)?;
        let octets = contents(path).map_err(|errno| match errno {
            Errno::EACCES | Errno::EPERM => ReadOutcome::Denied,
            _ => ReadOutcome::Missing,
        })?;
        Ok(text(&String::from_utf8_lossy(&octets)))
    }
}

fn polling(chain: &Chain, now: Instant) -> ChangeDetection {
    ChangeDetection::Polling { fingerprints: fingerprint(chain), next: now + POLL_INTERVAL }
}

/// Whether an event is about one of the names, or about a directory itself.
fn concerns(event: &InotifyEvent, names: &BTreeMap<WatchDescriptor, BTreeSet<OsString>>) -> bool {
    if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
        return true;
    }
    let Some(names) = names.get(&event.wd) else { return false };
    event.name.as_ref().is_none_or(|name| names.contains(name))
}

/// Watches every directory of `chain` and no other. A directory that cannot be watched is skipped: the
/// chain is resolved again afterwards.
///
/// # Errors
///
/// The limit of watches of this user is reached.
fn watch_all(
    inotify: &Inotify,
    chain: &Chain,
    names: &mut BTreeMap<WatchDescriptor, BTreeSet<OsString>>,
) -> Result<(), Errno> {
    let mask = AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_ATTRIB
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_ONLYDIR;
    let mut wanted: BTreeMap<WatchDescriptor, BTreeSet<OsString>> = BTreeMap::new();
    for (directory, watched) in &chain.watched {
        match inotify.add_watch(directory, mask) {
            Ok(wd) => wanted.entry(wd).or_default().extend(watched.iter().cloned()),
            Err(errno @ (Errno::ENOSPC | Errno::ENOMEM)) => return Err(errno),
            Err(_) => {}
        }
    }
    for wd in names.keys().filter(|wd| !wanted.contains_key(wd)) {
        // Fails if the directory was removed: its watch is gone too.
        let _ = inotify.rm_watch(*wd);
    }
    *names = wanted;
    Ok(())
}

fn walk(path: &Path) -> Chain {
    follow(path, |at| match readlinkat(AT_FDCWD, at) {
        Ok(to) => PathKind::Link(to.into()),
        Err(Errno::ENOENT | Errno::ENOTDIR) => PathKind::Missing,
        Err(_) => PathKind::Other,
    })
}

fn fingerprint(chain: &Chain) -> Vec<Fingerprint> {
    let paths = chain
        .watched
        .iter()
        .flat_map(|(directory, names)| names.iter().map(move |name| directory.join(name)));
    paths
        .map(|path| {
            let stat = fstatat(AT_FDCWD, &path, AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
            let FileStat { st_dev, st_ino, st_size, st_mtime, st_ctime, .. } = stat;
            let (mtime, ctime) = ((st_mtime, stat.st_mtime_nsec), (st_ctime, stat.st_ctime_nsec));
            Some((st_dev, st_ino, st_size, mtime, ctime))
        })
        .collect()
}

/// Reads the regular file at `path`, whose last component is not a link.
fn contents(path: &Path) -> Result<Vec<u8>, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = open(path, flags, Mode::empty())?;
    let kind = SFlag::from_bits_truncate(fstat(&file)?.st_mode & libc::S_IFMT);
    if kind != SFlag::S_IFREG {
        return Err(Errno::ENOENT);
    }
    let mut octets = vec![0; MAX_LEN];
    let mut len = 0;
    while let Some(free) = octets.get_mut(len..).filter(|free| !free.is_empty()) {
        match read(&file, free) {
            Ok(0) => break,
            Ok(count) => len += count,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    octets.truncate(len);
    Ok(octets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// A temporary directory.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let name = format!("pasta-resolver-{name}-{}", std::process::id());
            let path = fs::canonicalize(std::env::temp_dir()).unwrap().join(name);
            fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn lines(watch: &FileWatch) -> Result<Vec<String>, ReadOutcome> {
        watch.read(|text| text.lines().map(str::to_owned).collect())
    }

    fn has_changed(watch: &mut FileWatch) -> bool {
        let changed = watch.has_changed(Instant::now());
        watch.renew(Instant::now());
        changed
    }

    #[test]
    fn replaced_files_swapped_links_and_recreated_directories_are_noticed() {
        let directory = Directory::new("watch");
        let at = |name: &str| directory.0.join(name);
        for name in ["a", "b"] {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("resolv.conf"), name).unwrap();
        }
        symlink("a/resolv.conf", at("link")).unwrap();
        let mut watch = FileWatch::new(&at("link"), Instant::now());
        assert!(watch.as_fd().is_some(), "inotify is there");
        assert_eq!(lines(&watch), Ok(vec!["a".to_owned()]));
        assert!(!has_changed(&mut watch));

        symlink("b/resolv.conf", at("new")).unwrap();
        assert!(!has_changed(&mut watch), "another name is not watched");
        fs::rename(at("new"), at("link")).unwrap();
        assert!(has_changed(&mut watch));
        assert_eq!(lines(&watch), Ok(vec!["b".to_owned()]));

        fs::write(at("a/resolv.conf"), "left").unwrap();
        assert!(!has_changed(&mut watch), "the previous file is not watched");
        fs::write(at("b/resolv.conf"), "edited").unwrap();
        assert!(has_changed(&mut watch));
        assert_eq!(lines(&watch), Ok(vec!["edited".to_owned()]));

        fs::remove_dir_all(at("b")).unwrap();
        assert!(has_changed(&mut watch));
        assert_eq!(lines(&watch), Err(ReadOutcome::Missing));
        fs::create_dir(at("b")).unwrap();
        assert!(has_changed(&mut watch));
        fs::write(at("b/resolv.conf"), "again").unwrap();
        assert!(has_changed(&mut watch));
        assert_eq!(lines(&watch), Ok(vec!["again".to_owned()]));
    }

    #[test]
    fn without_inotify_polling_finds_the_same() {
        let directory = Directory::new("poll");
        let path = directory.0.join("resolv.conf");
        fs::write(&path, "one").unwrap();
        let start = Instant::now();
        let mut watch = FileWatch::new(&path, start);
        watch.detection = polling(&watch.chain, start);

        fs::write(directory.0.join("new"), "two").unwrap();
        fs::rename(directory.0.join("new"), &path).unwrap();
        assert!(!watch.has_changed(start + Duration::from_millis(1999)));
        assert_eq!(watch.next_deadline(), Some(start + POLL_INTERVAL));
        assert!(watch.has_changed(start + POLL_INTERVAL));
        assert!(!watch.has_changed(start + 2 * POLL_INTERVAL));
        fs::remove_file(&path).unwrap();
        assert!(watch.has_changed(start + 3 * POLL_INTERVAL));
    }

    #[test]
    fn fifo_is_not_read_and_does_not_block() {
        let directory = Directory::new("fifo");
        let path = directory.0.join("resolv.conf");
        nix::unistd::mkfifo(&path, Mode::S_IRUSR).unwrap();
        let watch = FileWatch::new(&path, Instant::now());
        assert_eq!(lines(&watch), Err(ReadOutcome::Missing));
    }

    #[test]
    fn a_thousand_changes_leave_one_descriptor_with_its_watches() {
        let directory = Directory::new("many");
        let path = directory.0.join("resolv.conf");
        fs::write(&path, "").unwrap();
        let mut watch = FileWatch::new(&path, Instant::now());
        let descriptor = watch.as_fd().map(|fd| std::os::fd::AsRawFd::as_raw_fd(&fd));
        for n in 0..1000 {
            fs::write(directory.0.join("new"), n.to_string()).unwrap();
            fs::rename(directory.0.join("new"), &path).unwrap();
            assert!(has_changed(&mut watch));
            assert_eq!(lines(&watch), Ok(vec![n.to_string()]));
        }
        assert_eq!(watch.as_fd().map(|fd| std::os::fd::AsRawFd::as_raw_fd(&fd)), descriptor);
        let ChangeDetection::Inotify { names, .. } = &watch.detection else {
            panic!("inotify is there")
        };
        assert_eq!(names.len(), 1);
    }
}
