//! Linearizability (Herlihy and Wing 1990): every operation seems to take effect at one moment between its invocation
//! and its response.
//!
//! The search is that of Wing and Gong (1993) with the memoization of Lowe (2017), for each key by itself: a history is
//! linearizable if and only if its part for each key is (Herlihy and Wing, §3.1), and short histories are cheap.
//!
//! Invariants: [`Linearizability::Violated`] is a proof, and so is [`Linearizability::Holds`]. Where neither was found
//! within the [`Budget`] the result is [`Linearizability::Undecided`], never a guess.
//!
//! Caveats: the problem is NP-complete. What makes it hard is many writers at once on one key, above all with
//! unknown outcomes; spread the writes over keys. A response and an invocation at the same time count as concurrent.

use super::history::{History, OpId, Operation};
use super::search::{Foresight, Found, KeyHistory, Stuck, search};
use crate::time::Time;
use std::collections::BTreeMap;
use std::fmt::{self, Debug, Write as _};

/// What one copy of the data would do.
///
/// ```
/// use kvrep_core::Time;
/// use kvrep_core::check::{Budget, ClientId, History, Linearizability, Model, linearizable};
///
/// /// Gives out numbers, each once, in order.
/// struct Dispenser;
///
/// impl Model for Dispenser {
///     type Op = ();
///     type Ret = u64;
///     type Key = ();
///     type State = u64;
///
///     fn key<'a>(&self, op: &'a ()) -> &'a () {
///         op
///     }
///     fn init(&self, (): &()) -> u64 {
///         0
///     }
///     fn step(&self, last: &u64, (): &(), given: Option<&u64>) -> Option<u64> {
///         let next = last + 1;
///         given.is_none_or(|given| *given == next).then_some(next)
///     }
/// }
///
/// let at = Time::from_nanos;
/// let mut history = History::new();
/// let one = history.invoke(at(0), ClientId(1), ());
/// let other = history.invoke(at(1), ClientId(2), ());
/// history.respond(at(5), one, 2); // at the same time as the other: any order will do
/// history.respond(at(6), other, 1);
/// let late = history.invoke(at(7), ClientId(1), ());
/// history.respond(at(8), late, 2); // given out before
/// let Linearizability::Violated(why) = linearizable::check(&Dispenser, &history, Budget::default()) else {
///     unreachable!()
/// };
/// assert_eq!(why.culprit, late);
/// assert!(!why.explain(&Dispenser, &history).is_empty());
/// ```
pub trait Model {
    /// What clients ask.
    type Op: PartialEq;
    /// What they are told.
    type Ret;
    /// The part of the data that an operation concerns; `()` when there is only one.
    type Key: Ord + Clone;
    /// The state of one key.
    type State: Clone + Ord;

    /// The key that `op` concerns: it must neither read nor write any other.
    fn key<'a>(&self, op: &'a Self::Op) -> &'a Self::Key;

    /// The state of a key before the first operation.
    fn init(&self, key: &Self::Key) -> Self::State;

    /// The state after `op`, or `None` when the answer to it in `state` cannot be `ret`. Without `ret` the answer is
    /// not known and every answer will do.
    fn step(
        &self,
        state: &Self::State,
        op: &Self::Op,
        ret: Option<&Self::Ret>,
    ) -> Option<Self::State>;

    /// What can be said of `op`, answered by `ret` (or not answered yet), whatever the state. It makes the search much
    /// faster; it must be true.
    fn hint(&self, op: &Self::Op, ret: Option<&Self::Ret>) -> Hint<Self::State> {
        let _ = (op, ret);
        Hint::default()
    }
}

/// What can be said of an operation whatever the state. The default says nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hint<S> {
    /// It changes no state whatever (a read, a refusal).
    pub only_looks: bool,
    /// It can be carried out in this state only, with that answer.
    pub needs: Option<S>,
    /// If it changes the state, then to this one.
    pub makes: Option<S>,
}

