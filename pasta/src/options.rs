//! The command line as one checked value, and the start messages made from it.

use crate::cli::{Line, Setting};
use crate::follow_options::{FollowOption, following};
use crate::value::{self, AddressOrNone, AddressValue, RunAs};
use pasta::ports::spec::Spec;
use pasta::ports::{self, Forwards, PortOption, System};
use pasta_ipc::forward::{LoopbackTarget, Splice};
use pasta_ipc::types::{
    Bounded, Configure, DatapathStart, FamilyPolicy, Follow, Following, HostLoopback, IfName,
    Ipv4Net, Ipv6Net, LogLevel, MacAddr, MonitorStart, Mtu, MtuSource, Service, TapInfo, TapUse,
};
use std::ffi::{CString, OsString};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::ffi::OsStringExt;

/// Smallest MTU that IPv6 works with (RFC 8200, section 5).
const MIN_IPV6_MTU: u16 = 1280;

/// One value for each address family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PerFamily<Four, Six> {
    /// For IPv4.
    pub(crate) ipv4: Four,
    /// For IPv6.
    pub(crate) ipv6: Six,
}

impl PerFamily<Option<Ipv4Addr>, Option<Ipv6Addr>> {
    fn set(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.ipv4 = Some(address),
            IpAddr::V6(address) => self.ipv6 = Some(address),
        }
    }

    fn set_or_clear(&mut self, value: AddressOrNone) {
        match value {
            AddressOrNone::Address(address) => self.set(address),
            AddressOrNone::None => *self = Self::default(),
        }
    }
}

type Addresses = PerFamily<Option<Ipv4Addr>, Option<Ipv6Addr>>;

/// The address families that were requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Families {
    /// Those that the kernel supports.
    Both,
    /// `-4`
    Ipv4Only,
    /// `-6`
    Ipv6Only,
}

/// The address families that the host's kernel supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KernelFamilies {
    /// IPv4.
    pub(crate) ipv4: bool,
    /// IPv6.
    pub(crate) ipv6: bool,
}

/// The program to run in the namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// Path, or name to look up in `PATH`.
    pub(crate) path: CString,
    /// Its arguments, `argv[0]` included.
    pub(crate) args: Vec<CString>,
}

/// Whether `--sandbox-report` was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SandboxReport {
    /// The audit of each helper is printed before COMMAND starts.
    Print,
    /// The audit is only checked.
    CheckOnly,
}

/// The options of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// COMMAND, or a login shell.
    pub(crate) program: Program,
    /// The user to change to when started by root.
    pub(crate) run_as: Option<RunAs>,
    /// The least important level that is logged.
    pub(crate) log_level: LogLevel,
    /// `--sandbox-report`
    pub(crate) sandbox_report: SandboxReport,
    /// Warnings, one line each.
    pub(crate) warnings: Vec<String>,
    families: Families,
    interface: Interface,
    following: Following,
    nat: Nat,
    ports: Ports,
}

/// The interface in the namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Interface {
    tap: TapUse,
    configure: Configure,
    template: Option<IfName>,
    name: Option<IfName>,
    addresses: PerFamily<Vec<Ipv4Net>, Vec<Ipv6Net>>,
    gateway: Addresses,
    mtu: Option<Mtu>,
    mac: Option<MacAddr>,
}

/// The address policy of flows, and our MAC address.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Nat {
    our_mac: MacAddr,
    outbound: Addresses,
    host_loopback: PerFamily<HostLoopback<Ipv4Addr>, HostLoopback<Ipv6Addr>>,
    guest_address: Addresses,
    dns_forward: Addresses,
    dns_host: Addresses,
}

/// Port forwards.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ports {
    specs: Vec<(PortOption, Spec)>,
    splice: Splice,
    loopback: LoopbackTarget,
}

/// Options that are valid one by one, but not together. The text is a whole line without the
/// program's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InvalidOptions(String);

impl fmt::Display for InvalidOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidOptions {}

fn refuse<T>(why: impl Into<String>) -> Result<T, InvalidOptions> {
    Err(InvalidOptions(why.into()))
}

