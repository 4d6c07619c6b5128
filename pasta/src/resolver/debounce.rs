//! Debounces changes of the file: when to read it, and whether the list has changed. Pure.
//!
//! The file is read after a quiet period, because it may just be being written. An empty file is often
//! one that is half written, so the previous list stays in use for a second; if the file is still empty
//! then, the list becomes empty.
//!
//! A file that we may not read is not treated as empty: the last list with a server stays in use. If the
//! list has become empty meanwhile, because the directory was missing for longer, the last list with a
//! server is used again: an old list may be wrong, an empty one is useless.

use pasta::resolv_conf::ResolvConf;
use std::time::{Duration, Instant};

/// The file is read when it has not changed for this long. Chosen.
const QUIET_PERIOD: Duration = Duration::from_millis(20);
/// Longest delay between the first change and reading. Chosen.
const MAX_DELAY: Duration = Duration::from_millis(100);
/// How long a list stays in use after the file became empty. Chosen: writing such a file takes
/// milliseconds, and a user notices a second without resolvers.
const EMPTY_GRACE: Duration = Duration::from_secs(1);

/// The result of reading the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ReadOutcome {
    /// These lists, of which either may be empty.
    Lists(ResolvConf),
    /// There is no file, or it is not a regular one.
    Missing,
    /// We may not read the file.
    Denied,
}

/// The current list, and when to read the file again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Debounce {
    list: ResolvConf,
    /// The last list that was in use and had a server.
    last: ResolvConf,
    burst: Option<(Instant, Instant)>,
    empty_since: Option<Instant>,
}

impl Debounce {
    /// Starts with the result of the first read, without debouncing.
    pub(super) fn new(first: ReadOutcome) -> Self {
        let list = match first {
            ReadOutcome::Lists(list) => list,
            ReadOutcome::Missing | ReadOutcome::Denied => ResolvConf::default(),
        };
        Self { last: list.clone(), list, ..Self::default() }
    }

    /// The current list.
    pub(super) fn list(&self) -> &ResolvConf {
        &self.list
    }

    /// Records a change at `now`.
    pub(super) fn changed(&mut self, now: Instant) {
        let first = self.burst.map_or(now, |(first, _)| first);
        self.burst = Some((first, now));
    }

    /// When to read, if a read is due.
    pub(super) fn due(&self) -> Option<Instant> {
        let burst = self.burst.map(|(first, last)| (last + QUIET_PERIOD).min(first + MAX_DELAY));
        let empty = self.empty_since.map(|since| since + EMPTY_GRACE);
        burst.into_iter().chain(empty).min()
    }

