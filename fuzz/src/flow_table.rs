//! The flow table against a list that is searched from front to back.

use crate::input::Input;
use pasta_datapath::flow::table::{FlowTable, Full};
use pasta_datapath::flow::{FlowId, FlowKey};
use pasta_datapath::nat::Protocol;

/// Steps taken of one input; the list makes each of them cost as many.
const STEPS: u16 = 1024;

/// A flow that the list has.
#[derive(Clone, Copy)]
struct Entry {
    key: FlowKey,
    id: FlowId,
    value: u16,
}

/// Reads `octets` as a bound and then as operations.
///
/// # Panics
///
/// If table and list differ, or a name is given twice.
pub fn check(octets: &[u8]) {
    let mut input = Input::new(octets);
    let limit = usize::from(input.octet() % 12);
    let mut table = FlowTable::new(limit);
    let mut list: Vec<Entry> = Vec::new();
    let mut given: Vec<FlowId> = Vec::new();
    for value in 0..STEPS {
        if input.is_empty() {
            break;
        }
        match input.octet() % 4 {
            0 | 1 => insert(&mut table, &mut list, &mut given, limit, key(&mut input), value),
            2 => {
                let Some(&id) = given.get(usize::from(input.octet())) else { continue };
                let at = list.iter().position(|entry| entry.id == id);
                let expected = at.map(|at| list.remove(at).value);
                assert_eq!(table.remove(id), expected);
                assert_eq!(table.get_mut(id), None);
            }
            _ => {
                let key = key(&mut input);
                let entry = list.iter().find(|entry| entry.key == key).copied();
                assert_eq!(table.find(&key), entry.map(|entry| entry.id));
            }
        }
        assert_eq!((table.len(), table.is_empty()), (list.len(), list.is_empty()));
        assert_eq!(table.is_full(), list.len() >= limit);
    }
    for id in given {
        let mut expected = list.iter().find(|entry| entry.id == id).map(|entry| entry.value);
        assert_eq!(table.get_mut(id), expected.as_mut());
        assert_eq!(FlowId::from_token(id.as_token()), id);
    }
}

fn insert(
    table: &mut FlowTable<u16>,
    list: &mut Vec<Entry>,
    given: &mut Vec<FlowId>,
    limit: usize,
    key: FlowKey,
    value: u16,
) {
    let replaced = list.iter().position(|entry| entry.key == key);
    let next = table.next_id();
    let inserted = table.insert(key, value);
    if replaced.is_none() && list.len() >= limit {
        assert_eq!(inserted, Err(Full));
        return;
    }
    let old = replaced.map(|at| list.remove(at));
    let Ok((id, given_back)) = inserted else { panic!("full with {} of {limit}", list.len()) };
    assert_eq!(given_back, old.map(|entry| entry.value));
    assert!(!given.contains(&id), "{id:?} is given a second time");
    if old.is_none() {
        assert_eq!(id, next, "the next name was another one");
    }
    given.push(id);
    list.push(Entry { key, id, value });
}

/// One of few keys, so that they meet.
fn key(input: &mut Input<'_>) -> FlowKey {
    let octet = input.octet();
    let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Echo][usize::from(octet % 3)];
    let namespace = ([192, 0, 2, 7], u16::from(octet / 3 % 4)).into();
    let remote = ([198, 51, 100, octet / 12 % 2], 80).into();
    FlowKey { protocol, namespace, remote }
}
