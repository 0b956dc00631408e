//! The search for an order of one key's operations that explains their responses.
//!
//! Operations are placed one after the other. Next can come only an operation that no other unplaced one precedes in
//! time (Wing and Gong 1993). A configuration that was explored in vain is not explored again (Lowe 2017). Four
//! observations keep the tree small:
//! - an operation that may come next, fits and only looks can be placed at once, without alternatives: any order with
//!   it later is still one with it now (not so for a write of the value that is there already: the order may need it
//!   after another write);
//! - a pending operation that changes nothing where it stands need not stand there; of two equal ones the earlier goes first;
//! - fewer pending operations used up are better ([`Memo`]);
//! - a state that is needed later and cannot be had again must not be left ([`Demand`]).
//!
//! What to try first is a guess, and good guesses make a correct history linear in its length: first what enables the
//! response with the earliest deadline, then completed operations in the order of their responses, then pending ones.

use super::foresight::{Demand, Role};
use super::history::{OpId, Operation, Response};
use super::linearizable::Model;
use super::memo::{Memo, Placed};
use crate::time::Time;

/// The operations of one key, by time of invocation.
pub(super) struct KeyHistory<'h, Op, Ret> {
    completed: Vec<Completed<'h, Op, Ret>>,
    pending: Vec<Pending<'h, Op>>,
}

struct Completed<'h, Op, Ret> {
    id: OpId,
    op: &'h Op,
    invoked: Time,
    response: &'h Response<Ret>,
}

struct Pending<'h, Op> {
    id: OpId,
    op: &'h Op,
    invoked: Time,
    /// The last equal pending operation before this one.
    twin: Option<usize>,
}

/// How a search ended.
pub(super) enum Found {
    /// There is an order.
    Order,
    /// There is none.
    Nothing(Stuck),
    /// The steps were used up; how far it came by then.
    OutOfSteps(Option<Stuck>),
}

/// Whether to turn back as soon as a state is left that is still needed ([`Demand`]).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Foresight {
    /// Yes: fast.
    On,
    /// No: the search goes on until something does not fit, as a person would.
    Off,
}

/// The furthest that the search came.
#[derive(Default)]
pub(super) struct Stuck {
    /// Operations in an order that fits.
    pub(super) prefix: Vec<OpId>,
    /// Those of which one would have to come next, and none fits.
    pub(super) blocked: Vec<OpId>,
    completed: usize,
}

