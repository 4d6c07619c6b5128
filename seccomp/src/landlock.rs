//! Landlock: a second fence behind namespaces and the system call filter.
//!
//! What it can do here: deny every file to the helpers, TCP ports by number to all three, and the
//! way to abstract unix sockets (and signals) of processes outside. What it cannot: descriptors
//! that are open keep working, it sees ports but no addresses, and UDP is outside it before ABI 10.
//!
//! | | files | TCP bind | TCP connect | scopes |
//! | --- | --- | --- | --- | --- |
//! | supervisor | read files below the given directories, remove files below that of the control socket | none | none | abstract unix |
//! | monitor | none | port 0, and those of rules | none | abstract unix, signal |
//! | datapath | none | port 0, and those of rules | any | abstract unix, signal |
//!
//! The supervisor has no signal scope: it could no longer end the children that it had before.
//! A socket is judged by the process that calls bind or connect, not by the one that made it, so
//! what the monitor makes for the datapath is held to the datapath's rules.
//!
//! Where rules do not name their ports, or very many, a helper binds any ([`crate::ports`]).
//!
//! All of it is best effort: the library asks for what the running kernel has, and what it lacks of
//! the above is reported.

use crate::Role;
use crate::ports::{BindPorts, Ports};
use ::landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, PathBeneath,
    RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, Scope,
};
use std::iter;
use std::os::fd::BorrowedFd;

/// The newest ABI whose file rights we deny. Rights that the kernel lacks are left out.
const NEWEST: ABI = ABI::V9;

/// What came of [`restrict`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Enforced {
    /// The ABI in force; 0 without Landlock.
    pub(crate) abi: u32,
    /// What the kernel lacks, each with the reason.
    pub(crate) missing: Vec<String>,
}

/// What is not denied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowed<'a> {
    /// Ports that a helper may bind.
    pub(crate) bind: &'a BindPorts,
    /// Directories below which files may be read; only the supervisor has any.
    pub(crate) readable: &'a [BorrowedFd<'a>],
    /// The directory below which files may be removed; only the supervisor has one.
    pub(crate) removable: Option<BorrowedFd<'a>>,
}

/// Restricts the calling process, which must have `no_new_privs`.
pub(crate) fn restrict(role: Role, allowed: Allowed<'_>) -> Enforced {
    match enforce(role, allowed) {
        Ok(RestrictionStatus { landlock, .. }) => report(landlock),
        Err(error) => Enforced { abi: 0, missing: vec![format!("landlock: {error}")] },
    }
}

fn enforce(role: Role, allowed: Allowed<'_>) -> Result<RestrictionStatus, RulesetError> {
    let mut handled = Ruleset::default().handle_access(AccessFs::from_all(NEWEST))?;
    let ports = handled_ports(role, allowed.bind);
    // The library refuses to handle nothing.
    if !ports.is_empty() {
        handled = handled.handle_access(ports)?;
    }
    let mut rules = handled.scope(scopes(role))?.create()?;
    if role != Role::Supervisor {
        for (right, named) in
            [(AccessNet::BindTcp, &allowed.bind.tcp), (AccessNet::BindUdp, &allowed.bind.udp)]
        {
            let Ports::Only(named) = named else { continue };
            if !ports.contains(right) {
                continue;
            }
            // A socket bound to an address before it connects asks for port 0, which needs its rule.
            for port in iter::once(0).chain(named.iter().copied()) {
                rules = rules.add_rule(NetPort::new(port, right))?;
            }
        }
    }
    for directory in allowed.readable {
        rules = rules.add_rule(PathBeneath::new(directory, AccessFs::ReadFile))?;
    }
    if let Some(directory) = allowed.removable {
        rules = rules.add_rule(PathBeneath::new(directory, AccessFs::RemoveFile))?;
    }
    rules.restrict_self()
}

