use super::status::tests::CONFINED;
use super::*;

/// What a datapath of an ordinary user reports who is in two groups that it cannot leave.
fn confined_report() -> AuditReport {
    AuditReport {
        securebits: LOCKED_SECUREBITS,
        groups: 2,
        no_new_privs: true,
        landlock_abi: 7,
        ..AuditReport::default()
    }
}

const ADMIN: Keep = Keep { net_admin: true, net_bind_service: false, capture: false };
const SERVICE: Keep = Keep { net_admin: false, net_bind_service: true, capture: false };
const BOTH: Keep = Keep { net_admin: true, net_bind_service: true, capture: false };

fn with_missing(measure: &str) -> AuditReport {
    let missing = Bounded::truncated([Text::truncated(&format!("{measure}: refused"))]).0;
    AuditReport { missing, ..confined_report() }
}

fn status(from: &str, to: &str) -> Status {
    assert!(CONFINED.contains(from), "{from}");
    Status::parse(&CONFINED.replace(from, to)).unwrap()
}

#[test]
fn report_that_matches_the_table_passes() {
    assert_eq!(compare(Role::Datapath, Keep::NOTHING, &confined_report()), [""; 0]);
    for (keep, held) in [(ADMIN, 1 << 12), (SERVICE, 1 << 10), (BOTH, 1 << 12 | 1 << 10)] {
        let monitor = AuditReport { effective: held, permitted: held, ..confined_report() };
        assert_eq!(compare(Role::Monitor, keep, &monitor), [""; 0]);
        let other = if keep == ADMIN { SERVICE } else { ADMIN };
        assert_eq!(compare(Role::Monitor, other, &monitor).len(), 2);
    }
}

#[test]
fn each_privilege_left_over_is_a_line() {
    let good = confined_report;
    let left_over = [
        AuditReport { effective: 1, ..good() },
        AuditReport { permitted: 1, ..good() },
        AuditReport { inheritable: 1, ..good() },
        AuditReport { ambient: 1, ..good() },
        AuditReport { bounding: 1, ..good() },
        AuditReport { securebits: 0, ..good() },
        AuditReport { no_new_privs: false, ..good() },
        AuditReport { dumpable: true, ..good() },
    ];
    for report in left_over {
        assert_eq!(compare(Role::Datapath, Keep::NOTHING, &report).len(), 1, "{report:?}");
    }
}

#[test]
fn capabilities_are_the_monitors_alone() {
    for keep in [Keep::NOTHING, ADMIN, SERVICE, BOTH] {
        assert_eq!(keep.of(Role::Monitor), keep);
        assert_eq!(keep.of(Role::Datapath), Keep::NOTHING);
        assert_eq!(keep.of(Role::Supervisor), Keep::NOTHING);
    }
}

#[test]
fn best_effort_measure_may_be_absent_only_if_named_as_missing() {
    let absent = AuditReport { bounding: 1, ..confined_report() };
    assert_eq!(compare(Role::Datapath, Keep::NOTHING, &absent).len(), 1);
    let named = AuditReport { bounding: 1, ..with_missing(NO_EMPTY_BOUNDING) };
    assert_eq!(compare(Role::Datapath, Keep::NOTHING, &named), [""; 0]);
}

#[test]
fn status_that_agrees_with_the_report_passes() {
    let status = Status::parse(CONFINED).unwrap();
    assert_eq!(compare_status(Role::Datapath, 1000, &status, &confined_report()), [""; 0]);
}

#[test]
fn each_difference_between_status_and_report_is_a_line() {
    let changes = [
        ("CapEff:\t0000000000000000", "CapEff:\t0000000000001000"),
        ("CapPrm:\t0000000000000000", "CapPrm:\t0000000000001000"),
        ("CapInh:\t0000000000000000", "CapInh:\t0000000000001000"),
        ("CapBnd:\t0000000000000000", "CapBnd:\t0000000000001000"),
        ("CapAmb:\t0000000000000000", "CapAmb:\t0000000000001000"),
        ("NoNewPrivs:\t1", "NoNewPrivs:\t0"),
        ("Seccomp:\t2", "Seccomp:\t0"),
        ("Threads:\t1", "Threads:\t2"),
        ("TracerPid:\t0", "TracerPid:\t4300"),
        ("Groups:\t24 27 ", "Groups:\t24 27 28 "),
        ("Uid:\t1000\t1000", "Uid:\t1000\t0"),
        ("Gid:\t1000\t1000", "Gid:\t1000\t0"),
        ("NSpid:\t4242\t1", "NSpid:\t4242"),
    ];
    for (from, to) in changes {
        let status = status(from, to);
        let lines = compare_status(Role::Datapath, 1000, &status, &confined_report());
        assert_eq!(lines.len(), 1, "{to}: {lines:?}");
    }
}

#[test]
fn pid_namespace_is_wanted_of_the_datapath_unless_missing() {
    let status = status("NSpid:\t4242\t1", "NSpid:\t4242");
    let missing = with_missing(NO_PID_NAMESPACE);
    assert_eq!(compare_status(Role::Datapath, 1000, &status, &missing), [""; 0]);
    assert_eq!(compare_status(Role::Monitor, 1000, &status, &confined_report()), [""; 0]);
}

#[test]
fn namespaces_differ_from_ours_where_the_table_says_so() {
    let report = confined_report();
    let wrong = |role, name, differs| {
        compare_namespace(role, (name, UserNamespace::Other), differs, &report).is_some()
    };
    for name in ["user", "mnt", "ipc", "uts", "cgroup"] {
        assert!(wrong(Role::Datapath, name, false), "{name}");
        assert!(wrong(Role::Monitor, name, false), "{name}");
        assert!(!wrong(Role::Monitor, name, true), "{name}");
        assert!(!wrong(Role::Supervisor, name, false), "{name}");
    }
    assert!(wrong(Role::Datapath, "net", true) && wrong(Role::Monitor, "net", false));
    assert!(wrong(Role::Datapath, "pid", false) && wrong(Role::Monitor, "pid", true));
    let missing = with_missing(NO_IPC_NAMESPACE);
    assert!(
        compare_namespace(Role::Datapath, ("ipc", UserNamespace::Other), false, &missing).is_none()
    );
}

#[test]
fn user_namespace_is_the_supervisors_only_where_that_is_wanted() {
    let report = AuditReport::default();
    for role in [Role::Monitor, Role::Datapath] {
        for (user, differs) in [(UserNamespace::Other, true), (UserNamespace::Same, false)] {
            assert!(compare_namespace(role, ("user", user), differs, &report).is_none());
            assert!(compare_namespace(role, ("user", user), !differs, &report).is_some());
        }
    }
}
