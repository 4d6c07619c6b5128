//! The host's resolvers: `/etc/resolv.conf`, read and followed while the program runs.
//!
//! Only the supervisor reads the file. It sends the list to the datapath as a snapshot with its own
//! generation. The namespace's resolv.conf is never changed.
//!
//! ```text
//! path -> chain of links          chain.rs     the names to watch, and the file at the end
//! chain -> events, contents       watch.rs     inotify on directories, or polling every two seconds
//! contents -> lists               (library)    the lines `nameserver`, `search` and `domain`
//! events, lists, time -> updates  debounce.rs  when to read, and whether the list has changed
//! ```
//!
//! Limits: 64 servers, 16 search domains, 64 KiB of the file, 40 symbolic links. A file outside the directories that
//! Landlock leaves to the supervisor is not read: one warning is logged, and the last list stays in use.

mod chain;
mod debounce;
mod watch;

use debounce::{Debounce, ReadOutcome};
use nix::fcntl::{OFlag, open};
use nix::net::if_::if_nameindex;
use nix::sys::stat::Mode;
use pasta::resolv_conf::{ResolvConf, parse};
use pasta_ipc::types::{Bounded, Generation, LogLevel, Resolver, ResolverSnapshot};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use watch::FileWatch;

/// The file that the C library reads.
const PATH: &str = "/etc/resolv.conf";

/// Directories of common resolver managers: a link may point to one of these later.
const USUAL_DIRECTORIES: [&str; 4] =
    ["/run/systemd/resolve", "/run/NetworkManager", "/run/resolvconf", "/run/netconfig"];

/// Delay before a list is sent again after the channel was full. Chosen.
const RESEND_DELAY: Duration = Duration::from_millis(100);

/// Whether the file is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WatchMode {
    /// The file is watched while the program runs.
    On,
    /// The file is read once (`--follow off`).
    Off,
}

/// What follows from a change of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Update {
    /// This list is to be sent to the datapath.
    Servers(ResolverSnapshot),
    /// A line for the log.
    Log(LogLevel, String),
}

/// The list of resolvers and the watch on its file.
#[derive(Debug)]
pub(crate) struct Resolvers {
    watch: Option<FileWatch>,
    debounce: Debounce,
    /// Names of interfaces by number, as they were at start: the confined process cannot look them up.
    names: BTreeMap<u32, String>,
    generation: Generation,
    pending_resend: Option<(ResolverSnapshot, Instant)>,
    changed_at: Option<Instant>,
    denied: bool,
}

impl Resolvers {
    /// Reads the file, and watches it if `mode` is `On`.
    pub(crate) fn open(mode: WatchMode) -> Self {
        Self::of(Path::new(PATH), mode, Instant::now())
    }

    fn of(path: &Path, mode: WatchMode, now: Instant) -> Self {
        let watch = FileWatch::new(path, now);
        let names = interface_names();
        let debounce = Debounce::new(read(&watch, &names));
        Self {
            watch: Some(watch).filter(|_| mode == WatchMode::On),
            debounce,
            names,
            generation: Generation::default(),
            pending_resend: None,
            changed_at: None,
            denied: false,
        }
    }

    /// The current list, with the next generation.
    pub(crate) fn snapshot(&mut self) -> ResolverSnapshot {
        self.generation = self.generation.next();
        let list = self.debounce.list();
        let (servers, _) = Bounded::truncated(list.servers.iter().cloned());
        let (search, _) = Bounded::truncated(list.search.iter().cloned());
        ResolverSnapshot { generation: self.generation, servers, search }
    }

