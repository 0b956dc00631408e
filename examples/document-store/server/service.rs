//! What clients are served: one request a connection.
//!
//! A write goes to the log if this node leads, and is answered when every active node has it. A read is answered by the
//! leader once all active nodes have confirmed that it still leads. A follower asks the leader for its position, which is
//! confirmed in the same way, and answers when it has come so far itself.
//!
//! Invariants:
//! * a read shows everything that was acknowledged before it came, at whatever node. (A follower that was stopped finds old
//!   heartbeats in its system's buffers when it goes on, and would take itself for up to date; so only a question that was
//!   asked after the read came can tell.)
//! * whatever a client sends, the answer is a reason, and the worst is that its connection is closed;
//! * a connection costs at most one message each way, and waits for nothing without a deadline.

use super::absences::Absences;
use super::crowd::Crowd;
use super::group::GROUP;
use super::hearing::Hearing;
use super::newcomer::is_there;
use super::place::Place;
use super::words::{Alike, plainly};
use crate::common::conversation::{Conversation, Ended, Manners};
use crate::document_store::store::{Answer, Look, Store};
use crate::document_store::wire::{self, Request, Response, TEXT_BYTES_MAX};
use async_trait::async_trait;
use bytes::Bytes;
use kvrep_core::client_wire::{Op, Outcome};
use kvrep_core::node::{Client, ClientLink as _, ClientOptions, LinkError, LocalLink};
use kvrep_core::protocol::{ProtocolStatus, Role};
use kvrep_core::state_machine::{decode, encode};
use kvrep_core::{Configuration, Manage, Node, Read, ReplicaId, Token};
use kvrep_transport_tcp::{ForeignService, TcpGroupLink};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::codec::LengthDelimitedCodec;

/// Serves the store's clients on a node's port.
pub struct Service {
    place: Place,
    me: ReplicaId,
    /// What it was started with that the others must be, too.
    alike: Alike,
    absences: Absences,
    hearing: Hearing,
    crowd: Crowd,
    node: OnceLock<LocalLink>,
    /// The way to whoever leads.
    leader: Client<Store>,
}

/// What comes before an answer: a reason why there is none.
type Refusal = String;

impl Service {
    /// The service of the node at `place`, which is still to be started.
    #[must_use]
    pub fn new(place: Place, me: ReplicaId, alike: Alike, hearing: Hearing) -> Self {
        let mut options = ClientOptions::default();
        options.deadline = CONFIRMED_WITHIN;
        // Itself: whoever does not lead says who does.
        let link = TcpGroupLink::new(GROUP, [place.to_string()]);
        Self {
            leader: Client::with_options(link, options),
            place,
            me,
            alike,
            absences: Absences::default(),
            hearing,
            crowd: Crowd::new(WAITING_MAX),
            node: OnceLock::new(),
        }
    }

    /// The node is there.
    pub fn attach(&self, node: LocalLink) {
        let _ = self.node.set(node);
    }

    /// Counts since when nodes are away; never ends.
    pub async fn watch(&self, node: &Node) {
        let mut watch = node.watch();
        loop {
            if let Some(agreed) = &watch.borrow_and_update().protocol.configuration {
                self.absences.note(agreed, std::time::Instant::now());
            }
            if watch.changed().await.is_err() {
                // The node has ended; whoever waits for that says why.
                return std::future::pending().await;
            }
        }
    }

    /// Reads one request, carries it out and answers it.
    async fn converse(&self, stream: TcpStream, first: &[u8]) -> Result<(), Ended> {
        let mut talk = Conversation::continued(stream, first, codec(), MANNERS);
        let text = match self.crowd.wait(talk.next()).await {
            Some(text) => text?,
            None => return Ok(()),
        };
        let Some(text) = text else {
            return Ok(());
        };
        let answer = self.answer(&text).await.to_text();
        talk.send(Bytes::from(answer)).await?;
        talk.finish().await;
        Ok(())
    }

