//! One lab: namespaces, network, services, and `pasta` running in it.

pub mod address;
pub mod admin;
pub mod delayed;
pub mod enter;
mod files;
#[cfg(target_arch = "x86_64")]
pub mod injector;
pub mod machine;
pub mod network;
pub mod pasta;
pub mod path;
pub mod process;
pub mod programs;
pub mod service;
pub mod session;
pub mod stages;
pub mod tracer;
pub mod tunnel;
pub mod uplinks;
pub mod wait;

use std::fs;
use std::path::PathBuf;

pub use address::{Family, UPLINK};
pub use enter::Power;
pub use machine::Machine;
pub use pasta::{Pasta, Running};
pub use session::{Reply, Session};

use crate::Outcome;
use crate::netlink::Netlink;
use network::Network;
use programs::Programs;

/// User and group that `pasta` runs as when the lab is root's. Chosen: an ordinary number that no
/// distribution hands out (adduser stops at 59999, systemd's own ranges begin at 60001 for homed,
/// 61184 for DynamicUser), so no limit is shared with a real user of the machine.
pub const USER: u32 = 60700;

/// File name of the helper that handles frames.
pub const DATAPATH: &str = "pasta-datapath";

/// File name of the helper that configures the namespace.
pub const MONITOR: &str = "pasta-monitor";

/// A reason why a test cannot be run where it is.
#[derive(Debug)]
pub struct Skip {
    reason: String,
}

impl Skip {
    /// A test that cannot run because of `reason`.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

impl std::fmt::Display for Skip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Skip {}

/// A lab, for one test. Belongs to the process that made it and ends with it.
#[derive(Debug)]
pub struct Lab {
    power: Power,
    network: Network,
}

impl Lab {
    /// Enters new namespaces and builds a lab in them. `also` are more executables to show in the
    /// lab, as pairs of a directory below [`Lab::program`]'s and a file.
    ///
    /// # Errors
    ///
    /// [`Skip`] when this machine or user cannot have a lab; otherwise what went wrong.
    pub fn build(programs: &Programs, also: &[(&str, PathBuf)]) -> Outcome<Self> {
        let power = enter::enter().map_err(|error| Skip::new(error.to_string()))?;
        let mut executables = programs.files();
        executables.extend_from_slice(also);
        files::prepare(power, &executables)?;
        let network = Network::build(power)?;
        Ok(Self { power, network })
    }

    /// What the lab may do, and so which user `pasta` runs as.
    pub const fn power(&self) -> Power {
        self.power
    }

    /// The host: the machine that `pasta` runs on.
    pub const fn host(&self) -> &Machine {
        &self.network.host
    }

    /// The remote machine: router and every server.
    pub const fn remote(&self) -> &Machine {
        &self.network.remote
    }

    /// Path of an executable of the lab.
    pub fn program(&self, name: &str) -> PathBuf {
        PathBuf::from(files::PROGRAMS).join(name)
    }

    /// `pasta` with no option yet.
    pub fn pasta(&self) -> Pasta<'_> {
        Pasta::new(self, self.program("pasta"))
    }

    /// A session in a namespace that `pasta --config-net` made and configured.
    ///
    /// # Errors
    ///
    /// When `pasta` or its COMMAND does not come up.
    pub fn session(&self) -> Outcome<Session> {
        self.pasta().configured().session()
    }

    /// Number of the user that `pasta` runs as, as the lab's user namespace has it.
    pub const fn user(&self) -> u32 {
        match self.power {
            Power::Root => USER,
            Power::UserNamespace => 0,
        }
    }

    /// [`Skip`] unless the program under test comes with helpers of its own: some cases are about
    /// them, and the C program has none.
    ///
    /// # Errors
    ///
    /// The skip.
    pub fn needs_helpers(&self) -> Outcome {
        if self.program(DATAPATH).exists() {
            Ok(())
        } else {
            Err(Skip::new("the program under test is one process").into())
        }
    }

    /// [`Skip`] unless the lab is root's: an ordinary user cannot play root of the machine.
    ///
    /// # Errors
    ///
    /// The skip.
    pub fn needs_root(&self) -> Outcome {
        match self.power {
            Power::Root => Ok(()),
            Power::UserNamespace => Err(Skip::new("needs root of the machine").into()),
        }
    }

    /// Replaces the host's resolver configuration.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn write_resolv_conf(&self, text: &str) -> Outcome {
        Ok(fs::write("/etc/resolv.conf", text)?)
    }

    /// Takes the host's only uplink away: what is left is a host without any network.
    ///
    /// # Errors
    ///
    /// What the kernel refused.
    pub fn remove_uplink(&self) -> Outcome {
        self.on_host(|netlink| Ok(netlink.delete_link(netlink.link(UPLINK)?.index)?))
    }

    /// Does something to the host's network.
    ///
    /// # Errors
    ///
    /// What `change` gives.
    pub fn on_host<T: Send>(
        &self,
        change: impl FnOnce(&Netlink) -> Outcome<T> + Send,
    ) -> Outcome<T> {
        self.host().run(|| change(&Netlink::open()?))
    }

    /// Does something to the remote machine's network.
    ///
    /// # Errors
    ///
    /// What `change` gives.
    pub fn on_remote<T: Send>(
        &self,
        change: impl FnOnce(&Netlink) -> Outcome<T> + Send,
    ) -> Outcome<T> {
        self.remote().run(|| change(&Netlink::open()?))
    }
}
