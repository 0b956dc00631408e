//! A simulated client: one operation at a time, in a session, retried elsewhere until it is answered or its patience
//! ends.

use super::ledger::{CommandId, Ledger};
use super::workload::{Freshness, Seen, Step, Workload};
use crate::client_wire::{Op, Outcome};
use crate::config::{Read, Token};
use crate::id::{Index, ReplicaId, Seq, SessionId};
use crate::random::Rng;
use crate::time::Time;
use bytes::Bytes;
use std::time::Duration;

/// What a client's timer is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verb {
    /// Begin the next operation.
    Begin,
    /// Send what is under way again, to anybody.
    Elsewhere,
    /// Send what is under way again, to the one who is said to be primary.
    There,
}

/// What a client wants done.
#[derive(Debug)]
pub(super) enum Wish {
    Send {
        node: usize,
        attempt: u64,
        op: Op,
    },
    Wake {
        after: Duration,
        timer: u64,
        verb: Verb,
    },
}

/// What a client got: for the invariants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) client: u32,
    /// `None` for a query.
    pub(super) command: Option<CommandId>,
    pub(super) freshness: Option<Freshness>,
    pub(super) before: Token,
    pub(super) token: Token,
}

/// What all clients have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manners {
    pub(super) members: usize,
    /// How long an attempt is waited for.
    pub(super) timeout: Duration,
    /// How long an operation is tried.
    pub(super) patience: Duration,
    /// When all operations should be done; `None`: each as soon as it is wanted.
    pub(super) until: Option<Time>,
    pub(super) histories: Histories,
}

/// How many histories there may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Histories {
    One,
    Many,
}

#[derive(Debug)]
struct Doing {
    first_attempt: u64,
    deadline: Time,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Open,
    Command { id: CommandId, command: Bytes },
    Query { freshness: Freshness, query: Bytes },
}

#[derive(Debug)]
pub(super) struct Client {
    id: u32,
    rng: Rng,
    manners: Manners,
    session: Option<SessionId>,
    seq: u64,
    done_below: u64,
    token: Token,
    commands: u32,
    doing: Option<Doing>,
    target: usize,
    attempt: u64,
    timer: u64,
    left: u32,
    given_up: u64,
    silent: bool,
}

impl Client {
    pub(super) fn new(id: u32, operations: u32, manners: Manners, rng: Rng) -> Self {
        Self {
            id,
            rng,
            manners,
            session: None,
            seq: 0,
            done_below: 1,
            token: Token::default(),
            commands: 0,
            doing: None,
            target: 0,
            attempt: 0,
            timer: 0,
            left: operations,
            given_up: 0,
            silent: false,
        }
    }

    /// Whether all its operations are over.
    pub(super) fn is_done(&self) -> bool {
        self.left == 0 && self.doing.is_none()
    }

    /// How many operations it has given up.
    pub(super) fn given_up(&self) -> u64 {
        self.given_up
    }

    /// What it is at, for traces.
    pub(super) fn describe(&self) -> String {
        match &self.doing {
            None => "idle".into(),
            Some(doing) => match &doing.what {
                What::Open => "opens a session".into(),
                What::Command { id, .. } => format!("command {} (seq {})", id.number, self.seq),
                What::Query { freshness, .. } => format!("{freshness:?} query"),
            },
        }
    }

    pub(super) fn start(&mut self, wishes: &mut Vec<Wish>) {
        let after = Duration::from_millis(self.rng.below(300));
        self.wake(after, Verb::Begin, wishes);
    }

    /// One more operation is wanted, at once.
    pub(super) fn want(&mut self, wishes: &mut Vec<Wish>) {
        self.left += 1;
        if self.doing.is_none() {
            self.wake(Duration::ZERO, Verb::Begin, wishes);
        }
    }

    /// Its process is gone: it asks for nothing any more, and hears nothing.
    pub(super) fn silence(&mut self) {
        self.left = 0;
        self.doing = None;
        self.timer += 1;
        self.silent = true;
    }

    /// Whether its process is gone.
    pub(super) fn is_silent(&self) -> bool {
        self.silent
    }

