//! Two groups of one name: members that begin anew, and what the others make of them.

use super::*;
use crate::id::MemberKind;
use crate::manage::Manage;

const ALL: [ReplicaId; 3] = [ReplicaId(1), ReplicaId(2), ReplicaId(3)];
const FOUNDER: ReplicaId = ALL[0];

/// A founder, two that joined it, and what all have.
fn three() -> Group {
    let mut g = Group::of(GroupConfig::new([FOUNDER], Authority::Alone));
    g.start(FOUNDER);
    g.pass(SECOND);
    for joiner in &ALL[1..] {
        g.start_as(*joiner, Start::Join(Join::full()));
        g.pass(SECOND);
    }
    assert_eq!((g.primary(), g.in_sync()), (FOUNDER, 3));
    assert!(matches!(g.write(FOUNDER, 7), Some(Outcome::Done { .. })));
    g
}

/// It is started with an empty directory, and told of nobody.
fn begin_anew(g: &mut Group, id: ReplicaId) {
    let told_of = std::mem::replace(&mut g.config.members, [id].into());
    g.start(id);
    g.config.members = told_of;
    g.settle();
}

fn events(g: &Group, id: ReplicaId, which: impl Fn(&Event) -> bool) -> usize {
    let events = &g.nodes[&id].effects.events;
    events.iter().filter(|event| which(event)).count()
}

fn told(g: &Group, id: ReplicaId, what: &str) -> bool {
    events(
        g,
        id,
        |e| matches!(e, Event::Refused(why) if why.contains(what)),
    ) > 0
}

fn lost(e: &Event) -> bool {
    matches!(e, Event::AcknowledgedWritesLost { .. })
}

fn serving(g: &Group) -> Vec<ReplicaId> {
    let up = g.nodes.iter().filter(|(_, node)| node.up);
    let serves = up.filter(|(_, node)| node.engine.status().serving);
    serves.map(|(id, _)| *id).collect()
}

#[test]
fn a_member_that_begins_anew_beside_the_others_yields_to_them() {
    for stray in ALL {
        let mut g = three();
        g.crash(stray);
        g.pass(SECOND);
        begin_anew(&mut g, stray);
        // It knows of nobody, and those who reign look for silent members.
        g.pass(SECOND);
        let [server] = serving(&g)[..] else {
            panic!("one serves: {:?}", serving(&g));
        };
        assert_ne!(server, stray);
        assert_eq!((g.primary(), g.in_sync()), (server, 3));
        assert_eq!(g.read(server, Read::Linearizable), Some(vec![7]));
        assert_eq!(g.read(stray, Read::Local), Some(vec![7]));
        assert!(told(&g, stray, "began it anew, with nothing"));
        assert_eq!(events(&g, stray, lost), 0, "it took no writes");
        // Whoever hears of another group says so, once.
        let other = |e: &Event| matches!(e, Event::OtherGroup { .. });
        assert_eq!(events(&g, stray, other), 1);
        // (The founder is the primary that tells the others, or the stray itself.)
        assert_eq!(events(&g, FOUNDER, other), 1);
    }
}

#[test]
fn a_member_that_begins_anew_is_removed_by_nobody_and_removes_nobody() {
    for stray in ALL {
        let mut g = three();
        g.crash(stray);
        begin_anew(&mut g, stray);
        // The others notice that it was away only afterwards.
        g.pass(SECOND);
        let configuration = g.nodes[&g.primary()].engine.status().configuration.unwrap();
        assert!(configuration.members.keys().eq(&ALL), "{configuration:?}");
        for id in ALL {
            let removed = |e: &Event| matches!(e, Event::Removed(_));
            assert_eq!(events(&g, id, removed), 0);
            let rival = |e: &Event| matches!(e, Event::RivalRefused { .. });
            assert_eq!(events(&g, id, rival), 0);
        }
    }
}

#[test]
fn the_data_survive_when_the_one_that_begins_anew_is_up_before_the_others() {
    for stray in ALL {
        let mut g = three();
        for id in ALL {
            g.crash(id);
        }
        begin_anew(&mut g, stray);
        g.pass(SECOND);
        assert_eq!(serving(&g), [stray], "nobody has told it yet");
        assert!(matches!(g.write(stray, 8), Some(Outcome::Done { .. })));
        let others: Vec<_> = ALL.into_iter().filter(|id| *id != stray).collect();
        g.restart(others[0]);
        g.pass(SECOND);
        assert_eq!(serving(&g), [], "all that had the data must be heard");
        g.restart(others[1]);
        g.pass(2 * SECOND);
        assert!(others.contains(&g.primary()));
        assert_eq!(g.read(g.primary(), Read::Linearizable), Some(vec![7]));
        assert_eq!((g.in_sync(), serving(&g).len()), (3, 1));
        assert_eq!(g.read(stray, Read::Local), Some(vec![7]));
        let one = |e: &Event| {
            let (from, writes) = (Index(1), Some(1));
            matches!(e, Event::AcknowledgedWritesLost { from: f, writes: w, .. } if (*f, *w) == (from, writes))
        };
        assert_eq!(events(&g, stray, one), 1, "and what it took is reported");
        assert_eq!(events(&g, stray, lost), 1, "once");
    }
}

