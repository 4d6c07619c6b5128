//! `pasta`: connects a command in a new network namespace to the host's network.
//!
//! This program reads the command line, creates the namespaces, starts the two helpers
//! (`pasta-monitor`, `pasta-datapath`) and the command. Then it confines itself and supervises them.
//! Start-up is in [`launch`], supervision in [`supervise`].
//!
//! A standard stream that is closed at start is `/dev/null` here: Rust's runtime opens it before `main`,
//! so no other descriptor gets its number.

mod askers;
mod audit;
mod background;
mod bound_listeners;
mod children;
mod cli;
mod control;
mod deferred_close;
mod existing;
mod explain;
mod follow_options;
mod given_tap;
mod helper_link;
mod helpers;
mod host;
mod identity;
mod inherited;
mod init;
mod instance_status;
mod intake;
mod launch;
mod log;
mod log_file;
mod log_writer;
mod namespace;
mod namespace_watch;
mod options;
mod own_process;
mod peer;
mod pid_file;
mod report;
mod resolver;
mod signals;
mod supervise;
mod sys;
mod sysfs;
mod syslog;
mod target;
mod terminal;
mod termination;
mod tun;
mod value;

use background::{Caller, Split};
use cli::Stop;
use inherited::InheritedState;
use launch::{LaunchError, Prepared, Released};
use log::{Log, emit};
use nix::unistd::{getpid, getsid};
use options::{Options, Strictness};
use pid_file::NewFile;
use std::error::Error;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use supervise::{Attachment, MonitorLoss, Session};
use sys::CallersDescriptors;
use target::{Ground, Target};
use terminal::Terminal;

/// The first descriptor that is not standard input, output or error.
const ABOVE_STANDARD: u32 = 3;

/// Exit status of every error of ours.
const FAILED: i32 = 1;

fn main() {
    let status = match InheritedState::take() {
        Ok(inherited) => run_with(&inherited),
        Err(error) => not_hardened(&error),
    };
    sys::exit_now(status)
}

fn not_hardened(error: &io::Error) -> i32 {
    emit(&format!("pasta: cannot harden this process: {error}\n"));
    FAILED
}

fn run_with(inherited: &InheritedState) -> i32 {
    if let Some(pid) = instance_status::asked_for(std::env::args_os()) {
        return instance_status::show(pid);
    }
    let options = match cli::parse(std::env::args_os()) {
        Ok(line) => Options::from_line(line, std::env::var_os("SHELL")),
        Err(Stop::Answer(text)) => return answer(&text),
        Err(Stop::Refused(text)) => {
            emit(&text);
            return FAILED;
        }
    };
    let options = match options {
        Ok(options) => options,
        Err(error) => {
            emit(&format!("pasta: {error}\n"));
            return FAILED;
        }
    };
    // Namespaces, our own program and what the caller has left open are found there.
    if let Err(error) = std::fs::symlink_metadata("/proc/self/ns") {
        emit(&format!(
            "pasta: /proc is not mounted here, or is that of another PID namespace (mount -t proc proc \
             /proc): {error}\n"
        ));
        return FAILED;
    }
    if let Some((form, pid)) = options.reports.audit {
        return match audit::run(pid, form) {
            Ok((text, audit::Verdict::Clean)) => answer(&text),
            Ok((text, audit::Verdict::Differs)) => answer(&text).max(FAILED),
            Err(error) => {
                emit(&format!("pasta: {}\n", with_causes(&error)));
                FAILED
            }
        };
    }
    let for_command = matches!(options.target, Target::Command(_)) && options.files.tap.is_none();
    #[expect(unsafe_code, reason = "only `main` can know that nothing has been opened")]
    // SAFETY: nothing in this process has opened a descriptor above 2 yet: this is the start of `main`,
    // and neither `InheritedState::take` nor reading the command line opens one.
    let descriptors = unsafe {
        if for_command {
            CallersDescriptors::take(ABOVE_STANDARD).map(|descriptors| (None, descriptors))
        } else {
            let tap = sys::close_from(ABOVE_STANDARD, options.files.tap);
            let tap = tap.and_then(|tap| {
                tap.map(|tap| sys::off_standard_input(tap, ABOVE_STANDARD as i32)).transpose()
            });
            tap.map(|tap| (tap, CallersDescriptors::default()))
        }
    };
    let (tap, descriptors) = match descriptors {
        Ok(taken) => taken,
        Err(error) => return not_hardened(&error),
    };
    if let Some(format) = options.reports.explain {
        let mut log = Log::new(options.log.level);
        return match explain::run(&options, format, &mut log) {
            Ok(text) => answer(&text),
            Err(error) => {
                log.error(&with_causes(&error));
                FAILED
            }
        };
    }
    let caller = match &options.target {
        Target::Existing(existing) if existing.ground == Ground::Background => {
            let pid_file = options.files.pid.as_deref().and_then(NewFile::at);
            match background::split() {
                Ok(Split::Supervisor(caller)) => Some(caller),
                Ok(Split::Caller(status, text)) => {
                    if let Some(file) = pid_file.filter(|_| status != 0) {
                        file.remove();
                    }
                    text.iter().for_each(|text| emit(&format!("pasta: {text}\n")));
                    return status;
                }
                Err(error) => {
                    emit(&format!("pasta: cannot go to the background: {error}\n"));
                    return FAILED;
                }
            }
        }
        Target::Existing(_) | Target::Command(_) => None,
    };
    let mut log = Log::new(options.log.level);
    match run(&options, inherited, (tap, descriptors), caller.as_ref(), &mut log) {
        Ok(status) => status,
        Err(LaunchError::Interrupted(signal)) => termination::interrupted(signal),
        Err(error) => {
            let text = with_causes(&error);
            if let Some(caller) = caller {
                // The caller's process prints it.
                log.leave_standard_error();
                caller.failed(&text);
            }
            log.error(&text);
            FAILED
        }
    }
}

/// Writes to standard output what was asked for.
fn answer(text: &str) -> i32 {
    let mut out = std::io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // A reader that has seen enough is no error.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            emit(&format!("pasta: cannot write to standard output: {error}\n"));
            FAILED
        }
        _ => 0,
    }
}

fn run(
    options: &Options,
    inherited: &InheritedState,
    (tap, descriptors): (Option<OwnedFd>, CallersDescriptors),
    caller: Option<&Caller>,
    log: &mut Log,
) -> Result<i32, LaunchError> {
    let attachment = match (&options.target, getsid(None)) {
        (Target::Existing(_), _) => Attachment::Existing,
        (Target::Command(_), Ok(leader)) if leader == getpid() => {
            Attachment::Command(Session::Ours)
        }
        (Target::Command(_), _) => Attachment::Command(Session::Inherited),
    };
    let terminal = match attachment {
        Attachment::Command(_) => Terminal::open(),
        Attachment::Existing => None,
    };
    log.open(&options.log, &options.target, getpid()).map_err(LaunchError::LogFile)?;
    let starting =
        Prepared::new(options, tap, log)?.start(options, inherited, descriptors, caller, log)?;
    let Released { confined, children, resolvers, control, log } =
        starting.connect()?.confirm()?.release(caller)?;
    let follows = (resolvers, control);
    let monitor_loss = match options.reports.strictness {
        Strictness::Warn => MonitorLoss::Tolerated,
        Strictness::Refuse(_) => MonitorLoss::Fatal,
    };
    supervise::run(confined, children, follows, (attachment, monitor_loss, terminal), log)
        .map_err(|error| LaunchError::System("supervise", error))
}

/// The text of an error and of what caused it.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
