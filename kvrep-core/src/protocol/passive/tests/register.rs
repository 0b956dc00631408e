//! A witness that has lost its register is noticed while nothing needs it.

use super::*;

fn told(g: &Group, id: ReplicaId) -> usize {
    let events = g.nodes[&id].effects.events.iter();
    let lost = |event: &&Event| matches!(event, Event::RegisterLost);
    events.filter(lost).count()
}

#[test]
fn a_witness_that_comes_back_empty_is_noticed_while_everything_works() {
    let mut g = Group::new(3, Authority::Witness, crate::Limits::default());
    g.pass(SECOND);
    let primary = g.primary();
    let waits_for = |g: &Group| g.nodes[&primary].engine.status().waiting_for;
    let (store, disk) = {
        let witness = &g.nodes[&ReplicaId::WITNESS];
        (witness.store, witness.disk.clone())
    };
    g.start(ReplicaId::WITNESS);
    g.pass(SECOND * 5);
    let why = waits_for(&g);
    assert!(why.contains("its register is empty"), "{why}");
    assert!(why.contains("THE WITNESS HAS LOST"), "{why}");
    assert_eq!(told(&g, primary), 1, "said once");
    assert!(matches!(g.write(primary, 1), Some(Outcome::Done { .. })));
    // The directory that it had was somewhere else.
    g.start_with(ReplicaId::WITNESS, store, disk, Start::Normal);
    g.pass(SECOND * 2);
    assert_eq!(waits_for(&g), "");
}

#[test]
fn a_witness_with_an_old_register_is_noticed_by_primaries_and_by_those_who_seek() {
    let mut g = Group::new(3, Authority::Witness, crate::Limits::default());
    g.pass(SECOND);
    let primary = g.primary();
    let old = {
        let witness = &g.nodes[&ReplicaId::WITNESS];
        (witness.store, witness.disk.clone())
    };
    let dead = ReplicaId(if primary.0 == 3 { 2 } else { 3 });
    g.crash(dead);
    g.pass(SECOND);
    assert_eq!(g.in_sync(), 2);
    g.start_with(ReplicaId::WITNESS, old.0, old.1, Start::Normal);
    g.pass(SECOND * 2);
    let why = g.nodes[&primary].engine.status().waiting_for;
    assert!(why.contains("its register is an old one"), "{why}");
    // The old register would let the dropped one take over.
    g.crash(primary);
    g.pass(SECOND * 3);
    for status in g.statuses().iter().filter(|s| s.role != Role::Witness) {
        assert!(!status.serving);
        assert!(
            status.waiting_for.contains("an old copy of its directory"),
            "{}",
            status.waiting_for
        );
    }
}

#[test]
fn a_witness_that_remembers_is_asked_and_nobody_is_alarmed() {
    let mut g = Group::new(3, Authority::Witness, crate::Limits::default());
    g.pass(SECOND);
    for _ in 0..3 {
        let primary = g.primary();
        g.crash(primary);
        g.pass(SECOND);
        g.restart(primary);
        g.pass(SECOND);
    }
    for id in (1..=3).map(ReplicaId) {
        assert_eq!(told(&g, id), 0);
    }
}
