//! Two processes under one number.

use super::*;

/// A group in which only member 0 is up, with three writes.
fn last_one(mutation: Option<Mutation>) -> Group {
    let mut group = Group::serving(2, mutation);
    for name in ["a", "b", "c"] {
        group.ask(0, name);
    }
    group.until("all is answered", |group| group.answers.len() == 3);
    group.replicas[1] = None;
    group.until("the other one is known to be dead", |group| {
        let ring = group.status(0).ring;
        matches!(ring[1].1, Standing::Failed { .. })
    });
    group
}

fn sum(group: &Group, place: usize) -> Bytes {
    let machine = group.replicas[place].as_ref().expect("it is up").machine();
    machine.query(&encode(&())).expect("a query")
}

fn announced(group: &Group, incarnation: u64) -> bool {
    group.stream.iter().any(|published| {
        (published.stamp).is_some_and(|stamp| stamp.incarnation == Incarnation(incarnation))
    })
}

#[test]
fn who_starts_beside_a_living_one_ends_and_nobody_has_heard_of_it() {
    catches(Mutation::StartsUnheard, |mutation| {
        let mut group = Group::serving(3, mutation);
        let place = group.start_beside(1, 2, mutation);
        group.run(Duration::from_secs(1));
        group.ask(1, "who is there?");
        group.run(Duration::from_millis(100));
        let ends = group.ends == [(place, End::AlreadyRunning)];
        ends && !announced(&group, 2) && group.answers.last().is_some_and(|(r, _)| *r == 1)
    });
}

#[test]
fn who_starts_behind_a_dead_one_listens_for_two_heartbeats_whatever_of_its_last_words_comes() {
    let mut group = Group::serving(3, None);
    let heard = group.replicas[1].as_ref().map(|active| active.life);
    let life = heard.expect("it is up");
    let last_words = Message::Heartbeat(Heartbeat {
        replica: ReplicaId(1),
        life,
        serving: true,
        at: Index(1),
        chain: 0,
        answered: Index::ZERO,
        confirmed: Confirmed::default(),
        origin: None,
        holding: false,
        view: 0,
        failed: Vec::new(),
        claims: Vec::new(),
    });
    group.replicas[1] = None;
    let began = group.now;
    group.start(1, 2, None);
    for _ in 0..3 {
        group.tell(0, 1, last_words.clone());
        group.step();
    }
    group.until("it has announced itself", |group| announced(group, 2));
    let heartbeat = Timing::default().heartbeat_every;
    assert!(
        group.now - began <= heartbeat * 5 / 2,
        "{:?}",
        group.now - began
    );
    group.until("it serves", |group| group.serves(1));
}

#[test]
fn the_last_one_with_the_state_keeps_it_until_the_one_with_its_number_serves() {
    catches(Mutation::EndsWithTheState, |mutation| {
        let mut group = last_one(mutation);
        let had = sum(&group, 0);
        group.stopped.insert(0);
        let place = group.start_beside(0, 2, mutation);
        group.run(Duration::from_secs(5));
        assert!(!group.serves(place), "nobody has given it a state");
        group.resume(0);
        group.run(Duration::from_secs(5));
        group.ask(0, "who is there?");
        group.run(Duration::from_millis(100));
        let told = |group: &Group| {
            let mut events = group.events.iter();
            events.any(|(r, event)| *r == 0 && matches!(event, Event::Superseded { .. }))
        };
        told(&group)
            && group.ends == [(0, End::Superseded)]
            && group.serves(place)
            && had != Bytes::new()
            && group.answered("who is there?") == 1
            && group.answered("a") == 1
    });
}

#[test]
fn whoever_joins_gets_the_state_of_one_that_was_superseded_if_its_successor_is_gone() {
    let mut group = last_one(None);
    group.stopped.insert(0);
    let place = group.start_beside(0, 2, None);
    group.run(Duration::from_millis(500));
    group.resume(0);
    group.run(Duration::from_millis(50));
    assert!(group.status(0).superseded);
    group.replicas[place] = None;
    let another = group.start_beside(1, 2, None);
    group.until("it serves", |group| group.serves(another));
    group.until("the other one ends", |group| {
        group.ends == [(0, End::Superseded)]
    });
    group.ask(0, "d");
    group.until("it answers", |group| group.answered("d") == 1);
    assert_eq!(sum(&group, another), encode(&4_i64));
}