    /// Handles what was read at `now`; true if the list has changed.
    pub(super) fn read(&mut self, now: Instant, outcome: ReadOutcome) -> bool {
        self.burst = None;
        let list = match outcome {
            ReadOutcome::Lists(list) => list,
            ReadOutcome::Missing => ResolvConf::default(),
            ReadOutcome::Denied => {
                self.empty_since = None;
                let is_new = self.list.servers.is_empty() && !self.last.servers.is_empty();
                if is_new {
                    self.list.clone_from(&self.last);
                }
                return is_new;
            }
        };
        if list.servers.is_empty() && !self.list.servers.is_empty() {
            let since = *self.empty_since.get_or_insert(now);
            if now < since + EMPTY_GRACE {
                return false;
            }
        }
        self.empty_since = None;
        let is_new = list != self.list;
        if !list.servers.is_empty() {
            self.last.clone_from(&list);
        }
        self.list = list;
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pasta_ipc::types::{Resolver, Text};
    use std::net::Ipv4Addr;

    fn list(last: &[u8]) -> ReadOutcome {
        let server =
            |n: &u8| Resolver { address: Ipv4Addr::new(192, 0, 2, *n).into(), interface: None };
        let servers = last.iter().map(server).collect();
        ReadOutcome::Lists(ResolvConf { servers, search: Vec::new() })
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn search_domains_are_news_too() {
        let start = Instant::now();
        let ReadOutcome::Lists(mut with) = list(&[1]) else { panic!() };
        with.search.push(Text::truncated("example"));
        let mut debounce = Debounce::new(list(&[1]));
        assert!(debounce.read(start, ReadOutcome::Lists(with.clone())));
        assert!(!debounce.read(start, ReadOutcome::Lists(with.clone())));
        assert_eq!(debounce.list(), &with);
    }

    #[test]
    fn reading_waits_for_quiet_and_not_for_ever() {
        let start = Instant::now();
        let mut debounce = Debounce::new(list(&[1]));
        assert_eq!(debounce.due(), None);
        debounce.changed(start);
        assert_eq!(debounce.due(), Some(start + ms(20)));
        for step in 1..=9 {
            debounce.changed(start + ms(step * 10));
        }
        assert_eq!(debounce.due(), Some(start + ms(100)));
        debounce.read(start + ms(100), list(&[1]));
        assert_eq!(debounce.due(), None);
    }

    #[test]
    fn equal_content_is_no_news_and_order_is_content() {
        let start = Instant::now();
        let mut debounce = Debounce::new(list(&[1, 2]));
        assert!(!debounce.read(start, list(&[1, 2])));
        assert!(debounce.read(start, list(&[2, 1])));
        assert!(!debounce.read(start, list(&[2, 1])));
    }

    #[test]
    fn a_file_that_is_written_later_never_shows_its_empty_state() {
        let start = Instant::now();
        let mut debounce = Debounce::new(list(&[1]));
        debounce.changed(start);
        assert!(!debounce.read(start + ms(20), list(&[])));
        debounce.changed(start + ms(300));
        assert!(debounce.read(start + ms(320), list(&[2])));
        assert_eq!(debounce.due(), None);
        assert_eq!(ReadOutcome::Lists(debounce.list().clone()), list(&[2]));
    }

    #[test]
    fn what_stays_empty_for_a_second_is_the_truth() {
        let start = Instant::now();
        let mut debounce = Debounce::new(list(&[1]));
        assert!(!debounce.read(start, ReadOutcome::Missing));
        assert_eq!(debounce.due(), Some(start + ms(1000)));
        // More events do not put the end off.
        debounce.changed(start + ms(500));
        assert!(!debounce.read(start + ms(520), list(&[])));
        assert!(debounce.read(start + ms(1000), ReadOutcome::Missing));
        assert_eq!(debounce.list(), &ResolvConf::default());
        assert_eq!(debounce.due(), None);
    }

    #[test]
    fn what_may_not_be_read_says_nothing() {
        let start = Instant::now();
        let mut debounce = Debounce::new(list(&[1]));
        assert!(!debounce.read(start, ReadOutcome::Denied));
        assert_eq!((debounce.list().servers.len(), debounce.due()), (1, None));
    }

    #[test]
    fn what_may_not_be_read_brings_back_what_was_given_up_for_nothing() {
        let start = Instant::now();
        let mut debounce = Debounce::new(list(&[1]));
        assert!(debounce.read(start, list(&[2])));
        assert!(!debounce.read(start, ReadOutcome::Missing));
        assert!(debounce.read(start + ms(1000), ReadOutcome::Missing));
        assert!(debounce.read(start + ms(1300), ReadOutcome::Denied));
        assert_eq!(ReadOutcome::Lists(debounce.list().clone()), list(&[2]));
        assert!(!debounce.read(start + ms(1400), ReadOutcome::Denied));
        // It can be given up again.
        assert!(!debounce.read(start + ms(1500), ReadOutcome::Missing));
        assert!(debounce.read(start + ms(2500), ReadOutcome::Missing));
        assert_eq!((debounce.list(), debounce.due()), (&ResolvConf::default(), None));
        // Where there never was one, there is none to bring back.
        assert!(!Debounce::new(ReadOutcome::Missing).read(start, ReadOutcome::Denied));
    }

    #[test]
    fn the_first_resolver_of_all_is_in_force_at_once() {
        let start = Instant::now();
        let mut debounce = Debounce::new(ReadOutcome::Missing);
        assert!(!debounce.read(start, ReadOutcome::Missing));
        assert_eq!(debounce.due(), None);
        assert!(debounce.read(start, list(&[1])));
    }
}
