//! What the clients do, and what is asked of the state machine in the end.

use super::ledger::CommandId;
use crate::check::ClientId;
use crate::check::history::{History, OpId};
use crate::id::Index;
use crate::random::Rng;
use crate::state_machine::{RawStateMachine, StateMachine, Typed, decode, encode};
use crate::time::Time;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fmt::Debug;

/// How fresh a query's answer must be: [`crate::Read`], where the simulator keeps the token.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Freshness {
    /// [`crate::Read::Local`] at any replica.
    Local,
    /// [`crate::Read::AtLeast`] everything this client has seen, at any replica.
    Seen,
    /// [`crate::Read::Linearizable`].
    Linearizable,
}

/// One operation of a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step<C, Q> {
    /// A command, in the client's session: carried out once, however often it is sent.
    Command(C),
    /// A query.
    Query(Freshness, Q),
}

/// The end of a run, for a workload to judge: the group has converged and everything is over.
pub struct Ending<'a> {
    /// The commands that were carried out, in order.
    pub executed: &'a [(Index, CommandId)],
    /// Asks the final state (of any replica: they are equal).
    pub ask: &'a dyn Fn(&[u8]) -> Bytes,
}

/// What the simulated clients do. Implement it over bytes, or use [`Clients`] for a typed [`StateMachine`].
pub trait Workload {
    /// The state machine of a replica that starts: the initial state.
    fn machine(&self) -> Box<dyn RawStateMachine>;

    /// A command that changes the state for good, in a way that no client can see: a replica to which alone it happens has
    /// gone wrong. For [`Simulation::disturbed`](super::Simulation::disturbed), which needs one.
    fn disturbance(&self) -> Option<Bytes> {
        None
    }

    /// The next operation of `client`, whose commands are numbered by `id` and which sends it now. Its last operation has
    /// been answered or given up.
    fn next(&mut self, now: Time, rng: &mut Rng, id: CommandId) -> Step<Bytes, Bytes>;

    /// The operation of `client` was answered.
    ///
    /// # Errors
    /// What is wrong with the answer.
    fn answered(
        &mut self,
        now: Time,
        client: u32,
        seen: Seen,
        response: &[u8],
    ) -> Result<(), String>;

    /// `client` gives up: its operation may have been carried out, may still be, or never.
    fn given_up(&mut self, client: u32);

    /// How many histories could not be judged.
    fn undecided(&self) -> u64 {
        0
    }

    /// The run is over.
    ///
    /// # Errors
    /// What is wrong with all of it.
    fn finish(&mut self, ending: &Ending<'_>) -> Result<(), String>;
}

/// The positions that belong to an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    /// What the client had seen when it asked.
    pub before: Index,
    /// The position of the command, or of the state that answered the query.
    pub at: Index,
}

/// The history of a run over a typed state machine.
pub type RunHistory<S> = History<
    Step<<S as StateMachine>::Command, <S as StateMachine>::Query>,
    <S as StateMachine>::Response,
>;

type Judge<S> = dyn Fn(
    &RunHistory<S>,
    &dyn Fn(&<S as StateMachine>::Query) -> <S as StateMachine>::Response,
) -> Result<(), String>;

type Generate<S> = dyn FnMut(
    &mut Rng,
    CommandId,
) -> Step<<S as StateMachine>::Command, <S as StateMachine>::Query>;

