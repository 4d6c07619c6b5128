#![allow(unsafe_code)]
//! What a caller can leave to the programs that it starts, and no safe wrapper of std sets.

use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};

/// Makes `command` start with `blocked` blocked and `ignored` ignored.
pub(crate) fn start_with_signals(
    command: &mut Command,
    blocked: &'static [Signal],
    ignored: &'static [Signal],
) {
    let leave = move || {
        let blocked: SigSet = blocked.iter().copied().collect();
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&blocked), None)?;
        for name in ignored {
            // SAFETY: ignoring a signal runs no code of ours.
            unsafe { signal(*name, SigHandler::SigIgn) }?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes system calls, allocates nothing, takes no lock
    // and touches no memory shared with the parent.
    unsafe { command.pre_exec(leave) };
}
