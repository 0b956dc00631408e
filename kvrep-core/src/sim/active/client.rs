//! A client of the active scheme: publishes its request, takes the first answer, publishes again when none comes.

use super::super::ledger::{CommandId, Ledger};
use super::super::workload::{Seen, Step, Workload};
use crate::client_wire::Outcome;
use crate::id::{Index, Seq, SessionId};
use crate::protocol::active::{Call, Item, Published, Request};
use crate::random::Rng;
use crate::session::Envelope;
use crate::time::Time;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What a client wants done.
#[derive(Debug)]
pub(super) enum Wish {
    Publish(Published),
    Wake { after: Duration, timer: u64 },
}

#[derive(Clone, Debug)]
enum What {
    Open,
    Command { id: CommandId, command: Bytes },
    Query { query: Bytes },
}

#[derive(Debug)]
struct Doing {
    what: What,
    deadline: Time,
    hash: u64,
}

#[derive(Debug)]
pub(super) struct Client {
    id: u32,
    rng: Rng,
    session: Option<SessionId>,
    seq: u64,
    commands: u32,
    seen: Index,
    doing: Option<Doing>,
    operation: u64,
    timer: u64,
    pub(super) left: u32,
    patience: Duration,
    pub(super) timeout: Duration,
    pub(super) mean_pause: Duration,
    pub(super) answered: u64,
    pub(super) given_up: u64,
    /// How often each publication was answered, and when it was made.
    answers: BTreeMap<u64, (u32, Time)>,
    /// Publications that nobody can have answered.
    excused: BTreeSet<u64>,
    publications: u64,
    quiet_from: u64,
}

