#![forbid(unsafe_code)]
//! [`Policy`]: what the command line asks for.

use crate::net::PerFamily;
use pasta_ipc::start::{
    Configure, CopyAddresses, CopyRoutes, Follow, Following, MonitorStart, MtuSource,
};
use pasta_ipc::types::{Family, IfName, MacAddr, Mtu, Prefix, Service};
use std::net::IpAddr;
use std::time::Duration;

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// What it asks of each family.
    pub families: PerFamily<FamilyPolicy>,
    /// Whether the namespace is configured at all (`--config-net`).
    pub configure: Configure,
    /// Name of the tap (`-I`). Never compared with names of the host's interfaces.
    pub tap_name: Option<IfName>,
    /// MTU of the tap; none leaves what the kernel chose.
    pub mtu: Option<Mtu>,
    /// Link-layer address of the tap; none leaves what the kernel drew.
    pub tap_mac: Option<MacAddr>,
    /// How the host is followed.
    pub following: Following,
}

/// What the command line asks of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyPolicy {
    /// Whether it is served.
    pub service: Service,
    /// Addresses for the namespace instead of the host's (`-a`), the primary first.
    pub addresses: Vec<Prefix>,
    /// Gateway for the namespace instead of the host's routes (`-g`).
    pub gateway: Option<IpAddr>,
    /// The only interface that may be the template (`-i`, `--outbound-if4`, `--outbound-if6`).
    pub template: Option<IfName>,
    /// Which of the template's routes are reproduced.
    pub routes: CopyRoutes,
    /// Which of its addresses are.
    pub copied: CopyAddresses,
}

impl Policy {
    /// Whether `family` is served.
    pub fn serves(&self, family: Family) -> bool {
        self.families.get(family).service == Service::On
    }

    /// The only interface that may be the template of `family`.
    pub fn template(&self, family: Family) -> Option<&IfName> {
        self.families.get(family).template.as_ref()
    }

    /// Whether the host is watched after start.
    pub fn follows(&self) -> bool {
        self.following.follow != Follow::Off
    }

    /// Whether the namespace is changed after start, which takes the capability.
    pub fn changes_namespace(&self) -> bool {
        self.configure == Configure::Namespace && self.follows()
    }

    /// Whether the tap's MTU is the template's.
    pub fn follows_mtu(&self) -> bool {
        self.following.mtu_source == MtuSource::Template
    }

    /// Quiet time before the template is changed without need.
    pub fn settle(&self) -> Duration {
        Duration::from_millis(self.following.settle_ms.into())
    }

    /// How long the last good configuration survives a loss; none: for ever.
    pub fn hold(&self) -> Option<Duration> {
        self.following.hold_ms.map(|it| Duration::from_millis(it.into()))
    }

    /// How long addresses of a template that was left without need stay.
    pub fn linger(&self) -> Duration {
        Duration::from_millis(self.following.linger_ms.into())
    }

    /// Longest delay of readiness for a first binding.
    pub fn bind_wait(&self) -> Duration {
        Duration::from_millis(self.following.bind_wait_ms.into())
    }
}

impl From<&MonitorStart> for Policy {
    fn from(start: &MonitorStart) -> Self {
        let v4 = start.ipv4.addresses.as_slice().iter();
        let v6 = start.ipv6.addresses.as_slice().iter();
        Self {
            families: PerFamily {
                v4: FamilyPolicy {
                    service: start.ipv4.service,
                    addresses: v4.copied().map(Prefix::from).collect(),
                    gateway: start.ipv4.gateway.map(IpAddr::V4),
                    template: start.template.clone().or(start.ipv4.template.clone()),
                    routes: start.copy.routes,
                    copied: start.copy.addresses,
                },
                v6: FamilyPolicy {
                    service: start.ipv6.service,
                    addresses: v6.copied().map(Prefix::from).collect(),
                    gateway: start.ipv6.gateway.map(IpAddr::V6),
                    template: start.template.clone().or(start.ipv6.template.clone()),
                    routes: start.copy.routes,
                    copied: start.copy.addresses,
                },
            },
            configure: start.link.configure,
            tap_name: start.link.name.clone(),
            mtu: start.link.mtu,
            tap_mac: start.link.mac,
            following: start.following,
        }
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// `pasta --config-net` without further options.
    pub(crate) fn plain() -> Policy {
        let family = || FamilyPolicy {
            service: Service::On,
            addresses: Vec::new(),
            gateway: None,
            template: None,
            routes: CopyRoutes::All,
            copied: CopyAddresses::All,
        };
        Policy {
            families: PerFamily::each(|_| family()),
            configure: Configure::Namespace,
            tap_name: None,
            mtu: Some(Mtu::DEFAULT),
            tap_mac: None,
            following: Following::default(),
        }
    }

    /// As `plain`, with `-i NAME`.
    pub(crate) fn named(name: &str) -> Policy {
        let mut policy = plain();
        for family in Family::BOTH {
            let name = IfName::try_from(name.to_owned()).unwrap();
            policy.families.get_mut(family).template = Some(name);
        }
        policy
    }
}
