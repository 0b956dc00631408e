//! Active replication: every replica carries out the same totally ordered stream, and one of them answers.
//!
//! (Schneider: *Implementing Fault-Tolerant Services Using the State Machine Approach*, ACM Computing Surveys 1990; the order comes from
//! a stream that somebody else keeps, such as a broker's topic.) Clients publish their requests into the stream; so do
//! replicas what concerns all of them. Whoever delivers the same prefix knows the same: who owns which request, who joins, who
//! has failed. No replica is special, and nothing is agreed upon outside the stream.
//!
//! * **Ownership** (`ring`) is a pure function of the delivered prefix: slot = hash mod n, its owner the first serving member from there.
//! * **Debts** (`debts`): what a failed member has not answered is answered by the next in the ring.
//! * **Joining** (`join`, `transfer`): a newcomer announces itself in the stream, gets the state as it is at some position after that, and
//!   takes over its slots where its *ready* stands in the stream: before it they are the substitute's, after it the newcomer's.
//! * **Order is verified, not believed** (`marks`, `heal`): replicas chain a hash over what they deliver and compare it at marks in the stream.
//!   If histories differ, one decision in the stream says which counts; the others join again. Where two began apart, one yields (`rival`). After a pause or a
//!   reconnection a replica holds its answers until a mark agrees.
//! * **Confirmations**: an answer may wait until k replicas are known to have the history that it is made from ([`Config::confirmations`]). With more
//!   than half of them nothing that was acknowledged is lost while fewer than k of them are, whatever the stream loses. It is made when
//!   k replicas are known to *know* that k have it: otherwise a survivor could not tell which of two histories was confirmed.
//! * **Whose history counts** (`word`): with more than one confirmation a state is given to a newcomer, and a history begun, only on the word of n − k + 1 members.
//!
//! | | crashes, pauses, false suspicions; the stream is whole | the stream loses, repeats or swaps for some replicas |
//! |---|---|---|
//! | `confirmations` 1 | linearizable, exactly once with sessions | found and healed; what only a losing replica had acknowledged is lost and reported; between two marks an answer may lack what was lost |
//! | `confirmations` k > n/2 | the same; an answer needs k replicas | linearizable |
//!
//! A replica is in memory: a group of which nobody is left begins anew. [`Active`] is sans-IO: it is told what the
//! stream delivers, what messages come and what time it is, and appends to a list of [`Effect`]s.
//!
//! Caveats: with k of n confirmations a group in which more than n − k are gone at once waits for one of them, be it without its
//! state. What takes long in `apply`, and writing the state for a newcomer, delays heartbeats. Members and n are fixed.

mod answers;
mod changes;
mod config;
mod debts;
mod echo;
mod effect;
mod heal;
mod history;
mod item;
mod join;
mod loss;
mod marks;
mod message;
mod mutation;
mod requests;
mod ring;
mod rival;
mod stage;
mod transfer;
mod watch;
mod word;

#[cfg(test)]
mod tests;

pub use config::{Config, Create, Responder, Timing, Watch};
pub use effect::{AnswerNumber, Doubt, Effect, End, Event, Fence};
pub use item::{Call, Decision, Item, Life, Published, Request, Stamp};
pub use message::{Claim, Confirmed, Heartbeat, Message};
#[cfg(feature = "sim")]
pub use mutation::Mutation;
pub use ring::Standing;
pub use transfer::split_state;

use crate::id::{Incarnation, Index, ReplicaId};
use crate::session::Machine;
use crate::state_machine::RawStateMachine;
use crate::time::{Time, Timestamp};
use answers::Answers;
use echo::Echo;
use heal::Healing;
use history::History;
use join::Join;
use loss::Told;
use marks::Marks;
#[cfg(not(feature = "sim"))]
use mutation::Mutation;
use ring::Sequence;
use stage::Stage;
use std::collections::BTreeMap;
use std::io;
use transfer::Transfer;
use watch::Peer;
use word::Asking;

