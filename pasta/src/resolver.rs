//! The host's resolvers: `/etc/resolv.conf`, read and followed while the program runs.
//!
//! The supervisor alone reads the file, and sends the list straight to the datapath, as a snapshot
//! of its own with a growing generation. What the namespace's own resolv.conf says is never touched.
//!
//! ```text
//! path -> chain of links       chain.rs    where a change would show, and the file at the end
//! chain -> events, contents    watch.rs    inotify on directories, or looking every two seconds
//! contents -> list             parse.rs    the `nameserver` lines
//! events, lists, time -> news  settle.rs   when to read, and whether it says anything new
//! ```
//!
//! Limits: 64 servers are told, 64 KiB of the file are read, 40 links are followed. What lies outside
//! of the directories that Landlock leaves to the supervisor is not read: one warning, and the last list
//! holds.

mod chain;
mod farewell;
mod parse;
mod settle;
mod watch;

use nix::fcntl::{OFlag, open};
use nix::net::if_::if_nameindex;
use nix::sys::stat::Mode;
use parse::parse;
use pasta_ipc::types::{Bounded, Generation, LogLevel, Resolver, ResolverSnapshot};
use settle::{Found, Settling};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use watch::Watch;

/// Where the C library looks.
const PATH: &str = "/etc/resolv.conf";

/// Where the file is wont to lead: a later change to one of these shall be readable.
const USUAL: [&str; 4] =
    ["/run/systemd/resolve", "/run/NetworkManager", "/run/resolvconf", "/run/netconfig"];

/// How long until a list is sent again that found the channel full; chosen.
const AGAIN: Duration = Duration::from_millis(100);

/// Whether the file is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Following {
    /// For as long as the program runs.
    On,
    /// It is read once (`--follow off`).
    Off,
}

/// Something to do because of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// The datapath is to be told this list.
    List(ResolverSnapshot),
    /// A line for the log.
    Line(LogLevel, String),
}

/// The list, and what it takes to follow it.
#[derive(Debug)]
pub(crate) struct Resolvers {
    watch: Option<Watch>,
    settling: Settling,
    /// Names of interfaces by number, as they were at start: asking takes calls that we give up.
    names: BTreeMap<u32, String>,
    generation: Generation,
    unsent: Option<(ResolverSnapshot, Instant)>,
    changed_at: Option<Instant>,
    denied: bool,
}

impl Resolvers {
    /// Reads the file, and begins to watch it if it is to be followed.
    pub(crate) fn open(following: Following) -> Self {
        Self::of(Path::new(PATH), following, Instant::now())
    }

    fn of(path: &Path, following: Following, now: Instant) -> Self {
        let watch = Watch::new(path, now);
        let names = interface_names();
        let settling = Settling::new(found(&watch, &names));
        Self {
            watch: Some(watch).filter(|_| following == Following::On),
            settling,
            names,
            generation: Generation::default(),
            unsent: None,
            changed_at: None,
            denied: false,
        }
    }

    /// The list in force, with the next number.
    pub(crate) fn snapshot(&mut self) -> ResolverSnapshot {
        self.generation = self.generation.next();
        let (servers, _) = Bounded::truncated(self.settling.list().iter().cloned());
        ResolverSnapshot { generation: self.generation, servers }
    }