/// The settings so far, before they are checked against each other.
#[derive(Debug, Default)]
struct Builder {
    families: Option<Families>,
    interface: InterfaceBuilder,
    follow_options: Vec<FollowOption>,
    nat: NatBuilder,
    ports: PortsBuilder,
    log_level: Option<LogLevel>,
    run_as: Option<RunAs>,
    sandbox_report: bool,
    warnings: Vec<String>,
}

/// As [`Interface`], before the checks.
#[derive(Debug, Default)]
struct InterfaceBuilder {
    configure: bool,
    template: Option<IfName>,
    name: Option<IfName>,
    ipv4: Vec<PendingAddress>,
    ipv6: Vec<Ipv6Net>,
    early_netmask: Option<u8>,
    gateway: Addresses,
    mtu: Option<u16>,
    mac: Option<MacAddr>,
}

/// As [`Nat`], before the checks.
#[derive(Debug, Default)]
struct NatBuilder {
    our_mac: Option<MacAddr>,
    outbound: Addresses,
    map_host_loopback: Addresses,
    no_map_gateway: bool,
    guest_address: Addresses,
    dns_forward: Addresses,
    dns_host: Addresses,
}

/// As [`Ports`], before the checks.
#[derive(Debug, Default)]
struct PortsBuilder {
    specs: Vec<(PortOption, Spec)>,
    loopback_to_loopback: bool,
    no_splice: bool,
    splice_only: bool,
}

/// An IPv4 address of `-a` and the `-n` that belongs to it.
#[derive(Clone, Copy, Debug)]
struct PendingAddress {
    address: Ipv4Addr,
    len: Option<u8>,
    netmask: Option<u8>,
}

impl Options {
    /// Collects the settings of `line`, checks them against each other and determines the program to
    /// run. `shell` is the value of `SHELL`, used without COMMAND.
    ///
    /// # Errors
    ///
    /// [`InvalidOptions`], with the line to print.
    pub(crate) fn from_line(line: Line, shell: Option<OsString>) -> Result<Self, InvalidOptions> {
        let program = program(line.words, shell)?;
        let mut builder = Builder::default();
        for setting in line.settings {
            builder.add(setting);
        }
        builder.finish(program)
    }

    /// The families that are served if the kernel has `has`, and a warning for each that is missing
    /// and was not switched off.
    ///
    /// # Errors
    ///
    /// If the family of `-4` or `-6` is missing, or both are.
    pub(crate) fn services(
        &self,
        has: KernelFamilies,
    ) -> Result<(PerFamily<Service, Service>, Vec<String>), InvalidOptions> {
        let missing = |family: &str| format!("this kernel has no {family}: it is switched off");
        let on = |has: bool| if has { Service::On } else { Service::Off };
        match (self.families, has) {
            (Families::Ipv4Only, KernelFamilies { ipv4: false, .. }) => {
                refuse("-4 was given, but this kernel has no IPv4")
            }
            (Families::Ipv6Only, KernelFamilies { ipv6: false, .. }) => {
                refuse("-6 was given, but this kernel has no IPv6")
            }
            (Families::Both, KernelFamilies { ipv4: false, ipv6: false }) => {
                refuse("this kernel has neither IPv4 nor IPv6")
            }
            (Families::Ipv4Only, _) => {
                Ok((PerFamily { ipv4: Service::On, ipv6: Service::Off }, Vec::new()))
            }
            (Families::Ipv6Only, _) => {
                Ok((PerFamily { ipv4: Service::Off, ipv6: Service::On }, Vec::new()))
            }
            (Families::Both, KernelFamilies { ipv4, ipv6 }) => {
                let gone = [("IPv4", ipv4), ("IPv6", ipv6)].into_iter().filter(|(_, has)| !has);
                let warnings = gone.map(|(family, _)| missing(family)).collect();
                Ok((PerFamily { ipv4: on(ipv4), ipv6: on(ipv6) }, warnings))
            }
        }
    }

    /// Whether the namespace can reach the host's loopback, one line for each family that is served.
    pub(crate) fn exposure(&self, services: &PerFamily<Service, Service>) -> Vec<String> {
        let mut lines = Vec::new();
        if services.ipv4 == Service::On {
            lines.push(format!(
                "127.0.0.1 of the host: {}",
                describe_loopback(self.nat.host_loopback.ipv4)
            ));
        }
        if services.ipv6 == Service::On {
            lines.push(format!(
                "::1 of the host: {}",
                describe_loopback(self.nat.host_loopback.ipv6)
            ));
        }
        lines
    }