impl Client {
    pub(super) fn new(
        id: u32,
        operations: u32,
        timeout: Duration,
        mean_pause: Duration,
        rng: Rng,
    ) -> Self {
        Self {
            id,
            rng,
            session: None,
            seq: 0,
            commands: 0,
            seen: Index::ZERO,
            doing: None,
            operation: 0,
            timer: 0,
            left: operations,
            patience: Duration::from_secs(20),
            timeout,
            mean_pause,
            answered: 0,
            given_up: 0,
            answers: BTreeMap::new(),
            excused: BTreeSet::new(),
            publications: 0,
            quiet_from: u64::MAX,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.left == 0 && self.doing.is_none()
    }

    pub(super) fn describe(&self) -> String {
        format!(
            "client {}: {:?}, {} left",
            self.id,
            self.doing.as_ref().map(|d| &d.what),
            self.left
        )
    }

    /// No more faults: nothing is given up.
    pub(super) fn be_patient(&mut self, now: Time) {
        self.patience = Duration::from_secs(600);
        if let Some(doing) = &mut self.doing {
            doing.deadline = now + self.patience;
        }
    }

    /// From now on each publication must be answered once.
    pub(super) fn begin_quiet(&mut self, operations: u32, wishes: &mut Vec<Wish>) {
        self.quiet_from = self.publications + 1;
        self.left = operations;
        self.timeout = Duration::from_secs(5);
        self.pause(wishes);
    }

    /// Publications since [`begin_quiet`](Self::begin_quiet) that were not answered once.
    pub(super) fn not_answered_once(&self) -> Vec<u64> {
        let wrong = (self.answers.range(self.quiet_from..)).filter(|(_, (times, _))| *times != 1);
        wrong.map(|(number, _)| *number).collect()
    }

    /// Publications since then that were never answered, and when they were made.
    pub(super) fn unanswered(&self, since: Time) -> Vec<(u64, Time)> {
        let wrong = (self.answers.iter()).filter(|(number, (times, at))| {
            *times == 0 && *at >= since && !self.excused.contains(*number)
        });
        wrong.map(|(number, (_, at))| (*number, *at)).collect()
    }

    /// Nobody who serves was given this publication, nor ever will be.
    pub(super) fn excuse(&mut self, reply_to: &[u8]) {
        self.excused.insert(word(reply_to, 2));
    }

    pub(super) fn pause(&mut self, wishes: &mut Vec<Wish>) {
        let mean = u64::try_from(self.mean_pause.as_nanos()).unwrap_or(0);
        let after = Duration::from_nanos(self.rng.below(2 * mean + 1));
        self.wake(after, wishes);
    }

    pub(super) fn on_timer(
        &mut self,
        now: Time,
        timer: u64,
        workload: &mut dyn Workload,
        wishes: &mut Vec<Wish>,
    ) {
        if timer != self.timer {
            return;
        }
        match &self.doing {
            None => self.begin(now, workload, wishes),
            Some(doing) if doing.deadline <= now => self.give_up(workload, wishes),
            Some(_) => self.send(now, wishes),
        }
    }

    pub(super) fn on_answer(
        &mut self,
        now: Time,
        reply_to: &[u8],
        outcome: Outcome,
        workload: &mut dyn Workload,
        wishes: &mut Vec<Wish>,
    ) -> Result<(), String> {
        let (operation, publication) = (word(reply_to, 1), word(reply_to, 2));
        if let Some((times, _)) = self.answers.get_mut(&publication) {
            *times += 1;
        }
        if operation != self.operation {
            return Ok(());
        }
        let Some(doing) = &self.doing else {
            return Ok(());
        };
        match (outcome, doing.what.clone()) {
            (Outcome::Opened { session, .. }, What::Open) => {
                (self.session, self.seq) = (Some(session), 0);
                self.doing = None;
                self.begin(now, workload, wishes);
                Ok(())
            }
            (Outcome::Done { response, token }, What::Command { id, .. }) => {
                match Ledger::unwrap_answer(&response) {
                    Some((answered, said)) if answered == id => {
                        self.finish(now, said, token.index, workload, wishes)
                    }
                    other => Err(format!(
                        "{id:?} is given the answer to {:?}",
                        other.map(|(id, _)| id)
                    )),
                }
            }
            (Outcome::Done { response, token }, What::Query { .. }) => {
                self.finish(now, &response, token.index, workload, wishes)
            }
            (Outcome::SessionExpired, What::Command { .. }) => {
                self.session = None;
                self.give_up(workload, wishes);
                Ok(())
            }
            (Outcome::OutOfWindow, What::Command { .. }) => {
                self.give_up(workload, wishes);
                Ok(())
            }
            (other, what) => Err(format!("client {}: {other:?} answers {what:?}", self.id)),
        }
    }

    fn finish(
        &mut self,
        now: Time,
        response: &[u8],
        at: Index,
        workload: &mut dyn Workload,
        wishes: &mut Vec<Wish>,
    ) -> Result<(), String> {
        let seen = Seen {
            before: self.seen,
            at,
        };
        self.seen = self.seen.max(at);
        self.answered += 1;
        self.doing = None;
        let judged = workload.answered(now, self.id, seen, response);
        if self.left > 0 {
            self.pause(wishes);
        }
        judged
    }

    fn give_up(&mut self, workload: &mut dyn Workload, wishes: &mut Vec<Wish>) {
        if let Some(doing) = self.doing.take()
            && !matches!(doing.what, What::Open)
        {
            self.given_up += 1;
            workload.given_up(self.id);
        }
        if self.left > 0 {
            self.pause(wishes);
        }
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
                    let command = Ledger::wrap_command(id, &command);
                    What::Command { id, command }
                }
                Step::Query(_, query) => What::Query {
                    query: Ledger::wrap_query(&query),
                },
            }
        };
        self.operation += 1;
        self.doing = Some(Doing {
            what,
            deadline: now + self.patience,
            hash: self.rng.below(64),
        });
        self.send(now, wishes);
    }

    fn send(&mut self, now: Time, wishes: &mut Vec<Wish>) {
        let Some(doing) = &self.doing else {
            return;
        };
        let call = match &doing.what {
            What::Open => Call::Write(Envelope::Open.encode()),
            What::Command { command, .. } => {
                let envelope = Envelope::Command {
                    session: self.session.unwrap_or(SessionId(0)),
                    seq: Seq(self.seq),
                    done_below: Seq(self.seq),
                    command: command.clone(),
                };
                Call::Write(envelope.encode())
            }
            What::Query { query } => Call::Read(query.clone()),
        };
        self.publications += 1;
        self.answers.insert(self.publications, (0, now));
        let words = [u64::from(self.id), self.operation, self.publications];
        let reply_to: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        let request = Request {
            hash: doing.hash,
            call,
            reply_to: reply_to.into(),
            asked: None,
        };
        wishes.push(Wish::Publish(Published {
            stamp: None,
            item: Item::Request(request),
        }));
        self.wake(self.timeout, wishes);
    }

    fn wake(&mut self, after: Duration, wishes: &mut Vec<Wish>) {
        self.timer += 1;
        let timer = self.timer;
        wishes.push(Wish::Wake { after, timer });
    }
}

/// Of what a client asks to be answered to: the client, its operation, its publication.
fn word(reply_to: &[u8], n: usize) -> u64 {
    let bytes = reply_to
        .get(8 * n..)
        .and_then(|bytes| bytes.first_chunk())
        .copied();
    bytes.map_or(0, u64::from_be_bytes)
}

/// Which publication it was.
pub(super) fn publication_of(reply_to: &[u8]) -> u64 {
    word(reply_to, 2)
}

/// Whose request it was.
pub(super) fn client_of(reply_to: &[u8]) -> usize {
    usize::try_from(word(reply_to, 0)).unwrap_or(0)
}
