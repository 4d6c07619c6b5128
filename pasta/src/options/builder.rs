//! Collects settings in their order, then checks them against each other.

use super::{
    Addresses, Families, Files, Interface, InvalidOptions, LogOptions, MIN_IPV6_MTU, Nat, Notices,
    Options, PerFamily, Ports, Reports, SandboxReport, Strictness, refuse,
};
use crate::cli::Setting;
use crate::follow_options::{FollowOption, following};
use crate::target::{Ground, Target, TargetBuilder, UserOption};
use crate::value::{self, AddressOrNone, AddressValue, DocumentForm, DomainName, RunAs};
use nix::unistd::Pid;
use pasta::ports::PortOption;
use pasta::ports::spec::{List, Spec};
use pasta_ipc::port_forward::{LoopbackTarget, Splice};
use pasta_ipc::socket::FreeBind;
use pasta_ipc::start::{
    ClientOptions, Configure, CopyAddresses, CopyRoutes, CopyStart, DnsList, Follow, HostLoopback,
    Lifetimes, MtuSource, Protocol, Protocols, Responder, Responders, RootFallback, SearchList,
    Services, TapUse,
};
use pasta_ipc::types::{Bounded, IfName, Ipv4Net, Ipv6Net, LogLevel, MacAddr, Mtu, Service, Text};
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::path::PathBuf;

/// Size of the log file without `--log-size`, in octets.
const DEFAULT_LOG_SIZE: u64 = 1_048_576;

/// Most resolvers of one family for clients.
const MAX_RESOLVERS: usize = 3;

/// Most search domains for clients.
const MAX_SEARCH: usize = 6;

/// The settings so far, before they are checked against each other.
#[derive(Debug, Default)]
pub(super) struct Builder {
    families: Option<Families>,
    interface: InterfaceBuilder,
    follow_options: Vec<FollowOption>,
    nat: NatBuilder,
    ports: PortsBuilder,
    services: ServicesBuilder,
    target: TargetBuilder,
    log: LogBuilder,
    files: Files,
    run_as: Option<RunAs>,
    reports: ReportsBuilder,
    warnings: Vec<String>,
}

/// As [`Reports`], before the checks.
#[derive(Debug, Default)]
struct ReportsBuilder {
    sandbox: bool,
    strict: Option<u32>,
    audit: Option<DocumentForm>,
    explain: bool,
    json: bool,
}

/// As [`LogOptions`], before the checks.
#[derive(Debug, Default)]
struct LogBuilder {
    level: Option<LogLevel>,
    file: Option<PathBuf>,
    size: Option<u64>,
    stats: Option<NonZeroU32>,
}

/// As [`Services`], before the checks.
#[derive(Debug, Default)]
struct ServicesBuilder {
    protocols: Protocols,
    responders: Responders,
    dns: Option<Vec<IpAddr>>,
    search: Option<Vec<DomainName>>,
    advertise_dns: bool,
    advertise_search: bool,
    fqdn: Option<DomainName>,
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
    default_route_only: bool,
    primary_only: bool,
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
    interfaces: PerFamily<Option<IfName>, Option<IfName>>,
    free_bind: FreeBind,
}

/// As [`Ports`], before the checks.
#[derive(Debug, Default)]
struct PortsBuilder {
    specs: Vec<(PortOption, Spec)>,
    loopback_to_loopback: bool,
    no_splice: bool,
    splice_only: bool,
    no_host_loopback: bool,
}

/// An IPv4 address of `-a` and the `-n` that belongs to it.
#[derive(Clone, Copy, Debug)]
struct PendingAddress {
    address: Ipv4Addr,
    len: Option<u8>,
    netmask: Option<u8>,
}

impl Builder {
    /// Takes one setting, in the order of the command line.
    ///
    /// # Errors
    ///
    /// [`InvalidOptions`].
    pub(super) fn add(&mut self, setting: Setting) -> Result<(), InvalidOptions> {
        match setting {
            Setting::Ipv4Only => self.families = Some(Families::Ipv4Only),
            Setting::Ipv6Only => self.families = Some(Families::Ipv6Only),
            Setting::Mtu(octets) => {
                self.interface.mtu = Some(octets);
                self.follow_options.push(FollowOption::Mtu(MtuSource::Fixed));
            }
            Setting::Following(option) => self.follow_options.push(option),
            Setting::Ports(option, spec) => self.ports.specs.push((option, spec)),
            Setting::LoopbackToLoopback => self.ports.loopback_to_loopback = true,
            Setting::NoSplice => self.ports.no_splice = true,
            Setting::SpliceOnly => self.ports.splice_only = true,
            Setting::RunAs(run_as) => self.run_as = Some(run_as),
            Setting::Explain => self.reports.explain = true,
            Setting::Json => self.reports.json = true,
            Setting::SandboxReport => self.reports.sandbox = true,
            Setting::StrictSandbox(abi) => self.reports.strict = Some(abi),
            Setting::Audit(form) => self.reports.audit = Some(form),
            Setting::NoHostLoopback => {
                self.nat.no_map_gateway = true;
                self.ports.no_host_loopback = true;
            }
            Setting::Stderr => {
                self.warnings.push("option '--stderr' is deprecated and has no effect".into());
            }
            Setting::Ignored => {}
            Setting::Dns(AddressOrNone::None) => {
                self.services.dns = Some(Vec::new());
                self.nat.dns_forward = Addresses::default();
                self.nat.dns_host = Addresses::default();
            }
            setting => self.add_to_part(setting),
        }
        Ok(())
    }