    /// The rules of port forwards on a host with the settings `system`.
    ///
    /// # Errors
    ///
    /// If options of ports conflict.
    pub(crate) fn forwards(
        &self,
        services: &PerFamily<Service, Service>,
        system: System,
    ) -> Result<Forwards, InvalidOptions> {
        ports::build_rules(&self.ports.specs, services.ipv4, services.ipv6, system)
            .map_err(|conflict| InvalidOptions(conflict.to_string()))
    }

    /// Whether there is an interface in the namespace.
    pub(crate) fn tap(&self) -> TapUse {
        self.interface.tap
    }

    /// Whether the namespace is changed after start: then the monitor keeps `CAP_NET_ADMIN`.
    pub(crate) fn changes_namespace(&self) -> bool {
        self.interface.tap == TapUse::Make
            && self.interface.configure == Configure::Namespace
            && self.follows()
    }

    /// Whether the host's network is followed after start.
    pub(crate) fn follows(&self) -> bool {
        self.following.follow != Follow::Off
    }

    /// How long start-up waits for a network, in milliseconds, if at all.
    pub(crate) fn bind_wait(&self) -> Option<u32> {
        let ms = self.following.bind_wait_ms;
        (self.follows() && ms > 0).then_some(ms)
    }

    /// The monitor's start message.
    pub(crate) fn monitor_start(
        &self,
        services: &PerFamily<Service, Service>,
        forwards: &Forwards,
    ) -> MonitorStart {
        MonitorStart {
            ipv4: services.ipv4,
            ipv6: services.ipv6,
            configure: self.interface.configure,
            tap: self.interface.tap,
            template: self.interface.template.clone(),
            tap_name: self.interface.name.clone(),
            mtu: self.interface.mtu,
            tap_mac: self.interface.mac,
            // They fit: `from_line` refuses longer lists.
            ipv4_addresses: Bounded::truncated(self.interface.addresses.ipv4.iter().copied()).0,
            ipv6_addresses: Bounded::truncated(self.interface.addresses.ipv6.iter().copied()).0,
            ipv4_gateway: self.interface.gateway.ipv4,
            ipv6_gateway: self.interface.gateway.ipv6,
            following: self.following,
            // They fit: `ports::build_rules` limits their number.
            outbound: Bounded::truncated(forwards.outbound.iter().cloned()).0,
            ports: forwards.watched(),
            loopback: self.ports.loopback,
            log_level: self.log_level,
        }
    }

    /// The datapath's start message; `tap` is the tap that the monitor made.
    pub(crate) fn datapath_start(
        &self,
        services: &PerFamily<Service, Service>,
        tap: Option<TapInfo>,
    ) -> DatapathStart {
        DatapathStart {
            our_mac: self.nat.our_mac,
            tap,
            ipv4: FamilyPolicy {
                service: services.ipv4,
                host_loopback: self.nat.host_loopback.ipv4,
                guest_address: self.nat.guest_address.ipv4,
                dns_forward: self.nat.dns_forward.ipv4,
                dns_host: self.nat.dns_host.ipv4,
                outbound: self.nat.outbound.ipv4,
            },
            ipv6: FamilyPolicy {
                service: services.ipv6,
                host_loopback: self.nat.host_loopback.ipv6,
                guest_address: self.nat.guest_address.ipv6,
                dns_forward: self.nat.dns_forward.ipv6,
                dns_host: self.nat.dns_host.ipv6,
                outbound: self.nat.outbound.ipv6,
            },
            splice: self.ports.splice,
            loopback: self.ports.loopback,
            log_level: self.log_level,
        }
    }
}

/// The program to run: COMMAND, or `$SHELL` as a login shell. A single word of digits is the PID of a
/// process to attach to.
fn program(words: Vec<OsString>, shell: Option<OsString>) -> Result<Program, InvalidOptions> {
    if let [word] = words.as_slice() {
        let text = word.to_string_lossy();
        if !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit()) {
            return match text.parse::<i32>() {
                Ok(_) => {
                    refuse(format!("attaching to process {text} is not supported in this version"))
                }
                Err(_) => refuse(format!("Invalid PID: {text}")),
            };
        }
    }
    let c_string = |word: OsString| {
        CString::new(word.into_vec())
            .map_err(|_| InvalidOptions("a word of the command holds a NUL".into()))
    };
    let args = words.into_iter().map(c_string).collect::<Result<Vec<_>, _>>()?;
    if let Some(path) = args.first() {
        return Ok(Program { path: path.clone(), args });
    }
    let shell = shell.filter(|shell| !shell.is_empty()).unwrap_or_else(|| "/bin/sh".into());
    // A shell is a login shell if `argv[0]` starts with a dash.
    let mut name = OsString::from("-");
    name.push(&shell);
    Ok(Program { path: c_string(shell)?, args: vec![c_string(name)?] })
}

