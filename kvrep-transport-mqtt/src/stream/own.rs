//! The library's own dialect: postcard, several requests in one publication, answers together.

use super::dialect::{Addressed, Dialect, Heard, StreamTopics};
use crate::config::MqttConfig;
use crate::topics::Topics;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kvrep_core::GroupId;
use kvrep_core::client_wire::{Outcome, Reply};
use kvrep_core::protocol::active::{Item, Message, Published};
use kvrep_core::state_machine::{decode, encode};
use kvrep_core::stream::StreamMember;
use kvrep_core::transport::Destination;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The library's own [`Dialect`].
#[derive(Debug)]
pub struct OwnDialect {
    config: MqttConfig,
    open: Option<(StreamMember, Topics)>,
    /// Topics that answers went to lately.
    answered: BTreeSet<Arc<str>>,
}

impl OwnDialect {
    /// With the topics that [`MqttConfig::prefix`] says.
    #[must_use]
    pub fn new(config: &MqttConfig) -> Self {
        Self {
            config: config.clone(),
            open: None,
            answered: BTreeSet::new(),
        }
    }

    fn group(&self) -> GroupId {
        self.open.as_ref().map_or(GroupId(0), |(me, _)| me.group)
    }
}

impl Dialect for OwnDialect {
    fn open(&mut self, me: &StreamMember) -> Result<StreamTopics, String> {
        let topics = Topics::new(&self.config, me.group);
        let asked = StreamTopics {
            ordered: topics.stream(),
            subscriptions: vec![topics.for_all(), topics.joining(me.replica).to_string()],
        };
        self.open = Some((me.clone(), topics));
        Ok(asked)
    }

    fn item(&mut self, published: &Published) -> Bytes {
        record(published, self.group())
    }

    fn read_items(&mut self, payload: &Bytes) -> Vec<Published> {
        let group = self.group();
        let mut rest = payload.clone();
        // As many as there are, if they are like the first.
        let like = 4 + body_bytes(&rest).unwrap_or(0);
        let mut items = Vec::with_capacity((1 + rest.len() / like).min(ITEMS_MAX));
        while let Some(body) = take_record(&mut rest) {
            items.push(Published::decode(group, &body));
        }
        if items.is_empty() || !rest.is_empty() {
            items.push(unreadable());
        }
        items
    }

    fn message(&mut self, to: Destination, message: &Message, out: &mut Vec<Addressed>) {
        let Some((me, topics)) = &self.open else {
            return;
        };
        let topic = match to {
            Destination::Group => topics.heartbeats(),
            Destination::One(one) => topics.joining(one),
        };
        let mut payload = BytesMut::new();
        payload.put_u8(VERSION);
        payload.put_u64(me.group.0);
        payload.put_u64(me.config_hash);
        payload.put_u32(me.replica.0);
        payload.put_slice(&encode(message));
        out.push((topic, payload.freeze()));
    }

    fn read_message(&mut self, _: &str, payload: &Bytes) -> Heard {
        let Some((me, _)) = &self.open else {
            return Heard::Nothing("not open".into());
        };
        let mut payload = payload.clone();
        if payload.len() < MESSAGE_HEAD_BYTES || payload.get_u8() != VERSION {
            return Heard::Nothing("no message of a member".into());
        }
        if payload.get_u64() != me.group.0 {
            return Heard::Nothing("a message of another group".into());
        }
        let (config_hash, from) = (payload.get_u64(), payload.get_u32());
        let from = kvrep_core::ReplicaId(from);
        if config_hash != me.config_hash {
            return Heard::ConfiguredOtherwise(from);
        }
        match decode(&payload) {
            Ok(message) => Heard::Message(message),
            Err(error) => Heard::Nothing(error.to_string()),
        }
    }

    fn answer(&mut self, reply_to: &Bytes, outcome: &Outcome) -> Option<Addressed> {
        let (_, topics) = self.open.as_ref()?;
        let (topic, id): ReplyPlace = decode(reply_to).ok()?;
        let topic = match self.answered.get(topic) {
            Some(topic) => Arc::clone(topic),
            None if topics.takes_replies(topic) => {
                if self.answered.len() >= ANSWERED_MAX {
                    self.answered.clear();
                }
                let topic: Arc<str> = topic.into();
                self.answered.insert(Arc::clone(&topic));
                topic
            }
            None => return None,
        };
        Some((topic, Reply::frame_of(id, outcome)))
    }

    fn joins_answers(&self) -> bool {
        true
    }
}

/// Where an answer goes: the topic, and the call's number there.
pub(super) type ReplyPlace<'a> = (&'a str, u64);