#[test]
fn one_that_is_superseded_while_others_serve_ends_at_once() {
    let mut group = Group::serving(3, None);
    group.stopped.insert(1);
    let place = group.start_beside(1, 2, None);
    group.until("it serves", |group| group.serves(place));
    group.resume(1);
    let heartbeat = Timing::default().heartbeat_every;
    group.run(heartbeat * 2);
    assert_eq!(group.ends, [(1, End::Superseded)]);
}

#[test]
fn one_that_must_end_with_the_last_state_says_so_and_sets_it_aside() {
    let mut group = last_one(None);
    group.stopped.insert(0);
    group.start_beside(0, 2, None);
    group.run(Duration::from_millis(500));
    group.resume(0);
    group.run(Duration::from_millis(50));
    let mut out = Vec::new();
    group.replicas[0].as_mut().expect("it is up").stop(&mut out);
    let gone = |effect: &Effect| matches!(effect, Effect::Event(Event::LastStateGone { .. }));
    assert!(out.iter().any(gone), "{out:?}");
    let aside = |effect: &Effect| matches!(effect, Effect::SetAside { .. });
    assert!(out.iter().any(aside), "{out:?}");
}

#[test]
fn a_state_that_another_history_has_replaced_is_set_aside_and_reported() {
    let mut group = last_one(None);
    group.stopped.insert(0);
    let place = group.replicas.len();
    group.replicas.push(None);
    group.read.push(0);
    // It may begin, and nobody is heard.
    group.start_as(place, 0, (2, Create::Allowed), None);
    group.until("it begins", |group| group.serves(place));
    group.run(Duration::from_secs(1));
    group.resume(0);
    group.until("the old one ends", |group| {
        group.ends == [(0, End::Superseded)]
    });
    let lost = |(r, event): &(usize, Event)| {
        *r == 0 && matches!(event, Event::HistoryLost { acknowledged, .. } if *acknowledged > 0)
    };
    assert!(group.events.iter().any(lost), "{:?}", group.events);
}

#[test]
fn who_starts_with_a_clock_behind_its_last_life_serves_all_the_same() {
    // It is told while it listens; or, where nobody was heard before, when it has announced itself already.
    for deaf in [false, true] {
        let mut group = Group::serving(3, None);
        group.replicas[1] = None;
        group.start(1, 1_000_000_000, None);
        group.until("its second life serves", |group| group.serves(1));
        group.replicas[1] = None;
        group.until("it is known to be dead", |group| {
            matches!(group.status(0).ring[1].1, Standing::Failed { .. })
        });
        if deaf {
            group.lost.extend([(0, 1), (2, 1)]);
        }
        group.start(1, 7, None);
        group.run(Duration::from_millis(500));
        assert_eq!(group.serves(1), !deaf);
        group.lost.clear();
        group.until("it serves", |group| group.serves(1));
        let behind = Event::ClockBehind { by: 999_999_993 };
        let told = group.events.iter().filter(|(r, e)| (*r, e) == (1, &behind));
        assert_eq!(told.count(), 1);
        assert_eq!(group.reconnects, 0);
        group.ask(1, "who is there?");
        group.run(Duration::from_millis(100));
        assert_eq!(group.answered("who is there?"), 1);
        // Who comes after it, with the right time, is a later life again.
        group.replicas[1] = None;
        group.start(1, 2_000_000_000, None);
        group.until("it serves again", |group| group.serves(1));
    }
}

#[test]
fn one_that_is_superseded_and_has_missed_something_ends_while_there_is_always_more() {
    let mut group = Group::serving(3, None);
    group.stopped.insert(1);
    let place = group.start_beside(1, 2, None);
    group.until("it serves", |group| group.serves(place));
    for _ in 0..100 {
        group.ask(0, "missed");
        group.lose(1);
    }
    group.run(Duration::from_millis(50));
    // What they say of themselves while it was stopped, it does not hear either.
    group.waiting.clear();
    group.resume(1);
    let end = group.now + Timing::default().suspect_after * 10;
    while group.now < end && group.ends.is_empty() {
        group.ask(0, "more");
        group.step();
    }
    assert_eq!(group.ends, [(1, End::Superseded)]);
}
