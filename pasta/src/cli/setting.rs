//! What one option of the command line says.

use crate::follow_options::FollowOption;
use crate::value::{AddressOrNone, AddressValue, DocumentForm, DomainName, RunAs};
use pasta::ports::PortOption;
use pasta::ports::spec::Spec;
use pasta_ipc::start::{Protocol, Responder};
use pasta_ipc::types::{IfName, MacAddr};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::os::fd::RawFd;
use std::path::PathBuf;

/// One option of the command line. Its value is checked by itself, not yet against other options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Setting {
    /// `-4`
    Ipv4Only,
    /// `-6`
    Ipv6Only,
    /// `-i`
    Template(IfName),
    /// `-I`
    TapName(IfName),
    /// `-a`
    Address(AddressValue),
    /// `-n`
    Netmask(u8),
    /// `-g`
    Gateway(IpAddr),
    /// `-m`: octets, 0 for "leave it alone".
    Mtu(u16),
    /// `-M`
    OurMac(MacAddr),
    /// `--ns-mac-addr`
    TapMac(MacAddr),
    /// `-o`
    Outbound(IpAddr),
    /// `--map-host-loopback`
    MapHostLoopback(AddressOrNone),
    /// `--no-map-gw`
    NoMapGateway,
    /// `--map-guest-addr`
    MapGuestAddress(AddressOrNone),
    /// `--dns-forward`
    DnsForward(IpAddr),
    /// `--dns-host`
    DnsHost(IpAddr),
    /// `--config-net`
    ConfigureNamespace,
    /// `--follow` and related options.
    Following(FollowOption),
    /// `-t`, `-u`, `-T`, `-U`
    Ports(PortOption, Spec),
    /// `--host-lo-to-ns-lo`
    LoopbackToLoopback,
    /// `--no-splice`
    NoSplice,
    /// `--splice-only`
    SpliceOnly,
    /// `-d`
    Debug,
    /// `--trace`
    Trace,
    /// `-q`
    Quiet,
    /// `-f`
    Foreground,
    /// `-e`
    Stderr,
    /// `--runas`
    RunAs(RunAs),
    /// `--sandbox-report`
    SandboxReport,
    /// `--strict-sandbox`, with the least ABI of Landlock
    StrictSandbox(u32),
    /// `--audit`
    Audit(DocumentForm),
    /// `--no-host-loopback`
    NoHostLoopback,
    /// `--explain`
    Explain,
    /// `--json`
    Json,
    /// `--netns`
    NetworkNamespace(PathBuf),
    /// `--userns`
    UserNamespace(PathBuf),
    /// `--netns-only`
    NoUserNamespace,
    /// `--no-netns-quit`
    OutliveNamespace,
    /// `--no-pidns`
    SharedPids,
    /// `--no-die-with-parent`
    OutliveUs,
    /// `-P`
    PidFile(PathBuf),
    /// `-c`
    ControlSocket(PathBuf),
    /// `-l`
    LogFile(PathBuf),
    /// `--log-size`
    LogSize(u64),
    /// `--stats`: seconds.
    Stats(NonZeroU32),
    /// `-p`
    Capture(PathBuf),
    /// `-F`
    TapDescriptor(RawFd),
    /// `--no-tcp`, `--no-udp`, `--no-icmp`
    Without(Protocol),
    /// `--no-dhcp`, `--no-dhcpv6`, `--no-ndp`, `--no-ra`
    WithoutResponder(Responder),
    /// `--freebind`
    FreeBind,
    /// `--outbound-if4`
    OutboundInterface4(IfName),
    /// `--outbound-if6`
    OutboundInterface6(IfName),
    /// `--chroot-fallback`
    ChrootFallback,
    /// `--no-copy-routes`
    NoCopyRoutes,
    /// `--no-copy-addrs`
    NoCopyAddresses,
    /// `-D`
    Dns(AddressOrNone),
    /// `-S`; none: `none`.
    Search(Option<DomainName>),
    /// `--dhcp-dns`
    AdvertiseDns,
    /// `--dhcp-search`
    AdvertiseSearch,
    /// `-H`
    HostName(DomainName),
    /// `--fqdn`
    Fqdn(DomainName),
    /// An option that is accepted because callers pass it, and changes nothing.
    Ignored,
}
