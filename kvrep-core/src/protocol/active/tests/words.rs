//! Whose history counts where answers are confirmed: nobody passes on what lacks something that others have confirmed.

use super::*;

/// Three that serve, where two confirm an answer.
fn confirming(mutation: Option<Mutation>) -> Group {
    let mut group = Group::new(3, 2);
    for r in 0..3 {
        group.start(r, 1, mutation);
    }
    group.until("all serve", |group| (0..3).all(|r| group.serves(r)));
    group
}

fn declare_dead(group: &mut Group, r: usize) {
    group.say(Item::Failed {
        replica: ReplicaId(r as u32),
        life: None,
        seen_at: Timestamp(0),
    });
}

fn cut_off(group: &mut Group, r: usize) {
    group.lagging.insert(r);
    for other in 0..3 {
        group.lost.extend([(r, other), (other, r)]);
    }
}

fn back(group: &mut Group) {
    group.lagging.clear();
    group.lost.clear();
}

fn missing(group: &Group) -> Vec<Vec<ReplicaId>> {
    let missing = group.events.iter().filter_map(|(_, event)| match event {
        Event::AwaitsWord { missing } => Some(missing.clone()),
        _ => None,
    });
    missing.collect()
}

#[test]
fn one_that_is_left_alone_does_not_give_away_a_state_that_lacks_what_others_confirmed() {
    catches(Mutation::GivenUnasked, |mutation| {
        let mut group = confirming(mutation);
        // One hears nothing of it; the others confirm it.
        cut_off(&mut group, 1);
        group.ask(0, "confirmed by 0 and 2");
        group.until("it is answered", |group| {
            group.answered("confirmed by 0 and 2") == 1
        });
        group.run(Duration::from_millis(100));
        group.read[1] = group.stream.len();
        back(&mut group);
        // One of the two is not there when the one that missed it is alone; the other one joins.
        cut_off(&mut group, 0);
        declare_dead(&mut group, 0);
        declare_dead(&mut group, 2);
        group.run(Duration::from_secs(8));
        back(&mut group);
        group.until("all serve", |group| (0..3).all(|r| group.serves(r)));
        let lost = (group.events.iter()).any(
            |(_, event)| matches!(event, Event::HistoryLost { acknowledged, .. } if *acknowledged > 0),
        );
        let aside = (1, Event::Fenced { why: Fence::Behind });
        !lost && group.events.contains(&aside)
    });
}

#[test]
fn where_more_are_gone_than_may_be_the_rest_says_whose_word_it_awaits() {
    let mut group = confirming(None);
    group.ask(0, "confirmed");
    group.until("it is answered", |group| group.answered("confirmed") == 1);
    group.replicas[2] = None;
    group.start(0, 2, None);
    group.until("it is said who is missing", |group| {
        missing(group).contains(&vec![ReplicaId(2)])
    });
    group.run(Duration::from_secs(5));
    assert!(!group.serves(0), "one of two may know what is missing here");
    // It comes back with nothing: then nobody can know more.
    group.start(2, 2, None);
    group.until("all serve", |group| (0..3).all(|r| group.serves(r)));
    let began = group.events.iter();
    let began = began.filter(|(_, event)| matches!(event, Event::Began { .. }));
    assert_eq!(began.count(), 1, "the history goes on");
    group.ask(1, "afterwards");
    group.until("it is answered", |group| group.answered("afterwards") == 1);
}

#[test]
fn as_many_as_confirm_an_answer_begin_without_the_others() {
    let mut group = Group::new(3, 2);
    group.start(1, 1, None);
    group.run(Duration::from_secs(10));
    assert!(!group.serves(1), "alone it could confirm nothing");
    assert!(!missing(&group).is_empty());
    group.start(2, 1, None);
    group.until("both serve", |group| group.serves(1) && group.serves(2));
    group.ask(0, "confirmed by 1 and 2");
    group.until("it is answered", |group| {
        group.answered("confirmed by 1 and 2") == 1
    });
    group.start(0, 1, None);
    group.until("all serve", |group| (0..3).all(|r| group.serves(r)));
}

#[test]
fn all_but_one_may_lose_their_state_one_after_the_other() {
    let mut group = confirming(None);
    group.ask(0, "kept");
    group.until("it is answered", |group| group.answered("kept") == 1);
    let sum = |group: &Group, r: usize| {
        let active = group.replicas[r].as_ref().unwrap();
        active.machine().full_digest()
    };
    let kept = sum(&group, 0);
    for incarnation in 2..4 {
        for r in 0..3 {
            group.start(r, incarnation, None);
            group.until("all serve", |group| (0..3).all(|r| group.serves(r)));
            assert_eq!(sum(&group, r), kept);
        }
    }
    // What a newcomer says of marks before it serves is no other history.
    let differs = Event::Holding {
        why: Doubt::Differs,
    };
    assert!(!group.events.iter().any(|(_, event)| *event == differs));
}