impl Builder {
    fn add(&mut self, setting: Setting) {
        match setting {
            Setting::Ipv4Only => self.families = Some(Families::Ipv4Only),
            Setting::Ipv6Only => self.families = Some(Families::Ipv6Only),
            Setting::Template(name) => self.interface.template = Some(name),
            Setting::TapName(name) => self.interface.name = Some(name),
            Setting::Address(AddressValue::V4(address, len)) => {
                let netmask = self.interface.early_netmask.take();
                self.interface.ipv4.push(PendingAddress { address, len, netmask });
            }
            Setting::Address(AddressValue::V6(net)) => self.interface.ipv6.push(net),
            Setting::Netmask(len) => match self.interface.ipv4.last_mut() {
                Some(pending) => pending.netmask = Some(len),
                None => self.interface.early_netmask = Some(len),
            },
            Setting::Gateway(address) => self.interface.gateway.set(address),
            Setting::Mtu(octets) => {
                self.interface.mtu = Some(octets);
                self.follow_options.push(FollowOption::Mtu(MtuSource::Fixed));
            }
            Setting::Following(option) => self.follow_options.push(option),
            Setting::OurMac(mac) => self.nat.our_mac = Some(mac),
            Setting::TapMac(mac) => self.interface.mac = Some(mac),
            Setting::Outbound(address) => self.nat.outbound.set(address),
            Setting::MapHostLoopback(value) => {
                self.nat.no_map_gateway |= value == AddressOrNone::None;
                self.nat.map_host_loopback.set_or_clear(value);
            }
            Setting::NoMapGateway => self.nat.no_map_gateway = true,
            Setting::MapGuestAddress(value) => self.nat.guest_address.set_or_clear(value),
            Setting::DnsForward(address) => self.nat.dns_forward.set(address),
            Setting::DnsHost(address) => self.nat.dns_host.set(address),
            Setting::ConfigureNamespace => self.interface.configure = true,
            // Trace implies debug, in either order.
            Setting::Debug => self.log_level = self.log_level.max(Some(LogLevel::Debug)),
            Setting::Trace => self.log_level = Some(LogLevel::Trace),
            Setting::Quiet => self.log_level = None,
            // With COMMAND pasta always stays in the foreground.
            Setting::Foreground => {}
            Setting::Stderr => {
                self.warnings.push("option '--stderr' is deprecated and has no effect".into());
            }
            Setting::Ports(option, spec) => self.ports.specs.push((option, spec)),
            Setting::LoopbackToLoopback => self.ports.loopback_to_loopback = true,
            Setting::NoSplice => self.ports.no_splice = true,
            Setting::SpliceOnly => self.ports.splice_only = true,
            Setting::RunAs(run_as) => self.run_as = Some(run_as),
            Setting::SandboxReport => self.sandbox_report = true,
        }
    }

    fn finish(mut self, program: Program) -> Result<Options, InvalidOptions> {
        let families = self.families.unwrap_or(Families::Both);
        let mtu = checked_mtu(self.interface.mtu, families, &mut self.warnings);
        let following = following(&self.follow_options, self.interface.template.is_some());
        let tap = if self.ports.splice_only { TapUse::None } else { TapUse::Make };
        Ok(Options {
            program,
            run_as: self.run_as,
            log_level: self.log_level.unwrap_or(LogLevel::Warn),
            sandbox_report: match self.sandbox_report {
                true => SandboxReport::Print,
                false => SandboxReport::CheckOnly,
            },
            warnings: self.warnings,
            families,
            interface: self.interface.finish(tap, mtu)?,
            following,
            nat: self.nat.finish(),
            ports: self.ports.finish()?,
        })
    }
}

