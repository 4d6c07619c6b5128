//! The options of the usual harness that are of use here.

use std::thread;

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Options {
    /// Run names that contain one of these; all when empty.
    filters: Vec<String>,
    /// Names that contain one of these are left out.
    skips: Vec<String>,
    /// Filters and skips are whole names.
    exact: bool,
    /// Run only ignored tests, of which there are none before they are tried.
    ignored: bool,
    /// Print the names and run nothing.
    pub(super) list: bool,
    /// Keep the output of tests that pass to ourselves.
    pub(super) capture: bool,
    /// How many tests run at the same time.
    pub(super) threads: usize,
}

impl Options {
    /// Reads the words of a command line.
    ///
    /// # Errors
    ///
    /// Names the option that is not known or lacks its value.
    pub(super) fn parse(words: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            filters: Vec::new(),
            skips: Vec::new(),
            exact: false,
            ignored: false,
            list: false,
            capture: true,
            threads: thread::available_parallelism().map_or(1, usize::from),
        };
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
                _ => (word.as_str(), None),
            };
            let mut value = || {
                let value = value.clone().or_else(|| words.next());
                value.ok_or_else(|| format!("{name} needs a value"))
            };
            match name {
                "--exact" => options.exact = true,
                "--ignored" => options.ignored = true,
                "--list" => options.list = true,
                "--nocapture" | "--no-capture" => options.capture = false,
                "--skip" => options.skips.push(value()?),
                "--test-threads" => {
                    let count = value()?.parse().ok().filter(|count| *count > 0);
                    options.threads = count.ok_or("--test-threads needs a number above 0")?;
                }
                // How it looks, and what has no meaning here.
                "--format" | "--color" | "-Z" => drop(value()?),
                "-q" | "--quiet" | "--show-output" | "--include-ignored" | "--test" => {}
                _ if name.starts_with('-') => return Err(format!("unknown option {name}")),
                _ => options.filters.push(word),
            }
        }
        Ok(options)
    }

    /// Whether the test `name` is to be run.
    pub(super) fn wants(&self, name: &str) -> bool {
        let matches = |word: &String| if self.exact { name == word } else { name.contains(word) };
        let chosen = self.filters.is_empty() || self.filters.iter().any(matches);
        chosen && !self.skips.iter().any(matches) && !self.ignored
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Options, String> {
        Options::parse(words.iter().map(|word| (*word).to_owned()))
    }

    #[test]
    fn filters_and_skips_choose_by_part_of_a_name_or_by_all_of_it() {
        let part = parse(&["down", "--skip", "ipv6"]).unwrap();
        assert!(part.wants("download/ipv4"));
        assert!(!part.wants("download/ipv6"));
        assert!(!part.wants("upload/ipv4"));
        let whole = parse(&["--exact", "download"]).unwrap();
        assert!(whole.wants("download"));
        assert!(!whole.wants("download/ipv4"));
    }

    #[test]
    fn values_come_after_an_equals_sign_or_as_the_next_word() {
        assert_eq!(parse(&["--test-threads=3"]).unwrap().threads, 3);
        assert_eq!(parse(&["--test-threads", "4"]).unwrap().threads, 4);
        assert!(parse(&["--test-threads", "0"]).is_err());
        assert!(parse(&["--test-threads"]).is_err());
    }

    #[test]
    fn unknown_options_are_refused() {
        assert_eq!(parse(&["--shuffle-all"]).unwrap_err(), "unknown option --shuffle-all");
    }
}
