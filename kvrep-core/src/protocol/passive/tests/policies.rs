//! What a group chooses: leases, stopped transfers, early visibility, stopping at divergence.

use super::*;
use crate::config::{Ack, Confirm, Takeover, Transfer, Visibility};

/// Three members with what is standard, but for this.
fn three(authority: Authority, choose: impl FnOnce(&mut GroupConfig)) -> Group {
    three_that(OnDivergence::default(), authority, choose)
}

fn three_that(
    on_divergence: OnDivergence,
    authority: Authority,
    choose: impl FnOnce(&mut GroupConfig),
) -> Group {
    let mut config = GroupConfig::new((1..=3).map(ReplicaId), authority);
    choose(&mut config);
    config.validate().unwrap();
    let mut g = Group::of(config);
    g.on_divergence = on_divergence;
    for id in 1..=3 {
        g.start(ReplicaId(id));
    }
    g
}

fn cut_off(g: &mut Group, id: ReplicaId) {
    for other in [1, 2, 3]
        .map(ReplicaId)
        .into_iter()
        .chain([ReplicaId::WITNESS])
    {
        g.cut.insert((id, other));
        g.cut.insert((other, id));
    }
}

fn serving(g: &Group, id: ReplicaId) -> bool {
    g.nodes[&id].engine.status().serving
}

fn linearizable(g: &mut Group, at: ReplicaId) -> Ticket {
    let (read, query) = (Read::Linearizable, encode(&()));
    g.ask(at, Op::Query { read, query })
}

fn reply(g: &Group, at: ReplicaId, ticket: Ticket) -> Option<&Outcome> {
    g.nodes[&at].effects.replies.get(&ticket)
}

// ---- OnDivergence::Stop -----------------------------------------------------------------------------------------

/// A group alone, parted: the old primary and the others have each acknowledged what the other side lacks.
fn parted(then: OnDivergence) -> (Group, ReplicaId, ReplicaId) {
    let mut g = three_that(then, Authority::Alone, |_| ());
    g.pass(SECOND);
    let old = g.primary();
    g.write(old, 1);
    cut_off(&mut g, old);
    g.pass(SECOND * 2);
    assert!(matches!(g.write(old, 2), Some(Outcome::Done { .. })));
    let others = [1, 2, 3].map(ReplicaId);
    let new = others
        .into_iter()
        .find(|id| *id != old && serving(&g, *id))
        .unwrap_or_else(|| panic!("{:#?}", g.statuses()));
    assert!(matches!(g.write(new, 3), Some(Outcome::Done { .. })));
    g.cut.clear();
    g.pass(SECOND * 2);
    (g, old, new)
}

#[test]
fn what_is_lost_is_counted_from_where_the_histories_part() {
    for (common, own, theirs) in [(0, 1, 1), (3, 10, 1), (40, 7, 3), (5, 2, 30), (200, 90, 60)] {
        for then in [OnDivergence::SaveAndRejoin, OnDivergence::Stop] {
            let mut g = three_that(then, Authority::Alone, |_| ());
            g.pass(SECOND);
            let old = g.primary();
            for written in 0..common {
                g.write(old, written);
            }
            g.pass(SECOND);
            cut_off(&mut g, old);
            g.pass(SECOND * 2);
            let others = [1, 2, 3].map(ReplicaId);
            let new = others.into_iter().find(|id| *id != old && serving(&g, *id));
            let new = new.unwrap_or_else(|| panic!("{:#?}", g.statuses()));
            for (at, many) in [(old, own), (new, theirs)] {
                for _ in 0..many {
                    assert!(matches!(g.write(at, 1), Some(Outcome::Done { .. })));
                }
            }
            g.cut.clear();
            g.pass(SECOND * 2);
            let told = |e: &Event| match e {
                Event::AcknowledgedWritesLost { writes, .. } => Some(*writes),
                _ => None,
            };
            let told: Vec<_> = (g.nodes[&old].effects.events.iter())
                .filter_map(told)
                .collect();
            assert_eq!(told, [Some(own)], "{common} {own} {theirs} {then:?}");
        }
    }
}

fn assert_stopped(g: &mut Group, id: ReplicaId) {
    let status = g.nodes[&id].engine.status();
    assert!(status.waiting_for.starts_with("stopped"), "{status:?}");
    assert_eq!((status.role, status.serving), (Role::Seeking, false));
    assert_eq!(g.read(id, Read::Local), None, "it shows nothing");
    let kept: Vec<Bytes> = g.nodes[&id]
        .disk
        .entries
        .iter()
        .filter(|e| e.kind == EntryKind::Command)
        .map(|e| e.payload.clone())
        .collect();
    assert_eq!(kept.len(), 2, "what was refuted is where it was");
}