impl<S> Default for Hint<S> {
    fn default() -> Self {
        Self {
            only_looks: false,
            needs: None,
            makes: None,
        }
    }
}

/// How hard to try.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget {
    /// Calls of [`Model::step`] in all. Millions take a second.
    pub steps_max: u64,
    /// Configurations remembered for the key at work. Each takes some hundred bytes.
    pub memo_entries_max: usize,
}

impl Default for Budget {
    /// Fifty million steps, a million configurations.
    fn default() -> Self {
        Self {
            steps_max: 50_000_000,
            memo_entries_max: 1_000_000,
        }
    }
}

/// What [`check`] found.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub enum Linearizability<K> {
    /// There is an order for every key.
    Holds,
    /// There is none for this key.
    Violated(Violation<K>),
    /// The budget did not suffice for these keys; the others hold.
    Undecided {
        /// The keys, those with the fewest operations first.
        keys: Vec<K>,
    },
}

/// Why a history is not linearizable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation<K> {
    /// The key.
    pub key: K,
    /// The first response that no order explains: the history up to the moment before it is linearizable.
    /// (If the budget ran out on the way: a response by which it certainly is not.)
    pub culprit: OpId,
    /// Up to `culprit`, the most that was found to fit in an order, in that order. Operations that were not answered by
    /// then are in it only where something needs them.
    pub prefix: Vec<OpId>,
    /// What would have to come next, and does not fit there.
    pub blocked: Vec<OpId>,
}

/// Whether the history could be that of one copy of the data.
pub fn check<M: Model>(
    model: &M,
    history: &History<M::Op, M::Ret>,
    budget: Budget,
) -> Linearizability<M::Key> {
    let mut steps_left = budget.steps_max;
    let mut undecided = Vec::new();
    for (key, operations) in by_key(model, history) {
        let mut judge = |end: Option<(Time, OpId)>, foresight| {
            if foresight == Foresight::Off {
                steps_left = EXPLANATION_STEPS_MAX; // the verdict is known, this is the last search
            }
            let part = KeyHistory::until(&operations, end);
            let init = model.init(key);
            let memo_entries_max = budget.memo_entries_max;
            search(
                model,
                init,
                &part,
                foresight,
                memo_entries_max,
                &mut steps_left,
            )
        };
        match judge(None, Foresight::On) {
            Found::Order => {}
            Found::OutOfSteps(_) => undecided.push(key.clone()),
            Found::Nothing(stuck) => {
                let (culprit, stuck) = first_unexplained(&operations, stuck, judge);
                return Linearizability::Violated(Violation {
                    key: key.clone(),
                    culprit,
                    prefix: stuck.prefix,
                    blocked: stuck.blocked,
                });
            }
        }
    }
    if undecided.is_empty() {
        Linearizability::Holds
    } else {
        Linearizability::Undecided { keys: undecided }
    }
}

type Part<'h, M> = Vec<(OpId, &'h Operation<<M as Model>::Op, <M as Model>::Ret>)>;

/// The operations of each key; short ones first, so that one hard key does not use up the steps of all others.
fn by_key<'h, M: Model>(
    model: &M,
    history: &'h History<M::Op, M::Ret>,
) -> Vec<(&'h M::Key, Part<'h, M>)> {
    let mut parts: BTreeMap<&M::Key, Part<'h, M>> = BTreeMap::new();
    for (id, operation) in history.operations() {
        let part = parts.entry(model.key(&operation.op)).or_default();
        part.push((id, operation));
    }
    let mut parts: Vec<_> = parts.into_iter().collect();
    parts.sort_by_key(|(_, part)| part.len());
    parts
}

