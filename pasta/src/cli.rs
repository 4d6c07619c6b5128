//! The grammar of the command line: how words become [`Setting`]s.
//!
//! The syntax is that of `getopt_long` with `+` (getopt(3)), on which callers of the C program rely:
//! grouped short options, `-xVALUE`, `-x VALUE`, `--long=VALUE`, `--long VALUE`, unique prefixes of long
//! options, `--`, and the first word that is not an option begins COMMAND. Options are handled from left
//! to right, up to the first one that is wrong or that ends the program (`--help`, `--version`): a caller
//! can run `pasta --some-option --version` to find out whether an option is known.
//!
//! Errors have the texts and the exit status of the C program: container engines match
//! `unrecognized option '--NAME'` and status 1. docs/decisions/0013 says why this is no library.

#[cfg(test)]
mod generated;
mod help;
mod hint;
mod setting;
mod table;

pub(crate) use setting::Setting;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use table::{Arity, Entry, Kind};

/// A command line that keeps to the grammar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// The options, from left to right.
    pub(crate) settings: Vec<Setting>,
    /// COMMAND and its arguments, or a PID, or nothing.
    pub(crate) words: Vec<OsString>,
}

/// Why there is nothing to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The help or the version: to standard output, status 0.
    Answer(String),
    /// An error: to standard error, status 1.
    Refused(String),
}

/// Parses the command line; the first word is the program's name.
///
/// # Errors
///
/// [`Stop`], with the whole text to print.
pub(crate) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Line, Stop> {
    let mut words = words.into_iter();
    // However it was called, messages begin alike.
    let _ = words.next();
    let parser = Parser { words, settings: Vec::new() };
    parser.run().map_err(|end| match end {
        End::Help => Stop::Answer(help::render()),
        End::Version => Stop::Answer(format!("pasta {}\n", env!("CARGO_PKG_VERSION"))),
        End::Usage(why, hint) => {
            let hint = hint.map_or_else(String::new, |hint| format!("{hint}\n"));
            let help = "Try 'pasta --help' for the list of options.";
            Stop::Refused(format!("pasta: {why}\n{hint}{help}\n"))
        }
        End::Invalid(why) => Stop::Refused(format!("pasta: {why}\n")),
    })
}

/// What ends parsing early.
enum End {
    Help,
    Version,
    /// The grammar is violated: a line that names `--help` follows, and before it one that says what to write, where
    /// that is known.
    Usage(String, Option<String>),
    /// A value or an option is refused.
    Invalid(String),
}

struct Parser<I> {
    words: I,
    settings: Vec<Setting>,
}

impl<I: Iterator<Item = OsString>> Parser<I> {
    fn run(mut self) -> Result<Line, End> {
        while let Some(word) = self.words.next() {
            match word.as_bytes() {
                b"--" => return Ok(self.finish(None)),
                [b'-', b'-', long @ ..] => self.long(long)?,
                [b'-', group @ ..] if !group.is_empty() => self.short(group)?,
                _ => return Ok(self.finish(Some(word))),
            }
        }
        Ok(self.finish(None))
    }

    fn finish(self, first: Option<OsString>) -> Line {
        Line { settings: self.settings, words: first.into_iter().chain(self.words).collect() }
    }

    /// Handles a long option: its name or a unique prefix, and a value after `=`.
    fn long(&mut self, option: &[u8]) -> Result<(), End> {
        let (name, value) = match option.iter().position(|octet| *octet == b'=') {
            Some(at) => {
                let (name, value) = option.split_at(at);
                (name, Some(OsStr::from_bytes(value.get(1..).unwrap_or_default()).to_owned()))
            }
            None => (option, None),
        };
        let entry = find(&String::from_utf8_lossy(name))?;
        let value = match (entry.kind.arity(), value) {
            (Arity::Flag, Some(_)) => {
                let why = format!("option '--{}' doesn't allow an argument", entry.long);
                return Err(End::Usage(why, None));
            }
            (Arity::Value, None) => Some(self.next_word(entry)?),
            (_, value) => value,
        };
        self.apply(&format!("--{}", entry.long), entry, value)
    }

