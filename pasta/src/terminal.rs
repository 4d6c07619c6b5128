//! The terminal that a COMMAND of ours may have, and whose turn it is there.
//!
//! A terminal belongs to one process group, the foreground (credentials(7)). A shell that starts us makes
//! our group the foreground; an interactive COMMAND takes the terminal for a group of its own. COMMAND is in
//! another PID namespace, where neither our group nor the shell's has a number, so only we can tell
//! whether the shell has given the terminal to us.

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp};
use pasta_ipc::message::TerminalGround;
use std::os::fd::OwnedFd;

/// The controlling terminal, and our process group.
#[derive(Debug)]
pub(crate) struct Terminal {
    device: OwnedFd,
    group: Pid,
    /// Where our group was when COMMAND was started or went on.
    ground: TerminalGround,
}

/// Opens the controlling terminal of this process, if it has one.
///
/// # Errors
///
/// `ENXIO` without a terminal; where there is no `/dev/tty`.
pub(crate) fn open_device() -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
    open("/dev/tty", flags, Mode::empty())
}

impl Terminal {
    /// The controlling terminal of this process, if it has one.
    pub(crate) fn open() -> Option<Self> {
        let terminal = Self {
            device: open_device().ok()?,
            group: getpgrp(),
            ground: TerminalGround::Background,
        };
        let ground = terminal.look();
        Some(Self { ground, ..terminal })
    }

    /// Where our group is now that COMMAND is to go on.
    pub(crate) fn update(&mut self) -> TerminalGround {
        self.ground = self.look();
        self.ground
    }

    fn look(&self) -> TerminalGround {
        match tcgetpgrp(&self.device) {
            Ok(group) if group == self.group => TerminalGround::Foreground,
            _ => TerminalGround::Background,
        }
    }

    /// Takes the terminal back from a COMMAND that has ended, if the caller had given it to us: whoever
    /// started us without job control would be in the background otherwise.
    pub(crate) fn take_back(&self) {
        if self.ground == TerminalGround::Foreground && self.look() == TerminalGround::Background {
            // SIGTTOU is blocked, so this does not stop us. If it fails, the terminal has hung up.
            let _ = tcsetpgrp(&self.device, self.group);
        }
    }
}
