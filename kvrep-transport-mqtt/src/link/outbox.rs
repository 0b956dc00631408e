//! Publications that wait until the broker may have them: bounded, first in, first out.
//!
//! Frames for one topic may be put together while they wait (`join`): they then leave as one publication, and under load
//! many frames cost one.
//!
//! Invariant: a publication joins the last one that waits for its topic or goes to the end of the queue, so that the order of one topic
//! is that of the calls.

use super::event::{PublicationId, PublishError};
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// One message for the broker.
#[derive(Clone, Debug)]
pub(crate) struct Publication {
    pub(crate) topic: Arc<str>,
    pub(crate) payload: Payload,
    pub(crate) kept: Kept,
    /// Where an answer is to go.
    pub(crate) reply_to: Option<Arc<str>>,
}

/// Whether the broker keeps a message for who subscribes later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kept {
    No,
    Retained,
}

#[derive(Clone, Debug)]
pub(crate) enum Payload {
    Whole(Bytes),
    /// Of parts, and takes more.
    Joined(BytesMut),
}

pub(crate) struct Waiting {
    pub(crate) id: PublicationId,
    pub(crate) publication: Publication,
    bytes: usize,
}

pub(crate) struct Outbox {
    queue: VecDeque<Waiting>,
    bytes: usize,
    /// How many have left.
    left: u64,
    /// The position of the last one that may be joined, by topic.
    open: BTreeMap<Arc<str>, u64>,
    next: PublicationId,
    publications_max: usize,
    bytes_max: usize,
}

/// Where a part goes, and what it may be put together with.
#[derive(Clone, Copy)]
pub(crate) struct Lane<'a> {
    pub(crate) topic: &'a Arc<str>,
    /// Of publications that are put together; the same for all on this topic.
    pub(crate) reply_to: Option<&'a Arc<str>>,
    pub(crate) batch_bytes_max: usize,
}

impl Outbox {
    pub(crate) fn new(publications_max: usize, bytes_max: usize) -> Self {
        Self {
            queue: VecDeque::new(),
            bytes: 0,
            left: 0,
            open: BTreeMap::new(),
            next: PublicationId(1),
            publications_max,
            bytes_max,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Puts a publication at the end. One is taken however large it is, if nothing else waits.
    pub(crate) fn push(&mut self, publication: Publication) -> Result<PublicationId, PublishError> {
        let bytes = publication.payload.len() + publication.topic.len();
        if !self.fits(bytes) {
            return Err(PublishError::Full);
        }
        let id = self.next;
        self.next = PublicationId(id.0 + 1);
        self.bytes += bytes;
        self.queue.push_back(Waiting {
            id,
            publication,
            bytes,
        });
        Ok(id)
    }

    /// Puts a part into the last publication that waits for this topic, if there is one with room, or into a new one that `head` begins.
    pub(crate) fn join(
        &mut self,
        lane: Lane<'_>,
        part: &[u8],
        head: impl FnOnce() -> Bytes,
    ) -> Result<(), PublishError> {
        let topic = lane.topic;
        let open = self
            .open
            .get(topic)
            .and_then(|at| at.checked_sub(self.left));
        let last = open.and_then(|at| self.queue.get_mut(usize::try_from(at).ok()?));
        if let Some(last) = last
            && last.bytes + part.len() <= lane.batch_bytes_max
            && let Payload::Joined(joined) = &mut last.publication.payload
        {
            if self.bytes.saturating_add(part.len()) > self.bytes_max {
                return Err(PublishError::Full);
            }
            last.bytes += part.len();
            self.bytes += part.len();
            joined.extend_from_slice(part);
            return Ok(());
        }
        let head = head();
        let mut joined = BytesMut::with_capacity(head.len() + part.len());
        joined.extend_from_slice(&head);
        joined.extend_from_slice(part);
        let publication = Publication {
            topic: Arc::clone(topic),
            payload: Payload::Joined(joined),
            kept: Kept::No,
            reply_to: lane.reply_to.cloned(),
        };
        self.push(publication)?;
        let at = self.left + self.queue.len() as u64 - 1;
        if self.open.len() >= OPEN_MAX {
            self.open.clear();
        }
        self.open.insert(Arc::clone(topic), at);
        Ok(())
    }

    pub(crate) fn pop(&mut self) -> Option<Waiting> {
        let first = self.queue.pop_front()?;
        if self.queue.is_empty() {
            self.open.clear();
        }
        self.left += 1;
        self.bytes -= first.bytes;
        Some(first)
    }

    /// Empties it.
    pub(crate) fn clear(&mut self) -> Vec<PublicationId> {
        let ids = self.queue.iter().map(|waiting| waiting.id).collect();
        self.left += self.queue.len() as u64;
        self.queue.clear();
        self.open.clear();
        self.bytes = 0;
        ids
    }

    fn fits(&self, bytes: usize) -> bool {
        self.queue.is_empty()
            || (self.queue.len() < self.publications_max
                && self.bytes.saturating_add(bytes) <= self.bytes_max)
    }
}

impl Payload {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Whole(bytes) => bytes.len(),
            Self::Joined(joined) => joined.len(),
        }
    }

