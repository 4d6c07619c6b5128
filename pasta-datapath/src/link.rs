//! What happens on the link and needs no host socket: parsing and classification, ARP and NDP, ICMP errors,
//! and the frames that are written.

pub mod classify;
pub mod icmp_error;
pub mod neighbour;
pub mod writer;

use crate::counters::Counters;
use pasta_ipc::types::MacAddr;
use writer::FrameWriter;

/// Our end of the link.
#[derive(Debug)]
pub struct Link<D> {
    /// What frames are read from and written to.
    pub device: D,
    /// Our link-layer address.
    pub our_mac: MacAddr,
}

impl<D> Link<D> {
    /// Our end of the link that `device` is.
    pub fn new(device: D, our_mac: MacAddr) -> Self {
        Self { device, our_mac }
    }

    /// Lends what frames are written with.
    pub fn writer<'a>(&'a mut self, counters: &'a mut Counters) -> FrameWriter<'a, D> {
        FrameWriter { device: &mut self.device, our_mac: self.our_mac, counters }
    }
}
