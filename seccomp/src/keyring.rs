//! Session keyrings (session-keyring(7)): what the one who started us keeps there is not for others.

use crate::sys;
use nix::errno::Errno;
use std::io;

/// What the reports say of a helper that still has the session keyring of whoever started it.
pub(crate) const NO_KEYRING: &str = "own session keyring";

/// Gives this process, and what it starts, a new and empty session keyring, of its present user.
///
/// # Errors
///
/// `EDQUOT` if the user has no room for another key, `EPERM` where a filter refuses. A kernel without keys
/// is no error.
pub fn new_session_keyring() -> io::Result<()> {
    match sys::join_new_session_keyring() {
        Err(error) if error.raw_os_error() == Some(Errno::ENOSYS as i32) => Ok(()),
        other => other,
    }
}