    /// The descriptor that becomes readable when something has changed, if there is one.
    pub(crate) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref()?.as_fd()
    }

    /// Directories below which files have to stay readable, opened. To be asked before we are
    /// confined.
    pub(crate) fn readable(&self) -> Vec<OwnedFd> {
        let Some(watch) = &self.watch else { return Vec::new() };
        let usual = USUAL.iter().map(Path::new).filter(|it| it.exists()).map(chain::lasting);
        let all: BTreeSet<PathBuf> = watch.chain().readable().into_iter().chain(usual).collect();
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        // One that is not there cannot be allowed, and is a warning should it come.
        all.iter().filter_map(|path| open(path, flags, Mode::empty()).ok()).collect()
    }

    /// When [`Resolvers::turn`] is to be called, if nothing happens before.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let watch = self.watch.as_ref()?;
        let unsent = self.unsent.as_ref().map(|(_, again)| *again);
        let deadlines = [self.settling.due(), watch.next_deadline(), unsent];
        deadlines.into_iter().flatten().min()
    }

    /// Takes in what has changed by `now`. Calling it early or late is harmless.
    pub(crate) fn turn(&mut self, now: Instant) -> Vec<News> {
        let Some(watch) = &mut self.watch else { return Vec::new() };
        if watch.has_changed(now) {
            watch.renew(now);
            self.settling.changed(now);
            self.changed_at.get_or_insert(now);
        }
        let mut news = Vec::new();
        if self.settling.due().is_some_and(|due| due <= now) {
            // The way may have changed once more while reading was put off.
            watch.renew(now);
            let found = found(watch, &self.names);
            let denied = found == Found::Denied;
            if denied && !std::mem::replace(&mut self.denied, denied) {
                let file = watch.chain().file.as_deref().unwrap_or(Path::new(PATH));
                let text = format!(
                    "host: dns: {} cannot be read, the last resolvers stay in force",
                    file.display()
                );
                news.push(News::Line(LogLevel::Warn, text));
            }
            self.denied = denied;
            let before = names_of(self.settling.list());
            if self.settling.read(now, found) {
                let list = self.snapshot();
                let after = names_of(self.settling.list());
                let took = self.changed_at.map_or(Duration::ZERO, |at| now - at).as_millis();
                let number = self.generation.0;
                let text = format!("host: dns {before} -> {after}, gen {number}, {took} ms");
                news.push(News::Line(LogLevel::Info, text));
                self.unsent = None;
                news.push(News::List(list));
            }
            if self.settling.due().is_none() {
                self.changed_at = None;
            }
        } else if let Some((list, _)) = self.unsent.take_if(|(_, again)| *again <= now) {
            news.push(News::List(list));
        }
        news
    }

    /// A list could not be sent, because the channel was full. It is news again after a while, unless
    /// there is a newer one by then.
    pub(crate) fn not_sent(&mut self, list: ResolverSnapshot, now: Instant) {
        self.unsent = Some((list, now + AGAIN));
    }

    /// What the status says of it.
    pub(crate) fn status(&self) -> String {
        let list = names_of(self.settling.list());
        match &self.watch {
            None => format!("dns     {list}, not followed"),
            Some(watch) => {
                let file = watch.chain().file.as_deref();
                let file = file.map_or("nothing".into(), |it| it.display().to_string());
                let how = if watch.as_fd().is_some() { "watched" } else { "looked at every 2 s" };
                let number = self.generation.0;
                format!("dns     {list} ({PATH} -> {file}), {how}, gen {number}")
            }
        }
    }
}

fn found(watch: &Watch, names: &BTreeMap<u32, String>) -> Found {
    let read = watch.read(|text| parse(text, |index| names.get(&index).cloned()));
    read.map_or_else(|found| found, Found::Servers)
}

fn interface_names() -> BTreeMap<u32, String> {
    let Ok(all) = if_nameindex() else { return BTreeMap::new() };
    let pair =
        |it: &nix::net::if_::Interface| Some((it.index(), it.name().to_str().ok()?.to_owned()));
    all.iter().filter_map(pair).collect()
}

/// The list for a line of the log.
fn names_of(list: &[Resolver]) -> String {
    if list.is_empty() {
        return "none".to_owned();
    }
    let name = |it: &Resolver| match &it.interface {
        Some(interface) => format!("{}%{interface}", it.address),
        None => it.address.to_string(),
    };
    list.iter().map(name).collect::<Vec<_>>().join(" ")
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
        let mut resolvers = Resolvers::of(&path, Following::On, start);
        assert_eq!(resolvers.snapshot().generation, Generation(1));
        assert_eq!(resolvers.turn(start), []);

        fs::write(&path, "nameserver 192.0.2.2\n").unwrap();
        assert_eq!(resolvers.turn(start), []);
        let due = resolvers.next_deadline().unwrap();
        let news = resolvers.turn(due);
        let [News::Line(LogLevel::Info, line), News::List(list)] = &news[..] else {
            panic!("{news:?}")
        };
        assert!(line.starts_with("host: dns 192.0.2.1 -> 192.0.2.2, gen 2, "), "{line}");
        assert_eq!((list.generation, list.servers.as_slice().len()), (Generation(2), 1));

        // The channel was full: the same list again, once.
        resolvers.not_sent(list.clone(), due);
        assert_eq!(resolvers.turn(due), []);
        assert_eq!(resolvers.turn(due + AGAIN), [News::List(list.clone())]);
        assert_eq!(resolvers.turn(due + 2 * AGAIN), []);
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn what_is_not_followed_is_read_once() {
        let path = std::env::temp_dir().join(format!("pasta-resolvers-off-{}", std::process::id()));
        fs::write(&path, "nameserver 192.0.2.1\n".repeat(70)).unwrap();
        let start = Instant::now();
        let mut resolvers = Resolvers::of(&path, Following::Off, start);
        assert_eq!(resolvers.snapshot().servers.as_slice().len(), 64);
        fs::write(&path, "").unwrap();
        assert_eq!((resolvers.turn(start), resolvers.next_deadline()), (Vec::new(), None));
        assert!(resolvers.as_fd().is_none() && resolvers.readable().is_empty());
        fs::remove_file(&path).unwrap();
    }
}
