//! Names in directories, watched by inotify(7), or where that cannot be had, looked at by the clock.
//!
//! There is one inotify descriptor for the life of the process; what it watches is made anew after
//! each event. Only calls that the confined supervisor has are used here.

use super::chain::{Chain, Look, follow};
use super::farewell::Unhurried;
use super::settle::Found;
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

/// How often is looked where nothing can be watched.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// How often the way is walked again because it has changed while it was put under watch.
const WALKS: usize = 4;

/// No more of the file is read, in octets. Chosen: a file with thousands of lines still fits.
const MAX_LEN: usize = 64 * 1024;

/// What shows that a name has changed: device, inode, size, and when content and inode did last.
type Trace = Option<(u64, u64, i64, (i64, i64), (i64, i64))>;

/// How changes are noticed.
#[derive(Debug)]
enum Means {
    Inotify { inotify: Unhurried<Inotify>, names: BTreeMap<WatchDescriptor, BTreeSet<OsString>> },
    Polling { traces: Vec<Trace>, next: Instant },
}

/// A file that a path leads to, and how changes of it are noticed.
#[derive(Debug)]
pub(super) struct Watch {
    path: PathBuf,
    chain: Chain,
    means: Means,
}

impl Watch {
    /// Watches what `path` leads to.
    pub(super) fn new(path: &Path, now: Instant) -> Self {
        let chain = walk(path);
        let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
        let means = match Inotify::init(flags) {
            Ok(inotify) => {
                Means::Inotify { inotify: Unhurried::new(inotify), names: BTreeMap::new() }
            }
            Err(_) => polling(&chain, now),
        };
        let mut watch = Self { path: path.to_owned(), chain, means };
        watch.renew(now);
        watch
    }

    /// The descriptor that becomes readable when something has changed, if there is one.
    pub(super) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.means {
            Means::Inotify { inotify, .. } => Some(inotify.as_fd()),
            Means::Polling { .. } => None,
        }
    }

    /// Where the path led when it was walked last.
    pub(super) fn chain(&self) -> &Chain {
        &self.chain
    }

    /// When to look, where that is how changes are noticed.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        match &self.means {
            Means::Inotify { .. } => None,
            Means::Polling { next, .. } => Some(*next),
        }
    }

    /// Whether anything on the way has changed since it was asked last.
    pub(super) fn has_changed(&mut self, now: Instant) -> bool {
        match &mut self.means {
            Means::Inotify { inotify, names } => {
                let mut changed = false;
                // Read to the end: the descriptor is watched by level, and its queue is bounded.
                while let Ok(events) = inotify.read_events() {
                    changed |= events.iter().any(|event| concerns(event, names));
                }
                changed
            }
            Means::Polling { traces, next } => {
                if now < *next {
                    return false;
                }
                *next = now + POLL_INTERVAL;
                let found = trace(&self.chain);
                let changed = found != *traces;
                *traces = found;
                changed
            }
        }
    }

    /// Walks the way again and watches it as it is now.
    pub(super) fn renew(&mut self, now: Instant) {
        for _ in 0..WALKS {
            let refused = match &mut self.means {
                Means::Inotify { inotify, names } => watch_all(inotify, &self.chain, names).err(),
                Means::Polling { traces, .. } => {
                    *traces = trace(&self.chain);
                    None
                }
            };
            // No more watches to be had.
            if refused.is_some() {
                self.means = polling(&self.chain, now);
            }
            // It may have changed before it was watched.
            let again = walk(&self.path);
            if again == self.chain {
                return;
            }
            self.chain = again;
        }
    }

    /// Reads the file at the end of the way; `text` makes of it what it says.
    pub(super) fn read<T>(&self, text: impl FnOnce(&str) -> Vec<T>) -> Result<Vec<T>, Found> {
        let path = self.chain.file.as_deref().ok_or(Found::Nothing)?;
        let octets = contents(path).map_err(|errno| match errno {
            Errno::EACCES | Errno::EPERM => Found::Denied,
            _ => Found::Nothing,
        })?;
        Ok(text(&String::from_utf8_lossy(&octets)))
    }
}

fn polling(chain: &Chain, now: Instant) -> Means {
    Means::Polling { traces: trace(chain), next: now + POLL_INTERVAL }
}

/// Whether an event is about one of the names, or about a directory itself.
fn concerns(event: &InotifyEvent, names: &BTreeMap<WatchDescriptor, BTreeSet<OsString>>) -> bool {
    if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
        return true;
    }
    let Some(names) = names.get(&event.wd) else { return false };
    event.name.as_ref().is_none_or(|name| names.contains(name))
}

/// Watches every directory of `chain` and no other. One that cannot be watched for a reason of its
/// own is left out: the next walk tells.
///
/// # Errors
///
/// Where there are no more watches for this user.
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
        // One whose directory is gone has gone with it.
        let _ = inotify.rm_watch(*wd);
    }
    *names = wanted;
    Ok(())
}