    /// Takes a setting that concerns one part only.
    fn add_to_part(&mut self, setting: Setting) {
        let Some(setting) = self.interface.add(setting) else { return };
        let Some(setting) = self.nat.add(setting) else { return };
        let Some(setting) = self.services.add(setting, &mut self.warnings) else { return };
        let Some(setting) = self.log.add(setting) else { return };
        match setting {
            Setting::NetworkNamespace(path) => self.target.net = Some(path),
            Setting::UserNamespace(path) => self.target.user = UserOption::At(path),
            Setting::NoUserNamespace => self.target.user = UserOption::Ours,
            Setting::OutliveNamespace => self.target.quit = crate::target::Quit::Never,
            Setting::SharedPids => self.target.shared_pids = true,
            Setting::OutliveUs => self.target.outlives_us = true,
            Setting::HostName(name) => self.target.host_name = Some(name),
            Setting::Foreground => self.target.ground = Ground::Foreground,
            Setting::PidFile(path) => self.files.pid = Some(path),
            Setting::ControlSocket(path) => self.files.control = Some(path),
            Setting::Capture(path) => self.files.capture = Some(path),
            Setting::TapDescriptor(number) => self.files.tap = Some(number),
            Setting::ChrootFallback => self.files.root = RootFallback::Chroot,
            // Every other setting is taken above.
            _ => {}
        }
    }

    /// Checks the settings against each other. `words` follow the options; `shell` is the value of `SHELL`.
    ///
    /// # Errors
    ///
    /// [`InvalidOptions`].
    pub(super) fn finish(
        mut self,
        words: Vec<OsString>,
        shell: Option<OsString>,
    ) -> Result<Options, InvalidOptions> {
        let explain = match (self.reports.explain, self.reports.json) {
            (true, false) => Some(DocumentForm::Text),
            (true, true) => Some(DocumentForm::Json),
            (false, false) => None,
            (false, true) => return refuse("--json needs --explain"),
        };
        let families = self.families.unwrap_or(Families::Both);
        let mtu = checked_mtu(self.interface.mtu, families, &mut self.warnings);
        let is_fixed = self.interface.template.is_some()
            || self.nat.interfaces.ipv4.is_some()
            || self.nat.interfaces.ipv6.is_some();
        let following = following(&self.follow_options, is_fixed);
        let splice_only = self.ports.splice_only;
        let tap = match self.files.tap {
            _ if splice_only => TapUse::None,
            Some(_) => TapUse::Given,
            None => TapUse::Make,
        };
        let configures = self.interface.configure;
        let host_name = self.target.host_name.clone();
        let target = self.target.finish(words, shell)?;
        let audit = self.reports.audit.map(|form| audited(&target).map(|pid| (form, pid)));
        let audit = audit.transpose()?;
        let log = self.log.finish(&target)?;
        let interface = self.interface.finish(tap, mtu, &mut self.warnings)?;
        let services = self.services.finish(configures, splice_only, host_name, following.follow);
        Ok(Options {
            target,
            run_as: self.run_as,
            log,
            files: self.files,
            reports: Reports {
                sandbox: match self.reports.sandbox {
                    true => SandboxReport::Print,
                    false => SandboxReport::CheckOnly,
                },
                strictness: self.reports.strict.map_or(Strictness::Warn, Strictness::Refuse),
                explain,
                audit,
            },
            warnings: self.warnings,
            families,
            interface,
            following,
            nat: self.nat.finish(),
            ports: self.ports.finish(services.protocols)?,
            services,
        })
    }
}

impl LogBuilder {
    /// Takes a setting of the log, or returns it.
    fn add(&mut self, setting: Setting) -> Option<Setting> {
        match setting {
            // Trace implies debug, in either order.
            Setting::Debug => self.level = self.level.max(Some(LogLevel::Debug)),
            Setting::Trace => self.level = Some(LogLevel::Trace),
            Setting::Quiet => self.level = Some(LogLevel::Warn),
            Setting::LogFile(path) => self.file = Some(path),
            Setting::LogSize(octets) => self.size = Some(octets),
            Setting::Stats(seconds) => self.stats = Some(seconds),
            other => return Some(other),
        }
        None
    }