#[test]
fn one_that_serves_alone_finds_out_that_it_hears_nothing() {
    let mut group = confirming(None);
    group.replicas[0] = None;
    group.replicas[2] = None;
    group.until("it is alone", |group| {
        let serving = |standing: &Standing| matches!(standing, Standing::Serving { .. });
        let ring = group.status(1).ring;
        ring.iter().filter(|(_, of)| serving(of)).count() == 1
    });
    cut_off(&mut group, 1);
    group.until("it asks for another connection", |group| {
        group.reconnects > 0
    });
}

/// One step, in which the stream loses for these that others are ready.
fn step_without_the_ready(group: &mut Group, those: &[usize]) {
    group.lagging.extend(those);
    group.step();
    for &r in those {
        while let Some(published) = group.stream.get(group.read[r]).cloned() {
            group.read[r] += 1;
            if !matches!(published.item, Item::Ready { .. }) {
                group.deliver(r, published);
            }
        }
    }
}

#[test]
fn one_that_missed_how_the_others_joined_does_not_give_away_a_state_that_lacks_what_they_confirmed()
{
    let mut group = Group::new(3, 2);
    for r in 0..3 {
        group.start(r, 1, None);
    }
    while !(group.serves(1) && group.serves(2)) {
        assert!(
            group.now < Time::ZERO + Duration::from_secs(60),
            "they join"
        );
        step_without_the_ready(&mut group, &[0]);
    }
    let began = |(r, event): &(usize, Event)| *r == 0 && matches!(event, Event::Began { .. });
    assert!(group.events.iter().any(began));
    // To its knowledge it is alone, and nothing was ever confirmed. The others confirm something.
    cut_off(&mut group, 0);
    for hash in 0..3 {
        group.ask(hash, "confirmed by 1 and 2");
    }
    group.until("it is answered", |group| {
        group.answered("confirmed by 1 and 2") > 0
    });
    group.run(Duration::from_millis(100));
    group.read[0] = group.stream.len();
    back(&mut group);
    // One of the two comes back with nothing.
    group.replicas[2] = None;
    group.run(Duration::from_millis(20));
    group.start(2, 2, None);
    group.until("all serve", |group| (0..3).all(|r| group.serves(r)));
    let lost = |(_, event): &(usize, Event)| matches!(event, Event::HistoryLost { acknowledged, .. } if *acknowledged > 0);
    assert!(!group.events.iter().any(lost));
    let aside = |(r, event): &(usize, Event)| *r == 0 && matches!(event, Event::Fenced { .. });
    assert!(group.events.iter().any(aside));
}

/// Each serves with fewer than confirm an answer, and neither asks the other one, which serves: the shorter history steps aside, and is asked.
#[test]
fn two_that_serve_apart_and_can_answer_nothing_do_not_wait_for_each_other() {
    let mut group = confirming(None);
    group.ask(0, "confirmed");
    group.until("it is answered", |group| group.answered("confirmed") == 1);
    group.run(Duration::from_secs(1));
    // Two miss how the third one comes back, and one of them loses its state.
    group.start(2, 2, None);
    while !group.serves(2) {
        assert!(group.now < Time::ZERO + Duration::from_secs(60), "it joins");
        step_without_the_ready(&mut group, &[0, 1]);
    }
    group.start(1, 2, None);
    back(&mut group);
    group.until("all serve", |group| (0..3).all(|r| group.serves(r)));
    let lost = |(_, event): &(usize, Event)| matches!(event, Event::HistoryLost { acknowledged, .. } if *acknowledged > 0);
    assert!(!group.events.iter().any(lost));
    let aside = |(_, event): &(usize, Event)| {
        matches!(
            event,
            Event::Fenced {
                why: Fence::LongerHistoryServed
            }
        )
    };
    assert!(group.events.iter().any(aside));
}

/// Two that lost their state began anew, and confirm; the third one, which was away, comes from a history with more decisions.
#[test]
fn decisions_about_another_history_do_not_fence_as_many_as_confirm_an_answer() {
    let mut group = confirming(None);
    group.ask(0, "of the first history");
    group.until("it is answered", |group| {
        group.answered("of the first history") == 1
    });
    cut_off(&mut group, 0);
    for r in [1, 2] {
        group.replicas[r] = None;
    }
    group.run(Duration::from_secs(2));
    for r in [1, 2] {
        group.start(r, 2, None);
    }
    group.until("two serve", |group| group.serves(1) && group.serves(2));
    let began = group.events.len();
    group.ask(1, "of the second history");
    group.until("it is answered", |group| {
        group.answered("of the second history") == 1
    });
    group.stream.push(Published {
        stamp: Some(Stamp {
            replica: ReplicaId(0),
            incarnation: Incarnation(1),
            seq: 1,
        }),
        item: Item::Mark {
            decisions: 4,
            clock: Timestamp(0),
        },
    });
    group.run(Duration::from_secs(1));
    group.read[0] = group.stream.len();
    back(&mut group);
    group.until("the lone one steps aside", |group| !group.serves(0));
    group.until("all serve", |group| (0..3).all(|r| group.serves(r)));
    let lost: Vec<_> = (group.events[began..].iter())
        .filter_map(|(r, event)| match event {
            Event::HistoryLost { apart, .. } => Some((*r, *apart)),
            _ => None,
        })
        .collect();
    assert_eq!(lost, [(0, true)]);
}
