#![forbid(unsafe_code)]
//! `pesto`: asks a running instance through its control socket, and changes its forwarded ports.
//!
//! A change is made on a copy of the state and sent as a whole with the state's generation; where another client was
//! faster, it is made again on the new state.

pub mod arguments;
pub mod edit;

use crate::client::{Client, ClientError, Status};
use crate::error_text::without_numbers;
use crate::status_report::{flows_text, flows_value, listen_error, to_metrics, to_text, to_value};
use arguments::{ChangeLine, Command, Condition, Format};
use edit::{Edit, Table, apply};
use nix::errno::Errno;
use pasta_ipc::control::{
    ChangeResult, ForwardChange, ForwardFailure, ForwardState, OnFailure, Origin,
};
use pasta_ipc::types::{Bounded, FamilyState};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, BufRead, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// How often a change is made again because another client was faster; chosen: that many clients do not come.
const ATTEMPTS: usize = 100;

/// Interval of looks at a condition that is waited for; chosen: nobody notices it.
const INTERVAL: Duration = Duration::from_millis(50);

/// Below this, and not as named, a port is refused where the sysctl's value is not known.
const UNPRIVILEGED: u16 = 1024;

/// Does what `arguments` say, those of the program without its name; gives the exit status.
pub fn run(arguments: &[OsString]) -> i32 {
    let result = arguments::parse(arguments).and_then(carry_out);
    match result {
        Ok(()) => 0,
        Err(why) => {
            complain("pesto", &why);
            1
        }
    }
}

/// Shows the status of the instance at `path`, for `pasta status`; gives the exit status.
pub fn show_status(path: &Path) -> i32 {
    let shown = carry_out(Command::Status { path: path.to_owned(), format: Format::Text });
    match shown {
        Ok(()) => 0,
        Err(why) => {
            complain("pasta", &why);
            1
        }
    }
}

fn complain(program: &str, why: &str) {
    // Without standard error there is nobody to read it.
    let _ = writeln!(io::stderr(), "{program}: {}", without_numbers(why));
}

fn show(text: &str) -> Result<(), String> {
    let mut out = io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // A reader that has seen enough is no error.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(format!("cannot write to standard output: {error}"))
        }
        _ => Ok(()),
    }
}

fn connect(path: &Path) -> Result<Client, String> {
    Client::connect(path, None).map_err(|error| error.to_string())
}

fn carry_out(command: Command) -> Result<(), String> {
    let said = |error: ClientError| error.to_string();
    match command {
        Command::Answer(text) => show(&text),
        Command::Ports { path, edits, shows, keeps_rest } => {
            let client = connect(&path)?;
            if edits.is_empty() {
                return show(&tables(&client.forwards().map_err(said)?));
            }
            let before = client.forwards().map_err(said)?;
            if shows {
                show(&format!("Before:\n{}", tables(&before)))?;
            }
            let changed = change(&client, before, &edits, keeps_rest);
            if shows {
                show(&format!("After:\n{}", tables(&client.forwards().map_err(said)?)))?;
            }
            changed.map(|_| ())
        }
        Command::Batch { path, keeps_rest } => batch(&connect(&path)?, keeps_rest),
        Command::Status { path, format } => {
            let status = connect(&path)?.status(0).map_err(said)?;
            show(&match format {
                Format::Text => to_text(&status),
                Format::Json => to_value(&status).to_json(),
            })
        }
        Command::Flows { path, count, format } => {
            let status = connect(&path)?.status(count).map_err(said)?;
            let datapath = status.datapath.ok_or("pasta-datapath has ended or does not answer")?;
            let flows = datapath.top.as_slice();
            show(&match format {
                Format::Text => flows_text(flows),
                Format::Json => flows_value(flows).to_json(),
            })
        }
        Command::Metrics(path) => {
            let status = connect(&path)?.status(0).map_err(said)?;
            show(&to_metrics(&status, resident_memory))
        }
        Command::Resync(path) => connect(&path)?.resync().map_err(said),
        Command::Wait { path, condition, timeout } => wait(&path, condition, timeout),
    }
}