impl InterfaceBuilder {
    fn finish(self, tap: TapUse, mtu: Option<Mtu>) -> Result<Interface, InvalidOptions> {
        let ipv4 = self.ipv4.iter().map(|pending| pending.net()).collect::<Result<Vec<_>, _>>()?;
        let addresses = PerFamily { ipv4, ipv6: self.ipv6 };
        if Bounded::<_, 64>::try_from(addresses.ipv4.clone()).is_err()
            || Bounded::<_, 64>::try_from(addresses.ipv6.clone()).is_err()
        {
            return refuse("more than 64 addresses of one family");
        }
        if self.early_netmask.is_some() {
            return refuse("a netmask (-n) needs an IPv4 address (-a)");
        }
        Ok(Interface {
            tap,
            configure: match self.configure {
                true => Configure::Namespace,
                false => Configure::LoopbackOnly,
            },
            template: self.template,
            name: self.name,
            addresses,
            gateway: self.gateway,
            mtu,
            mac: self.mac,
        })
    }
}

impl NatBuilder {
    fn finish(self) -> Nat {
        let loopback = &self.map_host_loopback;
        Nat {
            our_mac: self.our_mac.unwrap_or(MacAddr::OURS_BY_DEFAULT),
            outbound: self.outbound,
            host_loopback: PerFamily {
                ipv4: host_loopback(loopback.ipv4, self.no_map_gateway),
                ipv6: host_loopback(loopback.ipv6, self.no_map_gateway),
            },
            guest_address: self.guest_address,
            dns_forward: self.dns_forward,
            dns_host: self.dns_host,
        }
    }
}

impl PortsBuilder {
    fn finish(self) -> Result<Ports, InvalidOptions> {
        if self.no_splice && self.splice_only {
            return refuse("--no-splice and --splice-only exclude each other");
        }
        if self.no_splice && self.loopback_to_loopback {
            return refuse("--host-lo-to-ns-lo needs what --no-splice switches off");
        }
        let to_loopback = self.loopback_to_loopback || self.splice_only;
        Ok(Ports {
            specs: self.specs,
            splice: if self.no_splice { Splice::Off } else { Splice::On },
            loopback: if to_loopback { LoopbackTarget::Loopback } else { LoopbackTarget::Address },
        })
    }
}

impl PendingAddress {
    /// The address with the given prefix, or that of its class.
    fn net(self) -> Result<Ipv4Net, InvalidOptions> {
        let prefix = match (self.len, self.netmask) {
            (Some(len), Some(_)) => {
                return refuse(format!(
                    "address {}/{len} has a prefix length already, and -n gives another",
                    self.address
                ));
            }
            (Some(len), None) | (None, Some(len)) => len,
            (None, None) => value::class_prefix(self.address),
        };
        value::ipv4_net(self.address, prefix).map_err(|error| InvalidOptions(error.0))
    }
}

fn host_loopback<A>(explicit: Option<A>, no_map_gateway: bool) -> HostLoopback<A> {
    match (explicit, no_map_gateway) {
        (Some(address), _) => HostLoopback::Address(address),
        (None, true) => HostLoopback::None,
        (None, false) => HostLoopback::Gateway,
    }
}

fn describe_loopback<A: fmt::Display>(loopback: HostLoopback<A>) -> String {
    match loopback {
        HostLoopback::Gateway => "reachable at the gateway's address".into(),
        HostLoopback::Address(address) => format!("reachable at {address}"),
        HostLoopback::None => "not reachable".into(),
    }
}

/// The MTU for the monitor: the default without `-m`, none (the kernel's) for zero.
fn checked_mtu(given: Option<u16>, families: Families, warnings: &mut Vec<String>) -> Option<Mtu> {
    let octets = match given {
        None => return Some(Mtu::DEFAULT),
        Some(0) => return None,
        Some(octets) => octets,
    };
    if octets < Mtu::MIN {
        warnings.push(format!(
            "MTU {octets} is too small to be set (smallest is {}): it is left alone",
            Mtu::MIN
        ));
    } else if octets < MIN_IPV6_MTU && families != Families::Ipv4Only {
        warnings.push(format!("MTU {octets} is too small for IPv6 (smallest is {MIN_IPV6_MTU})"));
    }
    Mtu::try_from(octets).ok()
}

#[cfg(test)]
mod tests;