/// One item among others in a publication.
pub(super) fn record(published: &Published, group: GroupId) -> Bytes {
    let mut out = BytesMut::with_capacity(RECORD_BYTES);
    out.put_u32(0);
    published.encode_to(group, &mut out);
    let length = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
    out[..4].copy_from_slice(&length.to_be_bytes());
    out.freeze()
}

/// Of the first record, by its own word.
fn body_bytes(rest: &[u8]) -> Option<usize> {
    let length = rest.first_chunk().copied().map(u32::from_be_bytes)?;
    usize::try_from(length).ok()
}

fn take_record(rest: &mut Bytes) -> Option<Bytes> {
    let length = body_bytes(rest)?;
    if length > rest.len() - 4 {
        return None;
    }
    rest.advance(4);
    Some(rest.split_to(length))
}

fn unreadable() -> Published {
    Published {
        stamp: None,
        item: Item::Unreadable,
    }
}

/// The topic that clients publish their requests to.
pub(super) fn requests(config: &MqttConfig, group: GroupId) -> (Topics, Arc<str>) {
    let topics = Topics::new(config, group);
    let stream = topics.stream();
    (topics, stream)
}

/// Topics that are remembered as ones that answers may go to; forgetting them costs a look at each.
const ANSWERED_MAX: usize = 4_096;
/// Items that there is room for before they are read.
const ITEMS_MAX: usize = 1_024;
/// Of most records.
const RECORD_BYTES: usize = 256;
const VERSION: u8 = 1;
const MESSAGE_HEAD_BYTES: usize = 1 + 8 + 8 + 4;

#[cfg(test)]
mod tests {
    use super::*;
    use kvrep_core::protocol::active::{Call, Life, Request};
    use kvrep_core::{Incarnation, ReplicaId};
    use proptest::prelude::*;

    fn member(replica: u32, config_hash: u64) -> OwnDialect {
        let mut dialect = OwnDialect::new(&MqttConfig::new("b:1").prefix("p"));
        let me = StreamMember {
            group: GroupId(7),
            replica: ReplicaId(replica),
            incarnation: Incarnation(1),
            members: vec![ReplicaId(1), ReplicaId(2)],
            config_hash,
            request_bytes_max: 1 << 20,
            state_bytes_max: 1 << 20,
        };
        dialect.open(&me).unwrap();
        dialect
    }

    fn request(n: u64) -> Published {
        let item = Item::Request(Request {
            hash: n,
            call: Call::Read(Bytes::from_static(b"q")),
            reply_to: Bytes::new(),
            asked: None,
        });
        Published { stamp: None, item }
    }

    #[test]
    fn several_items_in_one_publication_are_read_as_they_were_written() {
        let mut dialect = member(1, 3);
        let both = [dialect.item(&request(1)), dialect.item(&request(2))].concat();
        assert_eq!(dialect.read_items(&both.into()), [request(1), request(2)]);
        let cut = [&dialect.item(&request(1))[..], b"\0\0\0\x09rest"].concat();
        assert_eq!(dialect.read_items(&cut.into()), [request(1), unreadable()]);
        assert_eq!(dialect.read_items(&Bytes::new()), [unreadable()]);
    }

    #[test]
    fn a_member_that_is_configured_otherwise_is_not_believed() {
        let life = Life::default();
        let by = ReplicaId(2);
        let got = Message::Got {
            by,
            life,
            chain: 1,
            bytes: 2,
        };
        let mut out = Vec::new();
        member(2, 3).message(Destination::One(ReplicaId(1)), &got, &mut out);
        let (topic, payload) = out.remove(0);
        assert_eq!(&*topic, "p/j/1");
        assert!(
            matches!(member(1, 3).read_message(&topic, &payload), Heard::Message(read) if read == got)
        );
        assert!(
            matches!(member(1, 4).read_message(&topic, &payload), Heard::ConfiguredOtherwise(other) if other == by)
        );
    }

    #[test]
    fn answers_go_to_clients_of_the_group_and_nowhere_else() {
        let mut dialect = member(1, 3);
        for (topic, goes) in [
            ("p/a/c1", true),
            ("p/all/s", false),
            ("other", false),
            ("p/a/#", false),
        ] {
            let to = encode(&(topic.to_owned(), 1_u64));
            assert_eq!(
                dialect.answer(&to, &Outcome::Closed).is_some(),
                goes,
                "{topic}"
            );
        }
        assert!(
            dialect
                .answer(&Bytes::from_static(b"\xff\xff"), &Outcome::Closed)
                .is_none()
        );
    }

    proptest! {
        #[test]
        fn nothing_that_comes_does_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut dialect = member(1, 3);
            let bytes = Bytes::from(bytes);
            prop_assert!(!dialect.read_items(&bytes).is_empty());
            dialect.read_message("p/all/h", &bytes);
            dialect.answer(&bytes, &Outcome::Closed);
        }
    }
}