#[test]
fn a_replica_that_throws_a_refuted_history_away_is_another_member_and_is_added_anew() {
    let (mut g, old, new) = parted(OnDivergence::SaveAndRejoin);
    let renewed = g.nodes[&old].engine.status().store;
    assert_ne!(renewed, g.nodes[&old].store, "not the one that was counted");
    let counts = |g: &Group| {
        let configuration = g.nodes[&new].engine.status().configuration.unwrap();
        assert!(configuration.has(old, renewed), "{configuration:?}");
    };
    counts(&g);
    g.crash(old);
    g.restart(old);
    g.pass(SECOND * 2);
    let again = g.nodes[&old].engine.status().store;
    assert_eq!(again, renewed, "also in its next life");
    counts(&g);
}

#[test]
fn a_refuted_replica_stops_and_stays_stopped_until_it_is_told_to_give_its_history_up() {
    let (mut g, old, new) = parted(OnDivergence::Stop);
    let refused = |e: &&Event| matches!(e, Event::RivalRefused { term } if term.replica == old);
    let told = g.nodes[&new].effects.events.iter().filter(refused).count();
    assert_eq!(told, 1, "whoever reigns tells of the rival, once");
    let lost = |e: &Event| matches!(e, Event::AcknowledgedWritesLost { .. });
    assert_eq!(
        g.nodes[&old]
            .effects
            .events
            .iter()
            .filter(|e| lost(e))
            .count(),
        1
    );
    assert_stopped(&mut g, old);
    assert!(
        matches!(g.write(new, 4), Some(Outcome::Done { .. })),
        "the others go on"
    );

    g.crash(old);
    g.restart(old);
    g.pass(SECOND * 2);
    assert_stopped(&mut g, old);
    assert_eq!(g.in_sync(), 2);

    g.crash(old);
    g.on_divergence = OnDivergence::SaveAndRejoin;
    g.restart(old);
    g.pass(SECOND * 2);
    assert_eq!(g.in_sync(), 3);
    assert_eq!(g.read(old, Read::Local), Some(vec![1, 3, 4]));

    // Nothing of the stop is left behind.
    g.crash(old);
    g.on_divergence = OnDivergence::Stop;
    g.restart(old);
    g.pass(SECOND * 2);
    assert_eq!(g.in_sync(), 3);
}

// ---- Transfer::WorldStopped -------------------------------------------------------------------------------------

#[test]
fn a_joiner_stops_the_world_no_longer_than_it_makes_progress() {
    let limits = crate::Limits {
        snapshot_log_entries: 10,
        retained_entries: 0,
        ..crate::Limits::default()
    };
    for authority in both() {
        let mut g = three(authority, |config| {
            config.limits = limits;
            config.transfer = Transfer::WorldStopped;
        });
        g.pass(SECOND);
        let p = g.primary();
        let away = ReplicaId(if p.0 == 3 { 2 } else { 3 });
        g.crash(away);
        g.pass(SECOND);
        for n in 0..100 {
            assert!(matches!(g.write(p, n), Some(Outcome::Done { .. })), "{n}");
        }
        // It lives and answers, but its disk does nothing.
        g.stuck.insert(away);
        g.start(away);
        let patience = g.config.timing.suspect_after;
        g.pass(patience / 2);
        assert_eq!(g.write(p, 100), Some(Outcome::Busy), "the world is stopped");
        let read = linearizable(&mut g, p);
        assert_eq!(reply(&g, p, read), Some(&Outcome::Busy), "for reads too");
        g.pass(patience);
        assert!(
            matches!(g.write(p, 101), Some(Outcome::Done { .. })),
            "who makes no progress is not waited for"
        );
        g.stuck.clear();
        g.start(away);
        g.pass(SECOND * 2);
        assert_eq!(g.in_sync(), 3);
        assert!(matches!(g.write(p, 102), Some(Outcome::Done { .. })));
        g.pass(SECOND);
        assert_eq!(g.read(away, Read::Local).map(|all| all.len()), Some(102));
    }
}