#[test]
fn what_a_group_that_was_begun_anew_has_is_given_up_only_with_its_operators_leave() {
    let (stray, others) = (ALL[1], [ALL[0], ALL[2]]);
    let mut g = three();
    for id in ALL {
        g.crash(id);
    }
    g.on_divergence = OnDivergence::Stop;
    begin_anew(&mut g, stray);
    g.pass(SECOND);
    assert!(matches!(g.write(stray, 8), Some(Outcome::Done { .. })));
    for other in others {
        g.restart(other);
    }
    g.pass(2 * SECOND);
    assert_eq!(g.read(g.primary(), Read::Linearizable), Some(vec![7]));
    assert!(others.contains(&g.primary()));
    let status = g.nodes[&stray].engine.status();
    assert!(
        !status.serving && status.waiting_for.contains("both have data"),
        "{status:?}"
    );
    assert_eq!(g.read(stray, Read::Local), None);
    // Also after a restart; until its operator has looked.
    g.crash(stray);
    g.restart(stray);
    g.pass(SECOND);
    assert!(!g.nodes[&stray].engine.status().serving);
    assert_eq!(g.in_sync(), 2);
    g.crash(stray);
    g.on_divergence = OnDivergence::SaveAndRejoin;
    g.restart(stray);
    g.pass(2 * SECOND);
    assert_eq!((g.in_sync(), serving(&g).len()), (3, 1));
    assert_eq!(g.read(stray, Read::Local), Some(vec![7]));
}

#[test]
fn two_that_began_anew_together_yield_to_the_third_that_has_the_data() {
    let (elder, strays) = (ALL[2], [ALL[0], ALL[1]]);
    let mut g = three();
    for id in strays {
        g.crash(id);
        g.pass(SECOND);
    }
    assert_eq!((g.primary(), g.in_sync()), (elder, 1));
    g.write(elder, 9);
    g.crash(elder);
    begin_anew(&mut g, strays[0]);
    g.start_as(strays[1], Start::Join(Join::full()));
    g.pass(SECOND);
    assert_eq!((g.primary(), g.in_sync()), (strays[0], 2));
    g.write(strays[0], 8);
    g.restart(elder);
    g.pass(3 * SECOND);
    assert_eq!((g.primary(), g.in_sync()), (elder, 3));
    for id in ALL {
        assert_eq!(g.read(id, Read::Local), Some(vec![7, 9]));
    }
    for id in strays {
        assert_eq!(events(&g, id, lost), 1);
    }
}

#[test]
fn nobody_gives_up_data_for_a_group_that_has_none_and_says_it_belongs_there() {
    let (empty, full) = (ALL[0], ALL[1]);
    let mut g = Group::of(GroupConfig::new([empty], Authority::Alone));
    g.start(empty);
    begin_anew(&mut g, full);
    g.pass(SECOND);
    g.write(full, 7);
    let (id, kind) = (full, MemberKind::Full);
    g.ask(empty, Op::Manage(Manage::Add { id, kind }));
    g.pass(3 * SECOND);
    assert_eq!(serving(&g), [empty, full], "two groups, and both say so");
    assert_eq!(g.read(full, Read::Linearizable), Some(vec![7]));
    for id in [empty, full] {
        let other = |e: &Event| matches!(e, Event::OtherGroup { .. });
        assert_eq!(events(&g, id, other), 1);
    }
    // Once the other one has data of its own, too, it is for the operator to choose; unless he has.
    g.write(empty, 1);
    g.pass(SECOND);
    assert_eq!(serving(&g), [empty]);
    assert_eq!(events(&g, full, lost), 1);
}

#[test]
fn with_a_witness_nobody_begins_beside_its_register() {
    let mut g = Group::new(3, Authority::Witness, crate::Limits::default());
    g.pass(SECOND);
    let stray = ALL[2];
    g.write(g.primary(), 7);
    g.crash(stray);
    g.pass(SECOND);
    begin_anew(&mut g, stray);
    g.pass(SECOND);
    assert_eq!(g.in_sync(), 3);
    assert_eq!(g.read(stray, Read::Local), Some(vec![7]));
}

