//! Octets on the channels: for each process, the two directions it receives.

use pasta_ipc::codec::{decode, encode};
use pasta_ipc::{
    DatapathToMonitor, DatapathToSupervisor, Message, MonitorToDatapath, MonitorToSupervisor,
    SupervisorToDatapath, SupervisorToMonitor,
};
use std::fmt::Debug;

/// What the monitor may be sent.
///
/// # Panics
///
/// As the other two: if a message that was decoded is none.
pub fn monitor(octets: &[u8]) {
    check::<SupervisorToMonitor>(octets);
    check::<DatapathToMonitor>(octets);
}

/// What the datapath may be sent.
///
/// # Panics
///
/// If a message that was decoded is none.
pub fn datapath(octets: &[u8]) {
    check::<SupervisorToDatapath>(octets);
    check::<MonitorToDatapath>(octets);
}

/// What the supervisor may be sent.
///
/// # Panics
///
/// If a message that was decoded is none.
pub fn supervisor(octets: &[u8]) {
    check::<MonitorToSupervisor>(octets);
    check::<DatapathToSupervisor>(octets);
}

/// A message is within its direction's limits, can be sent on, and arrives as the same message.
pub(crate) fn check<M: Message + PartialEq + Debug>(octets: &[u8]) {
    let Ok(message) = decode::<M>(octets) else { return };
    assert!(octets.len() <= M::LIMIT, "{} octets", octets.len());
    assert!(message.descriptors() <= M::MAX_FDS);
    let mut buffer = vec![0; M::LIMIT];
    let Ok(len) = encode(&message, &mut buffer) else { panic!("cannot be encoded: {message:?}") };
    // Numbers may come in a longer form than they are sent in, never in a shorter one.
    assert!(len <= octets.len(), "grew from {} to {len} octets", octets.len());
    let again = decode::<M>(buffer.get(..len).unwrap_or_default());
    assert_eq!(again.as_ref(), Ok(&message));
}
