#![forbid(unsafe_code)]
//! Who is where on the template's links: the neighbour table of the host, as far as the datapath is to
//! know it. It feeds answers to ARP and neighbour solicitations and is no part of any plan.

use crate::record::{Collect, Neighbour, Record};
use pasta_ipc::types::{Bounded, Generation, MacAddr, NeighbourEntry, NeighbourSnapshot};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Most neighbours that are kept. What is beyond is answered as an unknown one is.
pub const MAX_NEIGHBOURS: usize = 512;

/// The neighbours of the templates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Neighbours {
    links: BTreeSet<u32>,
    table: BTreeMap<(IpAddr, u32), MacAddr>,
}

impl Neighbours {
    /// No neighbour of `links` yet.
    pub fn of(links: BTreeSet<u32>) -> Self {
        Self { links, table: BTreeMap::new() }
    }

    /// The links whose neighbours these are.
    pub fn links(&self) -> &BTreeSet<u32> {
        &self.links
    }

    /// Takes in an event; true if it changed the table.
    pub fn learn(&mut self, neighbour: &Neighbour) -> bool {
        let Neighbour { link, address, mac } = *neighbour;
        if !self.links.contains(&link) || address.is_multicast() {
            return false;
        }
        match mac {
            Some(mac) => {
                let known = self.table.contains_key(&(address, link));
                let room = known || self.table.len() < MAX_NEIGHBOURS;
                room && self.table.insert((address, link), mac) != Some(mac)
            }
            None => self.forget(neighbour),
        }
    }

    /// Adds what `before` had of the same links and this table, of a reading that is not complete, lacks.
    /// Nobody may be thought gone on the strength of such a one.
    pub fn completed_by(&mut self, before: &Self) {
        for (&(address, link), &mac) in &before.table {
            if !self.table.contains_key(&(address, link)) {
                self.learn(&Neighbour { link, address, mac: Some(mac) });
            }
        }
    }

    /// Removes a neighbour; true if it was there.
    pub fn forget(&mut self, neighbour: &Neighbour) -> bool {
        self.table.remove(&(neighbour.address, neighbour.link)).is_some()
    }

    /// The snapshot for the datapath.
    pub fn snapshot(&self, generation: Generation) -> NeighbourSnapshot {
        let entry = |((address, _), mac): (&(IpAddr, u32), &MacAddr)| NeighbourEntry {
            address: *address,
            mac: *mac,
        };
        let (entries, _) = Bounded::truncated(self.table.iter().map(entry));
        NeighbourSnapshot { generation, entries }
    }
}

impl Collect for Neighbours {
    fn take(&mut self, record: Record) {
        if let Record::Neighbour(neighbour) = record {
            self.learn(&neighbour);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::{ip, mac};

    fn at(link: u32, address: &str, last: Option<u8>) -> Neighbour {
        let mac = last.map(|last| mac([2, 0, 0, 0, 0, last]));
        Neighbour { link, address: ip(address), mac }
    }

    #[test]
    fn only_a_change_of_a_templates_neighbour_counts() {
        let mut neighbours = Neighbours::of([2].into());
        assert!(neighbours.learn(&at(2, "192.0.2.1", Some(1))));
        assert!(!neighbours.learn(&at(2, "192.0.2.1", Some(1))), "a state without another address");
        assert!(!neighbours.learn(&at(3, "192.0.2.1", Some(2))), "another link");
        assert!(!neighbours.learn(&at(2, "ff02::1", Some(2))), "a group");
        assert!(neighbours.learn(&at(2, "192.0.2.1", Some(2))));
        assert!(neighbours.learn(&at(2, "192.0.2.1", None)), "it is not believed any more");
        assert!(!neighbours.forget(&at(2, "192.0.2.1", None)));
        assert!(neighbours.learn(&at(2, "fe80::1", Some(1))));
        let snapshot = neighbours.snapshot(Generation(3));
        let [entry] = snapshot.entries.as_slice() else { panic!("{snapshot:?}") };
        assert_eq!((entry.address, snapshot.generation), (ip("fe80::1"), Generation(3)));
    }

    #[test]
    fn a_full_table_takes_no_more_and_still_changes() {
        let mut neighbours = Neighbours::of([2].into());
        for n in 0..600_u32 {
            let address = std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string();
            assert_eq!(neighbours.learn(&at(2, &address, Some(1))), n < 512);
        }
        assert!(neighbours.learn(&at(2, "10.0.0.5", Some(7))));
        assert_eq!(neighbours.snapshot(Generation(1)).entries.as_slice().len(), 512);
    }
}
