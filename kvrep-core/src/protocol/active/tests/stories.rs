//! Bugs that random faults show too rarely: each story ends well without the bug, and not with it.

use super::*;

#[test]
fn a_group_begins_once_and_each_request_is_answered_by_its_owner() {
    let mut group = Group::serving(3, None);
    let began = group
        .events
        .iter()
        .filter(|(_, event)| matches!(event, Event::Began { .. }));
    assert_eq!(began.count(), 1);
    for (hash, name) in [(0, "zero"), (1, "one"), (2, "two"), (300, "three hundred")] {
        group.ask(hash, name);
    }
    group.run(Duration::from_millis(50));
    let owners: Vec<_> = group.answers.iter().map(|(r, _)| *r).collect();
    assert_eq!(owners.len(), 4);
    assert_eq!(
        group
            .answers
            .iter()
            .find(|(_, name)| name == "three hundred")
            .unwrap()
            .0,
        0
    );
    assert_eq!(group.status(0).chain, group.status(2).chain);
}

#[test]
fn whoever_watches_has_heard_of_a_life_before_it_serves() {
    let mut group = Group::serving(3, None);
    for incarnation in 2..6 {
        group.start(1, incarnation, None);
        group.until("it serves again", |group| group.serves(1));
    }
    assert!(group.ready.len() >= 6, "{:?}", group.ready);
    assert!(
        group.ready.iter().all(|(_, heard)| *heard),
        "{:?}",
        group.ready
    );
}

#[test]
fn the_next_in_the_ring_answers_for_a_dead_one_and_gives_its_slots_back() {
    let mut group = Group::serving(3, None);
    group.replicas[1] = None;
    group.ask(1, "while it is dead");
    group.until("the substitute answers", |group| {
        group.answered("while it is dead") == 1
    });
    assert_eq!(group.answers.last().unwrap().0, 2);
    group.start(1, 2, None);
    group.until("it serves again", |group| group.serves(1));
    group.ask(1, "afterwards");
    group.run(Duration::from_millis(50));
    assert_eq!(group.answers.last(), Some(&(1, "afterwards".into())));
}

#[test]
fn the_last_one_serving_goes_on_when_it_is_declared_dead() {
    catches(Mutation::LastFencedAtOnce, |mutation| {
        let mut group = Group::serving(2, mutation);
        group.replicas[1] = None;
        group.run(Duration::from_secs(1));
        group.say(Item::Failed {
            replica: ReplicaId(0),
            life: None,
            seen_at: Timestamp(0),
        });
        group.ask(1, "who is there?");
        group.run(Duration::from_millis(100));
        group.answered("who is there?") == 1
    });
}

#[test]
fn a_decision_about_a_mark_from_before_the_last_decision_is_void() {
    catches(Mutation::DecisionOnOldMark, |mutation| {
        let mut group = Group::serving(3, mutation);
        group.ask(0, "something happens");
        group.run(Duration::from_secs(3));
        let mark = group
            .stream
            .iter()
            .rev()
            .find(|item| matches!(item.item, Item::Mark { .. }));
        let mark = mark
            .and_then(|mark| mark.stamp)
            .expect("histories are compared");
        let claim = *group.replicas[0]
            .as_ref()
            .unwrap()
            .marks
            .mine(mark)
            .unwrap();
        let all: Vec<_> = (0..3)
            .map(|r| (ReplicaId(r), group.status(r as usize).life))
            .collect();
        let decision = |listed| Decision {
            number: 1,
            mark,
            known: 0,
            at: claim.at,
            chain: claim.chain,
            listed,
        };
        group.say(Item::Decision(decision(all.clone())));
        group.say(Item::Decision(decision(all[..1].to_vec())));
        group.run(Duration::from_millis(100));
        (0..3).all(|r| group.status(r).decisions == 1 && group.status(r).serving)
    });
}