    pub(crate) fn into_bytes(self) -> Bytes {
        match self {
            Self::Whole(bytes) => bytes,
            Self::Joined(joined) => joined.freeze(),
        }
    }
}

/// Topics that are remembered as open; forgetting them costs a publication each.
const OPEN_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    const BATCH: usize = 10;

    fn join(outbox: &mut Outbox, to: &str, part: &'static str) -> Result<(), PublishError> {
        let lane = Lane {
            topic: &to.into(),
            reply_to: None,
            batch_bytes_max: BATCH,
        };
        outbox.join(lane, part.as_bytes(), || "|".into())
    }

    fn left(outbox: &mut Outbox) -> Vec<String> {
        let mut left = Vec::new();
        while let Some(Waiting { publication, .. }) = outbox.pop() {
            let payload = publication.payload.into_bytes();
            left.push(format!(
                "{}{}",
                publication.topic,
                String::from_utf8_lossy(&payload)
            ));
        }
        left
    }

    #[test]
    fn parts_for_one_topic_leave_together_while_they_wait_and_fit() {
        let mut outbox = Outbox::new(10, 1_000);
        for (to, part) in [("a", "1"), ("b", "2"), ("a", "3"), ("a", "longer...")] {
            join(&mut outbox, to, part).unwrap();
        }
        assert_eq!(left(&mut outbox), ["a|13", "b|2", "a|longer..."]);
        join(&mut outbox, "a", "4").unwrap();
        assert_eq!(left(&mut outbox), ["a|4"]);
    }

    #[test]
    fn what_left_is_not_joined() {
        let mut outbox = Outbox::new(10, 1_000);
        join(&mut outbox, "a", "1").unwrap();
        join(&mut outbox, "b", "2").unwrap();
        assert!(outbox.pop().is_some());
        join(&mut outbox, "a", "3").unwrap();
        assert_eq!(left(&mut outbox), ["b|2", "a|3"]);
    }

    #[test]
    fn a_full_queue_refuses_the_newest_and_takes_again_when_something_left() {
        let mut outbox = Outbox::new(2, 12);
        join(&mut outbox, "a", "123").unwrap();
        join(&mut outbox, "b", "123").unwrap();
        assert_eq!(join(&mut outbox, "c", "1"), Err(PublishError::Full));
        assert_eq!(outbox.bytes, 10);
        assert!(outbox.pop().is_some());
        join(&mut outbox, "c", "1").unwrap();
        assert_eq!(outbox.clear().len(), 2);
        assert_eq!((outbox.bytes, outbox.len()), (0, 0));
        // Larger than the limit, alone.
        join(&mut outbox, "a", "12345678901234567890").unwrap();
    }
}