impl<'h, Op: PartialEq, Ret> KeyHistory<'h, Op, Ret> {
    /// The history of these operations up to `end` (a response: its time and operation): those that were answered later are
    /// pending, those that were sent later do not exist.
    pub(super) fn until(
        operations: &[(OpId, &'h Operation<Op, Ret>)],
        end: Option<(Time, OpId)>,
    ) -> Self {
        let mut sorted: Vec<_> = operations
            .iter()
            .filter(|(_, operation)| end.is_none_or(|(at, _)| operation.invoked <= at))
            .collect();
        sorted.sort_by_key(|&&(id, operation)| (operation.invoked, id));
        let mut this = Self {
            completed: Vec::with_capacity(sorted.len()),
            pending: Vec::new(),
        };
        for &&(id, operation) in &sorted {
            let Operation { op, invoked, .. } = operation;
            let invoked = *invoked;
            let answered = operation.response.as_ref();
            match answered.filter(|response| end.is_none_or(|end| (response.at, id) <= end)) {
                Some(response) => this.completed.push(Completed {
                    id,
                    op,
                    invoked,
                    response,
                }),
                None => {
                    let recent = this.pending.len().saturating_sub(TWINS_LOOKED_AT);
                    let twin = this.pending[recent..]
                        .iter()
                        .rposition(|earlier| earlier.op == op)
                        .map(|at| recent + at);
                    this.pending.push(Pending {
                        id,
                        op,
                        invoked,
                        twin,
                    });
                }
            }
        }
        this
    }
}

/// One operation to place next.
#[derive(Clone, Copy)]
enum Move {
    Completed(usize),
    Pending(usize),
}

/// A configuration on the way from the start to where the search is.
struct Frame<S> {
    /// Reads that were placed on arrival.
    at_once: Vec<usize>,
    /// What can come next with the state it leads to; the best last.
    options: Vec<(Move, S)>,
    /// The option being tried.
    tried: Option<Move>,
}

struct Search<'s, 'h, M: Model> {
    model: &'s M,
    history: &'s KeyHistory<'h, M::Op, M::Ret>,
    /// What each completed and each pending operation needs and makes.
    roles: (Vec<Role>, Vec<Role>),
    demand: Demand<M::State>,
    foresight: Foresight,
    completed: Placed,
    pending: Placed,
    memo: Memo<M::State>,
    steps_left: &'s mut u64,
    path: Vec<Frame<M::State>>,
    stuck: Option<Stuck>,
}

/// What can be said on arrival at a configuration.
enum Arrival<S> {
    Frame(Frame<S>),
    Done,
    OutOfSteps,
}

/// Looks for an order; each call of `Model::step` takes one off `steps_left`.
pub(super) fn search<M: Model>(
    model: &M,
    init: M::State,
    history: &KeyHistory<'_, M::Op, M::Ret>,
    foresight: Foresight,
    memo_entries_max: usize,
    steps_left: &mut u64,
) -> Found {
    let mut demand = Demand::none();
    let completed = history.completed.iter();
    let completed = completed
        .map(|operation| demand.add(model.hint(operation.op, Some(&operation.response.ret))))
        .collect();
    let pending = history.pending.iter();
    let pending = pending
        .map(|operation| demand.add(model.hint(operation.op, None)))
        .collect();
    if foresight == Foresight::On && demand.is_hopeless(&init) {
        return Found::Nothing(Stuck::default());
    }
    let search = Search {
        model,
        history,
        roles: (completed, pending),
        demand,
        foresight,
        completed: Placed::none_of(history.completed.len()),
        pending: Placed::none_of(history.pending.len()),
        memo: Memo::new(memo_entries_max),
        steps_left,
        path: Vec::new(),
        stuck: None,
    };
    search.run(init)
}

impl<M: Model> Search<'_, '_, M> {
    fn run(mut self, init: M::State) -> Found {
        let mut arriving = Some(init);
        loop {
            if let Some(state) = arriving.take() {
                match self.arrive(state) {
                    Arrival::Done => return Found::Order,
                    Arrival::OutOfSteps => return Found::OutOfSteps(self.stuck),
                    Arrival::Frame(frame) => self.path.push(frame),
                }
            }
            let Some(frame) = self.path.last_mut() else {
                return Found::Nothing(self.stuck.unwrap_or_default());
            };
            if let Some((next, state)) = frame.options.pop() {
                frame.tried = Some(next);
                self.place(next);
                arriving = Some(state);
            } else {
                self.retreat();
            }
        }
    }

    /// Places what can be placed without alternatives, and finds the alternatives for what comes after.
    fn arrive(&mut self, state: M::State) -> Arrival<M::State> {
        let mut at_once = Vec::new();
        let mut options: Vec<(Move, M::State)> = Vec::new();
        let mut blocked = Vec::new();
        loop {
            let (may_be_next, horizon) = self.may_be_next();
            options.clear();
            blocked.clear();
            let placed_before = at_once.len();
            for n in may_be_next {
                let operation = &self.history.completed[n];
                match self.step(&state, operation.op, Some(&operation.response.ret)) {
                    Some(_) if self.roles.0[n].only_looks => {
                        self.place(Move::Completed(n));
                        at_once.push(n);
                    }
                    Some(after) => options.push((Move::Completed(n), after)),
                    None => blocked.push(n),
                }
            }
            if self.completed.count() == self.history.completed.len() {
                return Arrival::Done;
            }
            if *self.steps_left == 0 {
                return Arrival::OutOfSteps;
            }
            if at_once.len() == placed_before {
                self.add_pending(&state, horizon, &mut options);
                break;
            }
        }
        self.drop_hopeless(&state, &mut options);
        if options.is_empty() {
            self.note_stuck(&at_once, &blocked);
        } else if options.len() > 1 {
            if self.memo.is_new(&self.completed, &self.pending, &state) {
                self.order(&mut options, &blocked);
            } else {
                options.clear();
            }
        }
        Arrival::Frame(Frame {
            at_once,
            options,
            tried: None,
        })
    }

    /// The completed operations that no unplaced one precedes, and the time by which the next must have been sent.
    fn may_be_next(&self) -> (Vec<usize>, Time) {
        let mut horizon = Time::from_nanos(u64::MAX);
        let mut found = Vec::new();
        for n in self.completed.missing(self.history.completed.len()) {
            let operation = &self.history.completed[n];
            if operation.invoked > horizon {
                break;
            }
            horizon = horizon.min(operation.response.at);
            found.push(n);
        }
        (found, horizon)
    }

    fn add_pending(
        &mut self,
        state: &M::State,
        horizon: Time,
        options: &mut Vec<(Move, M::State)>,
    ) {
        let history = self.history;
        let sent = history
            .pending
            .partition_point(|operation| operation.invoked <= horizon);
        let unused: Vec<_> = self.pending.missing(sent).collect();
        for n in unused {
            let operation = &history.pending[n];
            if operation.twin.is_some_and(|twin| !self.pending.has(twin)) {
                continue;
            }
            if let Some(after) = self.step(state, operation.op, None)
                && after != *state
            {
                options.push((Move::Pending(n), after));
            }
        }
    }

    /// Drops the options that leave a state which is needed later and cannot be had again.
    fn drop_hopeless(&self, state: &M::State, options: &mut Vec<(Move, M::State)>) {
        if self.foresight == Foresight::Off {
            return;
        }
        if let Some(chance) = self.demand.last_chance(state) {
            options.retain(|&(next, ref after)| {
                after == state || !chance.is_missed_by(self.role(next))
            });
        }
    }

    /// Sorts the options: the best last.
    fn order(&mut self, options: &mut Vec<(Move, M::State)>, blocked: &[usize]) {
        let history = self.history;
        let mut keyed = Vec::with_capacity(options.len());
        for (next, after) in options.drain(..) {
            let mut enables = Time::from_nanos(u64::MAX);
            for &n in blocked {
                let operation = &history.completed[n];
                if operation.response.at < enables
                    && self
                        .step(&after, operation.op, Some(&operation.response.ret))
                        .is_some()
                {
                    enables = operation.response.at;
                }
            }
            let by = match next {
                Move::Completed(n) => (enables, false, history.completed[n].response.at, n),
                Move::Pending(n) => (enables, true, history.pending[n].invoked, n),
            };
            keyed.push((by, next, after));
        }
        keyed.sort_by_key(|&(by, _, _)| std::cmp::Reverse(by));
        options.extend(keyed.into_iter().map(|(_, next, after)| (next, after)));
    }

    fn step(&mut self, state: &M::State, op: &M::Op, ret: Option<&M::Ret>) -> Option<M::State> {
        *self.steps_left = self.steps_left.saturating_sub(1);
        self.model.step(state, op, ret)
    }

    fn role(&self, of: Move) -> Role {
        match of {
            Move::Completed(n) => self.roles.0[n],
            Move::Pending(n) => self.roles.1[n],
        }
    }

    fn place(&mut self, next: Move) {
        self.demand.place(self.role(next));
        match next {
            Move::Completed(n) => self.completed.insert(n),
            Move::Pending(n) => self.pending.insert(n),
        }
    }

    fn take_back(&mut self, last: Move) {
        self.demand.unplace(self.role(last));
        match last {
            Move::Completed(n) => self.completed.remove(n),
            Move::Pending(n) => self.pending.remove(n),
        }
    }

    /// Goes back from a configuration without options left, and takes back the move that led to it.
    fn retreat(&mut self) {
        let Some(frame) = self.path.pop() else { return };
        for n in frame.at_once {
            self.take_back(Move::Completed(n));
        }
        if let Some(last) = self.path.last_mut().and_then(|before| before.tried.take()) {
            self.take_back(last);
        }
    }

    fn note_stuck(&mut self, at_once: &[usize], blocked: &[usize]) {
        let completed = self.completed.count();
        if self
            .stuck
            .as_ref()
            .is_some_and(|stuck| stuck.completed >= completed)
        {
            return;
        }
        let id = |&n: &usize| self.history.completed[n].id;
        let mut prefix = Vec::new();
        for frame in &self.path {
            prefix.extend(frame.at_once.iter().map(id));
            prefix.extend(frame.tried.map(|next| match next {
                Move::Completed(n) => self.history.completed[n].id,
                Move::Pending(n) => self.history.pending[n].id,
            }));
        }
        prefix.extend(at_once.iter().map(id));
        self.stuck = Some(Stuck {
            prefix,
            blocked: blocked.iter().map(id).collect(),
            completed,
        });
    }
}

/// How far back an equal pending operation is looked for.
const TWINS_LOOKED_AT: usize = 64;
