//! What a member hears of what is applied to the log, sans-IO.

use super::sequencer::Record;
use crate::protocol::active::Published;
use crate::stream::{StreamEvent, StreamMember};
use std::collections::VecDeque;
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64;

/// Listens for one member, from where its own opening stands in the log: a node without a disk hears the whole log again.
#[derive(Debug)]
pub(crate) struct Ear {
    me: StreamMember,
    /// Drawn anew for each start, or two of them would take each other's place.
    opening: u64,
    opened: bool,
    /// Something of this member's did not get into the log.
    missed: bool,
    /// Of a command that was applied, and not yet passed on.
    heard: VecDeque<StreamEvent>,
}

impl Ear {
    pub(crate) fn new(me: StreamMember, opening: u64) -> Self {
        Self {
            me,
            opening,
            opened: false,
            missed: false,
            heard: VecDeque::new(),
        }
    }

    pub(crate) fn me(&self) -> &StreamMember {
        &self.me
    }

    /// To be put into the log as soon as what is applied is listened to, and again while it is not heard: what was put there may be gone with a history
    /// of the log that does not count.
    pub(crate) fn opening(&self) -> Record {
        let opening = self.opening;
        Record::Opened { opening }
    }

    /// After how long that is put there again.
    pub(crate) const OPEN_AGAIN_AFTER: Duration = Duration::from_secs(5);

    /// Whether it has heard its opening.
    pub(crate) fn is_open(&self) -> bool {
        self.opened
    }

    /// The next event, if there is one.
    pub(crate) fn next(&mut self) -> Option<StreamEvent> {
        if self.opened && std::mem::take(&mut self.missed) {
            return Some(StreamEvent::Reset);
        }
        self.heard.pop_front()
    }

    /// A command was applied.
    pub(crate) fn hear(&mut self, records: impl IntoIterator<Item = Record>) {
        for record in records {
            match record {
                Record::Opened { opening } if !self.opened && opening == self.opening => {
                    self.opened = true;
                    // What was lost before is lost to nobody.
                    self.missed = false;
                    self.heard.push_back(StreamEvent::Opened);
                }
                _ if !self.opened => {}
                Record::Item(bytes) => self.heard.push_back(StreamEvent::Delivered {
                    published: Published::decode(self.me.group, &bytes),
                    hash: xxh3_64(&bytes),
                }),
                Record::Message {
                    from,
                    config_hash,
                    to,
                    message,
                } if from != self.me.replica && to.is_none_or(|to| to == self.me.replica) => {
                    self.heard.push_back(if config_hash == self.me.config_hash {
                        StreamEvent::Message(message)
                    } else {
                        StreamEvent::ConfiguredOtherwise(from)
                    });
                }
                Record::Message { .. } | Record::Opened { .. } | Record::Answer { .. } => {}
            }
        }
    }

    /// Commands were applied that are not heard. Returns what is to be put into the log then: its opening may have been among them.
    pub(crate) fn skip(&mut self) -> Option<Record> {
        if !self.opened {
            return Some(self.opening());
        }
        self.heard.push_back(StreamEvent::Reset);
        None
    }

    /// Something that it wanted to put into the log is lost.
    #[cfg(any(feature = "runtime", test))]
    pub(crate) fn miss(&mut self) {
        self.missed = true;
    }

    /// This happens, too.
    pub(crate) fn tell(&mut self, event: StreamEvent) {
        self.heard.push_back(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{GroupId, Incarnation, ReplicaId};
    use crate::protocol::active::{Item, Life, Message};

    fn member() -> StreamMember {
        StreamMember {
            group: GroupId::named("ear"),
            replica: ReplicaId(1),
            incarnation: Incarnation(1),
            members: vec![ReplicaId(0), ReplicaId(1)],
            config_hash: 7,
            request_bytes_max: 1_000,
            state_bytes_max: 1_000,
        }
    }

    fn item() -> Record {
        let item = Item::Announce {
            replica: ReplicaId(0),
            life: Life::default(),
        };
        let published = Published { stamp: None, item };
        Record::Item(published.encode(GroupId::named("ear")))
    }

    fn got(from: u32, to: Option<u32>, config_hash: u64) -> Record {
        Record::Message {
            from: ReplicaId(from),
            config_hash,
            to: to.map(ReplicaId),
            message: Message::Got {
                by: ReplicaId(from),
                life: Life::default(),
                chain: 0,
                bytes: 0,
            },
        }
    }

    fn all(ear: &mut Ear) -> Vec<StreamEvent> {
        std::iter::from_fn(|| ear.next()).collect()
    }

    #[test]
    fn nothing_counts_before_its_own_opening() {
        let mut ear = Ear::new(member(), 3);
        ear.hear([item(), Record::Opened { opening: 2 }, item()]);
        assert!(all(&mut ear).is_empty());
        ear.hear([ear.opening(), item(), ear.opening()]);
        let events = all(&mut ear);
        assert!(matches!(
            events[..],
            [StreamEvent::Opened, StreamEvent::Delivered { .. }]
        ));
    }

    #[test]
    fn what_is_skipped_before_the_opening_may_have_been_it_and_behind_it_is_told() {
        let mut ear = Ear::new(member(), 3);
        ear.miss();
        assert_eq!(ear.skip(), Some(ear.opening()));
        assert!(all(&mut ear).is_empty());
        ear.hear([ear.opening()]);
        let events = all(&mut ear);
        assert!(matches!(events[..], [StreamEvent::Opened]));
        assert_eq!(ear.skip(), None);
        assert!(matches!(all(&mut ear)[..], [StreamEvent::Reset]));
        ear.miss();
        assert!(matches!(all(&mut ear)[..], [StreamEvent::Reset]));
    }

    #[test]
    fn it_hears_what_others_say_to_it_or_to_all() {
        let mut ear = Ear::new(member(), 3);
        ear.hear([
            ear.opening(),
            got(1, None, 7),
            got(0, Some(0), 7),
            got(0, None, 7),
            got(0, Some(1), 8),
        ]);
        let events = all(&mut ear);
        assert!(matches!(
            events[..],
            [
                StreamEvent::Opened,
                StreamEvent::Message(_),
                StreamEvent::ConfiguredOtherwise(ReplicaId(0))
            ]
        ));
    }
}
