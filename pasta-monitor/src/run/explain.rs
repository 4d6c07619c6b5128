//! `--explain`: reads the host, says what would be done, and ends.
//!
//! There is no namespace to enter and nothing to configure, so there is neither a tap nor a privilege.
//! What is read comes from the host's kernel alone, over a socket that cannot change anything.

use super::{Peer, RunError, read_host};
use pasta_ipc::MonitorToSupervisor;
use pasta_ipc::start::MonitorStart;
use pasta_monitor::explain::explanation;
use pasta_monitor::log::Log;
use pasta_monitor::netlink::Netlink;
use pasta_monitor::peer::ToSupervisor;
use pasta_monitor::policy::Policy;
use std::os::fd::OwnedFd;

/// Answers with what would be done.
pub(super) fn run(
    what: &MonitorStart,
    host_dumps: OwnedFd,
    supervisor: &ToSupervisor,
    log: &Log,
) -> Result<(), RunError> {
    log.set_level(what.log_level);
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_io().enable_time().build().map_err(RunError::Runtime)?;
    runtime.block_on(async {
        let supervisor = Peer::new(supervisor)?;
        let host = Netlink::start(host_dumps);
        let state = read_host(&host, Policy::from(what), log).await?;
        let answer = MonitorToSupervisor::Explained(Box::new(explanation(&state)));
        // If the supervisor is gone, nobody wants to know.
        supervisor.tell(&answer, &[]).await.map(drop)
    })
}