    /// The answer to a request, whatever it is.
    async fn answer(&self, text: &[u8]) -> Response {
        let answered = match wire::parse(text) {
            Ok(Request::Write(command)) => {
                tracing::debug!("write ({})", String::from_utf8_lossy(text));
                self.write(encode(&command)).await
            }
            Ok(Request::Read(look)) => {
                tracing::debug!("read()");
                self.read(&look).await
            }
            Ok(Request::Status) => self.status().await,
            Ok(Request::RemoveNode(node)) => self.remove_node(node).await,
            Ok(Request::MakeRoom(node)) => self.make_room(node).await,
            Err(why) => Err(why),
        };
        answered.unwrap_or_else(Response::Ko)
    }

    async fn write(&self, command: Bytes) -> Result<Response, Refusal> {
        match self.call(Op::Plain(command)).await? {
            Outcome::Done { response, .. } => answered(&response),
            Outcome::NotPrimary { primary, .. } => Err(self.not_leader(primary)),
            Outcome::Unknown => Err(UNKNOWN.into()),
            other => Err(refused(other)),
        }
    }

    async fn read(&self, look: &Look) -> Result<Response, Refusal> {
        let query = encode(look);
        let read = Read::Linearizable;
        match self.call(Op::Query { read, query }).await? {
            Outcome::NotPrimary { .. } => {
                let everything = self.acknowledged().await?;
                let (response, _) = self.ask(Read::AtLeast(everything), look).await?;
                Ok(response)
            }
            Outcome::Done { response, .. } => answered(&response),
            other => Err(refused(other)),
        }
    }

    /// A position behind everything that was acknowledged before now: the leader's, who makes sure that it leads.
    async fn acknowledged(&self) -> Result<Token, Refusal> {
        match self.leader.query(Read::Linearizable, Look::Nothing).await {
            Ok(_) => Ok(self.leader.token()),
            Err(why) => {
                let stands = self.stands().await?;
                let waits_for = match stands.waiting_for.as_str() {
                    "" => plainly(self.place, &why.to_string()),
                    waits_for => plainly(self.place, waits_for),
                };
                Err(format!(
                    "this node reaches no leader now, so what it has may be old: ask another one, or later. What it waits for: {waits_for}"
                ))
            }
        }
    }

    /// Asks the state machine, and says at which entry it answered.
    async fn ask(&self, read: Read, look: &Look) -> Result<(Response, u64), Refusal> {
        let query = encode(look);
        match self.call(Op::Query { read, query }).await? {
            Outcome::Done { response, token } => Ok((answered(&response)?, token.index.0)),
            Outcome::NotPrimary { primary, .. } => Err(self.not_leader(primary)),
            other => Err(refused(other)),
        }
    }

    /// A node that is gone for good belongs no more.
    async fn remove_node(&self, node: String) -> Result<Response, Refusal> {
        let place = found(node).await?;
        let id = place.replica()?;
        let agreed = self.agreed_by_me().await?;
        if !agreed.members.contains_key(&id) {
            return Err(format!("{place} is no node of this store"));
        }
        if agreed.in_sync.contains_key(&id) {
            return Err(format!("{place} is active: stop it first"));
        }
        self.manage(Manage::Remove(id)).await??;
        self.hearing.tell(&format!("{place} was removed"));
        Ok(Response::Ok("null".into()))
    }

    /// A node that is to belong takes the place of the one that has been away longest, if all places are taken.
    async fn make_room(&self, node: String) -> Result<Response, Refusal> {
        let place = found(node).await?;
        let by = place.replica()?;
        place.may_follow(self.place)?;
        let agreed = self.agreed_by_me().await?;
        let nodes = agreed.members.len();
        if agreed.members.contains_key(&by) || nodes < self.alike.nodes_max {
            return Ok(Response::Ok("null".into()));
        }
        is_there(place).await?;
        for dead in self.absences.longest_first() {
            // Refused if it lives, and is merely on its way back.
            if self.manage(Manage::Replace { dead, by }).await?.is_ok() {
                let dead = self.place.of(dead);
                self.hearing.tell(&format!(
                    "the store has {nodes} nodes, as many as may be: {place} takes the place of {dead}, which has been away longest"
                ));
                return Ok(Response::Ok("null".into()));
            }
        }
        Err(format!(
            "the store has {nodes} nodes, as many as may be (--nodes-max), and none of them is dead: remove one (docstore-cli: rmnode HOST:PORT)"
        ))
    }

