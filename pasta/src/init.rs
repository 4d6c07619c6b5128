//! Process 1 of the new PID namespace: prepares it, starts COMMAND when released, and stays.
//!
//! The kernel ignores TERM and INT to a process 1 that has no handler, also from outside, so COMMAND
//! is a child of this process. It passes signals on, reaps whatever is orphaned, and ends with
//! COMMAND's status; everything else in the namespace dies with it. It keeps the caller's process
//! group and terminal, and once COMMAND has been started it holds neither a capability nor a
//! descriptor besides standard input, output and error.
//!
//! Signals to pass on are those from outside the PID namespace, which have no sender here. Keys at
//! the terminal signal the whole foreground group, COMMAND with it, so those are not passed on.

use crate::inherited::{InheritedState, handled_signals};
use crate::log::emit;
use crate::namespace::{Link, Namespaces};
use crate::options::Program;
use crate::signals::{ReceivedSignal, Sender};
use crate::sys::{self, Child, Cloned};
use crate::termination::Termination;
use caps::CapSet;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::Mode;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Gid, Uid, execvp, gethostname, sethostname};
use std::convert::Infallible;
use std::ffi::OsString;
use std::fmt::Display;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Where the link to the launcher is while everything above is closed.
const LINK: i32 = 3;

/// The first descriptor that is not standard input, output or error.
const ABOVE_STANDARD: u32 = 3;

/// The first descriptor above the link.
const ABOVE_LINK: u32 = 4;

/// Status of a process that could not do its work, and of COMMAND that could not be started.
const FAILED: i32 = 1;

/// Longest host name (`__NEW_UTS_LEN`, `linux/utsname.h`).
const MAX_HOST_NAME: usize = 64;

/// What process 1 needs to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InitConfig<'a> {
    /// COMMAND.
    pub(crate) program: &'a Program,
    /// What COMMAND gets back.
    pub(crate) inherited: &'a InheritedState,
    /// Who shall be user 0 of the namespace, as seen outside.
    pub(crate) uid: Uid,
    /// Likewise the group.
    pub(crate) gid: Gid,
}

/// All that process 1 does. It is a copy of the launcher, in new namespaces.
pub(crate) fn run(link: Link, config: InitConfig<'_>) -> ! {
    // What the launcher had open is not ours. No value that owns any of it is ever dropped here:
    // this process ends by exit_now.
    let link = link.move_to(LINK);
    let closed = sys::close_from(ABOVE_LINK);
    let (Ok(link), Ok(())) = (link, closed) else { sys::exit_now(FAILED) };
    let prepared = prepare(&link, config).and_then(|namespaces| {
        link.ready(&namespaces).map_err(|error| format!("cannot hand over namespaces: {error}"))
    });
    if let Err(why) = prepared {
        link.fail(&why);
        sys::exit_now(FAILED);
    }
    if !link.wait_for_release() {
        sys::exit_now(FAILED);
    }
    drop(link);
    sys::exit_now(match start(config) {
        Ok(running) => running.attend(),
        Err(error) => {
            emit(&format!("pasta: cannot start the command: {error}\n"));
            FAILED
        }
    })
}

/// Makes the namespaces what COMMAND expects. What only makes them less comfortable is a warning.
fn prepare(link: &Link, config: InitConfig<'_>) -> Result<Namespaces, String> {
    map_ids(config)?;
    let warn = |what: &str, error: &dyn Display| link.warn(&format!("{what}: {error}"));
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    if let Err(errno) = mount(Some("proc"), "/proc", Some("proc"), flags, None::<&str>) {
        warn("cannot mount /proc in the namespace", &errno.desc());
    }
    // Everybody in the namespace, that is its group 0, may send echo requests.
    if let Err(error) = fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0") {
        warn("cannot allow echo sockets in the namespace", &error);
    }
    // What TCP sends in there goes no further than to us: bursts do no harm, and small ones that are
    // spread over a time cost processor time. After this, how far away the other end has seemed does not
    // make frames small. Where it fails (it is new in Linux 5.18) many flows are slower.
    let _ = fs::write("/proc/sys/net/ipv4/tcp_tso_rtt_log", "20");
    let named = gethostname().and_then(|host| sethostname(host_name(host)));
    if let Err(errno) = named {
        warn("cannot set the host name of the namespace", &errno.desc());
    }
    let open_own = |path: &str| -> Result<OwnedFd, String> {
        open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|errno| format!("cannot open {path} in the namespace: {}", errno.desc()))
    };
    Ok(Namespaces { user: open_own("/proc/self/ns/user")?, net: open_own("/proc/self/ns/net")? })
}

