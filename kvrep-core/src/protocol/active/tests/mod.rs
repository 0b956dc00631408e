//! Stories that random faults tell too rarely: a stream that can be held back, messages that can be dropped, and the bug each would catch.

use super::*;
use crate::Fold;
use crate::id::GroupId;
use crate::session::Envelope;
use crate::state_machine::{RawStateMachine, Typed, encode};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::time::Duration;

mod namesakes;
mod stories;
mod words;

/// What a replica is told.
type Told = Box<dyn FnOnce(&mut Active, Time, &mut Vec<Effect>)>;

struct Group {
    now: Time,
    /// How many members there are.
    members: usize,
    /// Processes: the first ones are the members', in order; those started beside them follow.
    replicas: Vec<Option<Active>>,
    stream: Vec<Published>,
    /// How far each replica has come in it.
    read: Vec<usize>,
    /// Items that the stream loses for one replica.
    gaps: BTreeSet<(usize, usize)>,
    /// Nothing is delivered to those.
    lagging: BTreeSet<usize>,
    /// Messages from one to another that are lost.
    lost: BTreeSet<(usize, usize)>,
    /// Answers of those go nowhere.
    mute: BTreeSet<usize>,
    answers: Vec<(usize, Bytes)>,
    /// Those do not run.
    stopped: BTreeSet<usize>,
    /// Lives that ended by themselves, and why.
    ends: Vec<(usize, End)>,
    /// Messages to one that is stopped.
    waiting: Vec<(usize, Message)>,
    events: Vec<(usize, Event)>,
    /// Lives of which heartbeats were heard.
    heard: BTreeSet<(ReplicaId, Life)>,
    /// Lives that said that they are ready, and whether they had been heard before.
    ready: Vec<(ReplicaId, bool)>,
    /// How often a replica asked for another connection.
    reconnects: usize,
    /// How many confirm an answer.
    confirmations: usize,
}

impl Group {
    fn started(n: usize, mutation: Option<Mutation>) -> Self {
        let mut group = Self::new(n, 1);
        for r in 0..n {
            group.start(r, 1, mutation);
        }
        group
    }

    fn new(n: usize, confirmations: usize) -> Self {
        Self {
            confirmations,
            reconnects: 0,
            now: Time::ZERO,
            members: n,
            stopped: BTreeSet::new(),
            ends: Vec::new(),
            waiting: Vec::new(),
            replicas: (0..n).map(|_| None).collect(),
            stream: Vec::new(),
            read: vec![0; n],
            gaps: BTreeSet::new(),
            lagging: BTreeSet::new(),
            lost: BTreeSet::new(),
            mute: BTreeSet::new(),
            answers: Vec::new(),
            events: Vec::new(),
            heard: BTreeSet::new(),
            ready: Vec::new(),
        }
    }

    /// A group in which all serve.
    fn serving(n: usize, mutation: Option<Mutation>) -> Self {
        let mut group = Self::started(n, mutation);
        group.until("all serve", |group| (0..n).all(|r| group.serves(r)));
        group
    }

    fn start(&mut self, r: usize, incarnation: u64, mutation: Option<Mutation>) {
        self.start_as(r, r, (incarnation, Create::Allowed), mutation);
    }

    /// Another process under the number of `r`, which may not begin a history. Returns its place.
    fn start_beside(&mut self, r: usize, incarnation: u64, mutation: Option<Mutation>) -> usize {
        let place = self.replicas.len();
        self.replicas.push(None);
        self.read.push(0);
        self.start_as(place, r, (incarnation, Create::Never), mutation);
        place
    }

    fn start_as(
        &mut self,
        place: usize,
        r: usize,
        (incarnation, create): (u64, Create),
        mutation: Option<Mutation>,
    ) {
        let sum = Typed(Fold::new(0_i64, |sum, by: i64| *sum += by));
        self.start_with(place, r, (incarnation, create), mutation, Box::new(sum));
    }

    fn start_with(
        &mut self,
        place: usize,
        r: usize,
        (incarnation, create): (u64, Create),
        mutation: Option<Mutation>,
        machine: Box<dyn RawStateMachine>,
    ) {
        let mut config = Config::new((0..self.members).map(|r| ReplicaId(r as u32)));
        config.confirmations = self.confirmations;
        let mut options = Options::new(ReplicaId(r as u32), Incarnation(incarnation), config);
        options.create = create;
        #[cfg(feature = "sim")]
        {
            options.mutation = mutation;
        }
        let _ = (&mut options, mutation);
        self.replicas[place] = Some(Active::new(options, machine).unwrap());
        self.read[place] = self.stream.len();
        self.drive(
            place,
            Box::new(move |active, now, out| active.start(now, Timestamp(0), out)),
        );
    }

