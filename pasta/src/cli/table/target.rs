//! What is connected, as which user, and for how long.

use super::{Entry, Kind, Setting, flag, path, value};
use crate::value;

pub(super) const ENTRIES: &[Entry] = &[
    value(
        None,
        "netns",
        "PATH|NAME",
        |v| Ok(Setting::NetworkNamespace(value::network_namespace(v))),
        "Attach to this network namespace: a path, or a name in /run/netns",
    ),
    path(
        None,
        "userns",
        |v| Setting::UserNamespace(v.into()),
        "User namespace to enter (default: the one that owns the network namespace)",
    ),
    flag(None, "netns-only", Setting::NoUserNamespace, "Neither enter nor create a user namespace"),
    flag(
        None,
        "no-netns-quit",
        Setting::OutliveNamespace,
        "Do not end when the namespace is unlinked or unmounted, or its process ends: run until killed",
    ),
    flag(
        None,
        "no-pidns",
        Setting::SharedPids,
        "Run COMMAND in the caller's PID namespace, without a new /proc",
    ),
    flag(
        None,
        "no-die-with-parent",
        Setting::OutliveUs,
        "Do not end COMMAND when pasta is killed: it goes on without a network",
    ),
    flag(
        Some('f'),
        "foreground",
        Setting::Foreground,
        "Stay in the foreground when attached (always so with COMMAND)",
    ),
    path(
        Some('P'),
        "pid",
        |v| Setting::PidFile(v.into()),
        "Write the process id of pasta to this file once all is ready",
    ),
    path(
        Some('c'),
        "conf-path",
        |v| Setting::ControlSocket(v.into()),
        "Make a control socket at this path, for pesto: status, changes of forwarded ports",
    ),
    value(
        None,
        "runas",
        "USER[:GROUP]",
        |v| value::run_as(v).map(Setting::RunAs),
        "User to change to when started by root, by name or number (default: nobody)",
    ),
    flag(
        None,
        "chroot-fallback",
        Setting::ChrootFallback,
        "Where pivot_root(2) is refused (initramfs), move the root and use chroot(2)",
    ),
    value(
        Some('F'),
        "fd",
        "NUMBER",
        |v| value::descriptor(v).map(Setting::TapDescriptor),
        "Use the tap open at this descriptor instead of creating one; it is not configured",
    ),
    Entry { short: Some('h'), long: "help", help: "Print this help", kind: Kind::Help },
    Entry { short: None, long: "version", help: "Print the version", kind: Kind::Version },
];