#[test]
fn of_two_beginnings_the_first_in_the_stream_counts() {
    catches(Mutation::GenesisNotFirst, |mutation| {
        let mut group = Group::started(2, mutation);
        // (Twice `genesis_after` is over soon, counted from where they have listened.)
        group.run(Duration::from_millis(3_050));
        group.lagging = BTreeSet::from([0, 1]);
        let begins = |item: &&Published| matches!(item.item, Item::Genesis { .. });
        group.until("both want to begin", |group| {
            group.stream.iter().filter(begins).count() == 2
        });
        group.lagging.clear();
        group.run(Duration::from_secs(10));
        let began = group
            .events
            .iter()
            .filter(|(_, event)| matches!(event, Event::Began { .. }));
        began.count() == 1
            && group.serves(0)
            && group.serves(1)
            && group.status(0).chain == group.status(1).chain
    });
}

#[test]
fn a_beginning_that_was_published_before_a_gap_counts_for_nothing_behind_it() {
    catches(Mutation::JoinsOverGap, |mutation| {
        let mut group = Group::started(2, mutation);
        group.run(Duration::from_millis(3_050));
        group.lagging = BTreeSet::from([0, 1]);
        let begins = |item: &Published| matches!(item.item, Item::Genesis { .. });
        group.until("both want to begin", |group| {
            group.stream.iter().filter(|item| begins(item)).count() == 2
        });
        // The first beginning does not reach the second one, which is told that it may have missed something.
        let first = group.stream.iter().position(begins).expect("it is there");
        group.gaps.insert((1, first));
        group.drive(
            1,
            Box::new(|active, now, out| active.on_stream_reset(now, Timestamp(0), out)),
        );
        group.lagging.clear();
        group.run(Duration::from_secs(10));
        let began = |(_, event): &&(usize, Event)| matches!(event, Event::Began { .. });
        group.events.iter().filter(began).count() == 1 && group.serves(0) && group.serves(1)
    });
}

#[test]
fn whoever_hears_of_a_beginning_does_not_begin_before_it_has_waited_for_that_one() {
    let mut group = Group::new(2, 1);
    group.start(1, 1, None);
    let announces = |group: &Group| {
        let is_one = |item: &&Published| matches!(item.item, Item::Announce { .. });
        group.stream.iter().filter(is_one).count()
    };
    group.until("it announces itself a third time", |group| {
        announces(group) == 3
    });
    // What stands before its next announcement reaches it so late that it would begin by itself soon.
    group.lagging.insert(1);
    let began = Item::Genesis {
        replica: ReplicaId(0),
        life: Life {
            incarnation: Incarnation(1),
            attempt: 1,
        },
        from: Index::ZERO,
    };
    group.say(began);
    group.until("it announces itself again", |group| announces(group) == 4);
    while group.now < Time::ZERO + Duration::from_millis(3_050) {
        group.step();
    }
    group.lagging.clear();
    group.run(Duration::from_secs(2));
    let own = |item: &Published| {
        matches!(
            item.item,
            Item::Genesis {
                replica: ReplicaId(1),
                ..
            }
        )
    };
    assert!(!group.stream.iter().any(own), "it waits for the first");
    group.until("nobody came", |group| group.stream.iter().any(own));
}

#[test]
fn a_newcomer_answers_what_its_substitute_still_owed() {
    catches(Mutation::DebtsNotHandedOver, |mutation| {
        let mut group = Group::serving(3, mutation);
        group.replicas[1] = None;
        group.run(Duration::from_secs(1));
        group.mute.insert(2);
        group.ask(1, "owed");
        group.run(Duration::from_millis(100));
        group.start(1, 2, mutation);
        group.until("it serves again", |group| group.serves(1));
        group.replicas[2] = None;
        group.run(Duration::from_secs(2));
        group.answered("owed") == 1
    });
}

#[test]
fn what_a_replica_has_received_and_not_answered_is_answered_by_the_next() {
    catches(Mutation::ReceivedForAnswered, |mutation| {
        let mut group = Group::serving(3, mutation);
        group.mute.insert(1);
        group.ask(1, "received");
        group.run(Duration::from_millis(200));
        group.replicas[1] = None;
        group.run(Duration::from_secs(2));
        group.answered("received") == 1
    });
}

