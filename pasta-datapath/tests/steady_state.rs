//! What a flow at full speed costs: system calls for each frame, and no allocation at all.

mod fake;
#[path = "steady/flows.rs"]
mod flows;
#[path = "steady/requests.rs"]
mod requests;
#[path = "steady/sys.rs"]
mod sys;

use flows::{Calls, PAYLOAD, Steady};
/// Calls and allocations of `turns` turns, once everything has settled.
fn measured(mut steady: Steady, turns: u64, turn: fn(&mut Steady)) -> (Calls, u64) {
    for _ in 0..100 {
        turn(&mut steady);
    }
    let (calls, allocations) = (steady.calls(), sys::allocations());
    for _ in 0..turns {
        turn(&mut steady);
    }
    let (now, allocated) = (steady.calls(), sys::allocations() - allocations);
    let calls = Calls {
        sends: now.sends - calls.sends,
        rooms: now.rooms - calls.rooms,
        peeks: now.peeks - calls.peeks,
        consumes: now.consumes - calls.consumes,
        frames: now.frames - calls.frames,
        bare: now.bare - calls.bare,
        reads: now.reads - calls.reads,
        octets: now.octets - calls.octets,
    };
    (calls, allocated)
}

#[test]
fn batch_from_the_namespace_costs_a_send_a_look_and_an_acknowledgement() {
    for batch in [1, 4] {
        let (calls, allocated) = measured(Steady::new(100, batch), 1000, Steady::upload);
        let frames = 1000 * batch as u64;
        assert_eq!(calls.octets, frames * PAYLOAD as u64);
        assert_eq!((calls.reads, calls.sends), (frames, 1000));
        assert!(calls.rooms <= 1000 && calls.bare <= 1000, "{calls:?}");
        assert_eq!((calls.peeks, calls.consumes, calls.frames), (0, 0, 0));
        assert_eq!(allocated, 0);
    }
}

#[test]
fn frames_for_the_namespace_cost_one_write_each_and_few_peeks() {
    let (calls, allocated) = measured(Steady::new(100, 1), 1000, Steady::download);
    assert!(calls.octets / calls.frames > PAYLOAD as u64 * 9 / 10, "small frames: {calls:?}");
    assert!(calls.frames >= 1000 * 8, "{calls:?}");
    assert!(calls.peeks * 4 <= calls.frames, "{calls:?}");
    assert!(calls.consumes <= 1000 && calls.reads == 1000, "{calls:?}");
    assert_eq!((calls.sends, calls.rooms, calls.bare), (0, 0, 0), "{calls:?}");
    assert_eq!(allocated, 0);
}

#[test]
fn requests_that_are_answered_allocate_nothing() {
    let mut link = requests::link();
    let before = sys::allocations();
    let answered = (0..1000).map(|_| requests::all_answered(&mut link)).filter(|it| *it).count();
    assert_eq!((answered, sys::allocations() - before), (1000, 0));
}
