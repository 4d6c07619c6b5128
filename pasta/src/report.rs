//! Formats audit reports for `--sandbox-report`.

use nix::unistd::Pid;
use pasta_ipc::types::AuditReport;
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Formats the report of one process, one line for each fact.
pub(crate) fn table(name: &str, pid: Pid, report: &AuditReport) -> String {
    let mut text = format!("{name} (process {pid})\n");
    let mut line = |what: &str, is: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {what:<26}{is}");
    };
    line("capabilities, effective", &capabilities(report.effective));
    line("capabilities, permitted", &capabilities(report.permitted));
    line("capabilities, inheritable", &capabilities(report.inheritable));
    line("capabilities, ambient", &capabilities(report.ambient));
    line("capabilities, bounding", &capabilities(report.bounding));
    line("securebits", &format!("{:#x}", report.securebits));
    line("supplementary groups", &report.groups.to_string());
    line("no_new_privs", yes_or_no(report.no_new_privs));
    line("dumpable", yes_or_no(report.dumpable));
    line(
        "landlock",
        &match report.landlock_abi {
            0 => "none".to_owned(),
            abi => format!("ABI {abi}"),
        },
    );
    for fd in report.fds.as_slice() {
        line("descriptor", &format!("{} {}", fd.number, fd.kind));
    }
    for missing in report.missing.as_slice() {
        line("missing", missing.as_str());
    }
    text
}

/// Formats what of the host the namespace can reach.
pub(crate) fn exposure(lines: &[String]) -> String {
    lines.iter().fold("exposure\n".to_owned(), |text, line| text + "  " + line + "\n")
}

/// One line with all best-effort measures that are not in force; none if all are.
pub(crate) fn missing(reports: &[&AuditReport]) -> Option<String> {
    let missing: BTreeSet<&str> = reports
        .iter()
        .flat_map(|report| report.missing.as_slice())
        .map(|measure| measure.as_str())
        .collect();
    let list: Vec<&str> = missing.into_iter().collect();
    (!list.is_empty()).then(|| format!("sandbox is incomplete: {}", list.join("; ")))
}

/// The names of the capabilities in `set`, or a count where they are many.
fn capabilities(set: u64) -> String {
    /// More than these are not named. Chosen: what fits a line.
    const NAMED: u32 = 4;
    if set == 0 {
        return "none".to_owned();
    }
    if set.count_ones() > NAMED {
        return format!("{} of them ({set:#x})", set.count_ones());
    }
    let numbers = (0..u64::BITS).filter(|number| set & (1 << number) != 0);
    let names = numbers.map(|number| {
        let named = caps::all().into_iter().find(|cap| u32::from(cap.index()) == number);
        named.map_or_else(|| format!("{number}"), |cap| cap.to_string().to_lowercase())
    });
    names.collect::<Vec<_>>().join(" ")
}

fn yes_or_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pasta_ipc::types::{Bounded, Text};

    fn report(missing: &[&str]) -> AuditReport {
        let texts = missing.iter().map(|text| Text::truncated(text));
        AuditReport { missing: Bounded::truncated(texts).0, ..AuditReport::default() }
    }

    #[test]
    fn capabilities_are_named_as_long_as_they_are_few() {
        assert_eq!(capabilities(0), "none");
        assert_eq!(capabilities(1 << 12), "cap_net_admin");
        assert_eq!(capabilities(1 << 12 | 1 << 10), "cap_net_bind_service cap_net_admin");
        assert_eq!(capabilities(0xff), "8 of them (0xff)");
        assert_eq!(capabilities(1 << 60), "60");
    }

    #[test]
    fn each_missing_measure_is_listed_once() {
        let (a, b) = (report(&["landlock: none", "pid"]), report(&["landlock: none"]));
        let wanted = "sandbox is incomplete: landlock: none; pid";
        assert_eq!(missing(&[&a, &b]).as_deref(), Some(wanted));
        assert_eq!(missing(&[&report(&[])]), None);
    }

    #[test]
    fn table_has_a_line_for_every_fact() {
        let text = table("pasta-datapath", Pid::from_raw(7), &report(&["landlock: none"]));
        assert!(text.starts_with("pasta-datapath (process 7)\n  capabilities, effective   none\n"));
        assert!(text.contains("  dumpable                  no\n"));
        assert!(text.ends_with("  missing                   landlock: none\n"));
    }
}
