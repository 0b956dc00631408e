//! A member that was stopped, was replaced meanwhile, and goes on.

use super::*;
use crate::manage::Manage;

const PRIMARY: ReplicaId = ReplicaId(1);
const NEWCOMER: ReplicaId = ReplicaId(3);

fn apart(g: &mut Group, id: ReplicaId, others: &[ReplicaId]) {
    for other in others {
        g.cut.insert((id, *other));
        g.cut.insert((*other, id));
    }
}

/// A pair, of which the one that is not primary hears nobody any more and is replaced; then the primary dies, and both that are left take over.
fn replaced(stopped: ReplicaId) -> Group {
    let mut config = GroupConfig::new([PRIMARY, stopped], Authority::Alone);
    config.takeover = Takeover::MostAdvanced;
    let mut g = Group::of(config);
    g.start(PRIMARY);
    g.start(stopped);
    g.pass(SECOND);
    assert_eq!((g.primary(), g.in_sync()), (PRIMARY, 2));
    assert!(matches!(g.write(PRIMARY, 1), Some(Outcome::Done { .. })));
    // As one that does nothing: it takes no part in anything, and its time does not pass.
    g.nodes.get_mut(&stopped).unwrap().up = false;
    g.pass(SECOND);
    g.start_as(NEWCOMER, Start::Join(Join::full().in_place_of(stopped)));
    g.pass(SECOND);
    assert_eq!(g.in_sync(), 2);
    assert!(matches!(g.write(PRIMARY, 2), Some(Outcome::Done { .. })));
    g.crash(PRIMARY);
    g.pass(SECOND);
    assert_eq!(g.primary(), NEWCOMER);
    assert!(matches!(g.write(NEWCOMER, 3), Some(Outcome::Done { .. })));
    g
}

fn lost(g: &Group, id: ReplicaId) -> Vec<(u64, Option<u64>)> {
    let events = g.nodes[&id].effects.events.iter();
    let told = events.filter_map(|e| match e {
        Event::AcknowledgedWritesLost { from, writes, .. } => Some((from.0, *writes)),
        _ => None,
    });
    told.collect()
}

#[test]
fn it_hears_of_its_replacement_serves_no_more_and_reports_what_it_took_alone() {
    // Its own term ranks below the replacement's, or above.
    for stopped in [ReplicaId(2), ReplicaId(9)] {
        let mut g = replaced(stopped);
        apart(&mut g, stopped, &[NEWCOMER]);
        let node = g.nodes.get_mut(&stopped).unwrap();
        node.up = true;
        node.engine
            .on_hint(g.now, PRIMARY, Hint::Gone, &mut node.effects);
        g.pass(2 * SECOND);
        let serves = |g: &Group, id: ReplicaId| g.nodes[&id].engine.status().serving;
        assert!(
            serves(&g, stopped) && serves(&g, NEWCOMER),
            "{:?}",
            g.statuses()
        );
        for n in [7, 8] {
            assert!(matches!(g.write(stopped, n), Some(Outcome::Done { .. })));
        }
        let first = g.nodes[&stopped].engine.status().last.index.0 - 2;
        g.cut.clear();
        g.pass(2 * SECOND);
        assert!(!serves(&g, stopped) && serves(&g, NEWCOMER));
        let status = g.nodes[&stopped].engine.status();
        assert!(
            status.waiting_for.contains("was removed from the group"),
            "{status:?}"
        );
        assert_eq!(
            lost(&g, stopped),
            [(first, Some(2))],
            "without the entry with which its reign began"
        );
        assert_eq!(g.read(NEWCOMER, Read::Linearizable), Some(vec![1, 2, 3]));
        // It stays so.
        g.pass(SECOND);
        assert!(!serves(&g, stopped));
        assert_eq!(lost(&g, stopped).len(), 1);
    }
}

#[test]
fn one_that_took_nothing_meanwhile_reports_nothing() {
    let stopped = ReplicaId(2);
    let mut g = replaced(stopped);
    let node = g.nodes.get_mut(&stopped).unwrap();
    node.up = true;
    node.engine
        .on_hint(g.now, PRIMARY, Hint::Gone, &mut node.effects);
    g.pass(2 * SECOND);
    assert!(!g.nodes[&stopped].engine.status().serving);
    assert_eq!(lost(&g, stopped), []);
}

#[test]
fn one_that_was_let_in_again_does_not_heed_what_was_said_before() {
    let mut g = Group::new(3, Authority::Alone, crate::Limits::default());
    g.pass(SECOND);
    let (primary, again) = (g.primary(), ReplicaId(3));
    for round in 0..3 {
        g.ask(primary, Op::Manage(Manage::Remove(again)));
        g.pass(SECOND);
        let agreed = g.nodes[&primary].engine.status().configuration.unwrap();
        assert_eq!(agreed.departed.count, round + 1);
        assert_eq!(agreed.departed.latest, [again]);
        g.start_as(again, Start::Join(Join::full()));
        g.pass(SECOND);
        let agreed = g.nodes[&primary].engine.status().configuration.unwrap();
        assert_eq!((agreed.departed.latest.len(), g.in_sync()), (0, 3));
    }
}
