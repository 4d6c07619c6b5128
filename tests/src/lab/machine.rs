//! A network namespace of the lab, and running code in it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use crate::Outcome;

/// A network namespace of the lab.
#[derive(Debug)]
pub struct Machine {
    namespace: File,
}

impl Machine {
    /// The calling thread's network namespace.
    ///
    /// # Errors
    ///
    /// When `/proc` cannot be read.
    pub fn here() -> io::Result<Self> {
        Ok(Self { namespace: File::open("/proc/thread-self/ns/net")? })
    }

    /// A new, empty network namespace.
    ///
    /// # Errors
    ///
    /// What `unshare(2)` reports.
    pub fn new() -> Outcome<Self> {
        in_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            Ok(Self::here()?)
        })
    }

    /// Runs `step` in this namespace and gives its result. A socket made there stays there, whoever
    /// uses it afterwards.
    ///
    /// # Errors
    ///
    /// When the namespace cannot be entered, and what `step` gives.
    pub fn run<T: Send>(&self, step: impl FnOnce() -> Outcome<T> + Send) -> Outcome<T> {
        in_thread(|| {
            setns(&self.namespace, CloneFlags::CLONE_NEWNET)?;
            step()
        })
    }
}

impl Machine {
    /// Gives the namespace a name: mounts it on the file `path`, which is made.
    ///
    /// # Errors
    ///
    /// What the kernel refused.
    pub fn name(&self, path: &Path) -> Outcome {
        File::create(path)?;
        let source = format!("/proc/self/fd/{}", self.namespace.as_raw_fd());
        mount(Some(source.as_str()), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        Ok(())
    }
}

impl AsFd for Machine {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
    }
}

/// Runs `step` in a thread of its own, whose namespace ends with it.
fn in_thread<T: Send>(step: impl FnOnce() -> Outcome<T> + Send) -> Outcome<T> {
    thread::scope(|scope| scope.spawn(step).join())
        .unwrap_or_else(|_| Err("a step in a network namespace panicked".into()))
}