    /// Who belongs and who is active, if this node leads.
    async fn agreed_by_me(&self) -> Result<Configuration, Refusal> {
        let stands = self.stands().await?;
        match stands.configuration {
            Some(agreed) if stands.role == Role::Primary && stands.serving => Ok(agreed),
            Some(_) | None => Err(self.not_leader(stands.primary)),
        }
    }

    /// The inner refusal is the group's answer; the outer one that there is none.
    async fn manage(&self, manage: Manage) -> Result<Result<(), Refusal>, Refusal> {
        match self.call(Op::Manage(manage)).await? {
            Outcome::Managed(_) => Ok(Ok(())),
            Outcome::Refused(why) => Ok(Err(plainly(self.place, &why))),
            Outcome::NotPrimary { primary, .. } => Err(self.not_leader(primary)),
            other => Err(refused(other)),
        }
    }

    /// Whether writes wait for this node, as far as it knows.
    fn is_active(&self, stands: &ProtocolStatus) -> bool {
        let configuration = stands.configuration.as_ref();
        let of_this_reign = configuration.filter(|c| c.term == stands.term);
        let counted = of_this_reign.is_some_and(|c| c.in_sync.contains_key(&self.me));
        counted && matches!(stands.role, Role::Primary | Role::Backup)
    }

    /// How this node stands; ours, for operators and tests.
    async fn status(&self) -> Result<Response, Refusal> {
        let stands = self.stands().await?;
        let (extent, applied) = self.ask(Read::Local, &Look::Extent).await?;
        let Response::Ok(extent) = extent else {
            return Ok(extent);
        };
        let extent: serde_json::Value = serde_json::from_str(&extent).unwrap_or_default();
        let at = |id: &ReplicaId| self.place.of(*id).to_string();
        let configuration = stands.configuration.as_ref();
        let in_sync: Vec<String> = configuration
            .map(|c| c.in_sync.keys().map(at).collect())
            .unwrap_or_default();
        let members: Vec<String> = configuration
            .map(|c| c.members.keys().map(at).collect())
            .unwrap_or_default();
        let role = match stands.role {
            Role::Primary => "leader",
            Role::Backup => "follower",
            Role::Candidate => "candidate",
            Role::Seeking | Role::Witness => "seeking",
        };
        let behind = match stands.role {
            Role::Primary => Some(0),
            Role::Backup | Role::Candidate | Role::Seeking | Role::Witness => self
                .leaders_end(&stands)
                .await
                .map(|end| end.saturating_sub(applied)),
        };
        let result = json!({
            "node": self.place.to_string(),
            "role": role,
            "leader": stands.primary.as_ref().map(at),
            "active": self.is_active(&stands),
            "behind": behind,
            "term": stands.term.number,
            "last": stands.last.index.0,
            "durable": stands.durable.0,
            "applied": applied,
            "active_nodes": in_sync,
            "nodes": members,
            "documents": extent["documents"],
            "digest": extent["digest"],
            "waiting_for": plainly(self.place, &stands.waiting_for),
            "witness": self.alike.witness,
            "nodes_max": self.alike.nodes_max,
        });
        Ok(Response::Ok(result.to_string()))
    }

    /// Where the leader's log ends, if it says so.
    async fn leaders_end(&self, stands: &ProtocolStatus) -> Option<u64> {
        let leader = stands.primary.filter(|leader| *leader != self.me)?;
        let mut options = ClientOptions::default();
        options.deadline = LEADER_WITHIN;
        let link = TcpGroupLink::new(GROUP, [self.place.of(leader).to_string()]);
        let client = Client::<Store>::with_options(link, options);
        Some(client.status(0).await.ok()?.last.index.0)
    }

    async fn stands(&self) -> Result<ProtocolStatus, Refusal> {
        match self.call(Op::Status).await? {
            Outcome::Status(status) => Ok(*status),
            other => Err(refused(other)),
        }
    }