fn walk(path: &Path) -> Chain {
    follow(path, |at| match readlinkat(AT_FDCWD, at) {
        Ok(to) => Look::Link(to.into()),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Look::Missing,
        Err(_) => Look::Other,
    })
}

fn trace(chain: &Chain) -> Vec<Trace> {
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

/// What is in the file at `path`, whose last part is no link. A thing that is no file has nothing.
fn contents(path: &Path) -> Result<Vec<u8>, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = open(path, flags, Mode::empty())?;
    let kind = SFlag::from_bits_truncate(fstat(&file)?.st_mode & libc::S_IFMT);
    if kind != SFlag::S_IFREG {
        return Err(Errno::ENOENT);
    }
    let mut octets = vec![0; MAX_LEN];
    let mut len = 0;
    while let Some(room) = octets.get_mut(len..).filter(|room| !room.is_empty()) {
        match read(&file, room) {
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

    /// A directory of its own for one test, removed at its end.
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

    fn lines(watch: &Watch) -> Result<Vec<String>, Found> {
        watch.read(|text| text.lines().map(str::to_owned).collect())
    }

    fn is_told(watch: &mut Watch) -> bool {
        let changed = watch.has_changed(Instant::now());
        watch.renew(Instant::now());
        changed
    }

    #[test]
    fn replaced_files_swapped_links_and_recreated_directories_are_told() {
        let directory = Directory::new("watch");
        let at = |name: &str| directory.0.join(name);
        for name in ["a", "b"] {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("resolv.conf"), name).unwrap();
        }
        symlink("a/resolv.conf", at("link")).unwrap();
        let mut watch = Watch::new(&at("link"), Instant::now());
        assert!(watch.as_fd().is_some(), "inotify is there");
        assert_eq!(lines(&watch), Ok(vec!["a".to_owned()]));
        assert!(!is_told(&mut watch));

        symlink("b/resolv.conf", at("new")).unwrap();
        assert!(!is_told(&mut watch), "another name is of no interest");
        fs::rename(at("new"), at("link")).unwrap();
        assert!(is_told(&mut watch));
        assert_eq!(lines(&watch), Ok(vec!["b".to_owned()]));

        fs::write(at("a/resolv.conf"), "left").unwrap();
        assert!(!is_told(&mut watch), "what was left is of no interest");
        fs::write(at("b/resolv.conf"), "edited").unwrap();
        assert!(is_told(&mut watch));
        assert_eq!(lines(&watch), Ok(vec!["edited".to_owned()]));

        fs::remove_dir_all(at("b")).unwrap();
        assert!(is_told(&mut watch));
        assert_eq!(lines(&watch), Err(Found::Nothing));
        fs::create_dir(at("b")).unwrap();
        assert!(is_told(&mut watch));
        fs::write(at("b/resolv.conf"), "again").unwrap();
        assert!(is_told(&mut watch));
        assert_eq!(lines(&watch), Ok(vec!["again".to_owned()]));
    }

    #[test]
    fn without_inotify_the_same_is_seen_by_the_clock() {
        let directory = Directory::new("poll");
        let path = directory.0.join("resolv.conf");
        fs::write(&path, "one").unwrap();
        let start = Instant::now();
        let mut watch = Watch::new(&path, start);
        watch.means = polling(&watch.chain, start);

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
    fn what_is_no_file_says_nothing_and_is_not_waited_for() {
        let directory = Directory::new("fifo");
        let path = directory.0.join("resolv.conf");
        nix::unistd::mkfifo(&path, Mode::S_IRUSR).unwrap();
        let watch = Watch::new(&path, Instant::now());
        assert_eq!(lines(&watch), Err(Found::Nothing));
    }

    #[test]
    fn a_thousand_changes_leave_one_descriptor_with_its_watches() {
        let directory = Directory::new("many");
        let path = directory.0.join("resolv.conf");
        fs::write(&path, "").unwrap();
        let mut watch = Watch::new(&path, Instant::now());
        let descriptor = watch.as_fd().map(|fd| std::os::fd::AsRawFd::as_raw_fd(&fd));
        for n in 0..1000 {
            fs::write(directory.0.join("new"), n.to_string()).unwrap();
            fs::rename(directory.0.join("new"), &path).unwrap();
            assert!(is_told(&mut watch));
            assert_eq!(lines(&watch), Ok(vec![n.to_string()]));
        }
        assert_eq!(watch.as_fd().map(|fd| std::os::fd::AsRawFd::as_raw_fd(&fd)), descriptor);
        let Means::Inotify { names, .. } = &watch.means else { panic!("inotify is there") };
        assert_eq!(names.len(), 1);
    }
}
