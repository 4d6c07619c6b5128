//! Running a piece of a test in a child process, and how it ended.

use crate::sys;
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, pipe2, write};
use seccomp::{Confinement, Isolated, Role};
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::fd::{AsRawFd, IntoRawFd};

/// How a child ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// All well.
    Well,
    /// It panicked, and this is what it said.
    Panicked(String),
    /// Its filter ended it.
    KilledByFilter,
    /// Another signal or status.
    Otherwise(String),
}

/// A pipe that no program inherits.
pub(crate) fn pipe() -> (File, File) {
    let (read, write) = pipe2(OFlag::O_CLOEXEC).unwrap();
    (read.into(), write.into())
}

/// Runs `body` in a child and waits for its end. A panic there becomes [`Ended::Panicked`].
pub(crate) fn run(body: impl FnOnce()) -> Ended {
    let (mut read, write_end) = pipe();
    let Some(child) = sys::fork() else {
        drop(read);
        let report = write_end.into_raw_fd();
        // Not the default hook: it looks for a backtrace in files, which no filter allows.
        std::panic::set_hook(Box::new(move |panic| {
            let _ = write(sys::borrow(report), panic.to_string().as_bytes());
            sys::exit(101);
        }));
        body();
        sys::exit(0);
    };
    drop(write_end);
    let mut said = String::new();
    // Read before waiting, so that a long text cannot block the child.
    read.read_to_string(&mut said).unwrap();
    match waitpid(child, None).unwrap() {
        WaitStatus::Exited(_, 0) => Ended::Well,
        WaitStatus::Exited(_, 101) => Ended::Panicked(said),
        WaitStatus::Signaled(_, Signal::SIGSYS, _) => Ended::KilledByFilter,
        other => Ended::Otherwise(format!("{other:?} {said}")),
    }
}

/// Runs `body` in a child and panics unless all is well there.
pub(crate) fn run_well(what: &str, body: impl FnOnce()) {
    match run(body) {
        Ended::Well => {}
        other => panic!("{what}: {other:?}"),
    }
}

/// As the start-up protocol has it: stdio is /dev/null, nothing else inherited that we know of.
pub(crate) fn quiet_stdio() {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null").unwrap();
    assert!(null.as_raw_fd() > 2);
    dup2_stdin(&null).unwrap();
    dup2_stdout(&null).unwrap();
    dup2_stderr(&null).unwrap();
}

/// Confines the calling process as `role`, without isolation and without a supervisor.
pub(crate) fn confine(role: Role) {
    seccomp::confine(Confinement::least(role, Isolated::default()), None).unwrap();
}
