//! The system call filter of each process: what is not on its list ends it.
//!
//! The lists are `policies/<arch>/{shared,supervisor,monitor,datapath}.json`, made for reading and
//! compiled into BPF programs by the build (`src/policy.rs`). The kernel ends the process with
//! SIGSYS for a call that is not listed, for arguments that no rule of the call takes, for another
//! architecture's calls and for x32 numbers.
//!
//! Calls without argument rules cost next to nothing: the kernel notes at installation that the
//! answer depends on the number alone and does not run the program again for them (Linux 5.11). The
//! hottest calls (`read`, `write`, `readv`, `writev`, `epoll_*wait`) are kept in that class.

use crate::Role;
use seccompiler::sock_filter;

include!(concat!(env!("OUT_DIR"), "/filters.rs"));

/// The program of `role`.
fn program(role: Role) -> &'static [sock_filter] {
    match role {
        Role::Supervisor => SUPERVISOR,
        Role::Monitor => MONITOR,
        Role::Datapath => DATAPATH,
    }
}

/// The system calls that each filter allows, a line for each; `tests/confinement/` compares them with what
/// the kernel lets pass.
const REACH: &str = include_str!(concat!("../policies/", env!("PASTA_TARGET_ARCH"), "/reach.txt"));

/// How many system calls `role` may make once it is confined.
pub fn allowed_calls(role: Role) -> usize {
    let role = role.to_string();
    REACH.lines().filter(|line| line.split(' ').next() == Some(role.as_str())).count()
}

/// A hash of the program of `role`.
pub(crate) fn hash(role: Role) -> u64 {
    hash_of(program(role))
}

/// A hash of a program (FNV-1a, 64 bits), to tell builds apart.
pub(crate) fn hash_of(program: &[sock_filter]) -> u64 {
    const START: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let octets = program.iter().flat_map(|op| {
        let [code, k] = [u64::from(op.code), u64::from(op.k)].map(u64::to_le_bytes);
        code.into_iter().chain([op.jt, op.jf]).chain(k)
    });
    octets.fold(START, |hash, octet| (hash ^ u64::from(octet)).wrapping_mul(PRIME))
}

/// Installs the filter of `role` on every thread, for good. Sets `no_new_privs`.
///
/// # Errors
///
/// What the kernel reports, as where it was built without seccomp.
pub(crate) fn install(role: Role) -> Result<(), seccompiler::Error> {
    seccompiler::apply_filter_all_threads(program(role))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_far_from_the_kernels_limit() {
        for role in [Role::Supervisor, Role::Monitor, Role::Datapath] {
            let len = program(role).len();
            assert!((50..1000).contains(&len), "{role}: {len}");
        }
    }

    #[test]
    fn every_role_has_calls() {
        for role in [Role::Supervisor, Role::Monitor, Role::Datapath] {
            assert!((20..100).contains(&allowed_calls(role)), "{role}");
        }
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn programs_are_as_long_as_the_threat_model_says() {
        let text = include_str!("../../docs/threat-model.md");
        for role in [Role::Supervisor, Role::Monitor, Role::Datapath] {
            let (start, end) = (format!("| {role} | "), format!(" | {} |", program(role).len()));
            let found = text.lines().any(|line| line.starts_with(&start) && line.ends_with(&end));
            assert!(found, "{role}{end}");
        }
    }
}