#[test]
fn the_world_stops_also_for_one_that_needs_no_snapshot_and_goes_on_when_it_is_in_sync() {
    for authority in both() {
        let mut g = three(authority, |config| {
            config.transfer = Transfer::WorldStopped;
        });
        g.pass(SECOND);
        let p = g.primary();
        let away = ReplicaId(if p.0 == 3 { 2 } else { 3 });
        g.crash(away);
        g.pass(SECOND);
        for n in 0..10 {
            assert!(matches!(g.write(p, n), Some(Outcome::Done { .. })), "{n}");
        }
        g.stuck.insert(away);
        g.start(away);
        g.pass(g.config.timing.suspect_after / 2);
        assert_eq!(g.write(p, 10), Some(Outcome::Busy));
        g.stuck.clear();
        g.start(away);
        g.pass(SECOND);
        assert_eq!(g.in_sync(), 3);
        assert!(matches!(g.write(p, 11), Some(Outcome::Done { .. })));
    }
}

// ---- Ack::All -----------------------------------------------------------------------------------------------------

#[test]
fn a_primary_whose_writes_wait_says_for_whom_until_they_go_on() {
    let mut g = three(Authority::Alone, |config| {
        config.ack = Ack::All;
        config.takeover = Takeover::Never {
            primary: ReplicaId(1),
        };
    });
    g.pass(SECOND);
    let says = |g: &Group| g.nodes[&ReplicaId(1)].engine.status().waiting_for;
    assert_eq!(says(&g), "");
    g.crash(ReplicaId(3));
    let awaited = |g: &Group| g.nodes[&ReplicaId(1)].engine.status().awaited;
    assert_eq!(awaited(&g), [].into());
    assert_eq!(g.write(ReplicaId(1), 1), None);
    g.pass(SECOND / 10);
    assert_eq!(awaited(&g), [ReplicaId(3)].into());
    g.pass(SECOND * 3);
    assert!(says(&g).contains("[n3]"), "{}", says(&g));
    assert!(says(&g).contains("remove it"), "{}", says(&g));
    g.start(ReplicaId(3));
    g.pass(SECOND);
    assert_eq!(says(&g), "");
    assert_eq!(awaited(&g), [].into());
    // One that lives and makes nothing durable.
    g.stuck.insert(ReplicaId(2));
    assert_eq!(g.write(ReplicaId(1), 2), None);
    g.pass(SECOND * 3);
    assert!(says(&g).contains("[n2], which answer"), "{}", says(&g));
}

#[test]
fn a_write_that_waits_for_all_waits_for_no_learner() {
    let home = ReplicaId(1);
    let mut g = three(Authority::Alone, |config| {
        config.ack = Ack::All;
        config.takeover = Takeover::Never { primary: home };
    });
    g.pass(SECOND);
    let learner = ReplicaId(7);
    g.start_as(learner, Start::Join(Join::learner()));
    g.pass(SECOND);
    assert!(matches!(g.write(home, 1), Some(Outcome::Done { .. })));
    g.pass(SECOND);
    assert_eq!(g.read(learner, Read::Local), Some(vec![1]), "it copies");
    cut_off(&mut g, learner);
    assert!(matches!(g.write(home, 2), Some(Outcome::Done { .. })));
    cut_off(&mut g, ReplicaId(3));
    assert_eq!(g.write(home, 3), None, "a full member is waited for");
}

// ---- Visibility::OnAppend ---------------------------------------------------------------------------------------

fn shown_early() -> Group {
    let home = ReplicaId(1);
    let mut g = three(Authority::Alone, |config| {
        config.ack = Ack::All;
        config.takeover = Takeover::Never { primary: home };
        config.visibility = Visibility::OnAppend;
    });
    g.pass(SECOND);
    assert_eq!(g.primary(), home);
    g
}

#[test]
fn what_is_shown_early_is_answered_when_all_have_it_and_not_before() {
    let mut g = shown_early();
    let (home, near, far) = (ReplicaId(1), ReplicaId(2), ReplicaId(3));
    g.cut.insert((far, home));
    let first = g.ask(home, Op::Plain(encode(&1_u64)));
    let second = g.ask(home, Op::Plain(encode(&2_u64)));
    for id in [home, near, far] {
        assert_eq!(g.read(id, Read::Local), Some(vec![1, 2]), "{id} shows it");
    }
    assert_eq!(reply(&g, home, first), None);
    assert_eq!(reply(&g, home, second), None);
    g.cut.clear();
    g.pass(SECOND);
    for ticket in [first, second] {
        let answer = reply(&g, home, ticket);
        assert!(matches!(answer, Some(Outcome::Done { .. })), "{answer:?}");
    }
}

