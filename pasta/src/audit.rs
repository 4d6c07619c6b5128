//! `--audit`: what the processes of a running instance have, as the kernel shows it to others.
//!
//! The instance is not asked and notices nothing. The exposures follow from its command line, with the
//! settings of the host as they are at this moment.

use crate::cli;
use crate::host;
use crate::log::Helper;
use crate::namespace::same_file;
use crate::options::Options;
use crate::sys;
use crate::value::DocumentForm;
use nix::unistd::Pid;
use pasta::document::Value;
use pasta_ipc::start::HostSockets;
use seccomp::{AuditError, Instance, Observation, Role, observe};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Why there is nothing to look at.
#[derive(Debug)]
pub(crate) enum Failure {
    /// `/proc` cannot be read.
    Proc(io::Error),
    /// The process has no helpers.
    NoInstance(Pid),
    /// A process of the instance cannot be looked at.
    Unreadable(&'static str, AuditError),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proc(_) => f.write_str("cannot read /proc"),
            Self::NoInstance(pid) => {
                write!(
                    f,
                    "process {pid} is not a running pasta with both helpers (pasta-datapath, pasta-monitor)"
                )
            }
            Self::Unreadable(name, _) => write!(f, "cannot look at {name}"),
        }
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Proc(error) => Some(error),
            Self::NoInstance(_) => None,
            Self::Unreadable(_, error) => Some(error),
        }
    }
}

/// Whether all is as the table of privileges has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is.
    Clean,
    /// It is not.
    Differs,
}

/// Looks at the instance whose supervisor, or one of whose helpers, is `pid`; the document and the verdict.
///
/// # Errors
///
/// [`Failure`].
pub(crate) fn run(pid: Pid, form: DocumentForm) -> Result<(String, Verdict), Failure> {
    let supervisor = match name(pid) {
        Some(name) if [Helper::Monitor, Helper::Datapath].iter().any(|it| name == it.name()) => {
            parent(pid).ok_or(Failure::NoInstance(pid))?
        }
        _ => pid,
    };
    let (monitor, datapath) = helpers(supervisor)?;
    let (mut fields, mut verdict) = (Vec::new(), Verdict::Clean);
    for (title, pid, role) in [
        ("supervisor", supervisor, Role::Supervisor),
        ("monitor", monitor, Role::Monitor),
        ("datapath", datapath, Role::Datapath),
    ] {
        let seen = observe(pid, role, Instance { supervisor, monitor });
        let seen = seen.map_err(|error| Failure::Unreadable(title, error))?;
        if !seen.disagreements.is_empty() {
            verdict = Verdict::Differs;
        }
        fields.push((title, described(pid, seen)));
    }
    fields.push(("exposure", Value::texts(exposure(supervisor, monitor))));
    let clean = Value::text(if verdict == Verdict::Clean { "clean" } else { "differs" });
    fields.push(("verdict", clean));
    let document = Value::Fields(fields);
    let text = match form {
        DocumentForm::Text => document.to_text(),
        DocumentForm::Json => document.to_json(),
    };
    Ok((text, verdict))
}

fn described(pid: Pid, seen: Observation) -> Value {
    let mut fields = vec![("process", Value::text(pid))];
    fields.extend(seen.facts.into_iter().map(|(name, value)| (name, Value::text(value))));
    fields.push(("not_shown", Value::texts(seen.unread)));
    fields.push(("missing", Value::texts(seen.missing)));
    fields.push(("disagrees", Value::texts(seen.disagreements)));
    Value::Fields(fields)
}

/// File name of the program that a process was started as.
fn name(pid: Pid) -> Option<OsString> {
    let words = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let first = words.split(|octet| *octet == 0).next()?;
    Path::new(OsStr::from_bytes(first)).file_name().map(OsStr::to_owned)
}

fn parent(pid: Pid) -> Option<Pid> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in parentheses, which may hold anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    let parent = fields.split(' ').nth(1)?.parse().ok()?;
    Some(Pid::from_raw(parent)).filter(|parent| parent.as_raw() > 0)
}

/// The monitor and the datapath of a supervisor.
fn helpers(supervisor: Pid) -> Result<(Pid, Pid), Failure> {
    let (mut monitor, mut datapath) = (None, None);
    for entry in fs::read_dir("/proc").map_err(Failure::Proc)? {
        let name_of_entry = entry.map_err(Failure::Proc)?.file_name();
        let Some(pid) = name_of_entry.to_str().and_then(|name| name.parse().ok()) else { continue };
        let pid = Pid::from_raw(pid);
        if parent(pid) != Some(supervisor) {
            continue;
        }
        match name(pid) {
            Some(name) if name == Helper::Monitor.name() => monitor = Some(pid),
            Some(name) if name == Helper::Datapath.name() => datapath = Some(pid),
            _ => {}
        }
    }
    monitor.zip(datapath).ok_or(Failure::NoInstance(supervisor))
}

/// What leads from the namespace to the host's loopback and into the namespace, by the command line.
fn exposure(supervisor: Pid, monitor: Pid) -> Vec<String> {
    let Ok(words) = fs::read(format!("/proc/{supervisor}/cmdline")) else { return Vec::new() };
    let words = words.strip_suffix(&[0]).unwrap_or(&words).split(|octet| *octet == 0);
    let words = words.map(|word| OsStr::from_bytes(word).to_owned());
    let Ok(line) = cli::parse(words) else { return Vec::new() };
    let Ok(options) = Options::from_line(line, None) else { return Vec::new() };
    let lines = options.services(host::kernel_families()).ok().and_then(|(services, _)| {
        let forwards = options.forwards(&services, host::port_system(&options.target)).ok()?;
        let reach = match options.changes_namespace() {
            true => host_sockets(supervisor, monitor),
            false => Some(HostSockets::InReach),
        };
        Some(options.exposure(&services, &forwards, reach))
    });
    lines.unwrap_or_default()
}

/// Whether a monitor that keeps `CAP_NET_ADMIN` was given a socket that lists the host's sockets: not where the
/// capability counts over the host's network. Unknown where the kernel does not show us its namespaces.
fn host_sockets(supervisor: Pid, monitor: Pid) -> Option<HostSockets> {
    let network = File::open(format!("/proc/{supervisor}/ns/net")).ok()?;
    let of_monitor = format!("/proc/{monitor}/ns/user");
    fs::metadata(&of_monitor).ok()?;
    // One that we may not see is above ours, and the monitor's is not.
    let governs =
        sys::owning_user_namespace(network).is_ok_and(|owner| same_file(&owner, &of_monitor));
    Some(if governs { HostSockets::OutOfReach } else { HostSockets::InReach })
}
