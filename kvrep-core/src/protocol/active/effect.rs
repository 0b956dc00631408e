//! What a replica of the active scheme wants done.

use super::item::{Life, Published};
use super::message::Message;
use crate::client_wire::Outcome;
use crate::id::{Index, ReplicaId};
use bytes::Bytes;
use std::time::Duration;

/// Names an answer of this life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AnswerNumber(pub u64);

/// One thing to be done, in order.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Put this into the ordered stream, behind everything published before; send it again until the stream has it.
    Publish(Published),
    /// Tell every other member (and a monitor). May be lost.
    Broadcast(Message),
    /// Tell one member. May be lost.
    Send {
        /// Whom.
        to: ReplicaId,
        /// What.
        message: Message,
    },
    /// Answer a client, and call [`on_answered`](super::Active::on_answered) when the answer is where it goes.
    Answer {
        /// Names it.
        number: AnswerNumber,
        /// The request's.
        reply_to: Bytes,
        /// The position of the state that it was made from.
        at: Index,
        /// The answer.
        outcome: Outcome,
    },
    /// Keep this state of a history that does not count: an operator may want to look at it.
    SetAside {
        /// Where it ends.
        at: Index,
        /// As a snapshot of the state machine.
        state: Bytes,
    },
    /// What this replica publishes does not come back to it: give its connection to the stream up and make another, then call
    /// [`on_stream_reset`](super::Active::on_stream_reset). (Where there is none at the moment, nothing is to be done.)
    Reconnect,
    /// This life is over: carry out what came before this, and end.
    End(End),
    /// Tell the operator.
    Event(Event),
}

/// Why a life is over, by itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum End {
    /// Another process lives under this replica's number. Nobody has heard of this one.
    AlreadyRunning,
    /// A later process was started under this replica's number, and nothing is lost with this one: it had no state, one that serves has the same, or what it
    /// had does not count and was reported ([`Event::HistoryLost`]).
    Superseded,
}

/// What an operator may want to know.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// This replica has started. Before it says anything it listens for so long whether another process lives under its number.
    Listening {
        /// How long; a little longer, where something is heard.
        wait: Duration,
    },
    /// Others remember a later life of this replica: the clock that names its lives is behind where it was at its last start. It goes on as a life after that
    /// one, and loses nothing by it.
    ClockBehind {
        /// By how much, in microseconds, if its lives are named by the clock.
        by: u64,
    },
    /// A later process was started under this replica's number. This one answers nothing any more. It keeps its state until one that serves is
    /// heard with it, and gives it to those who join while nobody serves.
    Superseded {
        /// Where its state ends.
        at: Index,
    },
    /// This replica was told to end, a later process has its number, and nobody who serves was heard with its state: **what only it had is gone**, but
    /// for what is set aside.
    LastStateGone {
        /// Where that state ends.
        at: Index,
    },
    /// This replica answers, from this position on.
    Serving {
        /// Which join.
        life: Life,
        /// From where on.
        from: Index,
    },
    /// This replica answers nothing until it has joined again.
    Fenced {
        /// Why.
        why: Fence,
    },
    /// It cannot be sure that it has everything, and answers nothing until others say so.
    Holding {
        /// Why.
        why: Doubt,
    },
    /// It was sure again.
    Agreed {
        /// Up to here.
        at: Index,
    },
    /// Another member has failed, or its history does not count.
    Failed(ReplicaId),
    /// Another member serves.
    Joined(ReplicaId),
    /// A history begins here, from nothing or from a state that nobody served.
    Began {
        /// Where that state ends.
        from: Index,
    },
    /// Histories differed, and it was decided which one counts.
    Decided {
        /// The decision.
        number: u64,
        /// Who has that history.
        listed: Vec<ReplicaId>,
    },
    /// This replica has thrown away a history that does not count. **What it had acknowledged alone is lost.**
    HistoryLost {
        /// Up to here it is known to be the same as the one that counts, or as others had it.
        agreed: Index,
        /// So far it went.
        upto: Index,
        /// Writes that it acknowledged after `agreed`, of which the history that counts may have a part: an upper bound.
        acknowledged: u64,
        /// The history that counts began apart from this one: all of this one is lost, however many had confirmed it.
        apart: bool,
    },
    /// The state that this replica was given is none of its state machine's, and it cannot serve. Most often the other one runs another version of the program, whose
    /// snapshots differ. Said once; it is given a state again every few seconds.
    StateNotRead {
        /// Who gave it.
        from: ReplicaId,
        /// What the state machine says of it.
        why: String,
    },
    /// It may not begin, or not give its state to those who join: too few have said what they have. One of these must be heard, be it without its
    /// state.
    AwaitsWord {
        /// Who is not heard.
        missing: Vec<ReplicaId>,
    },
    /// So many requests were forgotten unanswered: nobody served for too long.
    Expired(u64),
}

/// Why a replica answers nothing until it has joined again; as a sentence by its `Display`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fence {
    /// It was declared dead, in the stream.
    #[error("it was declared dead")]
    DeclaredDead,
    /// Others say that it does not serve, and the stream did not tell it.
    #[error("others say that it does not serve, and the stream did not tell it")]
    SaidNotToServe,
    /// A decision about differing histories passed it by.
    #[error("a decision about differing histories passed it by")]
    DecisionMissed,
    /// Histories differed, and another one was chosen.
    #[error("its history does not count")]
    NotChosen,
    /// An older history than the one that it began is served.
    #[error("an older history than the one that it began is served")]
    OlderHistoryServed,
    /// Others serve a history that began apart from its own, or went on apart from it, and counts more.
    #[error("others serve a history that began apart from its own, and counts more")]
    LongerHistoryServed,
    /// Another one knows something to be confirmed that is missing here.
    #[error("something that others have confirmed is missing here")]
    Behind,
    /// It found by itself that it differs.
    #[error("it found that it differs")]
    Differs,
}

/// Why a replica cannot be sure that it has everything; as a sentence by its `Display`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Doubt {
    /// Its process did not run for a while.
    #[error("this process did not run for a while")]
    Slept,
    /// Its connection to the stream was lost, and what it was to get with it.
    #[error("the connection to the stream was lost")]
    Disconnected,
    /// Something that a replica published did not come.
    #[error("something that a replica published is missing")]
    Gap,
    /// Another replica has a different history.
    #[error("another replica has a different history")]
    Differs,
    /// Histories differed, and it was decided which one counts.
    #[error("histories differed")]
    Decided,
}