/// What one replica needs to know.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Which member it is.
    pub replica: ReplicaId,
    /// This start of it: higher than any before.
    pub incarnation: Incarnation,
    /// What the group agrees on.
    pub group: Config,
    /// Whether it may begin a history.
    pub create: Create,
    /// A planted bug, for tests of the tests.
    #[cfg(feature = "sim")]
    pub mutation: Option<Mutation>,
}

impl Options {
    /// The options of this member, which may begin a history.
    #[must_use]
    pub fn new(replica: ReplicaId, incarnation: Incarnation, group: Config) -> Self {
        Self {
            replica,
            incarnation,
            group,
            create: Create::default(),
            #[cfg(feature = "sim")]
            mutation: None,
        }
    }
}

/// What a replica knows of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Status {
    /// Which member it is.
    pub replica: ReplicaId,
    /// Which join.
    pub life: Life,
    /// Whether it answers for its slots.
    pub serving: bool,
    /// Whether a later life of its number was started, and it only keeps its state for whoever has none.
    pub superseded: bool,
    /// Whether it holds its answers until a mark agrees.
    pub holding: bool,
    /// Where it is in the stream; `None` without a history.
    pub at: Option<Index>,
    /// The chain there.
    pub chain: u64,
    /// Up to here all that served had the same.
    pub agreed: Index,
    /// How each member stands, as far as this one knows.
    pub ring: Vec<(ReplicaId, Standing)>,
    /// Who was heard lately and says that it serves.
    pub heard_serving: Vec<ReplicaId>,
    /// Requests that are kept.
    pub kept: usize,
    /// Answers that are owed here and not yet where they go.
    pub owed: usize,
    /// Decisions about differing histories, since the origin.
    pub decisions: u64,
}

/// A replica of the active scheme. See the [module](self).
///
/// A group of one: it announces itself, hears nobody, and begins a history.
///
/// ```
/// use kvrep_core::client_wire::Outcome;
/// use kvrep_core::protocol::active::{Active, Call, Config, Effect, Item, Options, Published, Request};
/// use kvrep_core::session::Envelope;
/// use kvrep_core::state_machine::encode;
/// use kvrep_core::{Fold, Incarnation, ReplicaId, Time, Timestamp, Typed};
///
/// let me = ReplicaId(0);
/// let sum = Typed(Fold::new(0_i64, |sum, by: i64| *sum += by));
/// let options = Options::new(me, Incarnation(1), Config::new([me]));
/// let mut replica = Active::new(options, Box::new(sum)).unwrap();
///
/// let (mut now, mut out) = (Time::ZERO, Vec::new());
/// replica.start(now, Timestamp(0), &mut out);
/// let mut asked = false;
/// let response = loop {
///     // The stream delivers what was published, and what a client asks.
///     let published: Vec<_> = out.drain(..).collect();
///     let mut delivered: Vec<Published> = Vec::new();
///     for effect in published {
///         match effect {
///             Effect::Publish(published) => delivered.push(published),
///             Effect::Answer { outcome: Outcome::Done { response, .. }, .. } => delivered.clear(),
///             _ => {}
///         }
///     }
///     if replica.status().serving && !asked {
///         asked = true;
///         let call = Call::Write(Envelope::Plain(encode(&5_i64)).encode());
///         let request = Request { hash: 0, call, reply_to: "me".into(), asked: None };
///         delivered.push(Published { stamp: None, item: Item::Request(request) });
///     }
///     for published in delivered {
///         let hash = 7; // of its bytes
///         replica.on_delivered(now, Timestamp(0), published, hash, &mut out);
///     }
///     let answer = out.iter().find_map(|effect| match effect {
///         Effect::Answer { outcome: Outcome::Done { response, .. }, .. } => Some(response.clone()),
///         _ => None,
///     });
///     if let Some(response) = answer {
///         break response;
///     }
///     now = replica.next_deadline();
///     replica.on_tick(now, Timestamp(0), &mut out);
/// };
/// assert_eq!(response, encode(&5_i64));
/// ```
#[derive(Debug)]
pub struct Active {
    me: ReplicaId,
    life: Life,
    stage: Stage,
    group: Config,
    create: Create,
    machine: Machine,
    /// What it has of the stream; `None` before it has a beginning.
    history: Option<History>,
    /// How it gets in (again); `None` while it serves.
    join: Option<Join>,
    answers: Answers,
    marks: Marks,
    healing: Healing,
    peers: BTreeMap<ReplicaId, Peer>,
    transfers: BTreeMap<ReplicaId, Transfer>,
    /// The next publication's number.
    seq: u64,
    echo: Echo,
    told: Told,
    /// When anything was last done here.
    awake: Time,
    next_tick: Time,
    /// Something was delivered that others wait to hear of.
    tell: bool,
    /// Up to here as many have this history as an answer needs.
    confirmed: Confirmed,
    asking: Asking,
    /// It was told that the state that is given here cannot be read.
    unread: bool,
    clock: Timestamp,
    #[cfg(feature = "sim")]
    mutation: Option<Mutation>,
}