    /// Handles a group of short options; the last one may have a value, in the group or after it.
    fn short(&mut self, group: &[u8]) -> Result<(), End> {
        if let Some(slip) = hint::not_options(group) {
            return Err(End::Invalid(slip));
        }
        let mut rest = group;
        while let Some((letter, after)) = rest.split_first() {
            let found = table::entries().find(|it| it.short == Some(char::from(*letter)));
            let Some(entry) = found else {
                // A character of several octets is shown as a whole.
                let letter = String::from_utf8_lossy(rest).chars().next().unwrap_or_default();
                return Err(End::Usage(format!("invalid option -- '{letter}'"), None));
            };
            let value = match (entry.kind.arity(), after) {
                (Arity::Value, []) => Some(self.next_word(entry)?),
                (Arity::Value, value) => Some(OsString::from_vec(value.to_owned())),
                (Arity::Flag | Arity::OptionalValue, _) => None,
            };
            rest = if value.is_some() { &[] } else { after };
            self.apply(&format!("-{}", char::from(*letter)), entry, value)?;
        }
        Ok(())
    }

    /// The word after an option that takes a value, whatever it looks like.
    fn next_word(&mut self, entry: &Entry) -> Result<OsString, End> {
        let why = || format!("option '--{}' requires an argument", entry.long);
        self.words.next().ok_or_else(|| End::Usage(why(), None))
    }

    /// Takes in an option that was called by this name.
    fn apply(&mut self, name: &str, entry: &Entry, value: Option<OsString>) -> Result<(), End> {
        let invalid = |error: crate::value::InvalidValue| match error.to_string() {
            named if named.starts_with("option '") => End::Invalid(named),
            why => End::Invalid(format!("option '{name}': {why}")),
        };
        let setting = match &entry.kind {
            Kind::Flag(setting) => setting.clone(),
            Kind::Value(_, parse) => {
                let value = value.unwrap_or_default();
                let text = value.to_str();
                let text = text.ok_or_else(|| {
                    End::Invalid(format!("option '{name}': its value is not UTF-8"))
                })?;
                parse(text).map_err(invalid)?
            }
            Kind::Path(_, setting) => {
                let value = value.unwrap_or_default();
                let slip = match entry.long {
                    "pcap" => value.to_str().and_then(hint::not_a_capture),
                    _ => None,
                };
                if let Some(slip) = slip {
                    return Err(End::Invalid(slip));
                }
                setting(value)
            }
            Kind::Optional(_, parse) => {
                let text = value.as_ref().map(|value| value.to_str().unwrap_or_default());
                parse(text).map_err(invalid)?
            }
            Kind::Refused(_, refusal) => return Err(invalid(refusal.refusal(entry.long))),
            Kind::Help => return Err(End::Help),
            Kind::Version => return Err(End::Version),
        };
        self.settings.push(setting);
        Ok(())
    }
}

/// The option that `name` is, or of which it is a unique prefix.
fn find(name: &str) -> Result<&'static Entry, End> {
    if let Some(entry) = table::entries().find(|entry| entry.long == name) {
        return Ok(entry);
    }
    let matches: Vec<_> = table::entries().filter(|entry| entry.long.starts_with(name)).collect();
    match matches.as_slice() {
        [entry] => Ok(*entry),
        [] => {
            let hint = hint::for_unknown(name, table::entries().map(|entry| entry.long));
            Err(End::Usage(format!("unrecognized option '--{name}'"), hint))
        }
        several => {
            let names: Vec<_> = several.iter().map(|entry| format!("'--{}'", entry.long)).collect();
            let names = names.join(" ");
            let why = format!("option '--{name}' is ambiguous; possibilities: {names}");
            Err(End::Usage(why, None))
        }
    }
}

#[cfg(test)]
mod tests;
