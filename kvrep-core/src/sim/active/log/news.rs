//! What is new in the log's group: members' processes that come and go, what their ears hear, answers that stand in the log.

use super::Log;
use super::hearing::What;
use crate::client_wire::Outcome;
use crate::id::{Incarnation, ReplicaId};
use crate::state_machine::decode;
use crate::stream::log::{Ear, Mutation, Record};
use crate::stream::{StreamEvent, StreamMember};
use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

/// What the log's group tells of itself.
#[derive(Debug)]
pub(in super::super) enum News {
    /// A member's process is there; it hears nothing yet.
    Started(usize),
    /// It is gone.
    Ended(usize),
    Stopped(usize),
    WentOn(usize),
    /// Its stream tells a member this.
    Heard(usize, StreamEvent),
    /// A client is answered.
    Answer {
        reply_to: Bytes,
        outcome: Outcome,
    },
}

impl Log {
    /// What is new since the last time, in an order in which it may have happened.
    pub(in super::super) fn news(&mut self) -> Vec<News> {
        let mut news = Vec::new();
        for n in 0..self.members.len() {
            self.look_at(n, &mut news);
        }
        for (machine, what) in self.hearing.take() {
            if let What::Command(at, command) = &what {
                self.answers(at.0, command, &mut news);
            }
            if let Some(n) = (self.members.iter()).position(|member| member.machine == machine) {
                self.hear(n, &what);
            }
        }
        for (writer, number) in self.writers.borrow_mut().given() {
            let mut members = self.members.iter_mut();
            if let Some(member) = members.find(|member| member.writer == writer) {
                member.given.push_back(number);
            }
        }
        for (n, member) in self.members.iter_mut().enumerate() {
            let Some(ear) = member.ear.as_mut().filter(|_| !member.paused) else {
                continue;
            };
            for number in member.given.drain(..) {
                ear.tell(StreamEvent::Answered(number));
            }
            news.extend(std::iter::from_fn(|| ear.next()).map(|event| News::Heard(n, event)));
        }
        self.ask();
        news
    }

    /// A node may have died, and started, and stopped.
    fn look_at(&mut self, n: usize, news: &mut Vec<News>) {
        let node = &self.world.nodes[n];
        let (up, life, paused) = (node.is_up(), node.life, node.paused);
        let member = &mut self.members[n];
        if member.ear.is_some() && (!up || member.life != life) {
            member.ear = None;
            member.paused = false;
            member.given.clear();
            self.writers.borrow_mut().close(member.writer);
            self.world.clients[member.writer as usize].silence();
            news.push(News::Ended(n));
        }
        if up && self.members[n].ear.is_none() {
            self.open(n, life);
            news.push(News::Started(n));
        }
        let now = self.world.now;
        let member = &mut self.members[n];
        if let Some(ear) = member.ear.as_ref().filter(|ear| !ear.is_open())
            && !paused
            && member.opens_again <= now
        {
            member.opens_again = now + Ear::OPEN_AGAIN_AFTER;
            let opening = ear.opening();
            self.put(n, opening, None);
        }
        let member = &mut self.members[n];
        if up && member.paused != paused {
            member.paused = paused;
            news.push(if paused {
                News::Stopped(n)
            } else {
                News::WentOn(n)
            });
        }
    }

    fn open(&mut self, n: usize, life: u32) {
        let writer = self.world.admit();
        self.writers.borrow_mut().open(writer);
        self.starts += 1;
        let me = StreamMember {
            group: self.group,
            replica: ReplicaId(n as u32),
            incarnation: Incarnation(u64::from(life)),
            members: (0..self.members.len() as u32).map(ReplicaId).collect(),
            config_hash: 0,
            request_bytes_max: usize::MAX,
            state_bytes_max: usize::MAX,
        };
        let ear = Ear::new(me, self.starts);
        let opening = ear.opening();
        let member = &mut self.members[n];
        (member.life, member.ear, member.writer) = (life, Some(ear), writer);
        (member.machine, member.misses) = (self.hearing.last_machine(), 0);
        member.opens_again = self.world.now + Ear::OPEN_AGAIN_AFTER;
        self.put(n, opening, None);
    }

    fn hear(&mut self, n: usize, what: &What) {
        let member = &mut self.members[n];
        let Some(ear) = &mut member.ear else {
            return;
        };
        let skips = match what {
            What::Command(..) if member.misses > 0 => {
                member.misses -= 1;
                member.misses == 0
            }
            What::Command(_, command) => {
                ear.hear(decode::<Vec<Record>>(command).expect("a writer's own records"));
                false
            }
            What::Replaced => true,
        };
        if skips
            && self.mutation != Some(Mutation::GapUnsaid)
            && let Some(opening) = ear.skip()
        {
            self.put(n, opening, None);
        }
    }

    /// Clients find their answers as soon as one node has them.
    fn answers(&mut self, at: u64, command: &Bytes, news: &mut Vec<News>) {
        if !self.seen.insert((at, xxh3_64(command))) {
            return;
        }
        let records = decode::<Vec<Record>>(command).expect("a writer's own records");
        for record in records {
            if let Record::Answer { call, outcome } = record
                && let Some((reply_to, _)) = self.calls.get(&call)
            {
                let outcome = decode(&outcome).expect("an answer");
                let reply_to = reply_to.clone();
                news.push(News::Answer { reply_to, outcome });
            }
        }
    }
}