/// What is denied unless a rule allows it.
fn handled_ports(role: Role, bind: &BindPorts) -> BitFlags<AccessNet> {
    let unless_free = |right: AccessNet, ports: &Ports| match ports {
        Ports::Any => BitFlags::EMPTY,
        Ports::Only(_) => right.into(),
    };
    let tcp = unless_free(AccessNet::BindTcp, &bind.tcp);
    match role {
        Role::Supervisor => AccessNet::from_all(ABI::V10),
        // UDP is known from ABI 10 on.
        Role::Monitor => {
            let connect = AccessNet::ConnectTcp | AccessNet::ConnectSendUdp;
            connect | tcp | unless_free(AccessNet::BindUdp, &bind.udp)
        }
        // The datapath connects wherever the namespace asks, and binds its UDP ports on the host.
        Role::Datapath => tcp,
    }
}

fn scopes(role: Role) -> BitFlags<Scope> {
    match role {
        Role::Supervisor => Scope::AbstractUnixSocket.into(),
        Role::Monitor | Role::Datapath => Scope::AbstractUnixSocket | Scope::Signal,
    }
}

/// Names what a kernel of this status lacks of what we use.
fn report(status: LandlockStatus) -> Enforced {
    let abi = ABI::from(status);
    let none = |why: &str| Enforced { abi: 0, missing: vec![format!("landlock: {why}")] };
    match status {
        LandlockStatus::NotEnabled => return none("not enabled when the kernel started"),
        LandlockStatus::NotImplemented => return none("not built into the kernel"),
        LandlockStatus::Available { .. } => {}
    }
    let parts = [
        (ABI::V3, "landlock truncation right"),
        (ABI::V4, "landlock TCP port rules"),
        (ABI::V5, "landlock device ioctl right"),
        (ABI::V6, "landlock scopes"),
    ];
    let lacking = |(since, what): &(ABI, &str)| {
        (abi < *since).then(|| format!("{what}: kernel has ABI {abi}, needs {since}"))
    };
    // The library's number is an enum that prints as the number.
    let abi_number = abi.to_string().parse().unwrap_or(0);
    Enforced { abi: abi_number, missing: parts.iter().filter_map(lacking).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel_with(abi: ABI) -> Enforced {
        report(LandlockStatus::Available { effective_abi: abi, kernel_abi: None })
    }

    #[test]
    fn kernel_of_abi_six_lacks_nothing() {
        assert_eq!(kernel_with(ABI::V6), Enforced { abi: 6, missing: vec![] });
    }

    #[test]
    fn older_kernels_lack_what_came_later_and_it_is_named() {
        assert_eq!(
            kernel_with(ABI::V4).missing,
            [
                "landlock device ioctl right: kernel has ABI 4, needs 5",
                "landlock scopes: kernel has ABI 4, needs 6"
            ]
        );
        assert_eq!(kernel_with(ABI::V1).missing.len(), 4);
    }

    #[test]
    fn kernel_without_landlock_is_one_line_with_the_reason() {
        let enforced = report(LandlockStatus::NotEnabled);
        assert_eq!(enforced.missing, ["landlock: not enabled when the kernel started"]);
        assert_eq!(enforced.abi, 0);
    }

    #[test]
    fn only_the_datapath_may_connect_and_only_the_supervisor_may_signal_outside() {
        let none = BindPorts::none();
        assert!(!handled_ports(Role::Datapath, &none).contains(AccessNet::ConnectTcp));
        assert!(handled_ports(Role::Monitor, &none).contains(AccessNet::ConnectTcp));
        assert!(handled_ports(Role::Supervisor, &none).contains(AccessNet::ConnectTcp));
        assert!(!scopes(Role::Supervisor).contains(Scope::Signal));
        assert!(scopes(Role::Monitor).contains(Scope::Signal));
    }

    #[test]
    fn ports_that_are_free_are_free_for_the_helpers_alone() {
        let free = BindPorts { tcp: Ports::Any, udp: Ports::Any };
        assert!(!handled_ports(Role::Datapath, &free).contains(AccessNet::BindTcp));
        let monitor = handled_ports(Role::Monitor, &free);
        assert!(!monitor.intersects(AccessNet::BindTcp | AccessNet::BindUdp));
        assert!(monitor.contains(AccessNet::ConnectTcp));
        let half = BindPorts { tcp: Ports::Any, ..BindPorts::none() };
        assert!(handled_ports(Role::Monitor, &half).contains(AccessNet::BindUdp));
        assert!(handled_ports(Role::Supervisor, &free).contains(AccessNet::BindTcp));
    }
}