/// Clients of a typed state machine: how it starts, what they do, and how the end is judged.
///
/// ```
/// use kvrep_core::sim::{Cell, Clients, Simulation, Step, Freshness};
/// # use kvrep_core::{ApplyContext, StateMachine};
/// # #[derive(Default)]
/// # struct Counter(i64);
/// # impl StateMachine for Counter {
/// #     type Command = i64;
/// #     type Query = ();
/// #     type Response = i64;
/// #     type Snapshot = i64;
/// #     fn apply(&mut self, _: &mut ApplyContext, by: i64) -> i64 { self.0 += by; self.0 }
/// #     fn query(&self, (): ()) -> i64 { self.0 }
/// #     fn snapshot(&self) -> i64 { self.0 }
/// #     fn restore(&mut self, state: i64) { self.0 = state; }
/// # }
/// let clients = Clients::new(Counter::default, |rng, _| match rng.below(3) {
///     0 => Step::Query(Freshness::Linearizable, ()),
///     _ => Step::Command(1),
/// })
/// .judged_by(|history, ask| {
///     let answered = |(_, o): &(_, &kvrep_core::check::Operation<_, _>)| {
///         matches!(o.op, Step::Command(_)) && o.response.is_some()
///     };
///     let acknowledged = history.operations().filter(answered).count() as i64;
///     if ask(&()) >= acknowledged { Ok(()) } else { Err("an increment was lost".into()) }
/// });
/// let cell = Cell::named("witness/wal/crashes").unwrap();
/// let report = Simulation::new(cell, 7).seconds(5).operations(100).clients(clients).run();
/// assert!(report.failure.is_none(), "{report}");
/// ```
pub struct Clients<S: StateMachine> {
    start: Box<dyn Fn() -> S>,
    generate: Box<Generate<S>>,
    judge: Option<Box<Judge<S>>>,
    history: RunHistory<S>,
    open: BTreeMap<u32, OpId>,
}

impl<S> Clients<S>
where
    S: StateMachine,
    S::Command: Clone,
    S::Query: Clone,
{
    /// Clients of machines that start as `start` makes them. `generate` draws a client's next operation; the id is that of
    /// the command, should it be one.
    pub fn new(
        start: impl Fn() -> S + 'static,
        generate: impl FnMut(&mut Rng, CommandId) -> Step<S::Command, S::Query> + 'static,
    ) -> Self {
        Self {
            start: Box::new(start),
            generate: Box::new(generate),
            judge: None,
            history: History::new(),
            open: BTreeMap::new(),
        }
    }

    /// Judges the run in the end by what the clients saw and by asking the final state; see [`crate::check`].
    #[must_use]
    pub fn judged_by(
        mut self,
        judge: impl Fn(&RunHistory<S>, &dyn Fn(&S::Query) -> S::Response) -> Result<(), String>
        + 'static,
    ) -> Self {
        self.judge = Some(Box::new(judge));
        self
    }
}

impl<S> Workload for Clients<S>
where
    S: StateMachine,
    S::Command: Clone,
    S::Query: Clone,
{
    fn machine(&self) -> Box<dyn RawStateMachine> {
        Box::new(Typed((self.start)()))
    }

    fn next(&mut self, now: Time, rng: &mut Rng, id: CommandId) -> Step<Bytes, Bytes> {
        let step = (self.generate)(rng, id);
        let bytes = match &step {
            Step::Command(command) => Step::Command(encode(command)),
            Step::Query(freshness, query) => Step::Query(*freshness, encode(query)),
        };
        let op = self
            .history
            .invoke(now, ClientId(u64::from(id.client)), step);
        self.open.insert(id.client, op);
        bytes
    }

    fn answered(&mut self, now: Time, client: u32, _: Seen, response: &[u8]) -> Result<(), String> {
        let response = decode(response).map_err(|e| format!("an answer that is none: {e}"))?;
        if let Some(op) = self.open.remove(&client) {
            self.history.respond(now, op, response);
        }
        Ok(())
    }

    fn given_up(&mut self, client: u32) {
        self.open.remove(&client);
    }

    fn finish(&mut self, ending: &Ending<'_>) -> Result<(), String> {
        let Some(judge) = &self.judge else {
            return Ok(());
        };
        judge(&self.history, &|query| {
            decode((ending.ask)(&encode(query)).as_ref()).expect("the machine's own answer decodes")
        })
    }
}

impl<S: StateMachine> Debug for Clients<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Clients({} under way)", self.open.len())
    }
}
