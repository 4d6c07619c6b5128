//! What another process gives away to this one.
//!
//! | question | does |
//! | --- | --- |
//! | `pry PID` | tries to trace PID, to copy its standard input, and to read what `/proc/PID` has; a fact each: what, and `open` or the error |

use std::fs::{self, File};
use std::io::{self, Read};

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::unistd::Pid;

use super::{Arguments, Facts};
use crate::{Outcome, sys};

/// Tries everything.
///
/// # Errors
///
/// If the question is none.
pub(super) fn answer(arguments: &mut Arguments<'_>) -> Outcome<Facts> {
    let pid: i32 = arguments.value("process")?;
    let read = |name: &str| -> io::Result<()> {
        let mut file = File::open(format!("/proc/{pid}/{name}"))?;
        // Some refuse only here; of a memory nothing is at its start.
        match file.read(&mut [0; 16]) {
            Err(error) if name != "mem" => Err(error),
            _ => Ok(()),
        }
    };
    let traced = ptrace::seize(Pid::from_raw(pid), ptrace::Options::empty());
    let attempts = [
        ("trace", traced.map_err(io::Error::from)),
        ("descriptor", sys::descriptor_of(pid, 0).map(drop)),
        ("fd", fs::read_dir(format!("/proc/{pid}/fd")).map(drop)),
        ("root", fs::read_link(format!("/proc/{pid}/root")).map(drop)),
        ("exe", fs::read_link(format!("/proc/{pid}/exe")).map(drop)),
        ("net", fs::read_link(format!("/proc/{pid}/ns/net")).map(drop)),
        ("mem", read("mem")),
        ("environ", read("environ")),
        ("maps", read("maps")),
        ("stack", read("syscall")),
    ];
    let described = attempts.map(|(what, result)| match result {
        Ok(()) => format!("{what} open"),
        Err(error) => {
            let errno = error.raw_os_error().map(Errno::from_raw);
            format!("{what} {}", errno.map_or_else(|| error.to_string(), |it| format!("{it:?}")))
        }
    });
    Ok(described.to_vec())
}