impl Active {
    /// A replica whose state machine has the initial state.
    ///
    /// # Errors
    /// When the group's values do not fit each other, this replica is not a member, or the initial state cannot be written.
    pub fn new(options: Options, machine: Box<dyn RawStateMachine>) -> io::Result<Self> {
        let Options {
            replica,
            incarnation,
            group,
            create,
            ..
        } = options;
        let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
        group.validate().map_err(invalid)?;
        if !group.members.contains(&replica) {
            return Err(invalid(format!(
                "{replica} is not one of the group's members"
            )));
        }
        Ok(Self {
            me: replica,
            life: Life {
                incarnation,
                attempt: 0,
            },
            stage: Stage::Living,
            machine: Machine::new(machine, &group.limits)?,
            create,
            history: None,
            join: None,
            answers: Answers::default(),
            marks: Marks::default(),
            healing: Healing::default(),
            peers: BTreeMap::new(),
            transfers: BTreeMap::new(),
            seq: 0,
            echo: Echo::default(),
            told: Told::default(),
            awake: Time::ZERO,
            next_tick: Time::ZERO,
            tell: false,
            confirmed: Confirmed::default(),
            asking: Asking::default(),
            unread: false,
            clock: Timestamp(0),
            #[cfg(feature = "sim")]
            mutation: options.mutation,
            group,
        })
    }

    /// Begins: listens whether another process lives under this number, and then announces itself. Once, first, when what is published from now
    /// on will be delivered here.
    pub fn start(&mut self, now: Time, wall: Timestamp, out: &mut Vec<Effect>) {
        self.clock = wall;
        self.awake = now;
        self.next_tick = now + self.group.timing.heartbeat_every;
        self.listen(now, out);
    }

    /// The stream delivered this; `hash` is one of its bytes, the same at every replica. Positions are counted here.
    pub fn on_delivered(
        &mut self,
        now: Time,
        wall: Timestamp,
        published: Published,
        hash: u64,
        out: &mut Vec<Effect>,
    ) {
        self.wake(now, wall, out);
        self.echo.came(now);
        if let Some(stamp) = published.stamp.filter(|stamp| stamp.replica == self.me)
            && stamp.incarnation > self.life.incarnation
        {
            self.on_namesake(now, stamp.incarnation, out);
        }
        if let Some(stamp) = published.stamp
            && (stamp.replica, stamp.incarnation) == (self.me, self.life.incarnation)
        {
            self.echo.delivered(stamp.seq);
        }
        self.held_back(now, &published, hash, out);
        self.advance(now, published, hash, out);
        self.install_if_complete(now, out);
        self.compare_with_serving(now, out);
    }

    /// The stream may have lost something for this replica: its connection was replaced, its session was lost.
    pub fn on_stream_reset(&mut self, now: Time, wall: Timestamp, out: &mut Vec<Effect>) {
        self.wake(now, wall, out);
        self.echo.restart(now);
        self.listen_anew(now);
        self.missed_something();
        self.hold(now, Doubt::Disconnected, out);
        self.watch_anew(now);
        self.join_behind_gap(now, out);
    }