    fn finish(self, target: &Target) -> Result<LogOptions, InvalidOptions> {
        let in_background =
            matches!(target, Target::Existing(existing) if existing.ground == Ground::Background);
        if self.stats.is_some() && in_background {
            return refuse("--stats writes to standard error: it needs the foreground (-f)");
        }
        // A command's own output is not to be mixed with ours.
        let default = match (target, &self.file) {
            (Target::Command(_), None) => LogLevel::Notice,
            (Target::Existing(_), _) | (_, Some(_)) => LogLevel::Info,
        };
        Ok(LogOptions {
            level: self.level.unwrap_or(default),
            file: self.file,
            size: self.size.unwrap_or(DEFAULT_LOG_SIZE),
            notices: match self.level {
                // `-q`: the level is not set to this in another way.
                Some(LogLevel::Warn) => Notices::Hidden,
                _ => Notices::Shown,
            },
            stats: self.stats,
        })
    }
}

impl ServicesBuilder {
    /// Takes a setting of protocols and services, or returns it.
    fn add(&mut self, setting: Setting, warnings: &mut Vec<String>) -> Option<Setting> {
        match setting {
            Setting::Without(Protocol::Tcp) => self.protocols.tcp = Service::Off,
            Setting::Without(Protocol::Udp) => self.protocols.udp = Service::Off,
            Setting::Without(Protocol::Icmp) => {
                self.protocols.icmp = Service::Off;
                self.responders.ndp = Service::Off;
            }
            Setting::WithoutResponder(responder) => {
                *match responder {
                    Responder::Ndp => &mut self.responders.ndp,
                    Responder::Dhcp => &mut self.responders.dhcp,
                    Responder::Dhcpv6 => &mut self.responders.dhcpv6,
                    Responder::RouterAdvertisement => &mut self.responders.router_advertisement,
                } = Service::Off;
            }
            Setting::Dns(AddressOrNone::Address(address)) => {
                let list = self.dns.get_or_insert_default();
                if list.iter().filter(|it| it.is_ipv4() == address.is_ipv4()).count()
                    < MAX_RESOLVERS
                {
                    list.push(address);
                } else {
                    warnings.push(format!(
                        "resolver {address} is left out: clients are offered {MAX_RESOLVERS} of a family"
                    ));
                }
            }
            Setting::Search(None) => self.search = Some(Vec::new()),
            Setting::Search(Some(domain)) => {
                let list = self.search.get_or_insert_default();
                if list.len() < MAX_SEARCH {
                    list.push(domain);
                } else {
                    let name = domain.as_str();
                    warnings.push(format!(
                        "search domain {name} is left out: clients are offered {MAX_SEARCH}"
                    ));
                }
            }
            Setting::AdvertiseDns => self.advertise_dns = true,
            Setting::AdvertiseSearch => self.advertise_search = true,
            Setting::Fqdn(name) => self.fqdn = Some(name),
            other => return Some(other),
        }
        None
    }

    fn finish(
        mut self,
        configures: bool,
        splice_only: bool,
        host_name: Option<DomainName>,
        follow: Follow,
    ) -> Services {
        // A namespace that is configured needs no advertisement, which would configure it twice.
        if configures {
            self.responders.router_advertisement = Service::Off;
        }
        if splice_only {
            self.protocols.icmp = Service::Off;
        }
        let name = |name: &DomainName| Text::truncated(name.as_str());
        Services {
            protocols: self.protocols,
            responders: self.responders,
            clients: ClientOptions {
                // Both lists fit: `add` limits them.
                dns: self.dns.map_or(DnsList::Host, |it| DnsList::Given(Bounded::truncated(it).0)),
                search: self.search.map_or(SearchList::Host, |it| {
                    SearchList::Given(Bounded::truncated(it.iter().map(name)).0)
                }),
                advertise_dns: self.advertise_dns,
                advertise_search: self.advertise_search,
                host_name: host_name.as_ref().map(name),
                fqdn: self.fqdn.as_ref().map(name),
                lifetimes: match follow {
                    Follow::Off => Lifetimes::Unlimited,
                    Follow::Roam | Follow::Sticky | Follow::Once => Lifetimes::Limited,
                },
            },
        }
    }
}

