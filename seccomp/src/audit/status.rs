//! What `/proc/PID/status` says about a process (proc_pid_status(5)), as far as the audit needs it.

use std::fmt;

/// The fields the audit compares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Status {
    /// The pid in the pid namespace of the mounted `/proc`.
    pub(super) pid: i32,
    /// Who traces it, 0 for nobody or one that is not seen from the mounted `/proc`.
    pub(super) tracer: i32,
    pub(super) uids: Vec<u32>,
    pub(super) gids: Vec<u32>,
    pub(super) groups: Vec<u32>,
    /// The pid in each pid namespace, from ours inwards.
    pub(super) pids: Vec<i32>,
    pub(super) threads: u32,
    pub(super) inheritable: u64,
    pub(super) permitted: u64,
    pub(super) effective: u64,
    pub(super) bounding: u64,
    pub(super) ambient: u64,
    pub(super) no_new_privs: u32,
    /// 0 off, 1 strict, 2 filter.
    pub(super) seccomp: u32,
}

/// A field is not there or is not a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedField(pub(super) &'static str);

impl fmt::Display for MalformedField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "field {} of a status file is missing or malformed", self.0)
    }
}

impl std::error::Error for MalformedField {}

impl Status {
    /// Reads the text of a status file.
    ///
    /// # Errors
    ///
    /// [`MalformedField`] for the first field that is not as it should be: an audit that cannot
    /// read must not pass.
    pub(super) fn parse(text: &str) -> Result<Self, MalformedField> {
        let hex = |name| {
            let value = field(text, name)?;
            u64::from_str_radix(value, 16).map_err(|_| MalformedField(name))
        };
        Ok(Self {
            pid: number(text, "Pid")?,
            tracer: tracer(text)?,
            uids: numbers(text, "Uid")?,
            gids: numbers(text, "Gid")?,
            groups: numbers(text, "Groups")?,
            pids: numbers(text, "NSpid")?,
            threads: number(text, "Threads")?,
            inheritable: hex("CapInh")?,
            permitted: hex("CapPrm")?,
            effective: hex("CapEff")?,
            bounding: hex("CapBnd")?,
            ambient: hex("CapAmb")?,
            no_new_privs: number(text, "NoNewPrivs")?,
            seccomp: number(text, "Seccomp")?,
        })
    }
}

/// Who traces the process of the status file `text`, as the field of the same name has it.
pub(super) fn tracer(text: &str) -> Result<i32, MalformedField> {
    number(text, "TracerPid")
}

fn field<'a>(text: &'a str, name: &'static str) -> Result<&'a str, MalformedField> {
    let values = |line: &'a str| line.strip_prefix(name)?.strip_prefix(':');
    text.lines().find_map(values).map(str::trim).ok_or(MalformedField(name))
}

fn number<T: std::str::FromStr>(text: &str, name: &'static str) -> Result<T, MalformedField> {
    field(text, name)?.parse().map_err(|_| MalformedField(name))
}

fn numbers<T: std::str::FromStr>(text: &str, name: &'static str) -> Result<Vec<T>, MalformedField> {
    let parse = |word: &str| word.parse().map_err(|_| MalformedField(name));
    field(text, name)?.split_ascii_whitespace().map(parse).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// As Linux 6.18 writes it for a confined datapath; fields that we do not read left out.
    pub(in crate::audit) const CONFINED: &str = "\
Name:\tpasta-datapath
Umask:\t0022
State:\tS (sleeping)
Tgid:\t4242
Pid:\t4242
PPid:\t4200
TracerPid:\t0
Uid:\t1000\t1000\t1000\t1000
Gid:\t1000\t1000\t1000\t1000
FDSize:\t64
Groups:\t24 27 
NStgid:\t4242\t1
NSpid:\t4242\t1
Threads:\t1
CapInh:\t0000000000000000
CapPrm:\t0000000000000000
CapEff:\t0000000000000000
CapBnd:\t0000000000000000
CapAmb:\t0000000000000000
NoNewPrivs:\t1
Seccomp:\t2
Seccomp_filters:\t1
";

    #[test]
    fn status_file_of_a_confined_process_is_read() {
        let status = Status::parse(CONFINED).unwrap();
        assert_eq!(status.uids, [1000; 4]);
        assert_eq!(status.groups, [24, 27]);
        assert_eq!((status.pid, status.pids), (4242, vec![4242, 1]));
        assert_eq!((status.seccomp, status.no_new_privs, status.threads), (2, 1, 1));
    }

    #[test]
    fn empty_list_of_groups_is_no_error() {
        let text = CONFINED.replace("24 27 ", "");
        assert!(Status::parse(&text).unwrap().groups.is_empty());
    }

    #[test]
    fn missing_and_malformed_fields_are_named() {
        let text = CONFINED.replace("CapEff:\t0", "CapEff:\tx");
        assert_eq!(Status::parse(&text), Err(MalformedField("CapEff")));
        let text = CONFINED.replace("Seccomp:\t2\n", "");
        assert_eq!(Status::parse(&text), Err(MalformedField("Seccomp")));
    }
}