#[test]
fn a_write_that_was_shown_but_not_decided_is_kept_over_a_restart_and_its_answer_is_not_made_up() {
    let mut g = shown_early();
    let (home, far) = (ReplicaId(1), ReplicaId(3));
    g.cut.insert((far, home));
    let ticket = g.ask(home, Op::Plain(encode(&1_u64)));
    assert_eq!(g.read(home, Read::Local), Some(vec![1]));
    assert_eq!(reply(&g, home, ticket), None);
    g.crash(home);
    g.cut.clear();
    g.restart(home);
    g.pass(SECOND * 2);
    assert_eq!(g.primary(), home);
    assert_eq!(reply(&g, home, ticket), None, "its life has ended");
    for id in 1..=3 {
        assert_eq!(g.read(ReplicaId(id), Read::Local), Some(vec![1]));
    }
}

#[test]
fn a_replica_that_came_back_without_its_state_shows_nothing_before_the_group_counts_it_again() {
    let mut g = shown_early();
    let (home, far) = (ReplicaId(1), ReplicaId(3));
    assert!(matches!(g.write(home, 1), Some(Outcome::Done { .. })));
    g.crash(far);
    // It hears of the group, and the primary does not hear of it.
    g.cut.insert((far, home));
    g.start(far);
    g.pass(SECOND);
    let heard = g.nodes[&far].engine.status().configuration;
    assert!(heard.is_some_and(|group| group.in_sync.contains_key(&far)));
    assert_eq!(g.read(far, Read::Local), None);
    g.cut.clear();
    g.pass(SECOND * 2);
    assert_eq!(g.read(far, Read::Local), Some(vec![1]));
}

// ---- Confirm::Lease ---------------------------------------------------------------------------------------------

fn leased(authority: Authority) -> (Group, Duration) {
    let length = Duration::from_millis(200);
    let mut g = three(authority, |config| {
        config.confirm = Confirm::Lease {
            length,
            drift_ppm_max: 10_000,
        };
    });
    g.pass(SECOND);
    (g, length)
}

#[test]
fn reads_under_a_lease_send_nothing() {
    for authority in both() {
        let (mut g, length) = leased(authority);
        let p = g.primary();
        g.write(p, 1);
        let sent = g.sent;
        for _ in 0..10 {
            assert_eq!(g.read(p, Read::Linearizable), Some(vec![1]));
        }
        assert_eq!(g.sent, sent, "no round");

        // Without answers the lease runs out, and a read waits for a round.
        cut_off(&mut g, p);
        g.pass(length);
        let ticket = linearizable(&mut g, p);
        assert_eq!(reply(&g, p, ticket), None);
    }
}

#[test]
fn nobody_takes_over_before_the_lease_has_run_out() {
    for authority in both() {
        let (mut g, length) = leased(authority);
        let p = g.primary();
        g.write(p, 1);
        // Its death is seen at once, so that only the lease is waited for.
        g.crash(p);
        // The last grant is at most a heartbeat old.
        let heartbeat = g.config.timing.heartbeat_every;
        g.pass(length - heartbeat - Duration::from_millis(5));
        let others = || (1..=3).map(ReplicaId).filter(|id| *id != p);
        assert!(others().all(|id| !serving(&g, id)), "{:?}", g.statuses());
        g.pass(length);
        assert!(others().any(|id| serving(&g, id)), "{:?}", g.statuses());
    }
}

#[test]
fn a_replica_that_restarted_keeps_what_it_granted_before() {
    let (mut g, length) = leased(Authority::Witness);
    let p = g.primary();
    g.write(p, 1);
    cut_off(&mut g, p);
    // The others see the primary gone and have forgotten their grants with their lives.
    for id in (1..=3).map(ReplicaId).filter(|id| *id != p) {
        g.restart(id);
        let Node {
            engine, effects, ..
        } = g.nodes.get_mut(&id).unwrap();
        engine.on_hint(g.now, p, Hint::Gone, effects);
    }
    let step = Duration::from_millis(5);
    let end = g.now + (length - step);
    while g.now < end {
        g.pass(step);
        let served = (1..=3).map(ReplicaId).filter(|id| serving(&g, *id));
        assert!(
            served.filter(|id| *id != p).count() == 0,
            "{:?}",
            g.statuses()
        );
    }
    g.pass(length * 2);
    assert!((1..=3).map(ReplicaId).any(|id| id != p && serving(&g, id)));
}