/// Makes the caller user 0 and group 0 of the new user namespace.
fn map_ids(config: InitConfig<'_>) -> Result<(), String> {
    // The map files of a non-dumpable process belong to root.
    let dumpable = |yes| {
        prctl::set_dumpable(yes).map_err(|errno| format!("cannot set dumpable: {}", errno.desc()))
    };
    dumpable(true)?;
    for (file, text) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("0 {} 1\n", config.uid)),
        ("gid_map", format!("0 {} 1\n", config.gid)),
    ] {
        fs::write(format!("/proc/self/{file}"), text)
            .map_err(|error| format!("cannot write {file} of the namespace: {error}"))?;
    }
    dumpable(false)
}

/// The name of the host, marked as ours and cut to what the kernel takes.
fn host_name(host: OsString) -> OsString {
    let mut name = b"pasta-".to_vec();
    name.extend(host.as_bytes());
    name.truncate(MAX_HOST_NAME);
    OsString::from_vec(name)
}

/// COMMAND, running, and the signals that come for it.
struct Running {
    command: Child,
    signals: SignalFd,
}

/// Starts COMMAND and gives up every capability.
fn start(config: InitConfig<'_>) -> io::Result<Running> {
    let early = pending()?;
    let signals = SignalFd::with_flags(&handled_signals(), SfdFlags::SFD_CLOEXEC)?;
    let command = match sys::clone_process(0)? {
        Cloned::Parent(command) => command,
        Cloned::Child => {
            let Err(error) = become_command(config);
            let path = config.program.path.to_string_lossy();
            emit(&format!("pasta: cannot run '{path}': {error}\n"));
            sys::exit_now(FAILED)
        }
    };
    for signal in early {
        kill(command.pid, signal)?;
    }
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        caps::clear(None, set).map_err(io::Error::other)?;
    }
    Ok(Running { command, signals })
}

/// The signals that came before there was a COMMAND to get them: they are COMMAND's, whether they
/// are the terminal's or not.
fn pending() -> io::Result<Vec<Signal>> {
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = SignalFd::with_flags(&handled_signals(), flags)?;
    let mut pending = Vec::new();
    while let Some(info) = signals.read_signal()? {
        pending.extend(ReceivedSignal::from(&info).for_command());
    }
    Ok(pending)
}

fn become_command(config: InitConfig<'_>) -> io::Result<Infallible> {
    sys::close_from(ABOVE_STANDARD)?;
    config.inherited.restore()?;
    let Program { path, args } = config.program;
    Ok(execvp(path, args)?)
}

impl Running {
    /// Passes signals on and reaps until COMMAND has ended; its status in one number.
    fn attend(&self) -> i32 {
        loop {
            if let Some(status) = self.reap() {
                return status;
            }
            match self.signals.read_signal() {
                Ok(Some(info)) => {
                    let received = ReceivedSignal::from(&info);
                    if received.sender == Sender::Outside
                        && let Some(signal) = received.for_command()
                    {
                        // It may have ended just now; the next turn reaps it.
                        let _ = kill(self.command.pid, signal);
                    }
                }
                Ok(None) | Err(Errno::EINTR) => {}
                Err(errno) => {
                    emit(&format!("pasta: cannot wait for the command: {}\n", errno.desc()));
                    return FAILED;
                }
            }
        }
    }

    /// Reaps what has ended. COMMAND's status, if it was among them.
    fn reap(&self) -> Option<i32> {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
        loop {
            match waitid(Id::All, flags) {
                Ok(WaitStatus::StillAlive) => return None,
                Ok(status) if status.pid() == Some(self.command.pid) => {
                    return Some(Termination::from(status).as_exit_status());
                }
                // An orphan, or the call was interrupted: there may be more.
                Ok(_) | Err(Errno::EINTR) => {}
                // COMMAND cannot have gone without having been reaped here.
                Err(_) => return Some(FAILED),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_name_is_marked_and_fits_the_kernel() {
        assert_eq!(host_name("box".into()), "pasta-box");
        let long = host_name("x".repeat(64).into());
        assert_eq!(long.len(), MAX_HOST_NAME);
        assert!(long.to_string_lossy().starts_with("pasta-xxx"));
    }
}
