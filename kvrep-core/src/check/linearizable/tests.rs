//! Histories with a name, histories of real executions, and a checker that tries every order.

use super::*;
use crate::check::history::{ClientId, Response};
use crate::check::models::{CounterOp, Counters, Kv, KvOp, KvRet};
use crate::random::Rng;
use proptest::prelude::*;

type KvHistory = History<KvOp<char, i64>, KvRet<i64>>;
type CounterHistory = History<CounterOp<char>, i64>;

/// An operation of client `client` from `from` to `to`.
fn done<Op, Ret>(client: u64, (from, to): (u64, u64), op: Op, ret: Ret) -> Operation<Op, Ret> {
    Operation {
        client: ClientId(client),
        op,
        invoked: Time::from_nanos(from),
        response: Some(Response {
            at: Time::from_nanos(to),
            ret,
        }),
    }
}

/// One whose outcome is not known.
fn lost<Op, Ret>(client: u64, from: u64, op: Op) -> Operation<Op, Ret> {
    Operation {
        client: ClientId(client),
        op,
        invoked: Time::from_nanos(from),
        response: None,
    }
}

fn put(client: u64, time: (u64, u64), value: i64) -> Operation<KvOp<char, i64>, KvRet<i64>> {
    done(client, time, KvOp::Put('x', value), KvRet::Done)
}

fn get(
    client: u64,
    time: (u64, u64),
    value: impl Into<Option<i64>>,
) -> Operation<KvOp<char, i64>, KvRet<i64>> {
    done(client, time, KvOp::Get('x'), KvRet::Value(value.into()))
}

fn cas(expected: i64, new: i64) -> KvOp<char, i64> {
    KvOp::CompareAndSet {
        key: 'x',
        expected: Some(expected),
        new,
    }
}

fn kv<const N: usize>(
    operations: [Operation<KvOp<char, i64>, KvRet<i64>>; N],
) -> Linearizability<char> {
    check(
        &Kv::new(),
        &operations.into_iter().collect(),
        Budget::default(),
    )
}

fn counter<const N: usize>(
    operations: [Operation<CounterOp<char>, i64>; N],
) -> Linearizability<char> {
    check(
        &Counters::new(),
        &operations.into_iter().collect(),
        Budget::default(),
    )
}

/// The first response that no order explains.
#[track_caller]
fn culprit(found: Linearizability<char>) -> usize {
    match found {
        Linearizability::Violated(violation) => violation.culprit.0,
        Linearizability::Holds | Linearizability::Undecided { .. } => panic!("{found:?}"),
    }
}

const HOLDS: Linearizability<char> = Linearizability::Holds;

#[test]
fn the_empty_history_holds() {
    assert_eq!(kv([]), HOLDS);
}

#[test]
fn one_client_reading_what_it_wrote_holds() {
    assert_eq!(kv([put(1, (0, 1), 5), get(1, (2, 3), 5)]), HOLDS);
}

#[test]
fn a_read_during_a_write_may_see_either_value() {
    assert_eq!(kv([put(1, (0, 9), 5), get(2, (1, 2), None)]), HOLDS);
    assert_eq!(kv([put(1, (0, 9), 5), get(2, (1, 2), 5)]), HOLDS);
}

#[test]
fn concurrent_writes_may_be_ordered_against_their_invocations() {
    let reads = [put(1, (0, 9), 1), put(2, (1, 8), 2), get(3, (10, 11), 1)];
    assert_eq!(kv(reads), HOLDS);
}

#[test]
fn a_write_of_the_value_that_is_there_may_be_needed_later() {
    let history = [
        put(1, (0, 1), 1),
        put(2, (2, 20), 1), // the value is 1 already, but this write is the one that restores it
        put(3, (3, 4), 2),
        get(4, (5, 6), 2),
        get(4, (7, 8), 1),
    ];
    assert_eq!(kv(history), HOLDS);
}

#[test]
fn a_lost_write_may_take_effect_late() {
    let history = [
        lost(1, 0, KvOp::Put('x', 7)),
        get(2, (5, 6), None),
        get(2, (100, 101), 7),
    ];
    assert_eq!(kv(history), HOLDS);
}

