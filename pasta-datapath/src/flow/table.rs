//! The table of flows: the only owner of each; everyone else holds a [`FlowId`]. It also knows which flow of each
//! [`Group`] was idle longest: those of a group are in a list in the order in which they were touched.

use super::evict::Group;
use super::{FlowId, FlowKey};
use crate::time::Instant;
use std::collections::HashMap;

/// No slot.
const NONE: u32 = u32::MAX;

/// Flows by name and by key, up to a bound.
#[derive(Debug)]
pub struct FlowTable<F> {
    slots: Vec<Slot<F>>,
    free: Vec<u32>,
    /// Keys come from the namespace; the map's hash is keyed, so that they cannot be made to collide.
    by_key: HashMap<FlowKey, FlowId>,
    count: usize,
    limit: usize,
    lists: [List; Group::COUNT],
}

/// The flows of a group.
#[derive(Clone, Copy, Debug)]
struct List {
    /// Slots of those touched longest ago and last.
    oldest: u32,
    newest: u32,
    count: usize,
}

#[derive(Debug)]
struct Slot<F> {
    life: u32,
    group: Group,
    /// The slots of the group touched before this one and after it.
    older: u32,
    newer: u32,
    touched: Instant,
    /// No key: frames never find it.
    flow: Option<(Option<FlowKey>, F)>,
}

