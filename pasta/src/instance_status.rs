//! `pasta status PID`: the status of another instance, by its control socket.

use crate::cli;
use crate::log::emit;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// The process of `pasta status PID`, which is no other command line: COMMAND of that name is run by
/// `pasta -- status PID`.
pub(crate) fn asked_for(line: impl Iterator<Item = OsString>) -> Option<u32> {
    let words: Vec<_> = line.skip(1).take(3).collect();
    let [word, pid] = words.as_slice() else { return None };
    pid.to_str().filter(|_| word == "status")?.parse().ok()
}

/// Shows the status of the instance with this process id, if it has a control socket.
pub(crate) fn show(pid: u32) -> i32 {
    match control_socket_of(pid) {
        Ok(path) => pasta::pesto::show_status(&path),
        Err(why) => {
            emit(&format!("pasta: {why}\n"));
            1
        }
    }
}

/// The path that the command line of process `pid` gives to `-c`.
fn control_socket_of(pid: u32) -> Result<PathBuf, String> {
    let of = |what: &str| PathBuf::from(format!("/proc/{pid}/{what}"));
    let failed = |error: io::Error| format!("cannot look at process {pid}: {error}");
    let line = std::fs::read(of("cmdline")).map_err(failed)?;
    let words = line.strip_suffix(&[0]).unwrap_or(&line).split(|octet| *octet == 0);
    let words = words.map(|word| OsString::from_vec(word.to_vec()));
    let path = cli::parse(words).ok().and_then(|line| {
        line.settings.into_iter().rev().find_map(|setting| match setting {
            cli::Setting::ControlSocket(path) => Some(path),
            _ => None,
        })
    });
    let path = path.ok_or_else(|| {
        format!(
            "process {pid} is no pasta with a control socket (-c); `kill -USR1 {pid}` has a pasta write its status to \
             the log"
        )
    })?;
    if path.is_absolute() {
        return Ok(path);
    }
    // Attached in the background it has left the directory that it was started in.
    let directory = std::fs::read_link(of("cwd"));
    let directory = directory.map_err(|_| {
        format!(
            "the control socket of process {pid} is {}, in a directory that cannot be seen",
            path.display()
        )
    })?;
    Ok(directory.join(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_number_after_the_word_alone_is_meant() {
        let line = |text: &str| asked_for(text.split(' ').map(OsString::from));
        assert_eq!(line("pasta status 12"), Some(12));
        for other in
            ["pasta", "pasta status", "pasta status x", "pasta -- status 12", "pasta status 1 2"]
        {
            assert_eq!(line(other), None, "{other}");
        }
    }

    #[test]
    fn process_without_a_control_socket_is_said_to_be_that() {
        let why = control_socket_of(std::process::id()).unwrap_err();
        assert!(why.contains("no pasta with a control socket"), "{why}");
    }
}
