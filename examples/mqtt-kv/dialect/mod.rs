//! The language of the text on the topics of the text: JSON in which other people's clients and monitors take part.
//!
//! | topic | what is said there | read by |
//! |---|---|---|
//! | `inf1406-reqs` | [requests](request), and what servers and monitor say [in the order](items) | all servers |
//! | `inf1406-monitor` | [signs of life](beside) | the monitor and all servers |
//! | `inf1406-rec-<id>` | the [state](beside) for server `<id>`, or what became of one that it sends | that server |
//! | `topico-resp` of a request | its [answer] | its client |
//!
//! Invariants: what stands on `inf1406-reqs` is read by a pure function of its bytes and of what the whole group agrees on, so that each
//! payload is the same item at every server; what this group's servers write is read as exactly what it was; and whatever else comes is
//! an item, a request that is answered with an error, or nothing, and counted.

pub mod answer;
pub mod beside;
pub mod fields;
pub mod items;
pub mod pairs;
pub mod request;
#[cfg(test)]
mod tests;

use super::topics::Topics;
use super::words;
use answer::Form;
use beside::Sign;
use bytes::Bytes;
use fields::Fields;
use kvrep_core::ReplicaId;
use kvrep_core::client_wire::Outcome;
use kvrep_core::protocol::active::{Item, Message, Published};
use kvrep_core::state_machine::decode;
use kvrep_core::stream::StreamMember;
use kvrep_core::transport::Destination;
use kvrep_transport_mqtt::stream::{Addressed, Dialect, Heard, StreamTopics, Trouble};
use request::{Asked, Read, ReplyTo};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Bytes of a piece of a state: with its fields, a payload is less than twice as large, and fits every broker.
pub const PIECE_BYTES: usize = 32 << 10;

/// Whether insertions are answered (A0.7).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Insertions {
    /// They are.
    #[default]
    Answered,
    /// They are not (`--sem-resposta-insercao`).
    Unanswered,
}

/// The language of the text. See the [module](self).
#[derive(Debug)]
pub struct Json {
    topics: Topics,
    form: Form,
    insertions: Insertions,
    refused: Arc<Refused>,
    me: ReplicaId,
    agreement: u64,
    period: Option<Duration>,
    request_bytes_max: usize,
    state_bytes_max: u64,
}

/// What could not be read or answered: how often, and the last reason.
#[derive(Debug, Default)]
pub struct Refused(Mutex<(u64, String)>);

impl Refused {
    /// How many there were since the last call, and why the last one was; `None` when there was none.
    pub fn take(&self) -> Option<(u64, String)> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = std::mem::take(&mut *kept);
        (taken.0 > 0).then_some(taken)
    }

    fn note(&self, why: String) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = (kept.0 + 1, why);
    }
}

impl Json {
    /// On these topics.
    #[must_use]
    pub fn new(topics: Topics) -> Self {
        Self {
            topics,
            form: Form::default(),
            insertions: Insertions::default(),
            refused: Arc::default(),
            me: ReplicaId::NOBODY,
            agreement: 0,
            period: None,
            request_bytes_max: usize::MAX,
            state_bytes_max: u64::MAX,
        }
    }

    /// In which form answers are.
    #[must_use]
    pub fn form(mut self, form: Form) -> Self {
        self.form = form;
        self
    }

    /// Whether insertions are answered.
    #[must_use]
    pub fn insertions(mut self, insertions: Insertions) -> Self {
        self.insertions = insertions;
        self
    }

    /// Says in every sign of life how often they come.
    #[must_use]
    pub fn period(mut self, period: Duration) -> Self {
        self.period = Some(period);
        self
    }

    /// Where it notes what it cannot read or answer.
    #[must_use]
    pub fn refused(&self) -> Arc<Refused> {
        Arc::clone(&self.refused)
    }