#[test]
fn a_lost_write_may_never_take_effect() {
    let history = [
        lost(1, 0, KvOp::Put('x', 7)),
        put(2, (1, 2), 1),
        get(2, (100, 101), 1),
    ];
    assert_eq!(kv(history), HOLDS);
}

#[test]
fn responses_and_invocations_at_the_same_time_are_concurrent() {
    assert_eq!(kv([put(1, (0, 5), 1), get(2, (5, 6), None)]), HOLDS);
}

#[test]
fn keys_do_not_disturb_each_other() {
    let other = done(1, (2, 3), KvOp::Put('y', 9), KvRet::Value(None));
    assert_eq!(kv([put(1, (0, 1), 5), other, get(2, (4, 5), 5)]), HOLDS);
}

#[test]
fn stale_read() {
    assert_eq!(culprit(kv([put(1, (0, 1), 5), get(2, (2, 3), None)])), 1);
}

#[test]
fn stale_read_of_an_older_value() {
    let history = [put(1, (0, 1), 1), put(1, (2, 3), 2), get(2, (4, 5), 1)];
    assert_eq!(culprit(kv(history)), 2);
}

#[test]
fn lost_update() {
    let history = [
        done(1, (0, 5), CounterOp::Add('x', 1), 1),
        done(2, (0, 6), CounterOp::Add('x', 1), 2),
        done(3, (7, 8), CounterOp::Read('x'), 1),
    ];
    assert_eq!(culprit(counter(history)), 2);
}

#[test]
fn lost_acknowledged_write() {
    let history = [put(1, (0, 1), 1), put(1, (2, 3), 2), get(1, (4, 5), None)];
    assert_eq!(culprit(kv(history)), 2);
}

#[test]
fn two_updates_from_one_value() {
    let history = [
        done(1, (0, 5), CounterOp::Add('x', 1), 1),
        done(2, (0, 6), CounterOp::Add('x', 1), 1),
    ];
    assert_eq!(culprit(counter(history)), 1);
}

#[test]
fn non_monotonic_read() {
    let history = [
        put(1, (0, 100), 5),
        get(2, (10, 11), 5),
        get(3, (12, 13), None),
    ];
    assert_eq!(culprit(kv(history)), 2);
}

#[test]
fn double_apply() {
    let history = [
        done(1, (0, 1), CounterOp::Add('x', 1), 1),
        done(1, (2, 3), CounterOp::Read('x'), 2),
    ];
    assert_eq!(culprit(counter(history)), 1);
}

#[test]
fn double_apply_of_a_lost_request() {
    let history = [
        lost(1, 0, CounterOp::Add('x', 1)),
        done(2, (1, 2), CounterOp::Read('x'), 0),
        done(2, (3, 4), CounterOp::Read('x'), 1),
        done(2, (5, 6), CounterOp::Read('x'), 2),
    ];
    assert_eq!(culprit(counter(history)), 3);
}

#[test]
fn read_from_the_future() {
    let history = [get(2, (0, 1), 5), put(1, (2, 3), 5)];
    assert_eq!(culprit(kv(history)), 0);
}

#[test]
fn read_from_nowhere() {
    assert_eq!(culprit(kv([put(1, (0, 1), 1), get(2, (0, 3), 99)])), 1);
}

#[test]
fn resurrected_value() {
    let delete = done(1, (2, 3), KvOp::Delete('x'), KvRet::Done);
    let history = [
        put(1, (0, 1), 1),
        delete,
        get(2, (4, 5), None),
        get(2, (6, 7), 1),
    ];
    assert_eq!(culprit(kv(history)), 3);
}

#[test]
fn lost_write_that_took_effect_and_vanished() {
    let history = [
        put(1, (0, 1), 1),
        lost(2, 2, KvOp::Put('x', 2)),
        get(3, (3, 4), 2),
        get(3, (5, 6), 1),
    ];
    assert_eq!(culprit(kv(history)), 3);
}

