//! Logs, reports and captures.

use super::{Entry, Setting, flag, optional, path, value};
use crate::value;

pub(super) const ENTRIES: &[Entry] = &[
    flag(Some('d'), "debug", Setting::Debug, "Log more, with timestamps"),
    flag(None, "trace", Setting::Trace, "Log every event too; implies --debug"),
    flag(Some('q'), "quiet", Setting::Quiet, "Log warnings and errors only"),
    path(
        Some('l'),
        "log-file",
        |v| Setting::LogFile(v.into()),
        "Log to this file (default: the system log when attached, else standard error)",
    ),
    value(
        None,
        "log-size",
        "OCTETS",
        |v| value::log_size(v).map(Setting::LogSize),
        "Size at which the oldest part of the log file is removed (default: 1048576)",
    ),
    value(
        None,
        "stats",
        "SECONDS",
        |v| value::stats(v).map(Setting::Stats),
        "Print event counters, at most this often; in the foreground only",
    ),
    path(
        Some('p'),
        "pcap",
        |v| Setting::Capture(v.into()),
        "Write the namespace's frames to this file, for tcpdump or Wireshark",
    ),
    flag(Some('e'), "stderr", Setting::Stderr, "Deprecated, without effect"),
    flag(
        None,
        "explain",
        Setting::Explain,
        "Print what would be done with these options on this host, and do nothing",
    ),
    flag(None, "json", Setting::Json, "With --explain: print it as JSON"),
    flag(
        None,
        "sandbox-report",
        Setting::SandboxReport,
        "Print the privileges that each process has left, before COMMAND starts",
    ),
    optional(
        "strict-sandbox",
        "abi:N",
        |v| value::strictness(v).map(Setting::StrictSandbox),
        "Start only if no measure of the sandbox is missing, and end with the monitor; abi:N asks for Landlock ABI N (default: 6)",
    ),
    optional(
        "audit",
        "json",
        |v| value::audit_form(v).map(Setting::Audit),
        "Print the privileges, namespaces and descriptors of the running pasta with process ID PID; status 1 if one is not as it should be",
    ),
];