    fn read_item(&self, payload: &Bytes) -> Result<Published, String> {
        let fields = Fields::of(payload)?;
        // A word that is no text is as good as none, for whoever can be told.
        let kind = fields.text(&["tipomsg"]).ok().flatten();
        let kind = kind.map(|kind| kind.trim().to_lowercase());
        let told = kind
            .as_deref()
            .and_then(|kind| items::read(&fields, kind, &self.topics, self.agreement));
        if let Some(told) = told {
            return told;
        }
        let bytes = request::Bytes {
            here: payload.len(),
            max: self.request_bytes_max,
        };
        let request = match request::read(&fields, kind.as_deref(), bytes, &self.topics) {
            Read::Request(request) => request,
            Read::Unanswerable(request, why) => {
                self.refused.note(why);
                request
            }
            Read::Nothing(why) => return Err(why),
        };
        Ok(Published {
            stamp: None,
            item: Item::Request(request),
        })
    }
}

impl Dialect for Json {
    fn open(&mut self, me: &StreamMember) -> Result<StreamTopics, String> {
        self.me = me.replica;
        self.agreement = me.config_hash;
        self.request_bytes_max = me.request_bytes_max;
        self.state_bytes_max = me.state_bytes_max as u64;
        Ok(StreamTopics {
            ordered: self.topics.requests.as_str().into(),
            subscriptions: vec![
                self.topics.requests.clone(),
                self.topics.monitor.clone(),
                self.topics.state_of(me.replica),
            ],
        })
    }

    fn item(&mut self, published: &Published) -> Bytes {
        // Requests are clients' and the server's own items are all written: an empty object stands for nothing.
        let json = items::write(published, &self.topics, self.agreement);
        json.unwrap_or_else(|| "{}".into()).into()
    }

    fn read_items(&mut self, payload: &Bytes) -> Vec<Published> {
        let read = self.read_item(payload);
        vec![read.unwrap_or_else(|why| {
            self.refused.note(why);
            Published {
                stamp: None,
                item: Item::Unreadable,
            }
        })]
    }

    fn message(&mut self, to: Destination, message: &Message, out: &mut Vec<Addressed>) {
        if let Message::Heartbeat(heartbeat) = message {
            let json = beside::write_heartbeat(heartbeat, self.agreement, self.period);
            out.push((self.topics.monitor.as_str().into(), json.into()));
        } else if let Destination::One(to) = to
            && let Some(json) = beside::write_to(to, message, PIECE_BYTES as u64)
        {
            out.push((self.topics.state_of(to).into(), json.into()));
        }
    }

    fn read_message(&mut self, topic: &str, payload: &Bytes) -> Heard {
        if topic != self.topics.monitor {
            return match beside::read_to(payload, self.state_bytes_max) {
                Ok(message) => Heard::Message(message),
                Err(why) => Heard::Nothing(why),
            };
        }
        match beside::read_heartbeat(payload) {
            Ok(Sign::Ours {
                heartbeat,
                agreement,
                ..
            }) if agreement != self.agreement => Heard::ConfiguredOtherwise(heartbeat.replica),
            Ok(Sign::Ours { heartbeat, .. }) => Heard::Message(Message::Heartbeat(heartbeat)),
            Ok(Sign::Alive { server, .. }) => Heard::Nothing(format!(
                "o sinal de vida de {server} não tem os campos de um servidor deste grupo"
            )),
            Err(why) => Heard::Nothing(why),
        }
    }

    fn word(&self, trouble: &Trouble) -> String {
        words::trouble(trouble)
    }

    fn answer(&mut self, reply_to: &Bytes, outcome: &Outcome) -> Option<Addressed> {
        if reply_to.is_empty() {
            return None;
        }
        let to: ReplyTo = decode(reply_to).ok()?;
        if to.asked == Asked::Insertion && self.insertions == Insertions::Unanswered {
            return None;
        }
        let payload = answer::write(&to, outcome, self.me.0, self.form)?;
        Some((to.topic.into(), payload))
    }
}
