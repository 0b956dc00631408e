//! A log whose bytes differ at an equal index and term is found by its hash, and shipped anew.

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
