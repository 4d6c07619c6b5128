//! Why a start failed.

use crate::bound_listeners::ListenError;
use crate::control::ControlSocketError;
use crate::existing::OpenError;
use crate::given_tap::GivenTapError;
use crate::helpers::FindError;
use crate::identity::IdentityError;
use crate::log::Helper;
use crate::log_file::LogFileError;
use crate::namespace::CreateError;
use crate::options::InvalidOptions;
use crate::pid_file::PidFileError;
use crate::termination::Termination;
use nix::sys::signal::Signal;
use pasta_ipc::channel::SendError;
use seccomp::{AuditError, ConfineError};
use std::fmt;
use std::io;

/// Why the start failed.
#[derive(Debug)]
pub(crate) enum LaunchError {
    /// The namespace to attach to cannot be used.
    Open(OpenError),
    /// The tap that was handed over cannot be used.
    GivenTap(GivenTapError),
    /// The PID file cannot be written.
    PidFile(PidFileError),
    /// The control socket cannot be made.
    Control(ControlSocketError),
    /// The log file cannot be written.
    LogFile(LogFileError),
    /// The namespace to attach to ended during the start.
    NamespaceEnded,
    /// The process that waits for our start was interrupted.
    CallerGone,
    /// This host cannot serve the options.
    Options(InvalidOptions),
    /// The user to become cannot be determined.
    Identity(IdentityError),
    /// A forwarded port cannot be listened on.
    Listen(ListenError),
    /// A helper's program is missing.
    Find(FindError),
    /// A system call failed; the text is its purpose.
    System(&'static str, io::Error),
    /// The namespaces could not be created.
    Create(CreateError),
    /// Process 1 or a helper reported why it ended.
    Reported(String),
    /// Process 1 ended without a report.
    InitEnded(Termination),
    /// A helper ended without a report.
    HelperEnded(Helper, Termination),
    /// A helper broke the protocol.
    Violation(Helper, String),
    /// A message could not be sent to a helper.
    Send(Helper, SendError),
    /// A helper is not confined as it should be.
    Audit(Helper, AuditError),
    /// Measures are missing that `--strict-sandbox` asks for; the text names them.
    Incomplete(String),
    /// We could not be confined ourselves.
    Confine(ConfineError),
    /// A signal ended it.
    Interrupted(Signal),
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(error) => write!(f, "{error}"),
            Self::GivenTap(error) => write!(f, "{error}"),
            Self::PidFile(error) => write!(f, "{error}"),
            Self::Control(error) => write!(f, "{error}"),
            Self::LogFile(error) => write!(f, "{error}"),
            Self::NamespaceEnded => f.write_str("the namespace has ended"),
            Self::CallerGone => f.write_str("interrupted"),
            Self::Options(error) => write!(f, "{error}"),
            Self::Identity(error) => write!(f, "{error}"),
            Self::Listen(error) => write!(f, "{error}"),
            Self::Find(error) => write!(f, "{error}"),
            Self::System(what, _) => write!(f, "cannot {what}"),
            Self::Create(error) => write!(f, "{error}"),
            Self::Reported(why) => f.write_str(why),
            Self::Incomplete(what) => write!(f, "{what} (--strict-sandbox)"),
            Self::InitEnded(termination) => {
                write!(f, "first process of the namespace {termination} before it was ready")
            }
            Self::HelperEnded(helper, termination) => {
                write!(f, "{} {termination} before it was ready", helper.name())
            }
            Self::Violation(helper, why) => write!(f, "{}: {why}", helper.name()),
            Self::Send(helper, _) => write!(f, "cannot send a message to {}", helper.name()),
            Self::Audit(helper, _) => write!(f, "{} is not confined", helper.name()),
            Self::Confine(_) => f.write_str("cannot confine the supervisor"),
            Self::Interrupted(signal) => write!(f, "interrupted by {signal}"),
        }
    }
}

impl std::error::Error for LaunchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            // Their text is ours; the next cause is theirs.
            Self::Open(error) => error.source(),
            Self::GivenTap(error) => error.source(),
            Self::PidFile(error) => error.source(),
            Self::LogFile(error) => error.source(),
            Self::Identity(error) => error.source(),
            Self::Find(error) => error.source(),
            Self::Create(error) => error.source(),
            Self::System(_, error) => Some(error),
            Self::Send(_, error) => Some(error),
            Self::Audit(_, error) => Some(error),
            Self::Confine(error) => Some(error),
            _ => None,
        }
    }
}

/// A system call failed; `what` is its purpose.
pub(super) fn system(what: &'static str) -> impl Fn(io::Error) -> LaunchError {
    move |error| LaunchError::System(what, error)
}