#[test]
fn nobody_decides_by_itself_whose_history_counts() {
    catches(Mutation::DecidedAlone, |mutation| {
        let mut group = Group::serving(3, mutation);
        // Something reaches one of them only, and it is not heard what the other one has.
        let stray = Published {
            stamp: None,
            item: Item::Unreadable,
        };
        group.deliver(2, stray);
        group.lost = BTreeSet::from([(1, 0), (1, 2)]);
        group.ask(0, "a reason for a mark");
        group.run(Duration::from_millis(250));
        group.lost.clear();
        group.run(Duration::from_secs(10));
        let fenced: BTreeSet<_> = (group.events.iter())
            .filter(|(_, event)| matches!(event, Event::Fenced { .. }))
            .map(|(r, _)| *r)
            .collect();
        fenced == BTreeSet::from([2]) && (0..3).all(|r| group.serves(r))
    });
}

#[test]
fn whoever_missed_its_own_failure_is_told() {
    let mut group = Group::serving(3, None);
    // The stream loses it for that one.
    group.lagging.insert(2);
    let life = group.status(2).life;
    group.say(Item::Failed {
        replica: ReplicaId(2),
        life: Some(life),
        seen_at: Timestamp(0),
    });
    group.run(Duration::from_millis(10));
    group.read[2] = group.stream.len();
    group.lagging.clear();
    group.until("it joins again", |group| {
        group.serves(2) && group.status(2).life > life
    });
    group.until("all have the same", |group| {
        group.status(2).chain == group.status(0).chain
    });
}

#[test]
fn for_one_that_hears_nothing_any_more_the_others_answer() {
    let mut group = Group::serving(3, None);
    group.lagging.insert(1);
    group.until("it says nothing, and is taken for dead", |group| {
        group
            .events
            .iter()
            .any(|(_, event)| *event == Event::Failed(ReplicaId(1)))
    });
    group.ask(1, "its own");
    group.until("somebody covers for it", |group| {
        group.answered("its own") == 1
    });
    group.lagging.clear();
    group.until("it is back", |group| group.serves(1));
    group.run(Duration::from_secs(2));
    group.ask(1, "its own again");
    group.until("it answers", |group| group.answered("its own again") == 1);
    assert_eq!(group.answered("its own"), 1);
}

#[test]
fn a_replica_that_slept_holds_its_answers_until_the_others_agree() {
    let mut group = Group::serving(3, None);
    group.lagging.insert(0);
    let slept = group.replicas[0].take();
    group.run(Duration::from_millis(200));
    group.replicas[0] = slept;
    group.ask(0, "asked while it slept");
    group.lagging.clear();
    group.lost = BTreeSet::from([(1, 0), (2, 0)]);
    group.run(Duration::from_millis(30));
    assert!(group.status(0).holding);
    assert_eq!(group.answered("asked while it slept"), 0);
    group.lost.clear();
    group.until("it answers", |group| {
        group.answered("asked while it slept") == 1
    });
    assert!(!group.status(0).holding);
}

#[test]
fn a_newcomer_that_lost_something_on_the_way_does_not_serve_with_it() {
    catches(Mutation::NotVerified, |mutation| {
        let mut group = Group::serving(3, mutation);
        group.replicas[1] = None;
        group.run(Duration::from_secs(1));
        group.lost = BTreeSet::from([(0, 1), (2, 1)]);
        group.start(1, 2, mutation);
        // It listens, announces itself, and waits for the state.
        group.run(Duration::from_millis(150));
        group.say(Item::Unreadable);
        group.lose(1);
        group.lost.clear();
        group.until("it serves", |group| group.status(1).serving);
        let newcomer = group.status(1);
        group.run(Duration::from_millis(10));
        let other = group.replicas[0]
            .as_ref()
            .unwrap()
            .history
            .as_ref()
            .unwrap();
        other.chain_at(newcomer.at.unwrap()) == Some(newcomer.chain)
    });
}

#[test]
fn what_a_replica_says_of_its_answers_counts_for_nothing_once_its_history_does_not() {
    catches(Mutation::UnlistedBelieved, |mutation| {
        let mut group = Group::serving(3, mutation);
        group.ask(1, "not delivered to its owner");
        group.lose(1);
        group.say(Item::Unreadable);
        group.run(Duration::from_secs(5));
        group.answered("not delivered to its owner") == 1
    });
}