#[test]
fn lost_write_seen_before_it_was_sent() {
    let history = [get(3, (0, 1), 2), lost(2, 2, KvOp::Put('x', 2))];
    assert_eq!(culprit(kv(history)), 0);
}

#[test]
fn two_winners_of_one_compare_and_set() {
    let history = [
        put(1, (0, 1), 1),
        done(1, (2, 9), cas(1, 2), KvRet::Swapped(true)),
        done(2, (2, 8), cas(1, 3), KvRet::Swapped(true)),
    ];
    assert_eq!(
        culprit(kv(history)),
        1,
        "the second answer is the wrong one"
    );
}

#[test]
fn no_winner_of_a_compare_and_set() {
    let history = [
        put(1, (0, 1), 1),
        done(1, (2, 9), cas(1, 2), KvRet::Swapped(false)),
    ];
    assert_eq!(culprit(kv(history)), 1);
}

#[test]
fn observers_that_disagree_on_the_order_of_two_writes() {
    let history = [
        put(1, (0, 100), 1),
        put(2, (0, 100), 2),
        get(3, (10, 11), 1),
        get(3, (30, 31), 2),
        get(4, (40, 41), 1),
    ];
    assert_eq!(culprit(kv(history)), 4);
}

#[test]
fn write_that_returns_the_wrong_previous_value() {
    let again = done(1, (2, 3), KvOp::Put('x', 2), KvRet::Value(None));
    assert_eq!(culprit(kv([put(1, (0, 1), 1), again])), 1);
}

#[test]
fn response_of_another_operation() {
    let history = [done(1, (0, 1), KvOp::Put('x', 2), KvRet::Swapped(true))];
    assert_eq!(culprit(kv(history)), 0);
}

#[test]
fn a_violation_names_the_key_the_order_that_fits_and_what_does_not() {
    let other = done(9, (0, 1), KvOp::Put('a', 1), KvRet::Done);
    let history: KvHistory = [
        other,
        put(1, (0, 1), 1),
        put(1, (2, 3), 2),
        get(2, (4, 5), 1),
        put(1, (6, 7), 3), // after the culprit: no part of the story
    ]
    .into_iter()
    .collect();
    let Linearizability::Violated(violation) = check(&Kv::new(), &history, Budget::default())
    else {
        panic!("the stale read was not noticed");
    };
    let expected = Violation {
        key: 'x',
        culprit: OpId(3),
        prefix: vec![OpId(1), OpId(2)],
        blocked: vec![OpId(3)],
    };
    assert_eq!(violation, expected);
    let story = violation.explain(&Kv::new(), &history);
    assert_eq!(
        story,
        "\
not linearizable: key 'x'
  at first None
    #1 client 1 [0.000000s … 0.000000s] Put('x', 1) = Done
      → Some(1)
    #2 client 1 [0.000000s … 0.000000s] Put('x', 2) = Done
      → Some(2)
  next would have to come one of these, and none fits:
    #3 client 2 [0.000000s … 0.000000s] Get('x') = Value(Some(1))
  the first response that no order explains: #3
"
    );
}

#[test]
fn a_budget_that_does_not_suffice_is_said_to_be_so() {
    let history: CounterHistory = (0..40)
        .map(|n| lost(n, 0, CounterOp::Add('x', 1 << n)))
        .chain([
            done(99, (1, 2), CounterOp::Read('x'), -1),
            done(99, (1, 2), CounterOp::Read('y'), 0),
        ])
        .collect();
    let budget = Budget {
        steps_max: 100_000,
        memo_entries_max: 1_000,
    };
    let found = check(&Counters::new(), &history, budget);
    assert_eq!(found, Linearizability::Undecided { keys: vec!['x'] });
}

/// So few that the same value is often written again.
const VALUES: usize = 3;

