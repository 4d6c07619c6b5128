//! Whose sockets they are: the kernel's tables below `/proc/PID/net`, by inode.
//!
//! A socket that is neither bound nor connected is in none of them.

use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs;

/// Which network a socket is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    Host,
    Namespace,
}

/// Tables, what they list, and in which column the inode is.
const TABLES: [(&str, &str, usize); 11] = [
    ("tcp", INET, 9),
    ("tcp6", INET, 9),
    ("udp", INET, 9),
    ("udp6", INET, 9),
    ("icmp", INET, 9),
    ("icmp6", INET, 9),
    ("raw", RAW, 9),
    ("raw6", RAW, 9),
    ("unix", "unix socket", 6),
    ("netlink", NETLINK, 9),
    ("packet", PACKET, 8),
];

pub(super) const NETLINK: &str = "netlink socket";
pub(super) const PACKET: &str = "packet socket";
pub(super) const RAW: &str = "raw socket";
pub(super) const INET: &str = "inet socket";

/// The sockets of the host's network and of the namespace's.
#[derive(Clone, Debug, Default)]
pub(super) struct Sockets(BTreeMap<u64, (Side, &'static str)>);

impl Sockets {
    /// Those of the networks that `supervisor` and `monitor` are in.
    pub(super) fn of(supervisor: Pid, monitor: Pid) -> Self {
        let mut all = Self::default();
        for (pid, side) in [(monitor, Side::Namespace), (supervisor, Side::Host)] {
            for (table, kind, column) in TABLES {
                // A kernel without a family has no such table.
                let text = fs::read_to_string(format!("/proc/{pid}/net/{table}"));
                all.take(side, kind, column, &text.unwrap_or_default());
            }
        }
        all
    }

    fn take(&mut self, side: Side, kind: &'static str, column: usize, text: &str) {
        for line in text.lines().skip(1) {
            let inode = line.split_ascii_whitespace().nth(column).and_then(|it| it.parse().ok());
            self.0.extend(inode.map(|inode: u64| (inode, (side, kind))));
        }
    }

    /// What the socket `inode` is.
    pub(super) fn get(&self, inode: u64) -> Option<(Side, &'static str)> {
        self.0.get(&inode).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    fn kind(all: &Sockets, fd: impl AsFd) -> Option<(Side, &'static str)> {
        all.get(nix::sys::stat::fstat(fd).unwrap().st_ino)
    }

    #[test]
    fn sockets_of_this_process_are_found_with_their_kind() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("[::1]:0").ok();
        let (unix, _other) = UnixDatagram::pair().unwrap();
        let all = Sockets::of(Pid::this(), Pid::this());
        assert_eq!(kind(&all, &tcp), Some((Side::Host, INET)));
        if let Some(udp) = udp {
            assert_eq!(kind(&all, &udp), Some((Side::Host, INET)));
        }
        assert_eq!(kind(&all, &unix), Some((Side::Host, "unix socket")));
        assert_eq!(all.get(u64::MAX), None);
    }

    #[test]
    fn inodes_are_in_the_columns_where_the_kernel_has_them() {
        let mut all = Sockets::default();
        let netlink = "sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode\n\
                       0000000000000000 0   7 00000000 0 0 0 2 0 4711\n";
        let packet = "sk RefCnt Type Proto Iface R Rmem User Inode\n\
                      0000000000000000 3 3 0003 2 1 0 0 4712\n";
        all.take(Side::Namespace, NETLINK, 9, netlink);
        all.take(Side::Host, PACKET, 8, packet);
        assert_eq!(all.get(4711), Some((Side::Namespace, NETLINK)));
        assert_eq!(all.get(4712), Some((Side::Host, PACKET)));
    }
}
