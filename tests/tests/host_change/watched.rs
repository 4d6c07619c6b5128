//! A namespace that is looked at while the host changes.

use std::net::IpAddr;

use tests::Outcome;
use tests::lab::admin::Inside;
use tests::lab::{Family, Lab, Session, service, wait};

/// What is seen of one namespace.
pub(super) struct Watched {
    pub(super) session: Session,
    pub(super) inside: Inside,
}

impl Watched {
    pub(super) fn new(mut session: Session) -> Outcome<Self> {
        let inside = Inside::of(&mut session)?;
        Ok(Self { session, inside })
    }

    /// `pasta --config-net` with these options.
    pub(super) fn start(lab: &Lab, options: &[&str]) -> Outcome<Self> {
        Self::new(lab.pasta().configured().with(options).session()?)
    }

    /// Waits until `address` is there or not.
    pub(super) fn wait_for_address(&self, address: IpAddr, there: bool) -> Outcome {
        let start = format!("address {address}/");
        self.wait_for(&start, there)
    }

    /// Waits until there is, or is not, a line with this beginning.
    pub(super) fn wait_for(&self, start: &str, there: bool) -> Outcome {
        let what = format!("{start:?} {}", if there { "to come" } else { "to go" });
        let waited = wait::until(&what, || self.has(start).ok().filter(|has| *has == there));
        waited.map(drop).map_err(|error| format!("{error}: {:#?}", self.inside.show()).into())
    }

    pub(super) fn has(&self, start: &str) -> Outcome<bool> {
        Ok(self.inside.show()?.iter().any(|line| line.starts_with(start)))
    }

    /// How many lines were said at level info, once those of the start are all there; `-d` says when.
    pub(super) fn lines_said(&mut self) -> Outcome<usize> {
        let mut errors = || self.session.running().errors();
        wait::until("the end of what is said at the start", || {
            errors().contains("the command starts").then_some(())
        })?;
        Ok(errors().lines().filter(|line| line.contains("info: ")).count())
    }

    /// Waits for the default route by way of `gateway`.
    pub(super) fn wait_for_default(&self, gateway: IpAddr) -> Outcome {
        self.wait_for(&default_via(gateway), true)
    }

    /// Exchanges octets with a server beyond the router.
    pub(super) fn reach(&mut self, lab: &Lab, family: Family) -> Outcome {
        let echo = lab.remote().tcp(family.internet(), service::echo)?;
        self.session.must(["tcp", "echo", &echo.endpoint(), "1", "10000"])?;
        Ok(())
    }
}

pub(super) fn default_route(gateway: IpAddr) -> &'static str {
    if gateway.is_ipv6() { "route ::/0" } else { "route 0.0.0.0/0" }
}

pub(super) fn default_via(gateway: IpAddr) -> String {
    format!("{} via {gateway} ", default_route(gateway))
}

/// Asserts that of the changes in `lines` none took away something that begins like this.
pub(super) fn never_gone(lines: &[String], start: &str) {
    let start = format!("- {start}");
    assert!(!lines.iter().any(|line| line.starts_with(&start)), "{start:?} in {lines:#?}");
}

/// Where in the log of changes a line with this beginning is.
pub(super) fn position(lines: &[String], start: &str) -> usize {
    let found = lines.iter().position(|line| line.starts_with(start));
    found.unwrap_or_else(|| panic!("no {start:?} in {lines:#?}"))
}
