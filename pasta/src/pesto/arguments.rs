//! The command line of `pesto`.
//!
//! ```text
//! pesto [-s] [-d] [-k] [-A|-D|-C TABLE|-t PORTS|-u PORTS|-T PORTS|-U PORTS]... PATH
//! pesto status [--json] PATH        pesto flows [-n N] [--json] PATH
//! pesto metrics PATH                pesto resync PATH
//! pesto wait --ready|--bound|--generation N [--timeout SECONDS] PATH
//! pesto batch [-k] PATH             changes from standard input, each line one of the first form
//! ```

use super::edit::{Edit, Table};
use crate::ports::PortOption;
use crate::ports::spec::Spec;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// How long is waited for a condition; chosen: longer than a host takes for a network.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Flows that are listed unless asked otherwise: a screen.
const FLOWS: u8 = 20;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Show the forwarded ports, or change them.
    Ports {
        /// The socket.
        path: PathBuf,
        /// What is changed, in order.
        edits: Vec<Edit>,
        /// Whether the state is shown, before a change and after it.
        shows: bool,
        /// Whether a change keeps what is possible of it.
        keeps_rest: bool,
    },
    /// Changes from standard input.
    Batch {
        /// The socket.
        path: PathBuf,
        /// Whether a change keeps what is possible of it.
        keeps_rest: bool,
    },
    /// Show the status.
    Status {
        /// The socket.
        path: PathBuf,
        /// How.
        format: Format,
    },
    /// Show flows.
    Flows {
        /// The socket.
        path: PathBuf,
        /// How many.
        count: u8,
        /// How.
        format: Format,
    },
    /// Show metrics.
    Metrics(PathBuf),
    /// Have all read again.
    Resync(PathBuf),
    /// Wait.
    Wait {
        /// The socket.
        path: PathBuf,
        /// For what.
        condition: Condition,
        /// For how long at most.
        timeout: Duration,
    },
    /// Print this.
    Answer(String),
}

/// For whom something is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// That the instance serves its socket: it does when it is ready.
    Ready,
    /// That a family is bound to a template.
    Bound,
    /// That the network has this generation, or a later one.
    Generation(u64),
}

/// The text of `--help`.
pub const HELP: &str = "\
Ask a running pasta, or change its forwarded ports

Usage: pesto [OPTIONS] PATH            Show or change forwarded ports
       pesto status [--json] PATH      How things stand
       pesto flows [-n N] [--json] PATH
                                       The flows that have carried most
       pesto metrics PATH              OpenMetrics
       pesto wait CONDITION [--timeout SECONDS] PATH
       pesto resync PATH               Read host and namespace again
       pesto batch [-k] PATH           Changes from standard input, one in a line

PATH is the control socket, made by pasta with -c PATH.

Forwarded ports:
  -A, --add                    Add what follows
  -D, --delete                 Delete what follows
  -C, --clear TABLE            Empty a table: HOST (into the namespace) or SPLICE
  -t, --tcp-ports PORTS        TCP into the namespace, as for pasta; without -A or
                               -D the table HOST is emptied first
  -u, --udp-ports PORTS        UDP into the namespace, likewise
  -T, --tcp-ns PORTS           TCP out of the namespace; table SPLICE
  -U, --udp-ns PORTS           UDP out of the namespace, likewise
  -k, --keep                   Keep what can be done of a change; otherwise all of
                               it is done or nothing
  -s, --show                   Show the ports before and after a change

Conditions:
      --ready                  The instance is ready
      --bound                  An address family is bound to a host interface
      --generation N           The network's generation is at least N

  -d, --debug                  Accepted, without effect
  -h, --help                   Print this
      --version                Print the version

Exit status: 0 if all was done, 1 if not.
";

