//! The log against the simplest one: a list of entries.

use super::*;
use crate::entry::EntryKind;
use crate::id::ReplicaId;
use crate::time::Timestamp;
use bytes::Bytes;
use proptest::prelude::*;

/// What the log must be.
struct Model {
    base: LogPoint,
    entries: Vec<Entry>,
}

impl Model {
    fn last(&self) -> LogPoint {
        self.entries.last().map_or(self.base, Entry::point)
    }

    fn after(&self, from: Index, to: Index) -> impl Iterator<Item = &Entry> {
        (self.entries.iter()).filter(move |e| e.index > from && e.index <= to)
    }

    fn bytes(&self, from: Index, to: Index) -> u64 {
        self.after(from, to).map(|e| e.encoded_bytes() as u64).sum()
    }

    fn fitting(&self, from: Index, upto: Index, bytes_max: u64) -> Vec<Entry> {
        let mut bytes = 0;
        let is_there = self.entries.first().is_some_and(|e| e.index <= from);
        let entries = self.after(from.prev(), upto).filter(|_| is_there);
        let fit = entries.enumerate().take_while(|(at, entry)| {
            bytes += entry.encoded_bytes() as u64;
            *at == 0 || bytes <= bytes_max
        });
        fit.map(|(_, entry)| entry.clone()).collect()
    }
}