/// The stream and one member die together; that one comes back and begins from nothing, before the others reach the stream again.
fn a_member_begins_from_nothing_while_the_others_are_away(
    mutation: Option<Mutation>,
    written_before: usize,
    written_meanwhile: usize,
) -> Group {
    let mut group = Group::serving(3, mutation);
    for _ in 0..written_before {
        group.ask(1, "before");
    }
    group.until("they are answered", |group| {
        group.answered("before") == written_before
    });
    group.run(Duration::from_secs(3));
    group.replicas[0] = None;
    for r in [1, 2] {
        group.lagging.insert(r);
        for other in 0..3 {
            group.lost.extend([(r, other), (other, r)]);
        }
    }
    group.start_as(0, 0, (2, Create::Allowed), mutation);
    group.until("it begins from nothing", |group| group.serves(0));
    for _ in 0..written_meanwhile {
        group.ask(0, "meanwhile");
    }
    group.until("they are answered", |group| {
        group.answered("meanwhile") == written_meanwhile
    });
    group.run(Duration::from_secs(1));
    // What came meanwhile, the stream does not have for them.
    for r in [1, 2] {
        group.read[r] = group.stream.len();
    }
    group.lagging.clear();
    group.lost.clear();
    for r in [1, 2] {
        let reset = |active: &mut Active, now, out: &mut Vec<Effect>| {
            active.on_stream_reset(now, Timestamp(0), out);
        };
        group.drive(r, Box::new(reset));
    }
    group.run(Duration::from_secs(8));
    group
}

fn all_serve_one_history(group: &Group) -> bool {
    let serves = |r| group.serves(r) && !group.status(r).holding;
    (0..3).all(|r| serves(r) && group.status(r).chain == group.status(1).chain)
}

fn losses(group: &Group, r: usize) -> Vec<u64> {
    let lost = |(of, event): &(usize, Event)| match event {
        Event::HistoryLost { acknowledged, .. } if *of == r => Some(*acknowledged),
        _ => None,
    };
    group.events.iter().filter_map(lost).collect()
}

#[test]
fn of_two_histories_the_shorter_one_yields() {
    catches(Mutation::RivalIgnored, |mutation| {
        let group = a_member_begins_from_nothing_while_the_others_are_away(mutation, 9, 2);
        let kept = losses(&group, 1).is_empty() && losses(&group, 2).is_empty();
        kept && all_serve_one_history(&group) && losses(&group, 0).len() == 1
    });
    let group = a_member_begins_from_nothing_while_the_others_are_away(None, 2, 50);
    assert!(all_serve_one_history(&group) && losses(&group, 0).is_empty());
    assert_eq!((losses(&group, 1).len(), losses(&group, 2).len()), (1, 1));
}

#[test]
fn what_is_lost_of_a_history_that_began_apart_is_all_of_it() {
    catches(Mutation::LossSinceAgreement, |mutation| {
        let group = a_member_begins_from_nothing_while_the_others_are_away(mutation, 20, 99);
        [1, 2]
            .iter()
            .all(|r| losses(&group, *r).iter().all(|lost| *lost >= 20))
    });
}

/// A newcomer that hears nobody beside the stream begins from nothing; one who serves delivers that, and says in the stream that it does.
#[test]
fn a_beginning_to_which_one_who_serves_objects_is_given_up_before_anybody_is_heard() {
    catches(Mutation::ObjectionIgnored, |mutation| {
        let mut group = Group::serving(2, mutation);
        group.ask(1, "kept");
        group.until("it is answered", |group| group.answered("kept") == 1);
        group.replicas[0] = None;
        group.lost.extend([(0, 1), (1, 0)]);
        group.start_as(0, 0, (2, Create::Allowed), mutation);
        let began = |(r, event): &(usize, Event)| *r == 0 && matches!(event, Event::Began { .. });
        let before = group.events.iter().filter(|event| began(event)).count();
        group.until("it begins from nothing", |group| {
            group.events.iter().filter(|event| began(event)).count() > before
        });
        group.run(Duration::from_millis(100));
        let why = Fence::OlderHistoryServed;
        group.events.contains(&(0, Event::Fenced { why })) && !group.serves(0)
    });
}

