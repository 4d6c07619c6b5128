//! What the control socket needs: waking, and requests to the helpers that are answered.

use super::{Children, Token};
use pasta_ipc::SendError;
use pasta_ipc::{SupervisorToDatapath, SupervisorToMonitor};
use std::io;
use std::os::fd::BorrowedFd;

impl Children {
    /// Wakes [`Children::next`] when `control` becomes readable, without an event.
    ///
    /// # Errors
    ///
    /// What epoll(7) reports.
    pub(crate) fn watch_control(&self, control: BorrowedFd<'_>) -> io::Result<()> {
        self.watch(control, Token::Control)
    }

    /// Sends what the control socket has the monitor asked.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    pub(crate) fn ask_monitor(&mut self, message: &SupervisorToMonitor) -> Result<(), SendError> {
        self.monitor.send(message, &[])?;
        match message {
            SupervisorToMonitor::StatusWanted => self.monitor.handshake.status_requested(),
            SupervisorToMonitor::Forwards(_) => self.monitor.handshake.forwards_sent(),
            _ => {}
        }
        Ok(())
    }

    /// Sends what the control socket has the datapath asked.
    ///
    /// # Errors
    ///
    /// [`SendError`].
    pub(crate) fn ask_datapath(&mut self, message: &SupervisorToDatapath) -> Result<(), SendError> {
        self.datapath.send(message, &[])?;
        match message {
            SupervisorToDatapath::StatusWanted { .. } => self.datapath.handshake.status_requested(),
            SupervisorToDatapath::Change(_) => self.datapath.handshake.forwards_sent(),
            _ => {}
        }
        Ok(())
    }
}
