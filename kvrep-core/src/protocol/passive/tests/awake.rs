//! A replica that did not run for a while listens before it suspects.

use super::*;

impl Group {
    /// A process does not run for this long; the others do.
    fn stop_for(&mut self, id: ReplicaId, time: Duration) {
        self.nodes.get_mut(&id).unwrap().up = false;
        self.pass(time);
        self.nodes.get_mut(&id).unwrap().up = true;
    }

    fn tick(&mut self, id: ReplicaId) {
        let now = self.now;
        let node = self.nodes.get_mut(&id).unwrap();
        node.engine.tick(now, &mut node.effects);
    }

    fn dropped(&self, id: ReplicaId) -> usize {
        let events = &self.nodes[&id].effects.events;
        let dropped = |event: &&Event| matches!(event, Event::Dropped(_));
        events.iter().filter(dropped).count()
    }
}

#[test]
fn a_primary_that_was_stopped_and_replaced_acknowledges_nothing_when_it_wakes() {
    for authority in both() {
        let mut g = Group::new(3, authority, crate::Limits::default());
        g.pass(SECOND);
        let old = g.primary();
        g.stop_for(old, SECOND * 3);
        // Its timers come first, and then what waited at it, before anything that the others have said.
        g.tick(old);
        let outcome = g.write(old, 1);
        assert!(
            !matches!(outcome, Some(Outcome::Done { .. })),
            "{outcome:?}"
        );
        assert_eq!(g.dropped(old), 0, "{authority:?}");
        g.pass(SECOND);
        assert_ne!(g.primary(), old, "{authority:?}");
        let answered = g.nodes[&old].effects.replies.values();
        let done = |outcome: &&Outcome| matches!(outcome, Outcome::Done { .. });
        assert_eq!(answered.filter(done).count(), 0, "{authority:?}");
        g.pass(SECOND);
        assert_eq!(g.in_sync(), 3, "{authority:?}");
    }
}

#[test]
fn a_group_that_slept_as_a_whole_goes_on_as_it_was() {
    for authority in both() {
        let mut g = Group::new(3, authority, crate::Limits::default());
        g.pass(SECOND);
        let (primary, term) = (g.primary(), g.statuses()[0].term);
        // As when the lid of a machine is closed on all of them.
        g.now = g.now + SECOND * 3_600;
        for id in [primary].into_iter().chain((1..=3).map(ReplicaId)) {
            g.tick(id);
        }
        g.pass(SECOND);
        assert_eq!((g.primary(), g.statuses()[0].term), (primary, term));
        assert_eq!(g.dropped(primary), 0, "{authority:?}");
        assert!(matches!(g.write(primary, 1), Some(Outcome::Done { .. })));
    }
}

#[test]
fn a_replica_that_is_always_late_notices_a_dead_member_all_the_same() {
    let mut g = Group::new(2, Authority::Alone, crate::Limits::default());
    g.pass(SECOND);
    let primary = g.primary();
    g.nodes.get_mut(&ReplicaId(3 - primary.0)).unwrap().up = false;
    let suspect_after = g.config.timing.suspect_after;
    for late in 0..20 {
        if g.dropped(primary) > 0 {
            assert!(late > 1, "it is given a fresh period first");
            return;
        }
        g.now = g.now + suspect_after;
        g.tick(primary);
        g.settle();
    }
    panic!("never dropped");
}

#[test]
fn a_member_that_was_not_counted_on_is_not_revived_by_a_sleep() {
    let mut g = Group::new(3, Authority::Witness, crate::Limits::default());
    g.pass(SECOND);
    let primary = g.primary();
    let dead = ReplicaId(if primary.0 == 3 { 2 } else { 3 });
    g.crash(dead);
    g.pass(SECOND);
    assert_eq!(g.in_sync(), 2);
    let view = g.nodes[&primary].engine.status().view;
    g.now = g.now + SECOND;
    g.tick(primary);
    g.settle();
    assert_eq!(g.nodes[&primary].engine.status().view, view);
}
