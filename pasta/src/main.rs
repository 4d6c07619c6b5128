//! `pasta`: connects a command in a new network namespace to the host's network.
//!
//! This program reads the command line, creates the namespaces, starts the two helpers
//! (`pasta-monitor`, `pasta-datapath`) and the command. Then it confines itself and supervises them.
//! Start-up is in [`launch`], supervision in [`supervise`].

mod bound_listeners;
mod children;
mod cli;
mod follow_options;
mod helpers;
mod host;
mod identity;
mod inherited;
mod init;
mod launch;
mod log;
mod log_writer;
mod namespace;
mod options;
mod peer;
mod report;
mod resolver;
mod signals;
mod supervise;
mod sys;
mod termination;
mod tun;
mod value;

use cli::Stop;
use inherited::InheritedState;
use launch::{LaunchError, Prepared, Released};
use log::{Log, emit};
use nix::unistd::{getpid, getsid};
use options::Options;
use std::error::Error;
use std::io::Write;
use supervise::Session;

/// The first descriptor that is not standard input, output or error.
const ABOVE_STANDARD: u32 = 3;

/// Exit status of every error of ours.
const FAILED: i32 = 1;

fn main() {
    let inherited = InheritedState::take().and_then(|inherited| {
        #[expect(unsafe_code, reason = "only `main` can know that nothing has been opened")]
        // SAFETY: nothing in this process has opened a descriptor above 2 yet: this is the start of
        // `main`, and `InheritedState::take` opens none.
        unsafe { sys::close_from(ABOVE_STANDARD) }.map(|()| inherited)
    });
    let status = match inherited {
        Ok(caller) => run_with(&caller),
        Err(error) => {
            emit(&format!("pasta: cannot harden this process: {error}\n"));
            FAILED
        }
    };
    sys::exit_now(status)
}

fn run_with(inherited: &InheritedState) -> i32 {
    let name = std::env::args_os().next().unwrap_or_else(|| "pasta".into());
    let name = name.to_string_lossy();
    let options = match cli::parse(std::env::args_os()) {
        Ok(line) => Options::from_line(line, std::env::var_os("SHELL")),
        Err(Stop::Answer(text)) => {
            let mut out = std::io::stdout();
            // A closed pipe is not an error.
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
    match run(&options, inherited, &mut log) {
        Ok(status) => status,
        Err(LaunchError::Interrupted(signal)) => termination::interrupted(signal),
        Err(error) => {
            log.error(&with_causes(&error));
            FAILED
        }
    }
}

fn run(options: &Options, inherited: &InheritedState, log: &mut Log) -> Result<i32, LaunchError> {
    let session = match getsid(None) {
        Ok(leader) if leader == getpid() => Session::Ours,
        _ => Session::Inherited,
    };
    let starting = Prepared::new(options, log)?.start(options, inherited, log)?;
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