    /// A timer went off.
    pub(super) fn on_timer(
        &mut self,
        now: Time,
        (timer, verb): (u64, Verb),
        workload: &mut dyn Workload,
        wishes: &mut Vec<Wish>,
    ) {
        if timer != self.timer {
            return;
        }
        match verb {
            Verb::Begin => self.begin(now, workload, wishes),
            Verb::Elsewhere | Verb::There => {
                let late = self.doing.as_ref().is_some_and(|d| d.deadline <= now);
                if late {
                    self.give_up(now, workload, wishes);
                    return;
                }
                if verb == Verb::Elsewhere {
                    self.target = self.rng.below(self.manners.members as u64) as usize;
                }
                self.send(wishes);
            }
        }
    }

    /// A reply came.
    pub(super) fn on_reply(
        &mut self,
        now: Time,
        attempt: u64,
        outcome: Outcome,
        workload: &mut dyn Workload,
        wishes: &mut Vec<Wish>,
    ) -> Result<Option<Answer>, String> {
        let Some(doing) = &self.doing else {
            return Ok(None);
        };
        if attempt < doing.first_attempt {
            return Ok(None);
        }
        match (outcome, doing.what.clone()) {
            (Outcome::Opened { session, token }, What::Open) => {
                self.session = Some(session);
                (self.seq, self.done_below) = (0, 1);
                let answer = self.answer(None, None, token);
                self.doing = None;
                self.begin(now, workload, wishes);
                Ok(Some(answer))
            }
            (Outcome::Done { response, token }, What::Command { id, .. }) => {
                match Ledger::unwrap_answer(&response) {
                    Some((answered, said)) if answered == id => {
                        self.finish(now, (Some(id), None), (said, token), workload, wishes)
                    }
                    // Sessions of different histories may have the same number.
                    other if self.manners.histories == Histories::Many => {
                        let _ = other;
                        self.session = None;
                        self.give_up(now, workload, wishes);
                        Ok(None)
                    }
                    other => Err(format!(
                        "{id:?} is given the answer to {:?}",
                        other.map(|(answered, _)| answered)
                    )),
                }
            }
            (Outcome::Done { response, token }, What::Query { freshness, .. }) => self.finish(
                now,
                (None, Some(freshness)),
                (&response, token),
                workload,
                wishes,
            ),
            (Outcome::SessionExpired, What::Command { .. }) => {
                self.session = None;
                self.give_up(now, workload, wishes);
                Ok(None)
            }
            (Outcome::OutOfWindow, What::Command { .. }) => {
                self.give_up(now, workload, wishes);
                Ok(None)
            }
            (Outcome::NotPrimary { primary, .. }, _) => {
                self.elsewhere(attempt, primary, wishes);
                Ok(None)
            }
            (Outcome::Behind, _) if self.manners.histories == Histories::Many => {
                // What it has seen may be of a history that is lost, and reported so.
                self.token = Token::default();
                self.elsewhere(attempt, None, wishes);
                Ok(None)
            }
            (Outcome::Busy | Outcome::Behind | Outcome::Unknown, _) => {
                if self.manners.histories == Histories::Many {
                    // What it has seen may be lost: it would wait for ever.
                    self.token = Token::default();
                }
                self.elsewhere(attempt, None, wishes);
                Ok(None)
            }
            (other, what) => Err(format!("client {}: {other:?} answers {what:?}", self.id)),
        }
    }

    /// No more faults: answers must come from now on, so nothing is given up.
    pub(super) fn be_patient(&mut self) {
        self.manners.patience = Duration::from_secs(600);
    }

    fn finish(
        &mut self,
        now: Time,
        (command, freshness): (Option<CommandId>, Option<Freshness>),
        (response, token): (&[u8], Token),
        workload: &mut dyn Workload,
        wishes: &mut Vec<Wish>,
    ) -> Result<Option<Answer>, String> {
        let answer = self.answer(command, freshness, token);
        let seen = Seen {
            before: answer.before.index,
            at: token.index,
        };
        workload.answered(now, self.id, seen, response)?;
        self.over(now, wishes);
        Ok(Some(answer))
    }

    fn answer(
        &mut self,
        command: Option<CommandId>,
        freshness: Option<Freshness>,
        token: Token,
    ) -> Answer {
        let before = self.token;
        self.token = self.token.max(token);
        Answer {
            client: self.id,
            command,
            freshness,
            before,
            token,
        }
    }

    fn give_up(&mut self, now: Time, workload: &mut dyn Workload, wishes: &mut Vec<Wish>) {
        match self.doing.as_ref().map(|d| &d.what) {
            Some(What::Open) | None => {
                self.doing = None;
                self.begin(now, workload, wishes);
            }
            Some(What::Command { .. } | What::Query { .. }) => {
                self.given_up += 1;
                workload.given_up(self.id);
                self.over(now, wishes);
            }
        }
    }