fn check(log: &Log, model: &Model) {
    let (base, last) = (model.base.index, model.last().index);
    assert_eq!((log.base(), log.last()), (model.base, model.last()));
    for index in base.0.saturating_sub(2)..=last.0 + 2 {
        let index = Index(index);
        let entry = model.entries.iter().find(|e| e.index == index);
        assert_eq!(log.get(index), entry);
        let point = entry.map(Entry::point);
        let point = point.or((index == base).then_some(model.base));
        assert_eq!(log.point(index), point);
        for to in base.0..=last.0 {
            let to = Index(to);
            assert_eq!(log.bytes_between(index, to), model.bytes(index, to));
            for bytes_max in [0, 60, 150, 400, u64::MAX] {
                let runs: Vec<Entry> = log
                    .runs(index, to, bytes_max)
                    .flat_map(|run| run.to_vec())
                    .collect();
                assert_eq!(runs, model.fitting(index, to, bytes_max), "{index}..={to}");
            }
        }
    }
    for bytes_max in [0, 60, 150, 400, u64::MAX] {
        for to in base.0..=last.0 {
            let candidates = (base.0..=to).map(Index);
            let lowest = candidates
                .into_iter()
                .find(|from| model.bytes(*from, Index(to)) <= bytes_max);
            assert_eq!(Some(log.first_within(Index(to), bytes_max)), lowest);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<u8>),
    Truncate(u64),
    Purge(u64),
    Restart(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop::collection::vec(0_u8..100, 1..5).prop_map(Step::Append),
        1 => (0_u64..12).prop_map(Step::Truncate),
        1 => (0_u64..12).prop_map(Step::Purge),
        1 => any::<bool>().prop_map(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn it_is_a_list_of_entries(steps in prop::collection::vec(step(), 1..12)) {
        let base = LogPoint { index: Index(7), ..LogPoint::ZERO };
        let (mut log, mut model) = (Log::new(base, Vec::new()), Model { base, entries: Vec::new() });
        for (number, step) in steps.into_iter().enumerate() {
            let (base, last) = (model.base.index.0, model.last().index.0);
            match step {
                Step::Append(lengths) => {
                    let mut prev = model.last();
                    let term = Term { number: number as u64, replica: ReplicaId(1) };
                    let added: Vec<Entry> = lengths.iter().map(|length| {
                        let payload = Bytes::from(vec![0; usize::from(*length)]);
                        let entry = Entry::following(prev, term, Timestamp(0), 0, EntryKind::Command, payload);
                        prev = entry.point();
                        entry
                    }).collect();
                    log.append(added.clone().into());
                    model.entries.extend(added);
                }
                Step::Truncate(back) => {
                    let from = Index((last + 1).saturating_sub(back).max(base + 1));
                    let before = model.entries.len();
                    model.entries.retain(|e| e.index < from);
                    assert_eq!(log.truncate(from), (before - model.entries.len()) as u64);
                }
                Step::Purge(count) => {
                    let upto = Index((base + count).min(last));
                    log.purge(upto);
                    model.base = (model.entries.iter().find(|e| e.index == upto)).map_or(model.base, Entry::point);
                    model.entries.retain(|e| e.index > upto);
                }
                Step::Restart(same) => {
                    let middle = Index(base.midpoint(last));
                    let mut at = log.point(middle).unwrap();
                    at.hash ^= u64::from(!same);
                    log.restart_at(at);
                    model.entries.retain(|e| same && e.index > middle);
                    model.base = at;
                }
            }
            check(&log, &model);
        }
    }

    #[test]
    fn a_recovered_log_is_whole(count in 0_usize..3 * CHUNK_ENTRIES) {
        let mut prev = LogPoint::ZERO;
        let entries: Vec<Entry> = (0..count).map(|_| {
            let entry = Entry::following(prev, Term::ZERO, Timestamp(0), 0, EntryKind::Noop, Bytes::new());
            prev = entry.point();
            entry
        }).collect();
        let log = Log::new(LogPoint::ZERO, entries.clone());
        assert_eq!(log.last(), prev);
        assert!(entries.iter().all(|e| log.get(e.index) == Some(e)));
    }
}

#[test]
fn only_what_somebody_wrote_is_counted_and_only_where_it_is_here() {
    use crate::id::{Seq, SessionId};
    let command = Envelope::Command {
        session: SessionId(7),
        seq: Seq(1),
        done_below: Seq(1),
        command: Bytes::from_static(b"c"),
    };
    let term = Term::ZERO.next_for(ReplicaId(1));
    let payloads = [
        (EntryKind::Noop, Bytes::new()),
        (EntryKind::Command, Envelope::Open.encode()),
        (EntryKind::Command, command.encode()),
        (EntryKind::Command, Envelope::Plain(Bytes::new()).encode()),
        (EntryKind::Command, Envelope::Close(SessionId(7)).encode()),
    ];
    let mut entries: Vec<Entry> = Vec::new();
    for (kind, payload) in payloads {
        let prev = entries.last().map_or(LogPoint::ZERO, Entry::point);
        entries.push(Entry::following(prev, term, Timestamp(0), 0, kind, payload));
    }
    let mut log = Log::new(LogPoint::ZERO, entries);
    let all = log.last().index;
    assert_eq!(log.writes(Index(1), all), Some(2));
    assert_eq!(log.writes(Index(4), all), Some(1));
    assert_eq!(log.writes(Index(5), all), Some(0));
    assert_eq!(log.writes(Index(1), all.next()), None);
    log.purge(Index(3));
    assert_eq!(log.writes(Index(3), all), None);
    assert_eq!(log.writes(Index(4), all), Some(1));
}

#[test]
fn terms_alone_tell_where_two_logs_part() {
    // The terms of the entries, a digit each; the same digits are the same entries as far as they go.
    let log = |terms: &str| {
        let mut log = Log::new(LogPoint::ZERO, Vec::new());
        for digit in terms.bytes() {
            let term = Term {
                number: u64::from(digit - b'0'),
                replica: ReplicaId(1),
            };
            let kind = EntryKind::Noop;
            let entry = Entry::following(log.last(), term, Timestamp(0), 0, kind, Bytes::new());
            log.append([entry].into_iter().collect());
        }
        log
    };
    for (ours, theirs, parts) in [
        ("1112", "1113", Some(4)),
        ("111", "11", Some(3)),
        ("11", "111", Some(3)),
        ("1122", "11223", Some(5)),
        ("113344", "1125", Some(3)),
        ("1155", "1133466", Some(3)),
        ("22", "11", None),
        ("", "11", None),
        ("11", "", None),
    ] {
        let found = log(ours).parts_from(&log(theirs).course());
        assert_eq!(found, parts.map(Index), "{ours} {theirs}");
    }
}
