//! Who belongs: joining, learners, leaving, removal, replacement.

use super::*;
use crate::config::Ack;
use crate::id::{Configuration, MemberKind};
use crate::manage::Manage;

fn manage(g: &mut Group, at: ReplicaId, manage: Manage) -> Option<Outcome> {
    let ticket = g.ask(at, Op::Manage(manage));
    g.pass(Duration::from_millis(200));
    g.nodes[&at].effects.replies.get(&ticket).cloned()
}

fn configuration(g: &Group) -> Configuration {
    let status = g.nodes[&g.primary()].engine.status();
    status.configuration.expect("a primary has one")
}

fn members(g: &Group) -> Vec<u32> {
    configuration(g).members.keys().map(|id| id.0).collect()
}

fn group(founders: u32, authority: Authority) -> Group {
    let mut g = Group::new(founders, authority, crate::Limits::default());
    g.pass(SECOND);
    g
}

#[test]
fn a_newcomer_joins_catches_up_counts_and_takes_over() {
    for authority in both() {
        let mut g = group(2, authority);
        let first = g.primary();
        for n in 0..10 {
            g.write(first, n);
        }
        let newcomer = ReplicaId(5);
        g.start_as(newcomer, Start::Join(Join::full()));
        g.pass(SECOND);
        assert_eq!(members(&g), [1, 2, 5]);
        assert_eq!(g.in_sync(), 3);
        g.crash(ReplicaId(1));
        g.pass(SECOND);
        g.crash(ReplicaId(2));
        g.pass(SECOND);
        assert_eq!(g.primary(), newcomer);
        assert_eq!(
            g.read(newcomer, Read::Linearizable).map(|v| v.len()),
            Some(10)
        );
    }
}

#[test]
fn a_group_that_is_as_large_as_allowed_lets_nobody_in_but_in_the_place_of_a_dead_member() {
    for authority in both() {
        let limits = crate::Limits {
            members_max: 2,
            ..crate::Limits::default()
        };
        let mut g = Group::new(2, authority, limits);
        g.pass(SECOND);
        let (p, third) = (g.primary(), ReplicaId(5));
        let other = ReplicaId(3 - p.0);
        g.start_as(third, Start::Join(Join::full()));
        g.pass(SECOND);
        assert_eq!(members(&g), [1, 2]);
        let waits = g.nodes[&third].engine.status().waiting_for;
        assert!(waits.contains("as many as allowed"), "{waits}");
        let kind = MemberKind::Learner;
        let added = manage(&mut g, p, Manage::Add { id: third, kind });
        assert!(matches!(added, Some(Outcome::Refused(_))), "{added:?}");

        g.crash(other);
        g.pass(SECOND);
        g.crash(third);
        g.start_as(third, Start::Join(Join::full().in_place_of(other)));
        g.pass(SECOND);
        assert_eq!(members(&g), [p.0, third.0]);
        assert_eq!(g.in_sync(), 2);
    }
}

/// Nobody answers it, because nobody can: that is what it waits for, and not that somebody runs.
#[test]
fn a_newcomer_that_is_heard_and_cannot_be_reached_says_so_and_goes_on_asking() {
    for authority in both() {
        let mut g = group(1, authority);
        let (p, newcomer) = (g.primary(), ReplicaId(5));
        g.cut.insert((p, newcomer));
        g.start_as(newcomer, Start::Join(Join::full()));
        g.pass(SECOND);
        let general = g.nodes[&newcomer].engine.status().waiting_for;
        let now = g.now;
        let node = g.nodes.get_mut(&newcomer).expect("it runs");
        node.engine
            .on_hint(now, p, Hint::Unheard, &mut node.effects);
        g.pass(SECOND);
        let waits = g.nodes[&newcomer].engine.status().waiting_for;
        assert!(waits.contains("cannot reach it to answer"), "{waits}");
        assert!(
            general.is_empty() || general.contains("no primary has answered"),
            "{general}"
        );
        g.cut.clear();
        g.pass(SECOND);
        assert_eq!(members(&g), [1, 5]);
        assert_eq!(g.nodes[&newcomer].engine.status().waiting_for, "");
    }
}