    fn drive(&mut self, r: usize, call: Told) {
        let Some(active) = &mut self.replicas[r] else {
            return;
        };
        let mut out = Vec::new();
        call(active, self.now, &mut out);
        active.check_invariants();
        for effect in out {
            match effect {
                Effect::Publish(published) => {
                    if let Item::Ready { replica, life } = published.item {
                        let heard = self.heard.contains(&(replica, life));
                        self.ready.push((replica, heard));
                    }
                    self.stream.push(published);
                }
                Effect::Broadcast(message) => {
                    if let Message::Heartbeat(heartbeat) = &message {
                        self.heard.insert((heartbeat.replica, heartbeat.life));
                    }
                    for to in (0..self.replicas.len()).filter(|to| *to != r) {
                        self.tell(r, to, message.clone());
                    }
                }
                Effect::Send { to, message } => {
                    for place in 0..self.replicas.len() {
                        if place != r && self.is_of(place, to) {
                            self.tell(r, place, message.clone());
                        }
                    }
                }
                Effect::End(why) => {
                    self.ends.push((r, why));
                    self.replicas[r] = None;
                }
                Effect::Answer {
                    number, reply_to, ..
                } => {
                    if !self.mute.contains(&r) {
                        self.answers.push((r, reply_to));
                        self.drive(
                            r,
                            Box::new(move |active, _, out| active.on_answered(number, out)),
                        );
                    }
                }
                Effect::SetAside { .. } => {}
                Effect::Reconnect => self.reconnects += 1,
                Effect::Event(event) => self.events.push((r, event)),
            }
        }
    }

    fn tell(&mut self, from: usize, to: usize, message: Message) {
        if self.stopped.contains(&to) {
            self.waiting.push((to, message));
        } else if !self.lost.contains(&(from, to)) {
            self.drive(
                to,
                Box::new(move |active, now, out| {
                    active.on_message(now, Timestamp(0), message, out);
                }),
            );
        }
    }

    fn step(&mut self) {
        self.now = self.now + Duration::from_millis(5);
        for r in 0..self.replicas.len() {
            if self.stopped.contains(&r) {
                continue;
            }
            while self.read[r] < self.stream.len() && !self.lagging.contains(&r) {
                let published = self.stream[self.read[r]].clone();
                if !self.gaps.contains(&(r, self.read[r])) {
                    self.deliver(r, published);
                }
                self.read[r] += 1;
            }
            if self.replicas[r]
                .as_ref()
                .is_some_and(|active| active.next_deadline() <= self.now)
            {
                self.drive(
                    r,
                    Box::new(move |active, now, out| active.on_tick(now, Timestamp(0), out)),
                );
            }
        }
    }

    fn deliver(&mut self, r: usize, published: Published) {
        let hash = xxhash_rust::xxh3::xxh3_64(&published.encode(GroupId::named("told")));
        self.drive(
            r,
            Box::new(move |active, now, out| {
                active.on_delivered(now, Timestamp(0), published, hash, out);
            }),
        );
    }

    /// Whether it runs under that number.
    fn is_of(&self, place: usize, number: ReplicaId) -> bool {
        (self.replicas[place].as_ref()).is_some_and(|active| active.me == number)
    }

    /// It goes on (SIGCONT): what came meanwhile is there.
    fn resume(&mut self, r: usize) {
        self.stopped.remove(&r);
        let (mine, others) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|(to, _)| *to == r);
        self.waiting = others;
        for (to, message) in mine {
            self.tell(to, to, message);
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
    }

    fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let end = self.now + Duration::from_secs(60);
        while !holds(self) {
            assert!(self.now < end, "never: {what}");
            self.step();
        }
    }

    fn status(&self, r: usize) -> Status {
        self.replicas[r].as_ref().expect("it is up").status()
    }

    fn serves(&self, r: usize) -> bool {
        (self.replicas[r].as_ref())
            .is_some_and(|active| active.status().serving && !active.status().holding)
    }

    fn say(&mut self, item: Item) {
        self.stream.push(Published { stamp: None, item });
    }

    /// What was said last does not reach that one.
    fn lose(&mut self, r: usize) {
        self.gaps.insert((r, self.stream.len() - 1));
    }

    fn ask(&mut self, hash: u64, name: &'static str) {
        let call = Call::Write(Envelope::Plain(encode(&1_i64)).encode());
        let reply_to = Bytes::from_static(name.as_bytes());
        self.say(Item::Request(Request {
            hash,
            call,
            reply_to,
            asked: None,
        }));
    }

    fn answered(&self, name: &str) -> usize {
        self.answers
            .iter()
            .filter(|(_, reply_to)| reply_to == name)
            .count()
    }
}

/// Whether a story ends as it should without the bug, and not with it.
fn catches(mutation: Mutation, story: impl Fn(Option<Mutation>) -> bool) {
    assert!(story(None), "the story ends well");
    if cfg!(feature = "sim") {
        assert!(!story(Some(mutation)), "{mutation:?} is not caught");
    }
}
