//! `pasta`: gives a command in a new network namespace a way to the network.
//!
//! This program reads the command line, creates the namespaces, starts the two helpers that do the
//! work (`pasta-monitor`, `pasta-datapath`), runs the command, and then supervises all of them with
//! nothing left to supervise with but signals. Start-up is in [`launch`], what comes after in
//! [`supervise`].

mod caller;
mod children;
mod cli;
mod following;
mod helpers;
mod host;
mod identity;
mod init;
mod launch;
mod listeners;
mod log;
mod namespace;
mod options;
mod outlet;
mod peer;
mod report;
mod resolver;
mod signals;
mod status;
mod supervise;
mod sys;
mod tun;
mod value;

use caller::Caller;
use cli::Stop;
use launch::{LaunchError, Prepared, Released};
use log::{Log, emit};
use nix::unistd::{getpid, getsid};
use options::Options;
use std::error::Error;
use std::io::Write;
use supervise::Session;

/// Exit status of every error of ours.
const FAILED: i32 = 1;

fn main() {
    let status = match Caller::take_over() {
        Ok(caller) => with_caller(&caller),
        Err(error) => {
            emit(&format!("pasta: cannot harden this process: {error}\n"));
            FAILED
        }
    };
    sys::exit_now(status)
}

fn with_caller(caller: &Caller) -> i32 {
    let name = std::env::args_os().next().unwrap_or_else(|| "pasta".into());
    let name = name.to_string_lossy();
    let options = match cli::parse(std::env::args_os()) {
        Ok(line) => Options::from_line(line, std::env::var_os("SHELL")),
        Err(Stop::Answer(text)) => {
            let mut out = std::io::stdout();
            // A reader that has seen enough is no failure of ours.
            let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
            return 0;
        }
        Err(Stop::Refused(text)) => {
            emit(&text);
            return FAILED;
        }
    };
    let options = match options {
        Ok(options) => options,
        Err(error) => {
            emit(&format!("{name}: {error}\n"));
            return FAILED;
        }
    };
    let mut log = Log::new(options.log_level);
    match run(&options, caller, &mut log) {
        Ok(status) => status,
        Err(LaunchError::Interrupted(signal)) => status::interrupted(signal),
        Err(error) => {
            log.error(&with_causes(&error));
            FAILED
        }
    }
}

fn run(options: &Options, caller: &Caller, log: &mut Log) -> Result<i32, LaunchError> {
    let session = match getsid(None) {
        Ok(leader) if leader == getpid() => Session::Ours,
        _ => Session::Callers,
    };
    let starting = Prepared::new(options, log)?.start(options, caller, log)?;
    let Released { confined, children, resolvers, log } =
        starting.connect()?.confirm()?.release()?;
    supervise::run(confined, children, resolvers, session, log)
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