#[test]
fn with_a_fixed_primary_others_come_and_go_and_what_would_take_its_place_is_refused() {
    let home = ReplicaId(2);
    for ack in [Ack::AllInSync, Ack::All, Ack::Primary] {
        let mut config = GroupConfig::new([1, 2, 3].map(ReplicaId), Authority::Alone);
        config.takeover = Takeover::Never { primary: home };
        config.ack = ack;
        let mut g = Group::of(config);
        for id in [1, 2, 3].map(ReplicaId) {
            g.start(id);
        }
        g.pass(SECOND);
        for (request, why) in [
            (Manage::Handover { to: None }, "is fixed"),
            (Manage::Remove(home), "fixed"),
            (
                Manage::Add {
                    id: home,
                    kind: MemberKind::Learner,
                },
                "hand over first",
            ),
        ] {
            let outcome = manage(&mut g, home, request);
            let refused = |o: &Outcome| matches!(o, Outcome::Refused(said) if said.contains(why));
            assert!(outcome.as_ref().is_some_and(refused), "{why}: {outcome:?}");
        }
        let removed = manage(&mut g, home, Manage::Remove(ReplicaId(1)));
        assert!(matches!(removed, Some(Outcome::Managed(_))), "{removed:?}");
        g.start_as(ReplicaId(5), Start::Join(Join::full()));
        g.pass(SECOND);
        assert_eq!(members(&g), [2, 3, 5]);
        assert_eq!(g.in_sync(), 3);
        assert!(matches!(g.write(home, 7), Some(Outcome::Done { .. })));
        assert_eq!(g.primary(), home);
    }
}

#[test]
fn a_newcomer_that_knows_only_a_backup_finds_the_primary() {
    for authority in both() {
        let mut g = group(3, authority);
        let founders = std::mem::replace(&mut g.config.members, [ReplicaId(3)].into());
        g.start_as(ReplicaId(5), Start::Join(Join::full()));
        g.config.members = founders;
        assert_eq!(g.primary(), ReplicaId(1));
        g.pass(SECOND);
        assert_eq!(members(&g), [1, 2, 3, 5]);
    }
}

#[test]
fn a_learner_copies_and_serves_local_reads_but_never_counts_nor_takes_over() {
    for authority in both() {
        let mut g = group(2, authority);
        let first = g.primary();
        let learner = ReplicaId(7);
        g.start_as(learner, Start::Join(Join::learner()));
        g.pass(SECOND);
        assert_eq!(g.in_sync(), 2);
        // It is not waited for.
        for other in [1, 2, u32::MAX].map(ReplicaId) {
            g.cut.insert((learner, other));
        }
        assert!(matches!(g.write(first, 1), Some(Outcome::Done { .. })));
        g.cut.clear();
        g.pass(SECOND);
        assert_eq!(g.read(learner, Read::Local), Some(vec![1]));
        g.crash(ReplicaId(1));
        g.crash(ReplicaId(2));
        g.pass(SECOND * 3);
        let status = g.nodes[&learner].engine.status();
        assert!(!status.serving);
        assert!(
            status.waiting_for.contains("learner never takes over"),
            "{status:?}"
        );
    }
}

#[test]
fn a_learner_that_is_made_a_full_member_counts() {
    for authority in both() {
        let mut g = group(2, authority);
        let (first, id) = (g.primary(), ReplicaId(7));
        g.start_as(id, Start::Join(Join::learner()));
        g.pass(SECOND);
        let kind = MemberKind::Full;
        let said = manage(&mut g, first, Manage::Add { id, kind });
        assert!(matches!(said, Some(Outcome::Managed(_))), "{said:?}");
        g.pass(SECOND);
        assert_eq!(g.in_sync(), 3);
        let kind = MemberKind::Learner;
        let said = manage(&mut g, first, Manage::Add { id, kind });
        let Some(Outcome::Managed(now)) = said else {
            panic!("{said:?}");
        };
        assert_eq!(now.in_sync.len(), 2, "and back in one step");
    }
}

#[test]
fn alone_a_live_member_agrees_that_it_counts_no_more_before_anything_else() {
    let learner = |id| Manage::Add {
        id,
        kind: MemberKind::Learner,
    };
    for change in [learner, Manage::Remove] {
        let mut g = group(2, Authority::Alone);
        let primary = g.primary();
        let other = ReplicaId(3 - primary.0);
        // The primary's disk takes its time, and what is sent meanwhile is no append.
        g.stuck.insert(primary);
        let ticket = g.ask(primary, Op::Manage(change(other)));
        g.pass(SECOND);
        assert_eq!(g.primary(), primary, "nobody takes over");
        assert_eq!(g.in_sync(), 2, "it does not count before it is durable");
        assert_eq!(g.nodes[&primary].effects.replies.get(&ticket), None);
        let agreed = g.nodes[&other].engine.status().configuration.unwrap();
        assert!(!agreed.in_sync.contains_key(&other), "{agreed:?}");
    }
}

