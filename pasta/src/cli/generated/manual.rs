//! The manual page, in the macros of man(7).

use super::is_literal;
use crate::cli::table::{Entry, Kind, Refusal, SECTIONS, Section, entries};
use std::collections::BTreeMap;

/// The hand-written sections, with marks where the table is put in.
const PAGE: &str = include_str!("pasta.1.in");

/// What is said about options beyond their line of `--help`.
const DETAILS: &str = include_str!("details.in");

/// The whole page.
pub(super) fn render() -> String {
    let refused = |wanted: fn(&Kind) -> bool| {
        let names = entries().filter(|entry| wanted(&entry.kind));
        names.map(|entry| bold(&format!("--{}", entry.long))).collect::<Vec<_>>().join(",\n")
    };
    let passt_only = refused(|kind| matches!(kind, Kind::Refused(_, Refusal::PasstOnly)));
    PAGE.replace("@VERSION@", env!("CARGO_PKG_VERSION"))
        .replace("@OPTIONS@\n", &options())
        // It is refused by its value.
        .replace("@PASST_ONLY@", &format!("{passt_only},\n{}", bold("--repair-path")))
}

/// The details of each option, by its long name.
pub(super) fn details() -> BTreeMap<String, String> {
    let blocks = DETAILS.split("\n%").skip(1);
    let blocks = blocks.filter_map(|block| block.split_once('\n'));
    blocks.map(|(name, text)| (name.replace('\\', ""), format!("{}\n", text.trim_end()))).collect()
}

fn options() -> String {
    let details = details();
    let mut text = String::new();
    for Section { title, entries } in SECTIONS.iter().filter(|it| !it.title.is_empty()) {
        text.push_str(&format!(".SS {title}\n"));
        for entry in *entries {
            text.push_str(&format!(".TP\n{}\n{}.\n", synopsis(entry), marked_up(entry.help)));
            text.push_str(details.get(entry.long).map_or("", String::as_str));
        }
    }
    text
}

/// An option and its value: bold what is typed as it is, the rest in italics.
fn synopsis(entry: &Entry) -> String {
    let names = super::spellings(entry).iter().map(|name| bold(name)).collect::<Vec<_>>();
    let names = names.join(", ");
    if let Some(form) = entry.kind.optional_value() {
        return format!("{names}[={}]", bold(form));
    }
    let Some(value) = entry.kind.value_name() else { return names };
    let words = value.split('|').map(|word| match is_literal(word) {
        true => bold(word),
        false => format!("\\fI{word}\\fR"),
    });
    format!("{names} {}", words.collect::<Vec<_>>().join("|"))
}

/// Text of the table with the options in it in bold.
fn marked_up(text: &str) -> String {
    let word = |word: &str| {
        let option = word.trim_end_matches([',', ';', ')', '.']);
        match option.strip_prefix('-') {
            Some(name) if !name.is_empty() => word.replacen(option, &bold(option), 1),
            _ => word.to_owned(),
        }
    };
    // An apostrophe is one, and no quote, in a line of text.
    text.split(' ').map(word).collect::<Vec<_>>().join(" ").replace('\'', "\\(aq")
}

fn bold(text: &str) -> String {
    format!("\\fB{}\\fR", text.replace('-', "\\-"))
}
