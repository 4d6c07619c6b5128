//! The manual page and the completions of shells, generated from the table of options.
//!
//! The files in `packaging/` are the output. They are part of the source tree, so that packages install
//! them without running anything, and a test fails when they differ from what the table gives. This
//! module is compiled for tests only; docs/decisions/0016 says why.

mod bash;
mod fish;
mod manual;
mod zsh;

use super::table::{Entry, entries};

/// Set, the files are written instead of compared.
const WRITE: &str = "PASTA_WRITE_GENERATED";

/// Makes the text of a file.
type Renderer = fn() -> String;

/// The files, relative to the root of the tree, and what makes each.
const FILES: &[(&str, Renderer)] = &[
    ("packaging/man/pasta.1", manual::render),
    ("packaging/completions/pasta.bash", bash::render),
    ("packaging/completions/_pasta", zsh::render),
    ("packaging/completions/pasta.fish", fish::render),
];

/// The second line of every completion.
const NOTE: &str = "Generated from the table of options, see README.md.";

/// How the value of an option is completed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Completion {
    /// Some of the words that it may be, perhaps none.
    Words(Vec<&'static str>),
    /// The name of an interface of the host.
    Interface,
    /// The path of a file.
    File,
    /// A path, or a name in `/run/netns`.
    NetworkNamespace,
    /// The name of a user.
    User,
}

impl Completion {
    /// How values shown as `name` are completed.
    fn of(name: &'static str) -> Self {
        match name {
            "INTERFACE" => Self::Interface,
            "PATH" => Self::File,
            "PATH|NAME" => Self::NetworkNamespace,
            "USER[:GROUP]" => Self::User,
            "PORTS" => Self::Words(vec!["auto", "all", "none"]),
            other => Self::Words(other.split('|').filter(|word| is_literal(word)).collect()),
        }
    }
}

/// Whether a part of a value's name stands for itself.
fn is_literal(word: &str) -> bool {
    word.bytes().all(|octet| octet.is_ascii_lowercase())
}

/// The options that completions offer: those that `--help` shows.
fn offered() -> impl Iterator<Item = &'static Entry> {
    entries().filter(|entry| !entry.help.is_empty())
}

/// The option as it is typed, its letter first.
fn spellings(entry: &Entry) -> Vec<String> {
    let short = entry.short.map(|letter| format!("-{letter}"));
    short.into_iter().chain([format!("--{}", entry.long)]).collect()
}

mod tests;
