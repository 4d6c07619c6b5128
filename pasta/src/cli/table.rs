//! The table of options: names, values, meanings and help, in the sections of `--help`.

mod forwarding;
mod interface;
mod output;
mod services;
mod target;
mod translation;

pub(crate) use super::setting::Setting;
use crate::value::InvalidValue;
use std::ffi::OsString;

/// One option.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its letter.
    pub(super) short: Option<char>,
    /// Its name without dashes.
    pub(super) long: &'static str,
    /// One line for `--help`; empty for an option that is not shown there.
    pub(super) help: &'static str,
    /// What it takes and means.
    pub(super) kind: Kind,
}

/// What an option takes and means.
#[derive(Debug)]
pub(super) enum Kind {
    /// Takes nothing.
    Flag(Setting),
    /// Takes a value, shown under this name, read by this function. In the name, `|` separates
    /// alternatives, and words in lower case stand for themselves.
    Value(&'static str, fn(&str) -> Result<Setting, InvalidValue>),
    /// May take a value after `=`, shown in this form.
    Optional(&'static str, fn(Option<&str>) -> Result<Setting, InvalidValue>),
    /// Takes the path of a file, which need not be UTF-8.
    Path(&'static str, fn(OsString) -> Setting),
    /// Known, and refused.
    Refused(Arity, Refusal),
    /// `--help`
    Help,
    /// `--version`
    Version,
}

/// Whether an option takes a value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Arity {
    /// Nothing.
    Flag,
    /// A value.
    Value,
    /// A value after `=`, or nothing.
    OptionalValue,
}

/// Why an option is refused.
#[derive(Clone, Copy, Debug)]
pub(super) enum Refusal {
    /// Only for the passt mode of the C program.
    PasstOnly,
}

impl Refusal {
    pub(super) fn refusal(self, long: &str) -> InvalidValue {
        InvalidValue(match self {
            Self::PasstOnly => format!("option '--{long}' is for passt mode only"),
        })
    }
}

impl Kind {
    /// The name of the value, if the option takes one and is shown.
    pub(super) fn value_name(&self) -> Option<&'static str> {
        match self {
            Self::Value(name, _) | Self::Path(name, _) => Some(name),
            Self::Flag(_) | Self::Optional(..) | Self::Refused(..) | Self::Help | Self::Version => {
                None
            }
        }
    }

    /// Whether the option takes a value.
    pub(super) fn arity(&self) -> Arity {
        match self {
            Self::Flag(_) | Self::Help | Self::Version => Arity::Flag,
            Self::Value(..) | Self::Path(..) => Arity::Value,
            Self::Refused(arity, _) => *arity,
            Self::Optional(..) => Arity::OptionalValue,
        }
    }

    /// The form of a value that may be left out.
    pub(super) fn optional_value(&self) -> Option<&'static str> {
        match self {
            Self::Optional(form, _) => Some(form),
            _ => None,
        }
    }
}

const fn flag(
    short: Option<char>,
    long: &'static str,
    setting: Setting,
    help: &'static str,
) -> Entry {
    Entry { short, long, help, kind: Kind::Flag(setting) }
}

const fn value(
    short: Option<char>,
    long: &'static str,
    name: &'static str,
    parse: fn(&str) -> Result<Setting, InvalidValue>,
    help: &'static str,
) -> Entry {
    Entry { short, long, help, kind: Kind::Value(name, parse) }
}

const fn optional(
    long: &'static str,
    form: &'static str,
    parse: fn(Option<&str>) -> Result<Setting, InvalidValue>,
    help: &'static str,
) -> Entry {
    Entry { short: None, long, help, kind: Kind::Optional(form, parse) }
}

const fn path(
    short: Option<char>,
    long: &'static str,
    setting: fn(OsString) -> Setting,
    help: &'static str,
) -> Entry {
    Entry { short, long, help, kind: Kind::Path("PATH", setting) }
}

const fn refused(short: Option<char>, long: &'static str, arity: Arity, refusal: Refusal) -> Entry {
    Entry { short, long, help: "", kind: Kind::Refused(arity, refusal) }
}

/// A heading of `--help` and the options below it.
#[derive(Debug)]
pub(super) struct Section {
    /// The heading.
    pub(super) title: &'static str,
    /// The options, in the order of `--help`.
    pub(super) entries: &'static [Entry],
}

/// All options, in the order of `--help`.
pub(super) const SECTIONS: &[Section] = &[
    Section { title: "Target and life cycle", entries: target::ENTRIES },
    Section { title: "Interface in the namespace", entries: interface::ENTRIES },
    Section { title: "Following the host", entries: interface::FOLLOWING },
    Section { title: "Addresses and mappings", entries: translation::ENTRIES },
    Section { title: "Forwarded ports", entries: forwarding::ENTRIES },
    Section { title: "Protocols and services", entries: services::ENTRIES },
    Section { title: "Output", entries: output::ENTRIES },
    Section { title: "", entries: REFUSED },
];

/// Every option.
pub(super) fn entries() -> impl Iterator<Item = &'static Entry> {
    SECTIONS.iter().flat_map(|section| section.entries)
}

const REFUSED: &[Entry] = &[
    refused(Some('s'), "socket", Arity::Value, Refusal::PasstOnly),
    refused(None, "socket-path", Arity::Value, Refusal::PasstOnly),
    refused(Some('1'), "one-off", Arity::Flag, Refusal::PasstOnly),
    refused(None, "no-dhcp-dns", Arity::Flag, Refusal::PasstOnly),
    refused(None, "no-dhcp-search", Arity::Flag, Refusal::PasstOnly),
    refused(None, "migrate-exit", Arity::Flag, Refusal::PasstOnly),
    refused(None, "migrate-no-linger", Arity::Flag, Refusal::PasstOnly),
    refused(None, "vhost-user", Arity::Flag, Refusal::PasstOnly),
    refused(None, "print-capabilities", Arity::Flag, Refusal::PasstOnly),
    Entry {
        short: None,
        long: "repair-path",
        help: "",
        kind: Kind::Value("PATH", |text| match text {
            "none" => Ok(Setting::Ignored),
            _ => Err(Refusal::PasstOnly.refusal("repair-path")),
        }),
    },
];
