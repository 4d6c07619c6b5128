//! The command line as one checked value, and the start messages made from it.

mod builder;
mod conflict;

use crate::cli::Line;
use crate::identity::Identity;
use crate::target::Target;
use crate::value::{AddressOrNone, DocumentForm, RunAs};
use builder::Builder;
use nix::unistd::Pid;
use pasta::ports::spec::Spec;
use pasta::ports::{self, Forwards, PortOption, System};
use pasta_ipc::port_forward::{Effort, ForwardRule, LoopbackTarget, Splice};
use pasta_ipc::socket::FreeBind;
use pasta_ipc::start::{
    Captured, Configure, CopyStart, DatapathStart, FamilyPolicy, FamilyStart, Follow, Following,
    HostLoopback, HostSockets, LinkStart, MonitorStart, PortsStart, Protocols, RootFallback,
    RuleChanges, Services, TapUse, UserId,
};
use pasta_ipc::types::{
    Bounded, IfName, Ipv4Net, Ipv6Net, LogLevel, MacAddr, Mtu, PortRange, Service, TapInfo,
};
use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::os::fd::RawFd;
use std::path::PathBuf;

/// Smallest MTU that IPv6 works with (RFC 8200, section 5).
const MIN_IPV6_MTU: u16 = 1280;

/// The notice for a person who started without `--config-net`.
const UNCONFIGURED: &str = "the interface in the namespace is not configured: start with \
                            --config-net, or bring it up and run a DHCP client inside";

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

/// Whether `--sandbox-report` was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SandboxReport {
    /// The audit of each helper is printed before COMMAND starts.
    Print,
    /// The audit is only checked.
    CheckOnly,
}

/// What becomes of a start that lacks a measure of the sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strictness {
    /// A warning names it.
    Warn,
    /// It fails (`--strict-sandbox`), also with an older ABI of Landlock than this.
    Refuse(u32),
}

/// The options of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// What is connected.
    pub(crate) target: Target,
    /// The user to change to when started by root.
    pub(crate) run_as: Option<RunAs>,
    /// Where lines go, and which.
    pub(crate) log: LogOptions,
    /// Files that are opened at start.
    pub(crate) files: Files,
    /// What is printed on request.
    pub(crate) reports: Reports,
    /// Warnings, one line each.
    pub(crate) warnings: Vec<String>,
    families: Families,
    interface: Interface,
    following: Following,
    nat: Nat,
    ports: Ports,
    services: Services,
}

/// What is printed on request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reports {
    /// The privileges that each process has left (`--sandbox-report`).
    pub(crate) sandbox: SandboxReport,
    /// What becomes of a start that lacks one of them.
    pub(crate) strictness: Strictness,
    /// Whether only what would be done is printed (`--explain`).
    pub(crate) explain: Option<DocumentForm>,
    /// Whether only what a running instance has is printed (`--audit`).
    pub(crate) audit: Option<(DocumentForm, Pid)>,
}

/// Where lines of the log go, and which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogOptions {
    /// The least important level that is logged.
    pub(crate) level: LogLevel,
    /// The log file (`-l`); none: the system log, where we attach.
    pub(crate) file: Option<PathBuf>,
    /// Its largest size, in octets.
    pub(crate) size: u64,
    /// Whether a person at a terminal gets notices.
    pub(crate) notices: Notices,
    /// The shortest time between two tables of counters (`--stats`), in seconds.
    pub(crate) stats: Option<NonZeroU32>,
}

/// Whether a person at a terminal gets notices, which are no warnings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notices {
    /// They are shown.
    Shown,
    /// They are not (`-q`).
    Hidden,
}

/// Files that are opened at start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Files {
    /// For our process id (`-P`).
    pub(crate) pid: Option<PathBuf>,
    /// For clients that ask us for something (`-c`).
    pub(crate) control: Option<PathBuf>,
    /// For frames (`-p`).
    pub(crate) capture: Option<PathBuf>,
    /// An open tap (`-F`).
    pub(crate) tap: Option<RawFd>,
    /// What is tried where pivot_root(2) is refused.
    pub(crate) root: RootFallback,
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
    copy: CopyStart,
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
    interfaces: PerFamily<Option<IfName>, Option<IfName>>,
    free_bind: FreeBind,
}

/// Port forwards.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ports {
    specs: Vec<(PortOption, Spec)>,
    splice: Splice,
    loopback: LoopbackTarget,
    /// Whether anything may lead to the host's loopback (`--no-host-loopback`).
    to_host: Service,
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