    fn over(&mut self, now: Time, wishes: &mut Vec<Wish>) {
        self.doing = None;
        // The number is used up whatever became of it. Answers are given back sooner or later.
        if self.rng.below(8) > 0 {
            self.done_below = self.seq + 1;
        }
        if self.rng.one_in(60)
            && let Some(session) = self.session.take()
        {
            self.attempt += 1;
            wishes.push(Wish::Send {
                node: self.target,
                attempt: self.attempt,
                op: Op::CloseSession(session),
            });
        }
        if self.left == 0 {
            return;
        }
        let left = self
            .manners
            .until
            .map_or(Duration::ZERO, |until| until - now);
        let mean = u64::try_from(left.as_nanos()).unwrap_or(0) / u64::from(self.left);
        let after = Duration::from_nanos(self.rng.below(2 * mean + 1));
        self.wake(after, Verb::Begin, wishes);
    }

    fn begin(&mut self, now: Time, workload: &mut dyn Workload, wishes: &mut Vec<Wish>) {
        if self.left == 0 {
            return;
        }
        let what = if self.session.is_none() {
            What::Open
        } else {
            self.left -= 1;
            let id = CommandId {
                client: self.id,
                number: self.commands,
            };
            match workload.next(now, &mut self.rng, id) {
                Step::Command(command) => {
                    self.commands += 1;
                    self.seq += 1;
                    What::Command {
                        id,
                        command: Ledger::wrap_command(id, &command),
                    }
                }
                Step::Query(freshness, query) => {
                    if freshness != Freshness::Linearizable {
                        self.target = self.rng.below(self.manners.members as u64) as usize;
                    }
                    What::Query {
                        freshness,
                        query: Ledger::wrap_query(&query),
                    }
                }
            }
        };
        self.doing = Some(Doing {
            first_attempt: self.attempt + 1,
            deadline: now + self.manners.patience,
            what,
        });
        self.send(wishes);
        // A client may be hasty and ask twice, here or elsewhere.
        if self.rng.one_in(40) {
            self.target = self.rng.below(self.manners.members as u64) as usize;
            self.send(wishes);
        }
    }

    fn send(&mut self, wishes: &mut Vec<Wish>) {
        let Some(doing) = &self.doing else {
            return;
        };
        let op = match &doing.what {
            What::Open => Op::OpenSession,
            What::Command { command, .. } => Op::Command {
                session: self.session.unwrap_or(SessionId(0)),
                seq: Seq(self.seq),
                done_below: Seq(self.done_below),
                command: command.clone(),
            },
            What::Query { freshness, query } => Op::Query {
                read: match freshness {
                    Freshness::Local => Read::Local,
                    Freshness::Seen => Read::AtLeast(self.token),
                    Freshness::Linearizable => Read::Linearizable,
                },
                query: query.clone(),
            },
        };
        self.attempt += 1;
        wishes.push(Wish::Send {
            node: self.target,
            attempt: self.attempt,
            op,
        });
        self.wake(self.manners.timeout, Verb::Elsewhere, wishes);
    }

    /// The last attempt came to nothing: another one, soon.
    fn elsewhere(&mut self, attempt: u64, primary: Option<ReplicaId>, wishes: &mut Vec<Wish>) {
        if attempt != self.attempt {
            return;
        }
        match primary {
            Some(ReplicaId(n)) if (1..=self.manners.members as u32).contains(&n) => {
                self.target = n as usize - 1;
                let hops = self.doing.as_ref().map_or(0, |d| attempt - d.first_attempt);
                if hops < 2 {
                    self.send(wishes);
                } else {
                    // Two replicas may point to each other for a while.
                    let after = Duration::from_millis(3 + self.rng.below(20));
                    self.wake(after, Verb::There, wishes);
                }
            }
            Some(_) | None => {
                let after = Duration::from_millis(5 + self.rng.below(60));
                self.wake(after, Verb::Elsewhere, wishes);
            }
        }
    }

    fn wake(&mut self, after: Duration, verb: Verb, wishes: &mut Vec<Wish>) {
        self.timer += 1;
        wishes.push(Wish::Wake {
            after,
            timer: self.timer,
            verb,
        });
    }
}

/// The order of what a token says, for a client that has seen `before`.
pub(super) fn goes_back(before: Token, after: Token) -> bool {
    after.index < before.index || (after.index > Index::ZERO && after.term < before.term)
}
