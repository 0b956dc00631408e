//! A log whose bytes differ at an equal index and term is found by its hash, and shipped anew; a fixed primary whose state
//! differs is reported.

use super::*;

/// A command whose bytes stand nowhere else.
const MARKED: u64 = 0xdead_beef_cafe;

fn states(group: &mut Group) -> Vec<Vec<u64>> {
    let read = |id| group.read(ReplicaId(id), Read::Local).unwrap();
    (1..=3).map(read).collect()
}

#[test]
fn an_entry_that_was_altered_on_its_way_is_found_with_the_next_message_and_replaced() {
    for authority in both() {
        let mut g = Group::new(3, authority, crate::Limits::default());
        g.pass(SECOND);
        let p = g.primary();
        let victim = (1..=3).map(ReplicaId).find(|id| *id != p).unwrap();
        g.write(p, 1);
        g.tamper = Some((victim, encode(&MARKED)));
        g.write(p, MARKED);
        assert_eq!(g.tamper, None, "the entry was altered");
        g.pass(SECOND);
        g.write(p, 2);
        g.pass(SECOND);
        assert_eq!(g.in_sync(), 3);
        let all = vec![1, MARKED, 2];
        assert_eq!(states(&mut g), [all.clone(), all.clone(), all]);
        let ends: BTreeSet<_> = (1..=3)
            .map(|id| g.nodes[&ReplicaId(id)].engine.status().last)
            .map(|end| (end.index, end.hash))
            .collect();
        assert_eq!(ends.len(), 1, "{ends:?}");
        let replaced = |event: &Event| matches!(event, Event::TailTruncated { .. });
        let reset = |event: &Event| matches!(event, Event::AcknowledgedWritesLost { .. });
        let events = &g.nodes[&victim].effects.events;
        assert!(events.iter().any(|e| replaced(e) || reset(e)), "{events:?}");
    }
}

/// Nobody may take its place, so it cannot resign. Its operator gives it an empty storage: a regent fills that.
#[cfg(feature = "sim")]
#[test]
fn a_fixed_primary_whose_state_differs_from_all_others_is_reported_and_repaired_by_starting_it_with_nothing()
 {
    let home = ReplicaId(2);
    let mut config = GroupConfig::new([1, 2, 3].map(ReplicaId), Authority::Alone);
    config.takeover = Takeover::Never { primary: home };
    config.limits.digest_every_entries = 5;
    let mut g = Group::of(config);
    for id in [1, 2, 3].map(ReplicaId) {
        g.start(id);
    }
    g.pass(SECOND);
    g.write(home, 1);
    let node = g.nodes.get_mut(&home).unwrap();
    node.engine.disturb(&encode(&MARKED));
    for n in 2..12 {
        g.write(home, n);
        g.pass(SECOND / 10);
    }
    let reports = |g: &Group| {
        let told = g.nodes[&home].effects.events.iter();
        told.filter(|e| matches!(e, Event::StatesDiffer { .. }))
            .count()
    };
    assert!(reports(&g) > 0, "{:?}", g.nodes[&home].effects.events);
    assert_eq!(g.primary(), home, "it goes on, from the state it has");
    assert!(g.read(home, Read::Local).unwrap().contains(&MARKED));

    g.crash(home);
    g.pass(SECOND);
    g.start(home);
    g.pass(3 * SECOND);
    assert_eq!(g.primary(), home);
    let expected: Vec<u64> = (1..12).collect();
    assert_eq!(g.read(home, Read::Linearizable), Some(expected));
    assert_eq!(reports(&g), 0, "this life has nothing to report");
}