/// What a real execution of `clients` clients looks like: each operation takes effect at a moment between its invocation
/// and its response; some responses are lost, before or after the effect.
fn execution(
    rng: &mut Rng,
    clients: u64,
    operations: usize,
    keys: u64,
    one_in_lost: u64,
) -> History<KvOp<u64, i64>, KvRet<i64>> {
    let mut free_at = vec![0_u64; usize::try_from(clients).unwrap()];
    let mut planned = Vec::new();
    for n in 0..operations {
        let client = rng.below(clients);
        let slot = &mut free_at[usize::try_from(client).unwrap()];
        let from = *slot + rng.below(20);
        let effect = from + rng.below(50);
        let to = effect + rng.below(50);
        *slot = to + 1;
        let (key, value) = (rng.below(keys), i64::try_from(n % VALUES).unwrap());
        let op = match rng.below(5) {
            0 | 1 => KvOp::Get(key),
            2 => KvOp::CompareAndSet {
                key,
                expected: Some(value),
                new: value + 1,
            },
            3 if n % 5 == 0 => KvOp::Delete(key),
            _ => KvOp::Put(key, value),
        };
        planned.push((
            effect,
            done(client, (from, to), op, KvRet::Done),
            rng.one_in(one_in_lost),
        ));
    }
    planned.sort_by_key(|&(effect, _, _)| effect);
    let mut state: BTreeMap<u64, i64> = BTreeMap::new();
    let mut history = History::new();
    for (_, mut operation, is_lost) in planned {
        let takes_effect = !is_lost || rng.one_in(2);
        let ret = if takes_effect {
            apply(&mut state, &operation.op)
        } else {
            KvRet::Done
        };
        operation.response.as_mut().unwrap().ret = ret;
        if is_lost {
            operation.response = None;
        }
        history.push(operation);
    }
    history
}

fn apply(state: &mut BTreeMap<u64, i64>, op: &KvOp<u64, i64>) -> KvRet<i64> {
    match op {
        KvOp::Get(key) => KvRet::Value(state.get(key).copied()),
        KvOp::Put(key, value) => KvRet::Value(state.insert(*key, *value)),
        KvOp::Delete(key) => KvRet::Value(state.remove(key)),
        KvOp::CompareAndSet { key, expected, new } => {
            let swaps = state.get(key).copied() == *expected;
            if swaps {
                state.insert(*key, *new);
            }
            KvRet::Swapped(swaps)
        }
    }
}

/// Tries every order of every subset of the pending operations.
fn brute_force(history: &History<KvOp<u64, i64>, KvRet<i64>>) -> bool {
    fn extend(
        left: &mut Vec<&Operation<KvOp<u64, i64>, KvRet<i64>>>,
        state: &BTreeMap<u64, i64>,
    ) -> bool {
        if left.iter().all(|operation| operation.response.is_none()) {
            return true;
        }
        for n in 0..left.len() {
            let next = left[n];
            let preceded = left.iter().any(|other| {
                other
                    .response
                    .as_ref()
                    .is_some_and(|response| response.at < next.invoked)
            });
            if preceded {
                continue;
            }
            let mut after = state.clone();
            let ret = apply(&mut after, &next.op);
            if next
                .response
                .as_ref()
                .is_none_or(|response| response.ret == ret)
            {
                left.remove(n);
                let fits = extend(left, &after);
                left.insert(n, next);
                if fits {
                    return true;
                }
            }
        }
        false
    }
    let mut all: Vec<_> = history
        .operations()
        .map(|(_, operation)| operation)
        .collect();
    extend(&mut all, &BTreeMap::new())
}