/// Reads the command line, without the name of the program.
///
/// # Errors
///
/// A line that says what is wrong.
pub fn parse(arguments: &[OsString]) -> Result<Command, String> {
    let mut words = Vec::new();
    for argument in arguments {
        words.push(argument.to_str().ok_or("an argument is not UTF-8")?.to_owned());
    }
    match (words.first().map(String::as_str), words.len()) {
        (Some("status"), 2..) => {
            of_words(&words, |path, options| Ok(Command::Status { path, format: options.format }))
        }
        (Some("flows"), 2..) => of_words(&words, |path, options| {
            let count = options.count.unwrap_or(FLOWS);
            Ok(Command::Flows { path, count, format: options.format })
        }),
        (Some("metrics"), 2..) => of_words(&words, |path, _| Ok(Command::Metrics(path))),
        (Some("resync"), 2..) => of_words(&words, |path, _| Ok(Command::Resync(path))),
        (Some("wait"), 2..) => of_words(&words, |path, options| {
            let condition =
                options.condition.ok_or("wait for what: --ready, --bound or --generation N")?;
            let timeout = options.timeout.unwrap_or(TIMEOUT);
            Ok(Command::Wait { path, condition, timeout })
        }),
        (Some("batch"), 2..) => of_words(&words, |path, options| {
            Ok(Command::Batch { path, keeps_rest: options.keeps_rest })
        }),
        _ => ports(&words),
    }
}

#[derive(Debug)]
struct Options {
    format: Format,
    count: Option<u8>,
    condition: Option<Condition>,
    timeout: Option<Duration>,
    keeps_rest: bool,
}

fn of_words(
    words: &[String],
    make: impl FnOnce(PathBuf, Options) -> Result<Command, String>,
) -> Result<Command, String> {
    let mut options = Options {
        format: Format::Text,
        count: None,
        condition: None,
        timeout: None,
        keeps_rest: false,
    };
    let mut path = None;
    let name = words.first().map_or("", String::as_str);
    let mut rest = words.iter().skip(1);
    while let Some(word) = rest.next() {
        let (option, mut inline) = match word.split_once('=') {
            Some((option, value)) if word.starts_with("--") => (option, Some(value.to_owned())),
            _ => (word.as_str(), None),
        };
        let mut value = || {
            let value = inline.take().or_else(|| rest.next().cloned());
            value.ok_or_else(|| format!("option '{option}' requires an argument"))
        };
        let number = |text: String| {
            text.parse::<u64>().map_err(|_| format!("'{text}' is no number for {option}"))
        };
        match (name, option) {
            (_, "-h" | "--help") => return Ok(Command::Answer(HELP.to_owned())),
            ("status" | "flows", "--json") => options.format = Format::Json,
            ("flows", "-n" | "--count") => {
                let count = number(value()?)?;
                let most = pasta_ipc::status::MAX_TOP as u64;
                options.count = Some(u8::try_from(count.min(most)).unwrap_or(u8::MAX));
            }
            ("wait", "--ready") => options.condition = Some(Condition::Ready),
            ("wait", "--bound") => options.condition = Some(Condition::Bound),
            ("wait", "--generation") => {
                options.condition = Some(Condition::Generation(number(value()?)?));
            }
            ("wait", "--timeout") => {
                options.timeout = Some(Duration::from_secs(number(value()?)?.min(1 << 30)));
            }
            ("batch", "-k" | "--keep") => options.keeps_rest = true,
            (_, option) if option.starts_with('-') && option.len() > 1 => {
                return Err(format!("unrecognized option '{option}' for '{name}'"));
            }
            _ if path.is_none() => path = Some(PathBuf::from(word)),
            _ => return Err(format!("'{word}' is one argument too many")),
        }
    }
    make(path.ok_or_else(|| format!("'{name}' needs the PATH of a control socket"))?, options)
}

fn ports(words: &[String]) -> Result<Command, String> {
    let mut line = ChangeLine::read(words)?;
    if let Some(answer) = line.answer.take() {
        return Ok(Command::Answer(answer));
    }
    let [path] = line.others.as_slice() else {
        return Err(match line.others.get(1) {
            Some(word) => format!("'{word}' is one argument too many"),
            None => "the PATH of a control socket is missing (pesto --help)".to_owned(),
        });
    };
    let path = PathBuf::from(path);
    let ChangeLine { edits, shows, keeps_rest, .. } = line;
    Ok(Command::Ports { path, edits, shows, keeps_rest })
}

/// Options that change forwarded ports.
#[derive(Debug, Default)]
pub struct ChangeLine {
    /// What is changed, in order.
    pub edits: Vec<Edit>,
    /// Whether the state is shown.
    pub shows: bool,
    /// Whether what is possible is kept.
    pub keeps_rest: bool,
    /// Words that are no options.
    pub others: Vec<String>,
    answer: Option<String>,
}