    /// The descriptor that becomes readable when something has changed, if there is one.
    pub(crate) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref()?.as_fd()
    }

    /// Opens the directories below which files have to stay readable. To be called before this process
    /// is confined.
    pub(crate) fn readable(&self) -> Vec<OwnedFd> {
        let Some(watch) = &self.watch else { return Vec::new() };
        let usual = USUAL_DIRECTORIES
            .iter()
            .map(Path::new)
            .filter(|it| it.exists())
            .map(chain::stable_ancestor);
        let all: BTreeSet<PathBuf> = watch.chain().readable().into_iter().chain(usual).collect();
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        // A directory that is missing cannot be allowed; a file there later causes the warning.
        all.iter().filter_map(|path| open(path, flags, Mode::empty()).ok()).collect()
    }

    /// When [`Resolvers::update`] is to be called if the descriptor does not become readable before.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let watch = self.watch.as_ref()?;
        let pending_resend = self.pending_resend.as_ref().map(|(_, again)| *again);
        let deadlines = [self.debounce.due(), watch.next_deadline(), pending_resend];
        deadlines.into_iter().flatten().min()
    }

    /// Handles changes up to `now`. Calling it early or late is harmless.
    pub(crate) fn update(&mut self, now: Instant) -> Vec<Update> {
        let Some(watch) = &mut self.watch else { return Vec::new() };
        if watch.has_changed(now) {
            watch.renew(now);
            self.debounce.changed(now);
            self.changed_at.get_or_insert(now);
        }
        let mut updates = Vec::new();
        if self.debounce.due().is_some_and(|due| due <= now) {
            // The chain may have changed again during the debounce time.
            watch.renew(now);
            let outcome = read(watch, &self.names);
            let denied = outcome == ReadOutcome::Denied;
            if denied && !std::mem::replace(&mut self.denied, denied) {
                let file = watch.chain().file.as_deref().unwrap_or(Path::new(PATH));
                let text = format!(
                    "host: dns: {} cannot be read, the last resolvers stay in force",
                    file.display()
                );
                updates.push(Update::Log(LogLevel::Warn, text));
            }
            self.denied = denied;
            let before = format_list(self.debounce.list());
            if self.debounce.read(now, outcome) {
                let list = self.snapshot();
                let after = format_list(self.debounce.list());
                let took = self.changed_at.map_or(Duration::ZERO, |at| now - at).as_millis();
                let number = self.generation.0;
                let text = format!("host: dns {before} -> {after}, gen {number}, {took} ms");
                updates.push(Update::Log(LogLevel::Info, text));
                self.pending_resend = None;
                updates.push(Update::Servers(list));
            }
            if self.debounce.due().is_none() {
                self.changed_at = None;
            }
        } else if let Some((list, _)) = self.pending_resend.take_if(|(_, again)| *again <= now) {
            updates.push(Update::Servers(list));
        }
        updates
    }

    /// Schedules `list` to be sent again, because the channel was full. A newer list replaces it.
    pub(crate) fn send_later(&mut self, list: ResolverSnapshot, now: Instant) {
        self.pending_resend = Some((list, now + RESEND_DELAY));
    }

    /// The line for the status.
    pub(crate) fn status(&self) -> String {
        let list = format_list(self.debounce.list());
        match &self.watch {
            None => format!("dns     {list}, not followed"),
            Some(watch) => {
                let file = watch.chain().file.as_deref();
                let file = file.map_or("nothing".into(), |it| it.display().to_string());
                let how = if watch.as_fd().is_some() { "watched" } else { "polled every 2 s" };
                let number = self.generation.0;
                format!("dns     {list} ({PATH} -> {file}), {how}, gen {number}")
            }
        }
    }
}

fn read(watch: &FileWatch, names: &BTreeMap<u32, String>) -> ReadOutcome {
    let list = watch.read(|text| parse(text, |index| names.get(&index).cloned()));
    list.map_or_else(|outcome| outcome, ReadOutcome::Lists)
}

fn interface_names() -> BTreeMap<u32, String> {
    let Ok(all) = if_nameindex() else { return BTreeMap::new() };
    let pair =
        |it: &nix::net::if_::Interface| Some((it.index(), it.name().to_str().ok()?.to_owned()));
    all.iter().filter_map(pair).collect()
}

/// Formats the list for a log line.
fn format_list(list: &ResolvConf) -> String {
    let name = |it: &Resolver| match &it.interface {
        Some(interface) => format!("{}%{interface}", it.address),
        None => it.address.to_string(),
    };
    let servers = list.servers.iter().map(name).collect::<Vec<_>>().join(" ");
    let search: String = list.search.iter().map(|it| format!(" {}", it.as_str())).collect();
    let servers = if servers.is_empty() { "none".to_owned() } else { servers };
    if search.is_empty() { servers } else { format!("{servers}, search{search}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_change_becomes_one_list_of_the_next_number() {
        let path = std::env::temp_dir().join(format!("pasta-resolvers-{}", std::process::id()));
        fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
        let start = Instant::now();
        let mut resolvers = Resolvers::of(&path, WatchMode::On, start);
        assert_eq!(resolvers.snapshot().generation, Generation(1));
        assert_eq!(resolvers.update(start), []);

        fs::write(&path, "nameserver 192.0.2.2\n").unwrap();
        assert_eq!(resolvers.update(start), []);
        let due = resolvers.next_deadline().unwrap();
        let updates = resolvers.update(due);
        let [Update::Log(LogLevel::Info, line), Update::Servers(list)] = &updates[..] else {
            panic!("{updates:?}")
        };
        assert!(line.starts_with("host: dns 192.0.2.1 -> 192.0.2.2, gen 2, "), "{line}");
        assert_eq!((list.generation, list.servers.as_slice().len()), (Generation(2), 1));

        // The channel was full: the same list again, once.
        resolvers.send_later(list.clone(), due);
        assert_eq!(resolvers.update(due), []);
        assert_eq!(resolvers.update(due + RESEND_DELAY), [Update::Servers(list.clone())]);
        assert_eq!(resolvers.update(due + 2 * RESEND_DELAY), []);
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn what_is_not_followed_is_read_once() {
        let path = std::env::temp_dir().join(format!("pasta-resolvers-off-{}", std::process::id()));
        fs::write(&path, "nameserver 192.0.2.1\n".repeat(70)).unwrap();
        let start = Instant::now();
        let mut resolvers = Resolvers::of(&path, WatchMode::Off, start);
        assert_eq!(resolvers.snapshot().servers.as_slice().len(), 64);
        fs::write(&path, "").unwrap();
        assert_eq!((resolvers.update(start), resolvers.next_deadline()), (Vec::new(), None));
        assert!(resolvers.as_fd().is_none() && resolvers.readable().is_empty());
        fs::remove_file(&path).unwrap();
    }
}