#[test]
fn a_stranger_with_nothing_does_not_take_a_live_group_over_by_force() {
    for authority in both() {
        let mut g = group(2, authority);
        let primary = g.primary();
        g.write(primary, 1);
        let before = configuration(&g);
        let stranger = ReplicaId(9);
        g.start_as(stranger, Start::Forced);
        g.pass(SECOND * 2);
        let status = g.nodes[&stranger].engine.status();
        assert!(status.waiting_for.contains("the group lives"), "{status:?}");
        assert_eq!((g.primary(), configuration(&g)), (primary, before));
    }
}

#[test]
fn with_ack_all_a_write_waits_for_a_newcomer_from_the_proposal_on() {
    let mut config = GroupConfig::new([1].map(ReplicaId), Authority::Alone);
    let home = ReplicaId(1);
    config.takeover = Takeover::Never { primary: home };
    config.ack = Ack::All;
    let mut g = Group::of(config);
    g.start(home);
    g.pass(SECOND);
    assert!(matches!(g.write(home, 1), Some(Outcome::Done { .. })));
    // The change and a write become durable at the same time.
    let (now, id) = (g.now, ReplicaId(2));
    let node = g.nodes.get_mut(&home).expect("it runs");
    let kind = MemberKind::Full;
    let asked = [
        (Ticket(90), Op::Manage(Manage::Add { id, kind })),
        (Ticket(91), Op::Plain(encode(&2_u64))),
    ];
    node.engine
        .on_requests(now, Timestamp(1), asked, &mut node.effects);
    g.pass(SECOND);
    let replies = &g.nodes[&home].effects.replies;
    assert!(matches!(
        replies.get(&Ticket(90)),
        Some(Outcome::Managed(_))
    ));
    assert_eq!(replies.get(&Ticket(91)), None, "the newcomer has it not");
    g.start_as(id, Start::Join(Join::full()));
    g.pass(SECOND);
    let replies = &g.nodes[&home].effects.replies;
    assert!(matches!(
        replies.get(&Ticket(91)),
        Some(Outcome::Done { .. })
    ));
}

#[test]
fn a_removed_member_hears_so_stays_outside_and_may_join_again() {
    for authority in both() {
        let mut g = group(3, authority);
        let (first, gone) = (g.primary(), ReplicaId(3));
        let said = manage(&mut g, first, Manage::Remove(gone));
        assert!(matches!(said, Some(Outcome::Managed(_))), "{said:?}");
        assert_eq!(members(&g), [1, 2]);
        let told = |e: &Event| matches!(e, Event::Removed(_));
        assert!(g.nodes[&gone].effects.events.iter().any(told));
        g.pass(SECOND);
        let status = g.nodes[&gone].engine.status();
        assert!(
            status.waiting_for.contains("was removed from the group"),
            "{status:?}"
        );
        assert!(matches!(g.write(first, 1), Some(Outcome::Done { .. })));
        // Also whoever was away while it was removed hears of it, and with nobody else there it does not serve.
        g.start(gone);
        g.pass(SECOND);
        let status = g.nodes[&gone].engine.status();
        assert!(
            status.waiting_for.contains("was removed from the group"),
            "{status:?}"
        );
        g.start_as(gone, Start::Join(Join::full()));
        g.pass(SECOND);
        assert_eq!(members(&g), [1, 2, 3]);
        assert_eq!(g.in_sync(), 3);
    }
}

#[test]
fn a_member_that_was_removed_while_it_was_away_and_is_started_to_join_does_so_at_once() {
    for authority in both() {
        let mut g = group(3, authority);
        let (first, gone) = (g.primary(), ReplicaId(3));
        g.crash(gone);
        g.pass(SECOND * 3);
        let said = manage(&mut g, first, Manage::Remove(gone));
        assert!(matches!(said, Some(Outcome::Managed(_))), "{said:?}");
        assert_eq!(members(&g), [1, 2]);
        g.start_as(gone, Start::Join(Join::full()));
        g.pass(SECOND * 3);
        assert_eq!(members(&g), [1, 2, 3]);
        assert_eq!(g.in_sync(), 3);
        assert!(matches!(g.write(first, 1), Some(Outcome::Done { .. })));
        // Whoever is removed while it runs was not started for that: it stays outside.
        let said = manage(&mut g, first, Manage::Remove(gone));
        assert!(matches!(said, Some(Outcome::Managed(_))), "{said:?}");
        g.pass(SECOND * 3);
        assert_eq!(members(&g), [1, 2]);
        let waits = g.nodes[&gone].engine.status().waiting_for;
        assert!(waits.contains("was removed from the group"), "{waits}");
    }
}