/// Resident memory of a process in octets, from its `/proc/PID/status`.
fn resident_memory(pid: i32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Changes the state; gives the generation of the new one.
fn change(
    client: &Client,
    mut state: ForwardState,
    edits: &[Edit],
    keeps_rest: bool,
) -> Result<u64, String> {
    let on_failure = if keeps_rest { OnFailure::KeepRest } else { OnFailure::RollBack };
    for _ in 0..ATTEMPTS {
        let old = state.entries.as_slice().iter().map(|entry| entry.forward.clone());
        let new = apply(old.collect(), edits)?;
        let forwards = Bounded::try_from(new).map_err(|_| "too many lists of ports")?;
        let wanted = ForwardChange { base: state.generation, forwards, on_failure };
        match client.change(wanted).map_err(|error| error.to_string())? {
            ChangeResult::Applied { generation, left_out } => {
                return match left_out.as_slice() {
                    [] => Ok(generation.0),
                    some => Err(format!("left out:{}", failures(some))),
                };
            }
            ChangeResult::RolledBack { failures: why } => {
                return Err(format!("nothing was changed:{}", failures(why.as_slice())));
            }
            ChangeResult::Refused(why) => return Err(why.to_string()),
            ChangeResult::Stale(_) => {
                state = client.forwards().map_err(|error| error.to_string())?;
            }
        }
    }
    Err("other clients keep changing the ports; try again".to_owned())
}

fn failures(failures: &[ForwardFailure]) -> String {
    let mut text = String::new();
    let separator = if failures.len() > 1 { "\n  " } else { " " };
    for failure in failures {
        let ForwardFailure { forward, port, errno } = failure;
        let why = listen_error(forward.direction(), *port, *errno, UNPRIVILEGED);
        // Writing to a String cannot fail.
        let _ = write!(text, "{separator}'{forward}': {why}");
    }
    text
}

/// Makes changes from standard input, each line one; says what became of each.
fn batch(client: &Client, keeps_rest: bool) -> Result<(), String> {
    let mut failed = 0;
    for line in io::stdin().lock().lines() {
        let line = line.map_err(|error| format!("cannot read standard input: {error}"))?;
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        if words.is_empty() || line.starts_with('#') {
            continue;
        }
        let result = ChangeLine::read(&words).and_then(|read| {
            if let Some(word) = read.others.first() {
                return Err(format!("'{word}' is one argument too many"));
            }
            let state = client.forwards().map_err(|error| error.to_string())?;
            change(client, state, &read.edits, keeps_rest || read.keeps_rest)
        });
        show(&match result {
            Ok(generation) => format!("ok {generation}\n"),
            Err(why) => {
                failed += 1;
                format!("error {}\n", why.replace('\n', " "))
            }
        })?;
    }
    if failed > 0 { Err(format!("{failed} changes have failed")) } else { Ok(()) }
}

/// The forwarded ports, in two tables.
fn tables(state: &ForwardState) -> String {
    let mut text = String::new();
    for table in [Table::Host, Table::Splice] {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", table.name());
        for entry in state.entries.as_slice().iter().filter(|it| table.has(&it.forward)) {
            let origin = match entry.origin {
                Origin::Default => "default",
                Origin::CommandLine => "command line",
                Origin::Client { .. } => "control socket",
            };
            let _ = writeln!(text, "    {:<40} {origin}", entry.forward.to_string());
        }
    }
    text
}

fn wait(path: &Path, condition: Condition, timeout: Duration) -> Result<(), String> {
    let deadline = Instant::now() + timeout;
    loop {
        let looked = Client::connect(path, Some(deadline)).and_then(|client| match condition {
            Condition::Ready => Ok(true),
            _ => client.status(0).map(|status| holds(&status, condition)),
        });
        let last = match looked {
            Ok(true) => return Ok(()),
            Ok(false) => "it is not so yet".to_owned(),
            // It may be about to start.
            Err(
                error @ (ClientError::Connect(_, Errno::ENOENT | Errno::ECONNREFUSED)
                | ClientError::Late
                | ClientError::Gone),
            ) => error.to_string(),
            Err(error) => return Err(error.to_string()),
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(format!("timed out after {} s: {last}", timeout.as_secs()));
        }
        std::thread::sleep(INTERVAL.min(left));
    }
}

fn holds(status: &Status, condition: Condition) -> bool {
    let Some(network) = status.monitor.as_ref().and_then(|it| it.network.as_ref()) else {
        return false;
    };
    match condition {
        Condition::Ready => true,
        Condition::Bound => [network.ipv4.state, network.ipv6.state].contains(&FamilyState::Bound),
        Condition::Generation(wanted) => network.generation.0 >= wanted,
    }
}

#[cfg(test)]
mod tests;
