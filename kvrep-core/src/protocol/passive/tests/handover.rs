//! Planned handover.

use super::*;
use crate::manage::Manage;

fn handover(g: &mut Group, from: ReplicaId, to: Option<ReplicaId>) -> Ticket {
    g.ask(from, Op::Manage(Manage::Handover { to }))
}

fn reply(g: &Group, at: ReplicaId, ticket: Ticket) -> Option<Outcome> {
    g.nodes[&at].effects.replies.get(&ticket).cloned()
}

#[test]
fn the_chosen_member_takes_over_also_if_it_is_not_the_lowest() {
    for authority in both() {
        let mut g = Group::new(3, authority, crate::Limits::default());
        g.pass(SECOND);
        let (old, to) = (g.primary(), ReplicaId(3));
        assert_eq!(old, ReplicaId(1));
        g.write(old, 1);
        let ticket = handover(&mut g, old, Some(to));
        assert_eq!(g.primary(), to, "no time passes but for messages");
        let Some(Outcome::Managed(configuration)) = reply(&g, old, ticket) else {
            panic!("{:?}", reply(&g, old, ticket));
        };
        assert_eq!(configuration.term.replica, to);
        assert!(matches!(g.write(to, 2), Some(Outcome::Done { .. })));
        g.pass(SECOND * 2);
        assert_eq!(g.primary(), to, "nobody competes afterwards");
        assert_eq!(g.in_sync(), 3);
        assert_eq!(g.read(old, Read::Local), Some(vec![1, 2]));
        let roles = g.nodes[&ReplicaId(2)].effects.events.iter();
        let sought = |e: &&Event| {
            matches!(
                e,
                Event::RoleChanged {
                    role: Role::Seeking,
                    ..
                }
            )
        };
        assert!(
            roles.filter(sought).count() <= 1,
            "the others are not disturbed"
        );
    }
}

#[test]
fn what_is_under_way_is_answered_before_the_primary_steps_down() {
    for authority in both() {
        let mut g = Group::new(3, authority, crate::Limits::default());
        g.pass(SECOND);
        let (old, to) = (g.primary(), ReplicaId(2));
        // The write cannot be acknowledged yet.
        g.cut.insert((ReplicaId(3), old));
        let under_way = g.ask(old, Op::Plain(encode(&1_u64)));
        let asked = handover(&mut g, old, Some(to));
        assert_eq!(reply(&g, old, under_way), None);
        let late = g.ask(old, Op::Plain(encode(&2_u64)));
        let sent_on = Some(Outcome::NotPrimary {
            primary: Some(to),
            address: None,
        });
        assert_eq!(reply(&g, old, late), sent_on);
        g.cut.clear();
        g.pass(Duration::from_millis(150));
        assert!(matches!(
            reply(&g, old, under_way),
            Some(Outcome::Done { .. })
        ));
        assert_eq!(g.primary(), to);
        assert!(matches!(reply(&g, old, asked), Some(Outcome::Managed(_))));
    }
}

#[test]
fn a_handover_that_takes_too_long_is_reported_and_the_primary_reigns_on() {
    let mut g = Group::new(3, Authority::Witness, crate::Limits::default());
    g.pass(SECOND);
    let old = g.primary();
    // Neither can the write be committed nor the silent one be dropped.
    for other in [ReplicaId(3), ReplicaId::WITNESS] {
        g.cut.insert((other, old));
    }
    g.ask(old, Op::Plain(encode(&1_u64)));
    let asked = handover(&mut g, old, Some(ReplicaId(2)));
    g.pass(Duration::from_millis(310));
    let Some(Outcome::Refused(why)) = reply(&g, old, asked) else {
        panic!("{:?}", reply(&g, old, asked));
    };
    assert!(
        why.contains("not everything was committed in time"),
        "{why}"
    );
    g.cut.clear();
    g.pass(SECOND);
    assert_eq!(g.primary(), old);
    assert!(matches!(g.write(old, 2), Some(Outcome::Done { .. })));
}

#[test]
fn a_successor_that_dies_is_passed_over_and_the_operator_hears_of_it() {
    for authority in both() {
        let mut g = Group::new(3, authority, crate::Limits::default());
        g.pass(SECOND);
        let (old, to) = (g.primary(), ReplicaId(3));
        // It hears what it is chosen for, and nobody hears it any more.
        for other in [ReplicaId(1), ReplicaId(2), ReplicaId::WITNESS] {
            g.cut.insert((to, other));
        }
        let asked = handover(&mut g, old, Some(to));
        g.pass(Duration::from_millis(50));
        assert!(g.nodes[&old].engine.status().role == Role::Seeking);
        g.crash(to);
        g.pass(SECOND * 2);
        assert_ne!(g.primary(), to);
        let Some(Outcome::Refused(why)) = reply(&g, old, asked) else {
            panic!("{:?}", reply(&g, old, asked));
        };
        assert!(why.contains("n3 did not take over in time"), "{why}");
    }
}

#[test]
fn a_handover_to_nobody_to_a_stranger_or_from_a_backup_says_so() {
    let mut g = Group::new(2, Authority::Witness, crate::Limits::default());
    g.pass(SECOND);
    let (primary, backup) = (ReplicaId(1), ReplicaId(2));
    let stranger = handover(&mut g, primary, Some(ReplicaId(9)));
    let said = reply(&g, primary, stranger);
    assert!(
        matches!(&said, Some(Outcome::Refused(why)) if why.contains("n9")),
        "{said:?}"
    );
    let at_backup = handover(&mut g, backup, None);
    let said = reply(&g, backup, at_backup);
    assert!(matches!(said, Some(Outcome::NotPrimary { primary: Some(p), .. }) if p == primary));
    let to_itself = handover(&mut g, primary, Some(primary));
    let said = reply(&g, primary, to_itself);
    assert!(
        matches!(said, Some(Outcome::Managed(_))),
        "it is so already"
    );
    g.crash(backup);
    g.pass(SECOND);
    let nobody = handover(&mut g, primary, None);
    let said = reply(&g, primary, nobody);
    assert!(
        matches!(&said, Some(Outcome::Refused(why)) if why.contains("no other replica")),
        "{said:?}"
    );
}
