//! Why this process cannot go on.

use nix::errno::Errno;
use pasta_ipc::ReceiveError;
use pasta_ipc::types::IfName;
use pasta_monitor::peer::Unexpected;
use pasta_monitor::tap::TapError;
use std::error::Error;
use std::fmt;
use std::io;

/// Why this process cannot go on.
#[derive(Debug)]
pub(crate) enum RunError {
    /// It could not be shut off from other processes of the user.
    Harden(io::Error),
    /// A peer broke the protocol.
    Violation(String),
    /// A peer said something at the wrong time.
    Unexpected(Unexpected),
    /// A channel failed.
    Channel(ReceiveError),
    /// A message could not be sent.
    Send(io::Error),
    /// Waiting failed.
    Wait(io::Error),
    /// The user could not be changed.
    ChangeUser(seccomp::DropError),
    /// The target's user namespace cannot be entered.
    EnterUser(Errno),
    /// The target's network namespace cannot be entered.
    EnterNet(Errno),
    /// There is no netlink socket to be had in the namespace.
    Netlink(io::Error),
    /// There is no socket to be had that lists the sockets of the namespace.
    SockDiag(io::Error),
    /// The namespace's loopback does not come up.
    Loopback(io::Error),
    /// The interface that was named is not there, and nobody would notice when it comes.
    NoTemplate(IfName),
    /// There is no tap.
    Tap(TapError),
    /// The tap vanished while it was set up.
    NoTap(Errno),
    /// The namespace cannot be read.
    NamespaceLost,
    /// The root could not be emptied.
    Isolate(seccomp::IsolateError),
    /// The runtime could not be built.
    Runtime(io::Error),
    /// Privileges could not be given up.
    Confine(seccomp::ConfineError),
}

impl RunError {
    /// What the process exits with.
    pub(crate) fn exit_status(&self) -> u8 {
        match self {
            Self::Violation(_) | Self::Unexpected(_) => 3,
            Self::Channel(ReceiveError::Violation(_)) => 3,
            _ => 1,
        }
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Harden(_) => f.write_str("cannot become non-dumpable"),
            Self::Violation(why) => write!(f, "protocol violation: {why}"),
            Self::Unexpected(_) => f.write_str("protocol violation"),
            Self::Channel(error) => write!(f, "{error}"),
            Self::Send(_) => f.write_str("cannot send a message"),
            Self::Wait(_) => f.write_str("cannot wait for messages"),
            Self::ChangeUser(_) => f.write_str("cannot change the user"),
            Self::EnterUser(_) => f.write_str(
                "cannot enter the user namespace (it must belong to the user that runs pasta)",
            ),
            Self::EnterNet(_) => f.write_str(
                "cannot enter the network namespace (it must belong to the user namespace)",
            ),
            Self::Netlink(_) => f.write_str("cannot open a netlink socket in the namespace"),
            Self::SockDiag(_) => f.write_str("cannot open a sock_diag socket in the namespace"),
            Self::Loopback(_) => f.write_str("cannot bring \"lo\" up in the namespace"),
            Self::NoTemplate(name) => {
                write!(f, "interface \"{name}\" (-i) does not exist on the host")
            }
            Self::Tap(error) => write!(f, "{error}"),
            Self::NoTap(_) => f.write_str("the tap vanished while it was set up"),
            Self::NamespaceLost => f.write_str("cannot read the namespace's configuration"),
            Self::Isolate(_) => f.write_str("cannot shut the monitor off from the file system"),
            Self::Runtime(_) => f.write_str("cannot build the runtime"),
            Self::Confine(_) => f.write_str("cannot confine the monitor"),
        }
    }
}

impl Error for RunError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Harden(error)
            | Self::Send(error)
            | Self::Wait(error)
            | Self::Netlink(error)
            | Self::SockDiag(error)
            | Self::Loopback(error)
            | Self::Runtime(error) => Some(error),
            Self::ChangeUser(error) => Some(error),
            Self::EnterUser(errno) | Self::EnterNet(errno) | Self::NoTap(errno) => Some(errno),
            Self::Unexpected(error) => Some(error),
            Self::Channel(error) => error.source(),
            Self::Tap(error) => error.source(),
            Self::Isolate(error) => Some(error),
            Self::Confine(error) => Some(error),
            Self::Violation(_) | Self::NoTemplate(_) | Self::NamespaceLost => None,
        }
    }
}

impl From<ReceiveError> for RunError {
    fn from(error: ReceiveError) -> Self {
        Self::Channel(error)
    }
}

impl From<Unexpected> for RunError {
    fn from(error: Unexpected) -> Self {
        Self::Unexpected(error)
    }
}

impl From<TapError> for RunError {
    fn from(error: TapError) -> Self {
        Self::Tap(error)
    }
}

impl From<seccomp::IsolateError> for RunError {
    fn from(error: seccomp::IsolateError) -> Self {
        Self::Isolate(error)
    }
}

impl From<seccomp::ConfineError> for RunError {
    fn from(error: seccomp::ConfineError) -> Self {
        Self::Confine(error)
    }
}