impl ChangeLine {
    /// Reads options, as getopt_long(3) does.
    ///
    /// # Errors
    ///
    /// A line that says what is wrong.
    pub fn read(words: &[String]) -> Result<Self, String> {
        const LONG: &[(&str, char)] = &[
            ("--add", 'A'),
            ("--delete", 'D'),
            ("--clear", 'C'),
            ("--tcp-ports", 't'),
            ("--udp-ports", 'u'),
            ("--tcp-ns", 'T'),
            ("--udp-ns", 'U'),
            ("--show", 's'),
            ("--debug", 'd'),
            ("--keep", 'k'),
            ("--help", 'h'),
            ("--version", 'V'),
        ];
        let mut line = Self::default();
        let mut mode = Mode::Replace;
        let mut rest = words.iter();
        let mut ended = false;
        while let Some(word) = rest.next() {
            if ended || !word.starts_with('-') || word == "-" {
                line.others.push(word.clone());
                continue;
            }
            if word == "--" {
                ended = true;
                continue;
            }
            if word.starts_with("--") {
                let (name, value) = match word.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (word.as_str(), None),
                };
                let exact = LONG.iter().find(|(long, _)| *long == name);
                let mut begins = LONG.iter().filter(|(long, _)| long.starts_with(name));
                let found = match (exact, begins.next(), begins.next()) {
                    (Some(found), ..) | (None, Some(found), None) => found,
                    (None, None, _) => return Err(format!("unrecognized option '{name}'")),
                    (None, Some(_), Some(_)) => {
                        return Err(format!("option '{name}' is ambiguous"));
                    }
                };
                let value = match (takes_value(found.1), value) {
                    (false, Some(_)) => {
                        return Err(format!("option '{}' doesn't allow an argument", found.0));
                    }
                    (false, None) => None,
                    (true, Some(value)) => Some(value),
                    (true, None) => Some(next_value(found.0, rest.next())?),
                };
                line.option(&mut mode, found.1, value.as_deref())?;
                continue;
            }
            let mut letters = word.chars().skip(1);
            while let Some(letter) = letters.next() {
                let value = if takes_value(letter) {
                    let attached: String = letters.by_ref().collect();
                    Some(match attached.is_empty() {
                        false => attached,
                        true => next_value(&format!("-{letter}"), rest.next())?,
                    })
                } else {
                    None
                };
                line.option(&mut mode, letter, value.as_deref())?;
            }
        }
        Ok(line)
    }

    fn option(&mut self, mode: &mut Mode, letter: char, value: Option<&str>) -> Result<(), String> {
        let value = value.unwrap_or_default();
        let option = match letter {
            't' => PortOption::TcpIn,
            'u' => PortOption::UdpIn,
            'T' => PortOption::TcpOut,
            'U' => PortOption::UdpOut,
            'A' => {
                *mode = Mode::Add;
                return Ok(());
            }
            'D' => {
                *mode = Mode::Delete;
                return Ok(());
            }
            'C' => {
                self.edits.push(Edit::Clear(Table::of_name(value)?));
                return Ok(());
            }
            's' => {
                self.shows = true;
                return Ok(());
            }
            'k' => {
                self.keeps_rest = true;
                return Ok(());
            }
            'd' => return Ok(()),
            'h' => {
                self.answer = Some(HELP.to_owned());
                return Ok(());
            }
            'V' => {
                self.answer = Some(format!("pesto {}\n", env!("CARGO_PKG_VERSION")));
                return Ok(());
            }
            other => return Err(format!("invalid option -- '{other}'")),
        };
        let spec =
            Spec::parse(option, value).map_err(|error| format!("{}: {error}", option.name()))?;
        if *mode == Mode::Replace {
            let table = Table::of(option);
            let is_cleared = |it: &Edit| matches!(it, Edit::Replace(cleared) if *cleared == table);
            if !self.edits.iter().any(is_cleared) {
                self.edits.push(Edit::Replace(table));
            }
        }
        self.edits.push(match mode {
            Mode::Delete => Edit::Delete(option, spec),
            Mode::Add | Mode::Replace => Edit::Add(option, spec),
        });
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Replace,
    Add,
    Delete,
}

fn takes_value(letter: char) -> bool {
    matches!(letter, 't' | 'u' | 'T' | 'U' | 'C')
}

fn next_value(option: &str, next: Option<&String>) -> Result<String, String> {
    next.cloned().ok_or_else(|| format!("option '{option}' requires an argument"))
}
