//! The workload by default: registers and counters, hammered by clients that remember everything.
//!
//! Every value written is unique, so an answer tells which write it saw. Checked in the end: linearizability of the writes
//! and the linearizable reads, the session guarantees by position, and that every read at some position or later shows
//! what was there at that position or later.

use super::ledger::CommandId;
use super::workload::{Ending, Freshness, Seen, Step, Workload};
use crate::check::models::{CounterOp, Counters, Kv, KvOp, KvRet};
use crate::check::sessions::{self, Access, SessionOp};
use crate::check::{Budget, ClientId, History, Linearizability, Model, OpId, linearizable};
use crate::id::Index;
use crate::random::Rng;
use crate::state_machine::{ApplyContext, RawStateMachine, StateMachine, Typed, decode, encode};
use crate::time::Time;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Registers and counters under small keys.
#[derive(Clone, Debug, Default)]
pub(super) struct Table(State);

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct State {
    registers: BTreeMap<u8, u64>,
    counters: BTreeMap<u8, i64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Command {
    Put(u8, u64),
    Delete(u8),
    CompareAndSet(u8, Option<u64>, u64),
    Add(u8, i64),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Query {
    Get(u8),
    Sum(u8),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Response {
    Value(Option<u64>),
    Swapped(bool),
    Sum(i64),
}

impl StateMachine for Table {
    type Command = Command;
    type Query = Query;
    type Response = Response;
    type Snapshot = State;

    fn apply(&mut self, _: &mut ApplyContext, command: Command) -> Response {
        let State {
            registers,
            counters,
        } = &mut self.0;
        match command {
            Command::Put(key, value) => Response::Value(registers.insert(key, value)),
            Command::Delete(key) => Response::Value(registers.remove(&key)),
            Command::CompareAndSet(key, expected, new) => {
                let swaps = registers.get(&key).copied() == expected;
                if swaps {
                    registers.insert(key, new);
                }
                Response::Swapped(swaps)
            }
            Command::Add(key, by) => {
                let sum = counters.entry(key).or_default();
                *sum += by;
                Response::Sum(*sum)
            }
        }
    }

    fn query(&self, query: Query) -> Response {
        match query {
            Query::Get(key) => Response::Value(self.0.registers.get(&key).copied()),
            Query::Sum(key) => {
                Response::Sum(self.0.counters.get(&key).copied().unwrap_or_default())
            }
        }
    }

    fn snapshot(&self) -> State {
        self.0.clone()
    }

    fn restore(&mut self, state: State) {
        self.0 = state;
    }

    fn digest(&self) -> Option<u64> {
        Some(xxhash_rust::xxh3::xxh3_64(&encode(&self.0)))
    }
}

/// What a client has under way.
#[derive(Clone, Debug)]
struct Doing {
    invoked: Time,
    step: Step<Command, Query>,
    linear: Option<Linear>,
}

/// Where the operation stands in which history.
#[derive(Clone, Copy, Debug)]
enum Linear {
    Register(OpId),
    Counter(OpId),
}

/// A read that is judged against the versions of its key.
#[derive(Debug)]
struct Look {
    client: u32,
    query: Query,
    not_before: Index,
    response: Response,
}

/// The clients of the table.
#[derive(Debug)]
pub(super) struct Hammer {
    keys: u64,
    queries: u64,
    last_seen: BTreeMap<u8, u64>,
    doing: BTreeMap<u32, Doing>,
    commands: BTreeMap<CommandId, Command>,
    registers: History<KvOp<u8, u64>, KvRet<u64>>,
    counters: History<CounterOp<u8>, i64>,
    sessions: Vec<SessionOp<()>>,
    looks: Vec<Look>,
    freshest: Freshness,
    undecided: u64,
}

impl Hammer {
    /// `queries` of a hundred operations only look, at nothing fresher than `freshest`.
    pub(super) fn new(queries: u64, freshest: Freshness) -> Self {
        Self {
            freshest,
            undecided: 0,
            keys: 10,
            queries,
            last_seen: BTreeMap::new(),
            doing: BTreeMap::new(),
            commands: BTreeMap::new(),
            registers: History::new(),
            counters: History::new(),
            sessions: Vec::new(),
            looks: Vec::new(),
        }
    }

    fn draw(&self, rng: &mut Rng, id: CommandId) -> Step<Command, Query> {
        let key = u8::try_from(rng.below(self.keys)).unwrap_or(0);
        // Even keys are registers, odd ones counters.
        let register = key % 2 == 0;
        if rng.below(100) < self.queries {
            let freshness = match rng.below(4) {
                0 => Freshness::Local,
                1 => Freshness::Seen,
                _ => self.freshest,
            };
            let query = if register {
                Query::Get(key)
            } else {
                Query::Sum(key)
            };
            return Step::Query(freshness, query);
        }
        let unique = id.to_u64() + 1;
        Step::Command(if register {
            match rng.below(6) {
                0 => Command::Delete(key),
                1 | 2 => Command::CompareAndSet(key, self.last_seen.get(&key).copied(), unique),
                _ => Command::Put(key, unique),
            }
        } else {
            Command::Add(key, 1 + i64::try_from(rng.below(9)).unwrap_or(0))
        })
    }

    fn invoke(
        &mut self,
        now: Time,
        client: ClientId,
        step: &Step<Command, Query>,
    ) -> Option<Linear> {
        let register = |op| Ok(op);
        let op: Result<KvOp<u8, u64>, CounterOp<u8>> = match step {
            Step::Command(Command::Put(key, value)) => register(KvOp::Put(*key, *value)),
            Step::Command(Command::Delete(key)) => register(KvOp::Delete(*key)),
            Step::Command(Command::CompareAndSet(key, expected, new)) => {
                register(KvOp::CompareAndSet {
                    key: *key,
                    expected: *expected,
                    new: *new,
                })
            }
            Step::Command(Command::Add(key, by)) => Err(CounterOp::Add(*key, *by)),
            Step::Query(Freshness::Linearizable, Query::Get(key)) => register(KvOp::Get(*key)),
            Step::Query(Freshness::Linearizable, Query::Sum(key)) => Err(CounterOp::Read(*key)),
            Step::Query(Freshness::Local | Freshness::Seen, _) => return None,
        };
        Some(match op {
            Ok(op) => Linear::Register(self.registers.invoke(now, client, op)),
            Err(op) => Linear::Counter(self.counters.invoke(now, client, op)),
        })
    }

    /// The values of each query's key over the positions: from each on, until the next.
    fn versions(&self, executed: &[(Index, CommandId)]) -> BTreeMap<u8, Vec<(Index, Response)>> {
        let mut table = Table::default();
        let mut versions: BTreeMap<u8, Vec<(Index, Response)>> = BTreeMap::new();
        for (index, id) in executed {
            let Some(command) = self.commands.get(id) else {
                continue;
            };
            let mut context = ApplyContext::new(*index, crate::Timestamp(0), 0);
            table.apply(&mut context, command.clone());
            let (key, query) = match command {
                Command::Put(key, _) | Command::Delete(key) | Command::CompareAndSet(key, _, _) => {
                    (*key, Query::Get(*key))
                }
                Command::Add(key, _) => (*key, Query::Sum(*key)),
            };
            let value = table.query(query);
            versions.entry(key).or_default().push((*index, value));
        }
        versions
    }

    fn look_back(&self, executed: &[(Index, CommandId)]) -> Result<(), String> {
        let versions = self.versions(executed);
        for look in &self.looks {
            let (key, initial) = match look.query {
                Query::Get(key) => (key, Response::Value(None)),
                Query::Sum(key) => (key, Response::Sum(0)),
            };
            let of_key = versions.get(&key).map_or(&[][..], Vec::as_slice);
            let first = (Index::ZERO, initial);
            let mut all = std::iter::once(&first).chain(of_key).peekable();
            let mut shown = false;
            while let Some((_, value)) = all.next() {
                let alive_after = all.peek().is_none_or(|(next, _)| *next > look.not_before);
                shown |= alive_after && *value == look.response;
            }
            if !shown {
                return Err(format!(
                    "client {} asked {:?} at or after {} and was told {:?}, which was not the value then or later",
                    look.client, look.query, look.not_before, look.response
                ));
            }
        }
        Ok(())
    }
}

impl Workload for Hammer {
    fn machine(&self) -> Box<dyn RawStateMachine> {
        Box::new(Typed(Table::default()))
    }

    /// A register that no client asks for.
    fn disturbance(&self) -> Option<Bytes> {
        Some(encode(&Command::Put(u8::MAX, 0xbad)))
    }

    fn next(&mut self, now: Time, rng: &mut Rng, id: CommandId) -> Step<Bytes, Bytes> {
        let step = self.draw(rng, id);
        let linear = self.invoke(now, ClientId(u64::from(id.client)), &step);
        let bytes = match &step {
            Step::Command(command) => {
                self.commands.insert(id, command.clone());
                Step::Command(encode(command))
            }
            Step::Query(freshness, query) => Step::Query(*freshness, encode(query)),
        };
        let doing = Doing {
            invoked: now,
            step,
            linear,
        };
        self.doing.insert(id.client, doing);
        bytes
    }

    fn answered(
        &mut self,
        now: Time,
        client: u32,
        seen: Seen,
        response: &[u8],
    ) -> Result<(), String> {
        let Some(doing) = self.doing.remove(&client) else {
            return Ok(());
        };
        let response: Response = decode(response).map_err(|e| e.to_string())?;
        match (doing.linear, &response) {
            (Some(Linear::Register(op)), Response::Value(value)) => {
                self.registers.respond(now, op, KvRet::Value(*value));
            }
            (Some(Linear::Register(op)), Response::Swapped(swapped)) => {
                self.registers.respond(now, op, KvRet::Swapped(*swapped));
            }
            (Some(Linear::Counter(op)), Response::Sum(sum)) => {
                self.counters.respond(now, op, *sum);
            }
            (None, _) => {}
            (Some(_), other) => return Err(format!("{other:?} answers {:?}", doing.step)),
        }
        let access = match doing.step {
            Step::Command(_) => Some(Access::Write(seen.at)),
            Step::Query(Freshness::Local, query) => {
                self.looks.push(Look {
                    client,
                    query,
                    not_before: Index::ZERO,
                    response,
                });
                None
            }
            Step::Query(Freshness::Seen, query) => {
                self.looks.push(Look {
                    client,
                    query,
                    not_before: seen.before,
                    response,
                });
                Some(Access::Read(seen.at))
            }
            Step::Query(Freshness::Linearizable, query) => {
                if let (Query::Get(key), Response::Value(Some(value))) = (&query, &response) {
                    self.last_seen.insert(*key, *value);
                }
                Some(Access::Read(seen.at))
            }
        };
        if let Some(access) = access {
            self.sessions.push(SessionOp {
                client: ClientId(u64::from(client)),
                object: (),
                invoked: doing.invoked,
                responded: now,
                access,
            });
        }
        Ok(())
    }

    fn given_up(&mut self, client: u32) {
        let Some(doing) = self.doing.remove(&client) else {
            return;
        };
        // A query has no effect: one without an answer never was.
        if let Step::Query(..) = doing.step {
            match doing.linear {
                Some(Linear::Register(op)) => self.registers.withdraw(op),
                Some(Linear::Counter(op)) => self.counters.withdraw(op),
                None => {}
            }
        }
    }

    fn undecided(&self) -> u64 {
        self.undecided
    }

    fn finish(&mut self, ending: &Ending<'_>) -> Result<(), String> {
        self.undecided += judge(&Kv::new(), &self.registers)?;
        self.undecided += judge(&Counters::new(), &self.counters)?;
        if let Some(broken) = sessions::check(&self.sessions).first() {
            let (a, b) = (&self.sessions[broken.earlier], &self.sessions[broken.later]);
            return Err(format!("{broken}: {a:?}, then {b:?}"));
        }
        self.look_back(ending.executed)
    }
}

/// Whether a history is linearizable; `Ok(1)` when that could not be told.
fn judge<M>(model: &M, history: &History<M::Op, M::Ret>) -> Result<u64, String>
where
    M: Model,
    M::Key: std::fmt::Debug,
    M::Op: std::fmt::Debug,
    M::State: std::fmt::Debug,
    M::Ret: std::fmt::Debug,
{
    let budget = Budget {
        steps_max: 3_000_000,
        memo_entries_max: 300_000,
    };
    match linearizable::check(model, history, budget) {
        // Too many unknown outcomes at once: nothing is proved, and the other rules stand.
        Linearizability::Holds => Ok(0),
        Linearizability::Undecided { .. } => Ok(1),
        Linearizability::Violated(violation) => Err(format!(
            "not linearizable at key {:?}:\n{}",
            violation.key,
            violation.explain(model, history)
        )),
    }
}