    /// A message came.
    pub fn on_message(
        &mut self,
        now: Time,
        wall: Timestamp,
        message: Message,
        out: &mut Vec<Effect>,
    ) {
        self.wake(now, wall, out);
        match message {
            Message::Heartbeat(heartbeat) => self.on_heartbeat(now, &heartbeat, out),
            Message::Piece { .. } => self.on_piece(now, message, out),
            Message::Got {
                by,
                life,
                chain,
                bytes,
                ..
            } => self.on_got(now, (by, life), chain, bytes, out),
        }
    }

    /// An answer is where it goes.
    pub fn on_answered(&mut self, number: AnswerNumber, out: &mut Vec<Effect>) {
        self.answers.acknowledged(number);
        self.flush(out);
    }

    /// The time of [`next_deadline`](Self::next_deadline) has come.
    pub fn on_tick(&mut self, now: Time, wall: Timestamp, out: &mut Vec<Effect>) {
        self.wake(now, wall, out);
        let due = now >= self.next_tick;
        if due {
            self.next_tick = now + self.group.timing.heartbeat_every;
            self.reconnect_if_deaf(now, out);
            self.listen_on_tick(now, out);
            self.join_on_tick(now, out);
            self.heal_on_tick(now, out);
            self.watch_on_tick(now, out);
            self.rivals_on_tick(now, out);
            self.transfers_on_tick(now, out);
            self.give_state_on(now, out);
            if let Some(history) = &mut self.history {
                let keep = self.group.timing.keep_requests;
                let bytes_max = self.group.kept_bytes_max;
                history.debts.settle(history.agreed);
                let (expired, last) = history.debts.expire(now, keep, bytes_max);
                if let Some(last) = last.filter(|_| expired > 0) {
                    self.answers.expire(last);
                    out.push(Effect::Event(Event::Expired(expired)));
                }
            }
        }
        if due || self.tell {
            self.tell = false;
            self.beat(out);
        }
    }

    /// When [`on_tick`](Self::on_tick) is next needed.
    #[must_use]
    pub fn next_deadline(&self) -> Time {
        if self.tell {
            self.awake
        } else {
            self.next_tick
        }
    }

    /// What it knows of itself.
    #[must_use]
    pub fn status(&self) -> Status {
        let history = self.history.as_ref();
        Status {
            replica: self.me,
            life: self.life,
            serving: self.is_serving(),
            superseded: matches!(self.stage, Stage::Superseded(_)),
            holding: self.healing.holds(),
            at: history.map(|history| history.at),
            chain: history.map_or(0, |history| history.chain),
            agreed: history.map_or(Index::ZERO, |history| history.agreed),
            ring: history.map_or_else(Vec::new, |history| {
                let ring = &history.ring;
                let members = ring.members().iter();
                members
                    .map(|member| (*member, ring.standing(*member)))
                    .collect()
            }),
            heard_serving: self.heard_serving(),
            kept: history.map_or(0, |history| history.debts.len()),
            owed: self.answers.waiting(),
            decisions: history.map_or(0, |history| history.ring.decisions),
        }
    }

    /// The state machine with its sessions.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Asserts what must hold inside this replica.
    ///
    /// # Panics
    /// When it does not.
    pub fn check_invariants(&self) {
        let Some(history) = &self.history else {
            assert!(!self.is_serving(), "who has no history serves nothing");
            assert!(
                self.answers.waiting() == 0,
                "who has no history owes nothing"
            );
            return;
        };
        assert!(
            self.join.is_some() || self.is_serving() || !matches!(self.stage, Stage::Living),
            "who does not serve wants to"
        );
        assert!(
            self.is_serving() || self.answers.waiting() == 0,
            "who does not serve owes nothing"
        );
        assert!(history.agreed <= history.at, "what is agreed was delivered");
        for debtor in history.debts.debtors().into_iter().flatten() {
            assert!(
                history.ring.serving().any(|(member, _)| member == debtor),
                "only who serves owes something: {debtor}"
            );
        }
    }