impl InterfaceBuilder {
    /// Takes a setting of the interface, or returns it.
    fn add(&mut self, setting: Setting) -> Option<Setting> {
        match setting {
            Setting::Template(name) => self.template = Some(name),
            Setting::TapName(name) => self.name = Some(name),
            Setting::Address(AddressValue::V4(address, len)) => {
                let netmask = self.early_netmask.take();
                self.ipv4.push(PendingAddress { address, len, netmask });
            }
            Setting::Address(AddressValue::V6(net)) => self.ipv6.push(net),
            Setting::Netmask(len) => match self.ipv4.last_mut() {
                Some(pending) => pending.netmask = Some(len),
                None => self.early_netmask = Some(len),
            },
            Setting::Gateway(address) => self.gateway.set(address),
            Setting::TapMac(mac) => self.mac = Some(mac),
            Setting::ConfigureNamespace => self.configure = true,
            Setting::NoCopyRoutes => self.default_route_only = true,
            Setting::NoCopyAddresses => self.primary_only = true,
            other => return Some(other),
        }
        None
    }

    fn finish(
        self,
        tap: TapUse,
        mtu: Option<Mtu>,
        warnings: &mut Vec<String>,
    ) -> Result<Interface, InvalidOptions> {
        for (name, given) in
            [("--no-copy-routes", self.default_route_only), ("--no-copy-addrs", self.primary_only)]
        {
            if given && !self.configure {
                return refuse(format!("{name} needs --config-net"));
            }
            if given {
                warnings.push(format!("option '{name}' is deprecated"));
            }
        }
        let ipv4 = self.ipv4.iter().map(|pending| pending.net()).collect::<Result<Vec<_>, _>>()?;
        let addresses = PerFamily { ipv4, ipv6: self.ipv6 };
        if Bounded::<_, 64>::try_from(addresses.ipv4.clone()).is_err()
            || Bounded::<_, 64>::try_from(addresses.ipv6.clone()).is_err()
        {
            return refuse("-a: more than 64 addresses of one family");
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
            copy: CopyStart {
                routes: match self.default_route_only {
                    true => CopyRoutes::DefaultOnly,
                    false => CopyRoutes::All,
                },
                addresses: match self.primary_only {
                    true => CopyAddresses::PrimaryOnly,
                    false => CopyAddresses::All,
                },
            },
        })
    }
}

impl NatBuilder {
    /// Takes a setting of address translation, or returns it.
    fn add(&mut self, setting: Setting) -> Option<Setting> {
        match setting {
            Setting::OurMac(mac) => self.our_mac = Some(mac),
            Setting::Outbound(address) => self.outbound.set(address),
            Setting::OutboundInterface4(name) => self.interfaces.ipv4 = Some(name),
            Setting::OutboundInterface6(name) => self.interfaces.ipv6 = Some(name),
            Setting::FreeBind => self.free_bind = FreeBind::On,
            Setting::MapHostLoopback(value) => {
                self.no_map_gateway |= value == AddressOrNone::None;
                self.map_host_loopback.set_or_clear(value);
            }
            Setting::NoMapGateway => self.no_map_gateway = true,
            Setting::MapGuestAddress(value) => self.guest_address.set_or_clear(value),
            Setting::DnsForward(address) => self.dns_forward.set(address),
            Setting::DnsHost(address) => self.dns_host.set(address),
            other => return Some(other),
        }
        None
    }

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
            interfaces: self.interfaces,
            free_bind: self.free_bind,
        }
    }
}

impl PortsBuilder {
    fn finish(mut self, protocols: Protocols) -> Result<Ports, InvalidOptions> {
        for (service, switch, options) in [
            (protocols.tcp, "--no-tcp", [PortOption::TcpIn, PortOption::TcpOut]),
            (protocols.udp, "--no-udp", [PortOption::UdpIn, PortOption::UdpOut]),
        ] {
            for option in options.into_iter().filter(|_| service == Service::Off) {
                let mut given = self.specs.iter().filter(|(of, _)| *of == option);
                if given.any(|(_, spec)| spec.list != List::None) {
                    return refuse(format!(
                        "{} forwards what {switch} switches off",
                        option.name()
                    ));
                }
                self.specs.retain(|(of, _)| *of != option);
                self.specs.push((option, Spec::none()));
            }
        }
        if self.no_host_loopback {
            for option in [PortOption::TcpOut, PortOption::UdpOut] {
                // Others are refused (`conflict`).
                self.specs.retain(|(of, _)| *of != option);
                self.specs.push((option, Spec::none()));
            }
        }
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
            to_host: if self.no_host_loopback { Service::Off } else { Service::On },
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

/// The process that `--audit` is about.
fn audited(target: &Target) -> Result<Pid, InvalidOptions> {
    let process = match target {
        Target::Existing(existing) => existing.process,
        Target::Command(_) => None,
    };
    process.ok_or_else(|| InvalidOptions::new("--audit needs the PID of a pasta that runs"))
}

fn host_loopback<A>(explicit: Option<A>, no_map_gateway: bool) -> HostLoopback<A> {
    match (explicit, no_map_gateway) {
        (Some(address), _) => HostLoopback::Address(address),
        (None, true) => HostLoopback::None,
        (None, false) => HostLoopback::Gateway,
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