    async fn call(&self, op: Op) -> Result<Outcome, Refusal> {
        let node = self.node.get().ok_or("this node is starting: retry")?;
        let called = node.call(0, op, Instant::now() + ANSWER_WITHIN).await;
        called.map_err(|error| match error {
            LinkError::NotSent(why) | LinkError::Hopeless(why) => plainly(self.place, &why),
            LinkError::Lost(why) => format!("{UNKNOWN} ({})", plainly(self.place, &why)),
            other => format!("{UNKNOWN} ({})", plainly(self.place, &other.to_string())),
        })
    }

    fn not_leader(&self, leader: Option<ReplicaId>) -> Refusal {
        // A node that has just lost its office may still name itself.
        let leader = leader.filter(|leader| *leader != self.me);
        let leader = leader.map_or("unknown".into(), |leader| self.place.of(leader).to_string());
        format!("not leader; leader is {leader}")
    }
}

/// Names are looked up by the system, which may take its time.
async fn found(node: String) -> Result<Place, Refusal> {
    let found = tokio::task::spawn_blocking(move || Place::find(&node)).await;
    found.map_err(|e| e.to_string())?
}

#[async_trait]
impl ForeignService for Service {
    async fn serve(&self, stream: TcpStream, first: Bytes, peer: SocketAddr) {
        self.hearing.tell("client connected!");
        if let Err(ended) = self.converse(stream, &first).await {
            tracing::debug!(%peer, %ended, "closed a connection");
        }
    }
}

/// The codec of the wire.
#[must_use]
pub fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder()
        .length_field_length(2)
        .max_frame_length(TEXT_BYTES_MAX)
        .new_codec()
}

fn answered(response: &[u8]) -> Result<Response, Refusal> {
    let answer = decode::<Answer>(response).map_err(|e| e.to_string())?;
    Ok(Response::from(answer))
}

/// The reason for an outcome that is not to be expected everywhere.
fn refused(outcome: Outcome) -> Refusal {
    match outcome {
        Outcome::Busy => "busy: too much is under way; retry".into(),
        Outcome::Malformed(why) | Outcome::Refused(why) => why,
        Outcome::TooLarge { bytes, bytes_max } => {
            format!("request too large ({bytes} bytes; at most {bytes_max})")
        }
        Outcome::ResponseTooLarge { bytes } => format!("response too large ({bytes} bytes)"),
        Outcome::Unknown => UNKNOWN.into(),
        Outcome::Behind => "this node is not up to date: ask the leader, or this one later".into(),
        Outcome::NotPrimary { .. } => "not leader; leader is unknown".into(),
        Outcome::Done { .. }
        | Outcome::Opened { .. }
        | Outcome::Closed
        | Outcome::SessionExpired
        | Outcome::OutOfWindow
        | Outcome::Status(_)
        | Outcome::Managed(_) => {
            "this node was given the answer to another question: look before you repeat a write"
                .into()
        }
    }
}

/// What a client is told whose write may or may not be carried out.
const UNKNOWN: &str =
    "outcome unknown: the write may have been carried out or not; look before you repeat it";

const MANNERS: Manners = Manners {
    idle: Duration::from_secs(5),
    message: Duration::from_secs(5),
    write: Duration::from_secs(5),
};
/// Longer than it takes to notice that a leader is gone, and to have another.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(6);
/// Longer than it takes to drop a follower that has stopped.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const LEADER_WITHIN: Duration = Duration::from_secs(1);
/// Connections whose request is not complete.
const WAITING_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_outcome_is_answered_in_the_words_of_the_library() {
        for outcome in [
            Outcome::Behind,
            Outcome::Busy,
            Outcome::Closed,
            Outcome::OutOfWindow,
            Outcome::SessionExpired,
            Outcome::Unknown,
        ] {
            let theirs = format!("{outcome:?}");
            let told = refused(outcome);
            assert!(!told.contains(&theirs), "{told}");
        }
        assert!(refused(Outcome::Behind).contains("ask the leader"));
    }
}