impl InvalidOptions {
    /// With this line.
    pub(crate) fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

fn refuse<T>(why: impl Into<String>) -> Result<T, InvalidOptions> {
    Err(InvalidOptions(why.into()))
}

impl Options {
    /// Collects the settings of `line`, checks them against each other and determines the program to
    /// run. `shell` is the value of `SHELL`, used without COMMAND.
    ///
    /// # Errors
    ///
    /// [`InvalidOptions`], with the line to print.
    pub(crate) fn from_line(line: Line, shell: Option<OsString>) -> Result<Self, InvalidOptions> {
        conflict::check(&line.settings)?;
        let mut builder = Builder::default();
        for setting in line.settings.iter().cloned() {
            builder.add(setting)?;
        }
        let options = builder.finish(line.words, shell)?;
        conflict::check_target(&line.settings, &options.target)?;
        Ok(options)
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

    /// What leads from the namespace to the host's loopback, and from the host into the namespace: the
    /// addresses that are mapped, for each family that is served, and the rules of ports. Of the host's sockets it
    /// may be unknown whether they are in reach.
    pub(crate) fn exposure(
        &self,
        services: &PerFamily<Service, Service>,
        forwards: &Forwards,
        host_sockets: Option<HostSockets>,
    ) -> Vec<String> {
        let loopback = &self.nat.host_loopback;
        let mapped = [
            ("127.0.0.1", services.ipv4, describe_loopback(loopback.ipv4)),
            ("::1", services.ipv6, describe_loopback(loopback.ipv6)),
        ];
        let mapped = mapped.into_iter().filter(|(_, service, _)| *service == Service::On);
        let mut lines: Vec<_> =
            mapped.map(|(name, _, how)| format!("{name} of the host: {how}")).collect();
        let is_auto = |rule: &&ForwardRule| rule.effort() == Effort::Auto;
        let outbound = &forwards.outbound;
        let (outbound, note) = match host_sockets {
            _ if !outbound.iter().any(|rule| is_auto(&rule)) => (describe_rules(outbound), ""),
            Some(HostSockets::InReach) => (describe_rules(outbound), ""),
            Some(HostSockets::OutOfReach) => (
                describe_rules(outbound.iter().filter(|rule| !is_auto(rule))),
                "; automatic rules are off: the host's sockets are out of reach",
            ),
            None => (
                describe_rules(outbound),
                "; automatic rules may be off: whether the host's sockets are in reach is not shown to you",
            ),
        };
        let inbound = describe_rules(&forwards.inbound);
        lines.push(format!(
            "ports of the host's loopback, from the namespace's loopback: {outbound}{note}"
        ));
        lines.push(format!(
            "ports of the namespace, from the host and whoever reaches it: {inbound}"
        ));
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

    /// Whether sockets may be bound to addresses that the host does not have.
    pub(crate) fn free_bind(&self) -> FreeBind {
        self.nat.free_bind
    }

    /// Whether there is an interface in the namespace.
    pub(crate) fn tap(&self) -> TapUse {
        self.interface.tap
    }

    /// A warning for each source address (`-o`) that the host does not have, as `has` finds out. It may
    /// get it later.
    pub(crate) fn missing_sources(&self, has: impl Fn(IpAddr) -> bool) -> Vec<String> {
        let outbound = &self.nat.outbound;
        let given = outbound.ipv4.map(IpAddr::from).into_iter();
        let given = given.chain(outbound.ipv6.map(IpAddr::from));
        let missing = given.filter(|it| self.nat.free_bind == FreeBind::Off && !has(*it));
        let line = |address: IpAddr| {
            let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
            format!("the host does not have {address} (-o): outbound {family} fails until it has")
        };
        missing.map(line).collect()
    }

    /// The notice for root, who runs things as another user without having asked for it.
    pub(crate) fn identity_notice(&self, Identity { uid, gid }: Identity) -> String {
        let what = match self.target {
            Target::Command(_) => "COMMAND and pasta run",
            Target::Existing(_) => "pasta runs",
        };
        format!("started by root, {what} as user {uid}, group {gid} (--runas names another one)")
    }

    /// The notice for a person at a terminal, if there is one.
    pub(crate) fn notice(&self) -> Option<&'static str> {
        // A tap that was given belongs to somebody who knows.
        let unconfigured = self.interface.tap == TapUse::Make
            && self.interface.configure == Configure::LoopbackOnly;
        (unconfigured && self.log.notices == Notices::Shown).then_some(UNCONFIGURED)
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

    /// The monitor's start message; `run_as` is the user that it becomes, `given` the tap that is not to be
    /// made or configured.
    pub(crate) fn monitor_start(
        &self,
        services: &PerFamily<Service, Service>,
        forwards: &Forwards,
        run_as: Option<UserId>,
        given: Option<&TapInfo>,
    ) -> MonitorStart {
        MonitorStart {
            // The lists fit: `from_line` refuses longer ones.
            ipv4: FamilyStart {
                service: services.ipv4,
                addresses: Bounded::truncated(self.interface.addresses.ipv4.iter().copied()).0,
                gateway: self.interface.gateway.ipv4,
                template: self.nat.interfaces.ipv4.clone(),
            },
            ipv6: FamilyStart {
                service: services.ipv6,
                addresses: Bounded::truncated(self.interface.addresses.ipv6.iter().copied()).0,
                gateway: self.interface.gateway.ipv6,
                template: self.nat.interfaces.ipv6.clone(),
            },
            link: LinkStart {
                tap: self.interface.tap,
                configure: match given {
                    Some(_) => Configure::LoopbackOnly,
                    None => self.interface.configure,
                },
                name: given.map(|it| it.name.clone()).or(self.interface.name.clone()),
                mtu: self.interface.mtu,
                mac: given.map(|it| it.mac).or(self.interface.mac),
            },
            template: self.interface.template.clone(),
            copy: self.interface.copy,
            following: self.following,
            ports: PortsStart {
                // They fit: `ports::build_rules` limits their number.
                outbound: Bounded::truncated(forwards.outbound.iter().cloned()).0,
                watch: forwards.watched(),
                loopback: self.ports.loopback,
                changes: self.rule_changes(),
                host: HostSockets::InReach,
            },
            log_level: self.log.level,
            run_as,
            root: self.files.root,
        }
    }

    /// The datapath's start message; `tap` is the tap that the monitor made, `capture` whether there is a
    /// file for frames, `ephemeral_ports` what the host gives to programs that ask for no port.
    pub(crate) fn datapath_start(
        &self,
        services: &PerFamily<Service, Service>,
        tap: Option<TapInfo>,
        capture: Captured,
        ephemeral_ports: PortRange,
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
                outbound_interface: self.nat.interfaces.ipv4.clone(),
            },
            ipv6: FamilyPolicy {
                service: services.ipv6,
                host_loopback: self.nat.host_loopback.ipv6,
                guest_address: self.nat.guest_address.ipv6,
                dns_forward: self.nat.dns_forward.ipv6,
                dns_host: self.nat.dns_host.ipv6,
                outbound: self.nat.outbound.ipv6,
                outbound_interface: self.nat.interfaces.ipv6.clone(),
            },
            splice: self.ports.splice,
            loopback: self.ports.loopback,
            log_level: self.log.level,
            services: self.services.clone(),
            free_bind: self.nat.free_bind,
            capture,
            ephemeral_ports,
            stats: self.log.stats,
            changes: self.rule_changes(),
        }
    }