/// It is started by force, told of these, and serves.
fn force(g: &mut Group, id: ReplicaId, told_of: &[ReplicaId], empty: bool) {
    // Lives are counted by the clock.
    g.lives += HOUR_MICROS;
    let before = std::mem::replace(&mut g.config.members, told_of.iter().copied().collect());
    if empty {
        g.start_as(id, Start::Forced);
    } else {
        g.restart_as(id, Start::Forced);
    }
    g.config.members = before;
    g.pass(SECOND);
    assert_eq!(serving(g), [id]);
}

const HOUR_MICROS: u64 = 3_600_000_000;

/// What is lost is told, as far as it is known to have counted.
fn given_up(e: &Event) -> bool {
    lost(e)
        || matches!(
            e,
            Event::TailTruncated {
                writes: Some(_),
                ..
            }
        )
}

fn outforced(g: &Group, id: ReplicaId) -> bool {
    told(g, id, "was forced to begin this group anew")
}

#[test]
fn whoever_was_forced_to_begin_with_nothing_is_not_overruled_by_what_it_was_forced_over() {
    for writes in [false, true] {
        let (forced, older) = (ALL[0], [ALL[1], ALL[2]]);
        let mut g = three();
        for id in ALL {
            g.crash(id);
        }
        force(&mut g, forced, &ALL, true);
        if writes {
            assert!(matches!(g.write(forced, 8), Some(Outcome::Done { .. })));
        }
        for id in older {
            g.restart(id);
        }
        g.pass(3 * SECOND);
        assert_eq!((g.in_sync(), serving(&g)), (3, vec![forced]));
        assert_eq!(events(&g, forced, lost), 0);
        let left = if writes { vec![8] } else { vec![] };
        assert_eq!(g.read(forced, Read::Linearizable), Some(left.clone()));
        for id in older {
            assert!(outforced(&g, id), "{id}");
            assert_eq!(events(&g, id, given_up), 1, "{id}");
            assert_eq!(g.read(id, Read::Local), Some(left.clone()));
        }
    }
}

#[test]
fn whoever_was_forced_without_others_is_not_overruled_by_them_and_they_keep_what_they_have() {
    let (forced, older) = (ALL[0], [ALL[1], ALL[2]]);
    for alone in [false, true] {
        let mut g = three();
        if alone {
            // The last one agrees with itself that the others are gone, and serves again as soon as it is started.
            g.crash(ALL[0]);
            g.crash(ALL[2]);
            g.pass(SECOND);
        }
        for id in ALL {
            g.crash(id);
        }
        let data = g.nodes[&older[0]].disk.entries.clone();
        force(&mut g, forced, &[forced], true);
        assert!(matches!(g.write(forced, 8), Some(Outcome::Done { .. })));
        for id in older {
            g.restart(id);
        }
        g.pass(3 * SECOND);
        assert_eq!(serving(&g), [forced], "{alone}");
        assert_eq!(events(&g, forced, lost), 0);
        assert_eq!(g.read(forced, Read::Linearizable), Some(vec![8]));
        let status = g.nodes[&older[0]].engine.status();
        let why = &status.waiting_for;
        assert!(
            why.contains("was forced to begin this group anew, without this replica"),
            "{why}"
        );
        let left = g.nodes[&older[0]].disk.entries.clone();
        assert_eq!(left[..data.len()], data[..], "its data stay");
    }
}

#[test]
fn of_two_that_were_forced_the_later_one_counts() {
    for empty in [false, true] {
        let (first, second) = (ALL[0], ALL[1]);
        let mut g = three();
        for id in ALL {
            g.crash(id);
        }
        force(&mut g, first, &ALL, false);
        for value in [8, 9] {
            assert!(matches!(g.write(first, value), Some(Outcome::Done { .. })));
        }
        g.crash(first);
        force(&mut g, second, &ALL, empty);
        assert!(matches!(g.write(second, 10), Some(Outcome::Done { .. })));
        // It was in sync with nobody, so it serves at once; until it hears of the other one.
        g.restart(first);
        g.pass(3 * SECOND);
        assert_eq!((g.in_sync(), serving(&g)), (2, vec![second]), "{empty}");
        assert_eq!(events(&g, second, lost), 0);
        assert_eq!(events(&g, first, given_up), 1);
        let left = if empty { vec![10] } else { vec![7, 10] };
        for id in [first, second] {
            assert_eq!(g.read(id, Read::Local), Some(left.clone()));
        }
    }
}
