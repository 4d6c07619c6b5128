//! The grammar of the command line: which options there are, and how words become [`Setting`]s.
//!
//! The syntax is that of `getopt_long`, which callers of the C program rely on: grouped short
//! options, `-xVALUE`, `--long=VALUE`, unique prefixes of long options, `--`, and everything after
//! the first word that is no option belongs to COMMAND. Options take effect from left to right, up
//! to the first one that is wrong or that ends the program (`--help`, `--version`): a caller can ask
//! `pasta --some-option --version` whether an option is there.
//!
//! Errors have the wording and the exit status of the C program, not those of the parser
//! underneath: container engines look for `unrecognized option '--NAME'` and status 1.

mod table;

use crate::value::InvalidValue;
use clap::builder::ValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::error::Error as _;
use std::ffi::OsString;
pub(crate) use table::Setting;
use table::{Entry, Kind, TABLE};

/// The words of COMMAND, as an argument of the parser.
const COMMAND: &str = "command";

/// A command line that keeps to the grammar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// What the options say, from left to right. Of an option without a value that is given more
    /// than once only the last is here.
    pub(crate) settings: Vec<Setting>,
    /// COMMAND and its arguments, or a PID, or nothing.
    pub(crate) words: Vec<OsString>,
}

/// Why there is nothing to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Asked for something to read: goes to standard output, status 0.
    Answer(String),
    /// Wrong: goes to standard error, status 1.
    Refused(String),
}

/// Reads the command line; the first word is the program's own name.
///
/// # Errors
///
/// [`Stop`], with the whole text to print.
pub(crate) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Line, Stop> {
    let words: Vec<OsString> = words.into_iter().collect();
    let name = words
        .first()
        .map_or_else(|| "pasta".to_owned(), |word| word.to_string_lossy().into_owned());
    let matches = grammar().try_get_matches_from(words).map_err(|error| stop(&name, &error))?;
    Ok(line(&matches))
}

fn line(matches: &ArgMatches) -> Line {
    let mut settings: Vec<(usize, Setting)> = Vec::new();
    for entry in TABLE {
        if matches.value_source(entry.long) != Some(ValueSource::CommandLine) {
            continue;
        }
        match &entry.kind {
            Kind::Flag(setting) => {
                let index = matches.index_of(entry.long).unwrap_or_default();
                settings.push((index, setting.clone()));
            }
            Kind::Value(..) => {
                let indices = matches.indices_of(entry.long).into_iter().flatten();
                let values = matches.get_many::<Setting>(entry.long).into_iter().flatten();
                settings.extend(indices.zip(values.cloned()));
            }
            // These never come out of the parser: their value is refused, or they end it.
            Kind::Refused(..) | Kind::Help | Kind::Version => {}
        }
    }
    settings.sort_by_key(|(index, _)| *index);
    Line {
        settings: settings.into_iter().map(|(_, setting)| setting).collect(),
        words: matches.get_many::<OsString>(COMMAND).into_iter().flatten().cloned().collect(),
    }
}

fn grammar() -> Command {
    let command = Arg::new(COMMAND)
        .num_args(0..)
        .trailing_var_arg(true)
        .value_parser(ValueParser::os_string())
        .value_name("COMMAND")
        .help("Program to run in the new namespace (default: a login shell)");
    Command::new("pasta")
        .about("User-mode networking for network namespaces, without privilege")
        .override_usage("pasta [OPTIONS] [--] [COMMAND [ARG...]]")
        .disable_help_flag(true)
        .disable_version_flag(true)
        .version(env!("CARGO_PKG_VERSION"))
        .infer_long_args(true)
        .args_override_self(true)
        .args(TABLE.iter().map(argument))
        .arg(command)
}

fn argument(entry: &'static Entry) -> Arg {
    let mut arg = Arg::new(entry.long).long(entry.long).help(entry.help);
    if let Some(short) = entry.short {
        arg = arg.short(short);
    }
    match &entry.kind {
        Kind::Flag(_) => arg.action(ArgAction::SetTrue),
        Kind::Value(name, parse) => arg
            .action(ArgAction::Append)
            .num_args(1)
            .value_name(*name)
            .allow_hyphen_values(true)
            .value_parser(*parse),
        Kind::Refused(table::Arity::Flag, why) => {
            let check = move |given: &str| match given {
                "true" => Err(why.refusal(entry.long)),
                _ => Ok(false),
            };
            arg.hide(true).action(ArgAction::SetTrue).value_parser(check)
        }
        Kind::Refused(arity, why) => {
            let check = move |_: &str| Err::<bool, InvalidValue>(why.refusal(entry.long));
            let arg = arg.hide(true).action(ArgAction::Append).value_parser(check);
            match arity {
                table::Arity::OptionalValue => {
                    arg.num_args(0..=1).require_equals(true).default_missing_value("")
                }
                _ => arg.num_args(1).allow_hyphen_values(true),
            }
        }
        Kind::Help => arg.action(ArgAction::Help),
        Kind::Version => arg.action(ArgAction::Version),
    }
}

/// What to print for what the parser says, in the words that callers know.
fn stop(name: &str, error: &clap::Error) -> Stop {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.as_str(),
        _ => "",
    };
    // The parser shows an option with its value: `--mtu <OCTETS>`.
    let option = || {
        let shown = text(ContextKind::InvalidArg);
        shown.split([' ', '=', '[']).next().unwrap_or(shown).to_owned()
    };
    let with_usage =
        |line: String| Stop::Refused(format!("{name}: {line}\n{}", grammar().render_help()));
    match error.kind() {
        ErrorKind::DisplayHelp => Stop::Answer(grammar().render_help().to_string()),
        ErrorKind::DisplayVersion => Stop::Answer(format!("pasta {}\n", env!("CARGO_PKG_VERSION"))),
        ErrorKind::UnknownArgument => with_usage(unrecognized(text(ContextKind::InvalidArg))),
        ErrorKind::InvalidValue => {
            with_usage(format!("option '{}' requires an argument", option()))
        }
        ErrorKind::TooManyValues => {
            with_usage(format!("option '{}' doesn't allow an argument", option()))
        }
        ErrorKind::InvalidUtf8 => Stop::Refused(format!("{name}: option value is not UTF-8\n")),
        _ => match error.source() {
            Some(why) => Stop::Refused(format!("{name}: {why}\n")),
            None => with_usage(format!("cannot read the command line: {}", error.kind())),
        },
    }
}

fn unrecognized(option: &str) -> String {
    let Some(prefix) = option.strip_prefix("--") else {
        return format!("invalid option -- '{}'", option.trim_start_matches('-'));
    };
    let mut meant = TABLE.iter().map(|entry| entry.long).filter(|long| long.starts_with(prefix));
    match (meant.next(), meant.next()) {
        (Some(first), Some(second)) => {
            let all = [first, second].into_iter().chain(meant);
            let all: Vec<String> = all.map(|long| format!("'--{long}'")).collect();
            format!("option '{option}' is ambiguous; possibilities: {}", all.join(" "))
        }
        _ => format!("unrecognized option '{option}'"),
    }
}

#[cfg(test)]
mod tests;
