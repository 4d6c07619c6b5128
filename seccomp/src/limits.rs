//! Resource limits per process.

use crate::Role;
use crate::caps::Keep;
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

/// Descriptors of the supervisor: channels, pidfds, log, signalfd, watches and one control client.
const SUPERVISOR_DESCRIPTORS: rlim_t = 64;

/// Descriptors of the monitor. Sockets are closed there once sent, so this bounds those in flight.
const MONITOR_DESCRIPTORS: rlim_t = 1024;

/// Address space of the monitor. Chosen: far more than readings take, and little of a host's memory.
const MONITOR_MEMORY: rlim_t = 2 << 30;

/// Address space of the datapath. Chosen: far more than the lab's largest load takes; a process that is taken
/// over cannot use up a host by it.
const DATAPATH_MEMORY: rlim_t = 8 << 30;

/// Core dumps off, soft and hard: memory holds what the namespace sent, and a core is a file.
///
/// # Errors
///
/// What setrlimit(2) reports; lowering cannot fail.
pub(crate) fn no_core() -> Result<(), Errno> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)
}

/// Sets the limits of `role`, soft and hard, so that they can only go further down.
///
/// # Errors
///
/// What setrlimit(2) reports; lowering cannot fail.
pub(crate) fn limit(role: Role, keep: Keep) -> Result<(), Errno> {
    no_core()?;
    setrlimit(Resource::RLIMIT_MSGQUEUE, 0, 0)?;
    setrlimit(Resource::RLIMIT_MEMLOCK, 0, 0)?;
    match role {
        Role::Supervisor => lower(Resource::RLIMIT_NOFILE, SUPERVISOR_DESCRIPTORS),
        Role::Monitor => {
            no_processes()?;
            no_files()?;
            lower(Resource::RLIMIT_AS, MONITOR_MEMORY)?;
            lower(Resource::RLIMIT_NOFILE, MONITOR_DESCRIPTORS)
        }
        Role::Datapath => {
            no_processes()?;
            // With a capture the user's own limit holds.
            if !keep.capture {
                no_files()?;
            }
            lower(Resource::RLIMIT_AS, DATAPATH_MEMORY)?;
            // A flow is up to four descriptors: use all that the user has.
            let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
        }
    }
}

fn no_processes() -> Result<(), Errno> {
    setrlimit(Resource::RLIMIT_NPROC, 0, 0)
}

fn no_files() -> Result<(), Errno> {
    setrlimit(Resource::RLIMIT_FSIZE, 0, 0)
}

/// Lowers both limits to `limit`, or leaves them where they are lower.
fn lower(resource: Resource, limit: rlim_t) -> Result<(), Errno> {
    let (soft, hard) = getrlimit(resource)?;
    setrlimit(resource, soft.min(limit), hard.min(limit))
}
