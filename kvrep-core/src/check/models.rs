//! Models ready to use: registers under keys, and counters under keys.
//!
//! For other data write a [`Model`]; these two are also the examples to start from. A history over counters
//! is the sharper test of exactly-once: a write applied twice shows in every later answer.
//!
//! ```
//! use kvrep_core::Time;
//! use kvrep_core::check::{Budget, ClientId, History, Linearizability, linearizable};
//! use kvrep_core::check::models::{CounterOp, Counters};
//!
//! let mut history = History::new();
//! let add = history.invoke(Time::from_nanos(0), ClientId(1), CounterOp::Add("a", 1));
//! history.respond(Time::from_nanos(9), add, 2); // the command was carried out twice
//! let verdict = linearizable::check(&Counters::new(), &history, Budget::default());
//! assert!(matches!(verdict, Linearizability::Violated(_)));
//! ```

use super::linearizable::{Hint, Model};
use std::marker::PhantomData;

/// What clients ask of a [`Kv`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KvOp<K, V> {
    /// Reads; answered by [`KvRet::Value`].
    Get(K),
    /// Writes; answered by [`KvRet::Done`] or, if the system says what was there before, by [`KvRet::Value`].
    Put(K, V),
    /// Removes; answered like `Put`.
    Delete(K),
    /// Writes `new` if the value is `expected`; answered by [`KvRet::Swapped`].
    CompareAndSet {
        /// The key.
        key: K,
        /// The value that must be there; `None`: no value.
        expected: Option<V>,
        /// The value that replaces it.
        new: V,
    },
}

/// What clients of a [`Kv`] are told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KvRet<V> {
    /// It was done.
    Done,
    /// The value that is there (read) or was there before (write).
    Value(Option<V>),
    /// Whether the value was as expected, and so was replaced.
    Swapped(bool),
}

/// A register under each key, at first without a value.
#[derive(Clone, Copy, Debug)]
pub struct Kv<K, V>(PhantomData<fn() -> (K, V)>);

impl<K, V> Kv<K, V> {
    /// The model.
    #[must_use]
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<K, V> Default for Kv<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Ord + Clone, V: Ord + Clone> Model for Kv<K, V> {
    type Op = KvOp<K, V>;
    type Ret = KvRet<V>;
    type Key = K;
    type State = Option<V>;

    fn key<'a>(&self, op: &'a KvOp<K, V>) -> &'a K {
        match op {
            KvOp::Get(key)
            | KvOp::Put(key, _)
            | KvOp::Delete(key)
            | KvOp::CompareAndSet { key, .. } => key,
        }
    }

    fn init(&self, _key: &K) -> Option<V> {
        None
    }

    fn step(
        &self,
        state: &Option<V>,
        op: &KvOp<K, V>,
        ret: Option<&KvRet<V>>,
    ) -> Option<Option<V>> {
        let written = |ret: Option<&KvRet<V>>| match ret {
            None | Some(KvRet::Done) => true,
            Some(KvRet::Value(before)) => before == state,
            Some(KvRet::Swapped(_)) => false,
        };
        match op {
            KvOp::Get(_) => match ret {
                None => Some(state.clone()),
                Some(KvRet::Value(value)) => (value == state).then(|| state.clone()),
                Some(KvRet::Done | KvRet::Swapped(_)) => None,
            },
            KvOp::Put(_, value) => written(ret).then(|| Some(value.clone())),
            KvOp::Delete(_) => written(ret).then_some(None),
            KvOp::CompareAndSet { expected, new, .. } => {
                let swaps = expected == state;
                match ret {
                    Some(KvRet::Swapped(swapped)) if *swapped != swaps => None,
                    Some(KvRet::Done | KvRet::Value(_)) => None,
                    Some(KvRet::Swapped(_)) | None if swaps => Some(Some(new.clone())),
                    Some(KvRet::Swapped(_)) | None => Some(state.clone()),
                }
            }
        }
    }

    fn hint(&self, op: &KvOp<K, V>, ret: Option<&KvRet<V>>) -> Hint<Option<V>> {
        let value = match ret {
            Some(KvRet::Value(value)) => Some(value.clone()),
            Some(KvRet::Done | KvRet::Swapped(_)) | None => None,
        };
        match op {
            KvOp::Get(_) => Hint {
                only_looks: true,
                needs: value,
                makes: None,
            },
            KvOp::Put(_, new) => Hint {
                only_looks: false,
                needs: value,
                makes: Some(Some(new.clone())),
            },
            KvOp::Delete(_) => Hint {
                only_looks: false,
                needs: value,
                makes: Some(None),
            },
            KvOp::CompareAndSet { expected, new, .. } => Hint {
                only_looks: ret == Some(&KvRet::Swapped(false)),
                needs: (ret == Some(&KvRet::Swapped(true))).then(|| expected.clone()),
                makes: Some(Some(new.clone())),
            },
        }
    }
}

/// What clients ask of [`Counters`]; answered by the sum.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum CounterOp<K> {
    /// Adds; answered by the sum after it.
    Add(K, i64),
    /// Reads.
    Read(K),
}

/// A counter under each key, at first 0. It shows every write that was lost or applied twice.
#[derive(Clone, Copy, Debug)]
pub struct Counters<K>(PhantomData<fn() -> K>);

impl<K> Counters<K> {
    /// The model.
    #[must_use]
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<K> Default for Counters<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Ord + Clone> Model for Counters<K> {
    type Op = CounterOp<K>;
    type Ret = i64;
    type Key = K;
    type State = i64;

    fn key<'a>(&self, op: &'a CounterOp<K>) -> &'a K {
        match op {
            CounterOp::Add(key, _) | CounterOp::Read(key) => key,
        }
    }

    fn init(&self, _key: &K) -> i64 {
        0
    }

    fn step(&self, state: &i64, op: &CounterOp<K>, ret: Option<&i64>) -> Option<i64> {
        let after = match op {
            CounterOp::Add(_, by) => state.wrapping_add(*by),
            CounterOp::Read(_) => *state,
        };
        ret.is_none_or(|sum| *sum == after).then_some(after)
    }

    fn hint(&self, op: &CounterOp<K>, ret: Option<&i64>) -> Hint<i64> {
        match op {
            CounterOp::Add(_, by) => Hint {
                only_looks: false,
                needs: ret.map(|sum| sum.wrapping_sub(*by)),
                makes: ret.copied(),
            },
            CounterOp::Read(_) => Hint {
                only_looks: true,
                needs: ret.copied(),
                makes: None,
            },
        }
    }
}