/// Cuts the history down to the first response that no order explains. Linearizability is prefix-closed, so halving
/// finds it.
fn first_unexplained<Op, Ret>(
    operations: &[(OpId, &Operation<Op, Ret>)],
    mut stuck: Stuck,
    mut judge: impl FnMut(Option<(Time, OpId)>, Foresight) -> Found,
) -> (OpId, Stuck) {
    let mut responses: Vec<(Time, OpId)> = operations
        .iter()
        .filter_map(|&(id, operation)| Some((operation.response.as_ref()?.at, id)))
        .collect();
    responses.sort_unstable();
    // All before `low` hold; the one at `high` does not.
    let (mut low, mut high) = (0, responses.len().saturating_sub(1));
    while low < high {
        let middle = low + (high - low) / 2;
        match judge(Some(responses[middle]), Foresight::On) {
            Found::Order => low = middle + 1,
            Found::Nothing(less) => {
                stuck = less;
                high = middle;
            }
            Found::OutOfSteps(_) => break,
        }
    }
    // With foresight the search turns back before it runs into the wall that a person wants to see.
    let end = responses.get(high).copied();
    match judge(end, Foresight::Off) {
        Found::Nothing(plain) | Found::OutOfSteps(Some(plain)) => stuck = plain,
        Found::OutOfSteps(None) | Found::Order => {}
    }
    (end.map_or(OpId(0), |(_, id)| id), stuck)
}

impl<K: Debug> Violation<K> {
    /// Tells the story for a person: the end of the order that fits, with the states it leads to, and what does not
    /// fit behind it.
    #[must_use]
    pub fn explain<M>(&self, model: &M, history: &History<M::Op, M::Ret>) -> String
    where
        M: Model<Key = K>,
        M::Op: Debug,
        M::Ret: Debug,
        M::State: Debug,
    {
        let mut text = String::new();
        self.write(&mut text, model, history)
            .expect("writing to a string does not fail");
        text
    }

    fn write<M>(
        &self,
        text: &mut String,
        model: &M,
        history: &History<M::Op, M::Ret>,
    ) -> fmt::Result
    where
        M: Model<Key = K>,
        M::Op: Debug,
        M::Ret: Debug,
        M::State: Debug,
    {
        writeln!(text, "not linearizable: key {:?}", self.key)?;
        let unseen = self.prefix.len().saturating_sub(PREFIX_SHOWN);
        let mut state = model.init(&self.key);
        if unseen > 0 {
            writeln!(text, "  {unseen} operations fit in an order; then")?;
        } else {
            writeln!(text, "  at first {state:?}")?;
        }
        for (n, &id) in self.prefix.iter().enumerate() {
            let Some(operation) = history.get(id) else {
                continue;
            };
            let ret = operation.response.as_ref().map(|response| &response.ret);
            // In the prefix an operation may be used before its answer came, so the answer need not fit.
            let after = model
                .step(&state, &operation.op, ret)
                .or_else(|| model.step(&state, &operation.op, None));
            state = after.unwrap_or(state);
            if n >= unseen {
                write_operation(text, id, operation)?;
                writeln!(text, "      → {state:?}")?;
            }
        }
        writeln!(
            text,
            "  next would have to come one of these, and none fits:"
        )?;
        for &id in self.blocked.iter().take(PREFIX_SHOWN) {
            let Some(operation) = history.get(id) else {
                continue;
            };
            write_operation(text, id, operation)?;
        }
        writeln!(
            text,
            "  the first response that no order explains: {}",
            self.culprit
        )
    }
}

fn write_operation<Op: Debug, Ret: Debug>(
    text: &mut String,
    id: OpId,
    operation: &Operation<Op, Ret>,
) -> fmt::Result {
    let Operation {
        client,
        op,
        invoked,
        response,
    } = operation;
    write!(text, "    {id} {client} [{invoked:?} … ")?;
    match response {
        Some(response) => writeln!(text, "{:?}] {op:?} = {:?}", response.at, response.ret),
        None => writeln!(text, "?] {op:?} = ?"),
    }
}

/// How long the search for the order to show goes on.
const EXPLANATION_STEPS_MAX: u64 = 1_000_000;

/// How much of the prefix a person is shown.
const PREFIX_SHOWN: usize = 8;

#[cfg(test)]
mod tests;