/// The table holds as many flows as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl<F> FlowTable<F> {
    /// An empty table for at most `limit` flows (less than 2^32).
    pub fn new(limit: usize) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::new(),
            count: 0,
            limit,
            lists: [List { oldest: NONE, newest: NONE, count: 0 }; Group::COUNT],
        }
    }

    /// How many flows there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Most flows.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Whether no flow can be added.
    pub fn is_full(&self) -> bool {
        self.len() >= self.limit
    }

    /// The flow that a frame with `key` belongs to.
    pub fn find(&self, key: &FlowKey) -> Option<FlowId> {
        self.by_key.get(key).copied()
    }

    /// The name that the next [`FlowTable::insert`] gives.
    pub fn next_id(&self) -> FlowId {
        match self.free.last() {
            Some(&index) => {
                let life = self.slots.get(index as usize).map_or(0, |slot| slot.life);
                FlowId { index, life }
            }
            None => FlowId { index: u32::try_from(self.slots.len()).unwrap_or(u32::MAX), life: 0 },
        }
    }

    /// Adds a flow; one with the same key is replaced and given back.
    ///
    /// # Errors
    ///
    /// [`Full`].
    pub fn insert(&mut self, key: FlowKey, flow: F) -> Result<(FlowId, Option<F>), Full> {
        let old = self.find(&key).and_then(|id| self.remove(id));
        let id = self.add(Some(key), flow)?;
        self.by_key.insert(key, id);
        Ok((id, old))
    }

    /// Adds a flow that has no frames.
    ///
    /// # Errors
    ///
    /// [`Full`].
    pub fn insert_nameless(&mut self, flow: F) -> Result<FlowId, Full> {
        self.add(None, flow)
    }

    fn add(&mut self, key: Option<FlowKey>, flow: F) -> Result<FlowId, Full> {
        if self.is_full() {
            return Err(Full);
        }
        let id = self.next_id();
        match self.free.pop().and_then(|index| self.slots.get_mut(index as usize)) {
            Some(slot) => (slot.group, slot.flow) = (Group::default(), Some((key, flow))),
            None => {
                let flow = Some((key, flow));
                let (older, newer, touched) = (NONE, NONE, Instant::START);
                let group = Group::default();
                self.slots.push(Slot { life: 0, group, older, newer, touched, flow });
            }
        }
        self.count += 1;
        self.link(id.index);
        Ok(id)
    }

    /// The list that slot `index` is in.
    fn list_of(&mut self, index: u32) -> Option<&mut List> {
        let group = self.slots.get(index as usize)?.group;
        self.lists.get_mut(group.index())
    }

    /// Puts slot `index` at the end of its list.
    fn link(&mut self, index: u32) {
        let Some(list) = self.list_of(index) else { return };
        list.count += 1;
        let before = std::mem::replace(&mut list.newest, index);
        if before == NONE {
            list.oldest = index;
        }
        if let Some(slot) = self.slots.get_mut(before as usize) {
            slot.newer = index;
        }
        if let Some(slot) = self.slots.get_mut(index as usize) {
            (slot.older, slot.newer) = (before, NONE);
        }
    }

    /// Takes slot `index` out of its list.
    fn unlink(&mut self, index: u32) {
        let Some(slot) = self.slots.get(index as usize) else { return };
        let (older, newer) = (slot.older, slot.newer);
        if let Some(list) = self.list_of(index) {
            list.count = list.count.saturating_sub(1);
            if older == NONE {
                list.oldest = newer;
            }
            if newer == NONE {
                list.newest = older;
            }
        }
        if let Some(slot) = self.slots.get_mut(older as usize) {
            slot.newer = newer;
        }
        if let Some(slot) = self.slots.get_mut(newer as usize) {
            slot.older = older;
        }
    }

    /// Puts flow `id` into `group`, as the one touched last if it was in another one.
    #[inline]
    pub fn set_group(&mut self, id: FlowId, group: Group) {
        let Some(slot) = self.slots.get(id.index as usize) else { return };
        if slot.group == group || slot.life != id.life || slot.flow.is_none() {
            return;
        }
        self.unlink(id.index);
        if let Some(slot) = self.slots.get_mut(id.index as usize) {
            slot.group = group;
        }
        self.link(id.index);
    }

    /// How many flows there are in `group`.
    pub fn count_of(&self, group: Group) -> usize {
        self.lists.get(group.index()).map_or(0, |list| list.count)
    }

    /// Notes that flow `id` was active.
    pub fn touch(&mut self, now: Instant, id: FlowId) {
        let Some(slot) = self.slots.get_mut(id.index as usize) else { return };
        if slot.life != id.life || slot.flow.is_none() {
            return;
        }
        slot.touched = now;
        if slot.newer != NONE {
            self.unlink(id.index);
            self.link(id.index);
        }
    }

    /// The flow that a frame with `key` belongs to; with `used` it was active at that time.
    #[inline]
    pub fn look_up(&mut self, key: &FlowKey, used: Option<Instant>) -> Option<(FlowId, &mut F)> {
        let id = self.find(key)?;
        if let Some(now) = used {
            self.touch(now, id);
        }
        Some((id, self.get_mut(id)?))
    }

    /// The flow of `group` that was touched longest ago, with when that was.
    pub fn oldest_of(&self, group: Group) -> Option<(FlowId, Instant)> {
        let index = self.lists.get(group.index())?.oldest;
        let slot = self.slots.get(index as usize)?;
        Some((FlowId { index, life: slot.life }, slot.touched))
    }

    /// The flows that have a key for which `is_wanted`.
    pub fn of_keys(&self, is_wanted: impl Fn(&FlowKey) -> bool) -> Vec<FlowId> {
        let ids = (0..).zip(&self.slots).filter_map(|(index, slot)| {
            let key = slot.flow.as_ref()?.0.as_ref()?;
            is_wanted(key).then_some(FlowId { index, life: slot.life })
        });
        ids.collect()
    }

    /// Flows from slot `from` on, of `most` slots.
    pub fn slice(&self, from: usize, most: usize) -> impl Iterator<Item = (Option<FlowKey>, &F)> {
        let slots = self.slots.iter().skip(from).take(most);
        slots.filter_map(|slot| slot.flow.as_ref().map(|(key, flow)| (*key, flow)))
    }

    /// How many slots there are.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// All flows, in no order of interest.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut F> {
        self.slots.iter_mut().filter_map(|slot| slot.flow.as_mut().map(|(_, flow)| flow))
    }

    /// The flow `id`, unless it is gone.
    pub fn get_mut(&mut self, id: FlowId) -> Option<&mut F> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.life != id.life {
            return None;
        }
        slot.flow.as_mut().map(|(_, flow)| flow)
    }

    /// Takes the flow `id` out.
    pub fn remove(&mut self, id: FlowId) -> Option<F> {
        let slot = self.slots.get_mut(id.index as usize)?;
        if slot.life != id.life {
            return None;
        }
        let (key, flow) = slot.flow.take()?;
        // A name would be taken for an old one again after so many flows in this slot.
        slot.life = if slot.life < FlowId::MAX_LIFE { slot.life + 1 } else { 0 };
        if let Some(key) = key {
            self.by_key.remove(&key);
        }
        self.count -= 1;
        self.unlink(id.index);
        self.free.push(id.index);
        Some(flow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::evict::{Opener, Stage, Takes};
    use crate::nat::Protocol;

    fn key(port: u16) -> FlowKey {
        FlowKey {
            protocol: Protocol::Tcp,
            namespace: ([192, 0, 2, 7], port).into(),
            remote: ([198, 51, 100, 1], 80).into(),
        }
    }

    #[test]
    fn old_name_does_not_find_the_next_flow_in_its_place() {
        let mut table = FlowTable::new(8);
        let (first, _) = table.insert(key(1), "first").unwrap();
        assert_eq!(table.remove(first), Some("first"));
        let (second, _) = table.insert(key(2), "second").unwrap();
        assert_ne!(first, second);
        assert_eq!(table.get_mut(first), None);
        assert_eq!(table.remove(first), None);
        assert_eq!(table.get_mut(second), Some(&mut "second"));
        assert_eq!(table.find(&key(1)), None);
        assert_eq!(FlowId::from_token(second.as_token()), second);
    }

    #[test]
    fn next_name_is_the_one_that_is_given() {
        let mut table = FlowTable::new(8);
        for port in 1..5 {
            let id = table.next_id();
            assert_eq!(table.insert(key(port), port).unwrap().0, id);
        }
        table.remove(table.find(&key(2)).unwrap());
        let id = table.next_id();
        assert_eq!(table.insert(key(9), 9).unwrap().0, id);
    }

    #[test]
    fn bound_is_kept_and_same_key_replaces() {
        let mut table = FlowTable::new(2);
        table.insert(key(1), 1).unwrap();
        table.insert(key(2), 2).unwrap();
        assert_eq!(table.insert(key(3), 3), Err(Full));
        let (_, old) = table.insert(key(2), 4).unwrap();
        assert_eq!((old, table.len()), (Some(2), 2));
    }

    /// The flows of `group` in order, taken out one after the other.
    fn drained(table: &mut FlowTable<u16>, group: Group) -> Vec<(u16, Instant)> {
        let mut listed = Vec::new();
        while let Some((id, at)) = table.oldest_of(group) {
            listed.push((table.remove(id).unwrap(), at));
            assert!(listed.len() < 100, "a ring");
        }
        listed
    }

    #[test]
    fn flows_of_a_group_are_listed_in_the_order_they_were_touched() {
        let mut table = FlowTable::new(8);
        let mut id = |port| table.insert(key(port), port).unwrap().0;
        let ids = [id(0), id(1), id(2), id(3), id(4)];
        let at = Instant::from_nanos;
        for (when, which) in [(1, 2), (2, 0), (3, 3), (4, 0), (5, 0), (6, 4)] {
            table.touch(at(when), ids[which]);
        }
        let other = Group { opener: Opener::Host, stage: Stage::TwoWay, takes: Takes::Port };
        for which in [4, 3, 4] {
            table.set_group(ids[which], other);
        }
        assert_eq!((table.count_of(Group::default()), table.count_of(other)), (3, 2));
        table.remove(ids[2]);
        table.touch(at(9), ids[2]);
        table.set_group(ids[2], other);
        assert_eq!(drained(&mut table, other), [(4, at(6)), (3, at(3))]);
        assert_eq!(drained(&mut table, Group::default()), [(1, at(0)), (0, at(5))]);
        assert!(table.is_empty());
        let again = table.insert(key(9), 9).unwrap().0;
        assert_eq!(table.oldest_of(Group::default()).map(|(id, _)| id), Some(again));
    }
}
