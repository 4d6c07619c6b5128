//! When to read, and what of it is news: values and made-up time only.
//!
//! A file that was just replaced or is being written is read when it has been quiet for a moment. An
//! empty one is often only half written, so the list before stays in force for a second; if it is
//! still empty then, there is no resolver, and that is said.
//!
//! A file that may not be read is not an empty one: the last list that had a server holds, even if it
//! was given up meanwhile, because the directory was gone for longer before it was made anew where we
//! may not read. An old list may be wrong, none surely is.

use pasta_ipc::types::Resolver;
use std::time::{Duration, Instant};

/// Reading waits until nothing has changed for so long.
const QUIET: Duration = Duration::from_millis(20);
/// Reading waits no longer than so after the first change.
const LONGEST: Duration = Duration::from_millis(100);
/// How long a list survives a file that has none. Chosen: what writes such files takes
/// milliseconds, and a second without resolver would be noticed.
const EMPTY_KEPT: Duration = Duration::from_secs(1);

/// What a reading has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// This list, which may be empty.
    Servers(Vec<Resolver>),
    /// No file, or one that is none.
    Nothing,
    /// A file that we may not read; it says nothing.
    Denied,
}

/// The list in force, and when to read again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settling {
    list: Vec<Resolver>,
    /// The last list that was in force and had a server.
    last: Vec<Resolver>,
    burst: Option<(Instant, Instant)>,
    empty_since: Option<Instant>,
}

impl Settling {
    /// With the first reading, which is taken as it is.
    pub(super) fn new(first: Found) -> Self {
        let list = match first {
            Found::Servers(list) => list,
            Found::Nothing | Found::Denied => Vec::new(),
        };
        Self { last: list.clone(), list, ..Self::default() }
    }

    /// The list in force.
    pub(super) fn list(&self) -> &[Resolver] {
        &self.list
    }

    /// Something has changed at `now`.
    pub(super) fn changed(&mut self, now: Instant) {
        let first = self.burst.map_or(now, |(first, _)| first);
        self.burst = Some((first, now));
    }

    /// When to read, if at all.
    pub(super) fn due(&self) -> Option<Instant> {
        let burst = self.burst.map(|(first, last)| (last + QUIET).min(first + LONGEST));
        let empty = self.empty_since.map(|since| since + EMPTY_KEPT);
        burst.into_iter().chain(empty).min()
    }

    /// Takes in what was read at `now`; true if there is another list in force.
    pub(super) fn read(&mut self, now: Instant, found: Found) -> bool {
        self.burst = None;
        let list = match found {
            Found::Servers(list) => list,
            Found::Nothing => Vec::new(),
            Found::Denied => {
                self.empty_since = None;
                let news = self.list.is_empty() && !self.last.is_empty();
                if news {
                    self.list.clone_from(&self.last);
                }
                return news;
            }
        };
        if list.is_empty() && !self.list.is_empty() {
            let since = *self.empty_since.get_or_insert(now);
            if now < since + EMPTY_KEPT {
                return false;
            }
        }
        self.empty_since = None;
        let news = list != self.list;
        if !list.is_empty() {
            self.last.clone_from(&list);
        }
        self.list = list;
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn list(last: &[u8]) -> Found {
        let server =
            |n: &u8| Resolver { address: Ipv4Addr::new(192, 0, 2, *n).into(), interface: None };
        Found::Servers(last.iter().map(server).collect())
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn reading_waits_for_quiet_and_not_for_ever() {
        let start = Instant::now();
        let mut settling = Settling::new(list(&[1]));
        assert_eq!(settling.due(), None);
        settling.changed(start);
        assert_eq!(settling.due(), Some(start + ms(20)));
        for step in 1..=9 {
            settling.changed(start + ms(step * 10));
        }
        assert_eq!(settling.due(), Some(start + ms(100)));
        settling.read(start + ms(100), list(&[1]));
        assert_eq!(settling.due(), None);
    }

    #[test]
    fn equal_content_is_no_news_and_order_is_content() {
        let start = Instant::now();
        let mut settling = Settling::new(list(&[1, 2]));
        assert!(!settling.read(start, list(&[1, 2])));
        assert!(settling.read(start, list(&[2, 1])));
        assert!(!settling.read(start, list(&[2, 1])));
    }

    #[test]
    fn a_file_that_is_written_later_never_shows_its_empty_state() {
        let start = Instant::now();
        let mut settling = Settling::new(list(&[1]));
        settling.changed(start);
        assert!(!settling.read(start + ms(20), list(&[])));
        settling.changed(start + ms(300));
        assert!(settling.read(start + ms(320), list(&[2])));
        assert_eq!(settling.due(), None);
        assert_eq!(Found::Servers(settling.list().to_vec()), list(&[2]));
    }

    #[test]
    fn what_stays_empty_for_a_second_is_the_truth() {
        let start = Instant::now();
        let mut settling = Settling::new(list(&[1]));
        assert!(!settling.read(start, Found::Nothing));
        assert_eq!(settling.due(), Some(start + ms(1000)));
        // More events do not put the end off.
        settling.changed(start + ms(500));
        assert!(!settling.read(start + ms(520), list(&[])));
        assert!(settling.read(start + ms(1000), Found::Nothing));
        assert_eq!(settling.list(), []);
        assert_eq!(settling.due(), None);
    }

    #[test]
    fn what_may_not_be_read_says_nothing() {
        let start = Instant::now();
        let mut settling = Settling::new(list(&[1]));
        assert!(!settling.read(start, Found::Denied));
        assert_eq!((settling.list().len(), settling.due()), (1, None));
    }

    #[test]
    fn what_may_not_be_read_brings_back_what_was_given_up_for_nothing() {
        let start = Instant::now();
        let mut settling = Settling::new(list(&[1]));
        assert!(settling.read(start, list(&[2])));
        assert!(!settling.read(start, Found::Nothing));
        assert!(settling.read(start + ms(1000), Found::Nothing));
        assert!(settling.read(start + ms(1300), Found::Denied));
        assert_eq!(Found::Servers(settling.list().to_vec()), list(&[2]));
        assert!(!settling.read(start + ms(1400), Found::Denied));
        // It can be given up again.
        assert!(!settling.read(start + ms(1500), Found::Nothing));
        assert!(settling.read(start + ms(2500), Found::Nothing));
        assert_eq!((settling.list(), settling.due()), (&[][..], None));
        // Where there never was one, there is none to bring back.
        assert!(!Settling::new(Found::Nothing).read(start, Found::Denied));
    }

    #[test]
    fn the_first_resolver_of_all_is_in_force_at_once() {
        let start = Instant::now();
        let mut settling = Settling::new(Found::Nothing);
        assert!(!settling.read(start, Found::Nothing));
        assert_eq!(settling.due(), None);
        assert!(settling.read(start, list(&[1])));
    }
}