    /// Whether this bug is planted.
    #[cfg(feature = "sim")]
    fn has(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    #[cfg(not(feature = "sim"))]
    #[allow(clippy::unused_self, reason = "where no bug can be planted, none is")]
    fn has(&self, _: Mutation) -> bool {
        false
    }

    fn is_serving(&self) -> bool {
        let ring = self.history.as_ref().map(|history| &history.ring);
        let lives = matches!(self.stage, Stage::Living) && self.join.is_none();
        lives && ring.is_some_and(|ring| ring.serves(self.me, self.life))
    }

    /// Something happens. A replica that slept does not know what it missed.
    fn wake(&mut self, now: Time, wall: Timestamp, out: &mut Vec<Effect>) {
        self.clock = self.clock.max(wall);
        let slept = now - self.awake;
        self.awake = self.awake.max(now);
        if slept > self.group.timing.suspect_after / 2 {
            self.echo.restart(now);
            self.listen_anew(now);
            self.hold(now, Doubt::Slept, out);
            self.watch_anew(now);
            if let Some(join) = &mut self.join {
                // It was not the others that were silent.
                join.silent_since = now;
            }
        }
    }

    fn publish(&mut self, item: Item, out: &mut Vec<Effect>) -> Stamp {
        let lives = matches!(self.stage, Stage::Living);
        self.seq += 1;
        let seq = self.seq;
        let (replica, incarnation) = (self.me, self.life.incarnation);
        let stamp = Stamp {
            replica,
            incarnation,
            seq,
        };
        if !lives {
            // Nobody would take it.
            return stamp;
        }
        self.echo.published(self.seq, self.awake);
        out.push(Effect::Publish(Published {
            stamp: Some(stamp),
            item,
        }));
        stamp
    }

    /// One more item of the history that is here, whether this replica serves it or not.
    fn advance(&mut self, now: Time, published: Published, hash: u64, out: &mut Vec<Effect>) {
        let Some(history) = &mut self.history else {
            return;
        };
        history.advance(hash);
        self.healing.items += 1;
        self.tell |= self.group.confirmations > 1;
        let sequence = published
            .stamp
            .map_or(Sequence::Next, |stamp| history.ring.sequence(stamp));
        match sequence {
            Sequence::Next => {}
            Sequence::Repeated => return,
            Sequence::Gap => {
                self.missed_something();
                self.hold(now, Doubt::Gap, out);
            }
        }
        self.deliver(now, published.stamp, published.item, out);
        self.check_ahead(now, out);
        self.flush(out);
    }

    fn deliver(&mut self, now: Time, stamp: Option<Stamp>, item: Item, out: &mut Vec<Effect>) {
        let Some(history) = &mut self.history else {
            return;
        };
        let at = history.at;
        match item {
            Item::Request(request) => self.on_request(now, request, out),
            Item::Announce { replica, life } => {
                if history.ring.announce(at, replica, life) {
                    if self.has(Mutation::SwitchAtAnnounce)
                        && let Some(history) = &mut self.history
                    {
                        history.ring.ready(at, replica, life);
                    }
                    self.transfers.remove(&replica);
                    self.watch_one_anew(now, replica);
                    self.after_change(now, out);
                }
            }
            Item::Ready { replica, life } => {
                if history.ring.ready(at, replica, life) {
                    self.on_ready(now, replica, life, out);
                }
            }
            Item::Failed { replica, life, .. } => self.on_failed(now, replica, life, out),
            Item::Genesis {
                replica,
                life,
                from,
            } => {
                self.on_rival_genesis(stamp, (replica, life), from, out);
            }
            Item::Objection { genesis } => self.on_objection(now, genesis, out),
            Item::Mark { decisions, clock } => {
                history.clock = history.clock.max(clock);
                if let Some(stamp) = stamp {
                    self.on_mark(now, stamp, decisions, out);
                }
            }
            Item::Decision(decision) => self.on_decision(now, &decision, out),
            Item::Unreadable => {}
        }
    }
}
