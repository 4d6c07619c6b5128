//! Formats audit reports for `--sandbox-report`.

use crate::options::Strictness;
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

/// Best-effort measures that are not in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lacking {
    measures: BTreeSet<String>,
    /// The ABI of Landlock, of the process that has the oldest.
    abi: u32,
}

impl Lacking {
    /// Those of processes, and one `more`.
    pub(crate) fn of(reports: &[&AuditReport], more: Option<String>) -> Self {
        let measures = reports.iter().flat_map(|report| report.missing.as_slice());
        let measures = measures.map(|measure| measure.as_str().to_owned()).chain(more).collect();
        let abi = reports.iter().map(|report| report.landlock_abi).min().unwrap_or_default();
        Self { measures, abi }
    }

    /// Those that others do not lack too.
    pub(crate) fn without(self, others: &Self) -> Self {
        let measures = self.measures.difference(&others.measures).cloned().collect();
        Self { measures, ..self }
    }

    /// One line that names each once; none if nothing is missing.
    pub(crate) fn text(&self, strictness: Strictness) -> Option<String> {
        let old = match strictness {
            Strictness::Refuse(abi) if self.abi < abi => {
                Some(format!("landlock: kernel has ABI {}, abi:{abi} is asked for", self.abi))
            }
            _ => None,
        };
        let list: Vec<_> = self.measures.iter().cloned().chain(old).collect();
        (!list.is_empty()).then(|| format!("sandbox is incomplete: {}", list.join("; ")))
    }
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
        let both = Lacking::of(&[&a, &b], None);
        let wanted = "sandbox is incomplete: landlock: none; pid";
        assert_eq!(both.text(Strictness::Warn).as_deref(), Some(wanted));
        assert_eq!(Lacking::of(&[&report(&[])], None).text(Strictness::Warn), None);
        // What was said of the helpers is not said of the supervisor again.
        let own = Lacking::of(&[&report(&["landlock: none", "mdwe"])], None).without(&both);
        let wanted = "sandbox is incomplete: mdwe";
        assert_eq!(own.text(Strictness::Warn).as_deref(), Some(wanted));
    }

    #[test]
    fn abi_that_was_asked_for_counts_where_it_was_asked_for() {
        let reports = [AuditReport { landlock_abi: 6, ..report(&[]) }, report(&[])];
        let of = |reports: &[&AuditReport]| Lacking::of(reports, None);
        assert_eq!(of(&[&reports[0]]).text(Strictness::Refuse(6)), None);
        assert_eq!(of(&[&reports[0], &reports[1]]).text(Strictness::Warn), None);
        let text = of(&[&reports[0]]).text(Strictness::Refuse(7)).unwrap();
        assert!(text.ends_with("landlock: kernel has ABI 6, abi:7 is asked for"), "{text}");
        // The oldest of all processes.
        assert!(of(&[&reports[0], &reports[1]]).text(Strictness::Refuse(1)).is_some());
    }

    #[test]
    fn table_has_a_line_for_every_fact() {
        let text = table("pasta-datapath", Pid::from_raw(7), &report(&["landlock: none"]));
        assert!(text.starts_with("pasta-datapath (process 7)\n  capabilities, effective   none\n"));
        assert!(text.contains("  dumpable                  no\n"));
        assert!(text.ends_with("  missing                   landlock: none\n"));
    }
}