/// The history with the answer of one operation replaced.
fn corrupted(
    history: &History<KvOp<u64, i64>, KvRet<i64>>,
    rng: &mut Rng,
) -> History<KvOp<u64, i64>, KvRet<i64>> {
    let mut operations: Vec<_> = history
        .operations()
        .map(|(_, operation)| operation.clone())
        .collect();
    let count = u64::try_from(operations.len()).unwrap();
    let chosen = &mut operations[usize::try_from(rng.below(count)).unwrap()];
    if let Some(response) = &mut chosen.response {
        response.ret = match response.ret {
            KvRet::Swapped(swapped) => KvRet::Swapped(!swapped),
            KvRet::Value(_) | KvRet::Done => {
                KvRet::Value(Some(i64::try_from(rng.below(8)).unwrap()))
            }
        };
    }
    operations.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn real_executions_hold(seed: u64, clients in 1_u64..8, keys in 1_u64..4) {
        let history = execution(&mut Rng::new(seed), clients, 200, keys, 15);
        prop_assert_eq!(check(&Kv::new(), &history, Budget::default()), Linearizability::Holds);
    }

    #[test]
    fn an_answer_that_nobody_wrote_is_always_noticed(seed: u64, clients in 1_u64..8) {
        let rng = &mut Rng::new(seed);
        let history = execution(rng, clients, 100, 2, 15);
        let mut operations: Vec<_> = history.operations().map(|(_, operation)| operation.clone()).collect();
        let gets: Vec<usize> = (0..operations.len())
            .filter(|&n| matches!(operations[n].op, KvOp::Get(_)) && operations[n].response.is_some())
            .collect();
        prop_assume!(!gets.is_empty());
        let chosen = gets[usize::try_from(rng.below(u64::try_from(gets.len()).unwrap())).unwrap()];
        operations[chosen].response.as_mut().unwrap().ret = KvRet::Value(Some(1_000));
        match check(&Kv::new(), &operations.into_iter().collect(), Budget::default()) {
            Linearizability::Violated(violation) => prop_assert_eq!(violation.culprit, OpId(chosen)),
            other => prop_assert!(false, "{:?}", other),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn it_agrees_with_trying_every_order(seed: u64, clients in 2_u64..6, operations in 1_usize..8) {
        let rng = &mut Rng::new(seed);
        let history = execution(rng, clients, operations, 1, 4);
        prop_assert_eq!(check(&Kv::new(), &history, Budget::default()), Linearizability::Holds);
        prop_assert!(brute_force(&history));
        let history = corrupted(&history, rng);
        let holds = match check(&Kv::new(), &history, Budget::default()) {
            Linearizability::Holds => true,
            Linearizability::Violated(violation) => {
                // The culprit is the first: without its answer and what came after, the history holds.
                let end = history.get(violation.culprit).unwrap().response.as_ref().unwrap().at;
                let mut before = History::new();
                for (id, operation) in history.operations().filter(|(_, operation)| operation.invoked <= end) {
                    let mut operation = operation.clone();
                    operation.response.take_if(|response| (response.at, id) >= (end, violation.culprit));
                    before.push(operation);
                }
                prop_assert!(brute_force(&before), "the culprit {} is not the first", violation.culprit);
                false
            }
            undecided @ Linearizability::Undecided { .. } => panic!("{undecided:?}"),
        };
        prop_assert_eq!(holds, brute_force(&history));
    }
}

/// Histories as large as those of the demo and of the simulator. The bound is on the work, not on the clock.
#[test]
fn many_clients_on_many_keys_take_few_steps_per_operation() {
    let history = execution(&mut Rng::new(1), 64, 20_000, 10_000, 500);
    let budget = Budget {
        steps_max: 200_000,
        ..Budget::default()
    };
    assert_eq!(check(&Kv::new(), &history, budget), Linearizability::Holds);
}

#[test]
fn a_hot_key_with_lost_writes_is_decided() {
    let rng = &mut Rng::new(2);
    let history = execution(rng, 8, 5_000, 1, 200);
    let budget = Budget {
        steps_max: 20_000_000,
        ..Budget::default()
    };
    assert_eq!(check(&Kv::new(), &history, budget), Linearizability::Holds);

    let mut operations: Vec<_> = history
        .operations()
        .map(|(_, operation)| operation.clone())
        .collect();
    let late = (4_000..)
        .find(|&n| matches!(operations[n].op, KvOp::Get(_)) && operations[n].response.is_some())
        .unwrap();
    operations[late].response.as_mut().unwrap().ret = KvRet::Value(Some(1_000));
    let Linearizability::Violated(violation) =
        check(&Kv::new(), &operations.into_iter().collect(), budget)
    else {
        panic!("the wrong answer was not noticed within the budget");
    };
    assert_eq!(violation.culprit, OpId(late));
}