#[test]
fn a_backup_leaves_and_a_primary_hands_over_first() {
    for authority in both() {
        let mut g = group(3, authority);
        let backup = ReplicaId(2);
        let said = manage(&mut g, backup, Manage::Remove(backup));
        assert!(matches!(said, Some(Outcome::Managed(_))), "{said:?}");
        assert_eq!(members(&g), [1, 3]);
        let primary = g.primary();
        let said = manage(&mut g, primary, Manage::Remove(primary));
        assert!(matches!(said, Some(Outcome::Managed(_))), "{said:?}");
        assert_eq!(members(&g), [3]);
        let last = g.primary();
        let said = manage(&mut g, last, Manage::Remove(last));
        assert!(
            matches!(&said, Some(Outcome::Refused(why)) if why.contains("last member")),
            "{said:?}"
        );
        assert!(matches!(g.write(last, 1), Some(Outcome::Done { .. })));
    }
}

#[test]
fn a_newcomer_takes_the_place_of_a_dead_member_but_not_of_a_live_one() {
    for authority in both() {
        let mut g = group(3, authority);
        let old = ReplicaId(3);
        let newcomer = ReplicaId(4);
        g.start_as(newcomer, Start::Join(Join::full().in_place_of(old)));
        g.pass(SECOND);
        assert_eq!(members(&g), [1, 2, 3]);
        let why = g.nodes[&newcomer].engine.status().waiting_for;
        assert!(why.contains("n3 lives"), "{why}");
        g.crash(old);
        g.pass(SECOND);
        assert_eq!(members(&g), [1, 2, 4]);
        assert_eq!(g.in_sync(), 3);
        g.start(old);
        g.pass(SECOND);
        assert_eq!(
            members(&g),
            [1, 2, 4],
            "the replaced one does not come back by itself"
        );
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_the_reason() {
    let mut g = group(2, Authority::Witness);
    let first = g.primary();
    let full = MemberKind::Full;
    let cases = [
        (Manage::Remove(ReplicaId(9)), "n9 is not a member"),
        (
            Manage::Remove(ReplicaId::WITNESS),
            "the witness is no member",
        ),
        (
            Manage::Add {
                id: ReplicaId::WITNESS,
                kind: full,
            },
            "reserved",
        ),
        (
            Manage::Add {
                id: first,
                kind: MemberKind::Learner,
            },
            "hand over first",
        ),
        (
            Manage::Replace {
                dead: ReplicaId(2),
                by: ReplicaId(3),
            },
            "n2 lives",
        ),
    ];
    for (asked, expected) in cases {
        let said = manage(&mut g, first, asked.clone());
        assert!(
            matches!(&said, Some(Outcome::Refused(why)) if why.contains(expected)),
            "{asked:?}: {said:?}"
        );
    }
    assert_eq!(members(&g), [1, 2]);
    let at_backup = manage(&mut g, ReplicaId(2), Manage::Remove(first));
    assert!(matches!(at_backup, Some(Outcome::NotPrimary { .. })));
}

#[test]
fn founders_that_were_given_different_members_do_not_begin() {
    for authority in both() {
        let mut g = Group::empty(2, authority);
        g.start(ReplicaId(1));
        g.config.members.insert(ReplicaId(3));
        g.start(ReplicaId(2));
        g.pass(SECOND * 3);
        assert!(
            g.statuses()
                .iter()
                .all(|s| !s.serving || s.role == Role::Witness)
        );
        let why = g.nodes[&ReplicaId(1)].engine.status().waiting_for;
        assert!(why.contains("n2 was started with other members"), "{why}");
    }
}

#[test]
fn a_member_that_was_away_follows_a_primary_that_is_new_to_it() {
    for authority in both() {
        let mut g = group(3, authority);
        let away = ReplicaId(3);
        g.crash(away);
        g.pass(SECOND);
        let newcomer = ReplicaId(4);
        g.start_as(newcomer, Start::Join(Join::full()));
        g.pass(SECOND);
        for old in [1, 2].map(ReplicaId) {
            let primary = g.primary();
            if old == primary {
                g.ask(primary, Op::Manage(Manage::Handover { to: Some(newcomer) }));
                g.pass(SECOND);
            }
            let primary = g.primary();
            assert!(matches!(
                manage(&mut g, primary, Manage::Remove(old)),
                Some(Outcome::Managed(_))
            ));
        }
        assert_eq!(members(&g), [3, 4]);
        g.start(away);
        g.pass(SECOND * 2);
        assert_eq!(g.in_sync(), 2);
    }
}

/// A founder, one that joined it, and what both have; then the founder's directory is another, empty one.
fn founder_began_anew(takeover: Takeover) -> Group {
    let (founder, joiner) = (ReplicaId(1), ReplicaId(9));
    let mut config = GroupConfig::new([founder], Authority::Alone);
    config.takeover = takeover;
    let mut g = Group::of(config);
    g.start(founder);
    g.pass(SECOND);
    g.start_as(joiner, Start::Join(Join::full()));
    g.pass(SECOND);
    assert_eq!(g.in_sync(), 2);
    g.write(founder, 7);
    g.crash(founder);
    g.start(founder);
    g
}

#[test]
fn a_founder_that_begins_anew_with_nothing_yields_to_the_one_that_has_what_the_group_had() {
    let (founder, joiner) = (ReplicaId(1), ReplicaId(9));
    let mut g = founder_began_anew(Takeover::MostAdvanced);
    g.pass(2 * SECOND);
    assert_eq!(g.primary(), joiner);
    assert_eq!(g.read(joiner, Read::Linearizable), Some(vec![7]));
    // It follows, and is given everything. It took no write, so none is lost.
    assert_eq!(g.in_sync(), 2);
    let lost = |e: &Event| matches!(e, Event::AcknowledgedWritesLost { .. });
    assert!(!g.nodes[&founder].effects.events.iter().any(lost));
    assert_eq!(g.read(founder, Read::Local), Some(vec![7]));
}

#[test]
fn a_founder_that_begins_anew_again_yields_to_the_one_that_has_dropped_it() {
    let (founder, joiner) = (ReplicaId(1), ReplicaId(9));
    for takeover in [Takeover::MostAdvanced, Takeover::OnClientRequest] {
        let mut g = founder_began_anew(takeover);
        g.pass(SECOND);
        g.read(joiner, Read::Linearizable);
        g.pass(2 * SECOND);
        assert_eq!((g.primary(), g.in_sync()), (joiner, 2));
        // Each time the one that reigns has dropped it before: no configuration counts a storage of it any more.
        for written in [8, 9] {
            g.crash(founder);
            g.pass(2 * SECOND);
            assert_eq!(g.in_sync(), 1);
            assert!(matches!(
                g.write(joiner, written),
                Some(Outcome::Done { .. })
            ));
            g.start(founder);
            g.pass(3 * SECOND);
            assert_eq!((g.primary(), g.in_sync()), (joiner, 2));
        }
        assert_eq!(g.read(joiner, Read::Linearizable), Some(vec![7, 8, 9]));
        assert_eq!(g.read(founder, Read::Local), Some(vec![7, 8, 9]));
    }
}

#[test]
fn a_founder_that_began_anew_serves_no_more_and_the_other_one_when_a_client_asks() {
    let (founder, joiner) = (ReplicaId(1), ReplicaId(9));
    // Whomever the client asks: both know that it is the joiner that has the state.
    for asked in [founder, joiner] {
        let mut g = founder_began_anew(Takeover::OnClientRequest);
        // For a moment it serves: nobody has told it.
        g.pass(3 * SECOND);
        let serving: Vec<_> = g.statuses().iter().map(|s| s.serving).collect();
        assert_eq!(serving, [false, false]);
        let told = |id: ReplicaId, what: &str| {
            let says = |e: &Event| matches!(e, Event::Refused(why) if why.contains(what));
            g.nodes[&id].effects.events.iter().any(says)
        };
        assert!(told(founder, "began it anew, with nothing"));
        assert!(told(founder, "n9 has what the group had"));
        assert!(told(joiner, "n1 has begun anew"));
        g.read(asked, Read::Linearizable);
        g.pass(2 * SECOND);
        assert_eq!(g.primary(), joiner);
        assert_eq!(g.read(joiner, Read::Linearizable), Some(vec![7]));
        assert_eq!(g.in_sync(), 2);
    }
}

#[test]
fn what_a_founder_took_that_began_anew_is_reported_as_lost() {
    let (founder, joiner) = (ReplicaId(1), ReplicaId(9));
    let mut g = founder_began_anew(Takeover::MostAdvanced);
    // The joiner has not noticed yet.
    g.cut = [(founder, joiner), (joiner, founder)].into();
    g.pass(SECOND / 4);
    assert!(matches!(g.write(founder, 8), Some(Outcome::Done { .. })));
    g.cut.clear();
    g.pass(2 * SECOND);
    assert_eq!(g.primary(), joiner);
    assert_eq!(g.read(founder, Read::Local), Some(vec![7]));
    // The entry with which its reign began is no write.
    let lost = |e: &Event| {
        let writes = Some(1);
        matches!(e, Event::AcknowledgedWritesLost { writes: told, .. } if *told == writes)
    };
    assert!(g.nodes[&founder].effects.events.iter().any(lost));
}