/// What it says arrives everywhere, so it would be waited for until what it owes has expired.
#[test]
fn who_hears_nothing_is_soon_taken_for_failed_and_everything_is_answered() {
    let mut group = Group::serving(3, None);
    let timing = Timing::default();
    group.run(timing.keep_requests);
    group.lagging.insert(1);
    let asked = ["a", "b", "c", "d", "e", "f", "g", "h"];
    for name in asked {
        group.ask(1, name);
        group.run(Duration::from_millis(50));
    }
    group.run(timing.keep_requests);
    for name in asked {
        assert_eq!(group.answered(name), 1, "{name}");
    }
    group.lagging.clear();
    group.until("it serves again", |group| group.serves(1));
    assert_eq!(group.reconnects, 0);
}

/// A broker that stands still for a while carries nothing to anybody.
#[test]
fn nobody_is_taken_for_failed_because_all_heard_nothing() {
    let mut group = Group::serving(3, None);
    let wait = Timing::default().suspect_after * 8;
    group.ask(1, "before");
    group.lagging.extend(0..3);
    group.run(wait);
    group.events.clear();
    group.lagging.clear();
    group.until("it is answered", |group| group.answered("before") == 1);
    group.run(wait);
    let failed = |(_, event): &&(usize, Event)| matches!(event, Event::Failed(_));
    assert_eq!(group.events.iter().find(failed), None);
}

/// What the newcomer keeps since its announcement is more than what the other one has delivered since, and the state does not say how much of it is in it.
#[test]
fn who_has_missed_something_gives_no_state_to_one_that_announced_itself_before() {
    catches(Mutation::GivenOverGap, |mutation| {
        let mut group = Group::serving(2, mutation);
        group.mute.insert(0);
        group.replicas[1] = None;
        group.until("one is alone", |group| {
            matches!(group.status(0).ring[1].1, Standing::Failed { .. })
        });
        let reset = |group: &mut Group| {
            let reset: Told = Box::new(|active, now, out| {
                active.on_stream_reset(now, Timestamp(0), out);
            });
            group.drive(0, reset);
        };
        // It holds, for its mark is lost; in that time the newcomer announces itself.
        group.lagging.insert(0);
        reset(&mut group);
        let announced = |published: &Published| matches!(published.item, Item::Announce { life, .. } if life.incarnation == Incarnation(2));
        group.start(1, 2, mutation);
        group.until("it announces itself", |group| {
            group.stream.iter().any(announced)
        });
        let at = group.stream.iter().position(announced).unwrap();
        let announcement = group.stream[at].clone();
        group.deliver(0, announcement);
        // Of four requests it misses three.
        group.stream.truncate(at + 1);
        group.read[1] = group.read[1].min(at + 1);
        group.ask(0, "missed");
        group.ask(0, "missed, too");
        group.ask(0, "missed as well");
        group.read[0] = group.stream.len();
        group.ask(0, "kept");
        reset(&mut group);
        group.lagging.clear();
        group.until("the newcomer has a state", |group| {
            group.status(1).at.is_some()
        });
        group.replicas[0] = None;
        group.until("it serves", |group| group.serves(1));
        group.run(Duration::from_secs(2));
        group.answered("kept") == 1
    });
}

/// As one of another version of the program, whose snapshots differ.
#[test]
fn who_cannot_read_the_state_says_so_once_and_does_not_ask_for_it_without_a_pause() {
    let mut group = Group::serving(2, None);
    group.ask(0, "something");
    group.until("it is answered", |group| group.answered("something") == 1);
    group.replicas[1] = None;
    let other = Typed(Fold::new(
        Vec::<String>::new(),
        |all: &mut Vec<String>, _: i64| all.clear(),
    ));
    group.start_with(1, 1, (2, Create::Allowed), None, Box::new(other));
    group.run(Duration::from_secs(20));
    let told = |(r, event): &(usize, Event)| {
        *r == 1 && matches!(event, Event::StateNotRead { from, .. } if *from == ReplicaId(0))
    };
    assert_eq!(group.events.iter().filter(|event| told(event)).count(), 1);
    let announced = |published: &&Published| matches!(published.item, Item::Announce { replica: ReplicaId(1), life } if life.incarnation == Incarnation(2));
    let announced = group.stream.iter().filter(announced).count();
    assert!((2..20).contains(&announced), "announced {announced} times");
    assert!(group.serves(0) && !group.serves(1));
}