    /// Whether the rules for ports may change after the start.
    pub(crate) fn rule_changes(&self) -> RuleChanges {
        if self.files.control.is_some() { RuleChanges::Possible } else { RuleChanges::Never }
    }

    /// Whether ports may lead to the host's loopback.
    pub(crate) fn ports_to_host(&self) -> Service {
        self.ports.to_host
    }

    /// Which protocols are served.
    pub(crate) fn protocols(&self) -> Protocols {
        self.services.protocols
    }
}

fn describe_loopback<A: fmt::Display>(loopback: HostLoopback<A>) -> String {
    match loopback {
        HostLoopback::Gateway => "reachable at the gateway's address".into(),
        HostLoopback::Address(address) => format!("reachable at {address}"),
        HostLoopback::None => "not mapped to an address".into(),
    }
}

/// The rules of one direction, as the report has them.
fn describe_rules<'a>(rules: impl IntoIterator<Item = &'a ForwardRule>) -> String {
    let describe = |rule: &ForwardRule| {
        let at = rule.listen().map_or_else(String::new, |address| format!(" at {address}"));
        let condition = match rule.effort() {
            Effort::Auto => " while somebody listens there",
            Effort::BestEffort | Effort::Explicit => "",
        };
        format!("{} {}{at}{condition}", rule.transport(), rule.ports())
    };
    let rules: Vec<_> = rules.into_iter().map(describe).collect();
    if rules.is_empty() { "none".to_owned() } else { rules.join(", ") }
}

#[cfg(test)]
mod tests;
