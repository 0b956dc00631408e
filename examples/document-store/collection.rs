//! One collection: its documents in the order of their insertion, and the indexes that find them.
//!
//! Documents are shared with the snapshots that are being written, so freezing a collection copies no document. Indexes
//! are made of the documents: a snapshot holds none, and a restored collection rebuilds them.
//!
//! Invariants:
//! * a document has a value or none for every attribute of the schema, in its order, each of the attribute's kind;
//! * an index holds, under each value, exactly the numbers of the documents that have it;
//! * the digest is the wrapping sum of one hash a document, so that it is kept up to date without looking at the others.

use super::query::{Bound, Id, Operator};
use super::schema::{Lookup, Schema};
use super::value::Value;
use kvrep_core::state_machine::encode;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound as End;
use std::sync::Arc;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

/// A document as it is kept.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Document {
    /// Its `_id`.
    pub id: Uuid,
    /// Its values, in the schema's order.
    pub values: Vec<Option<Value>>,
}

/// A collection.
#[derive(Debug)]
pub struct Collection {
    kept: Kept,
    by_id: BTreeMap<Uuid, Number>,
    /// By the position of the attribute, for those that have an index.
    indexes: BTreeMap<usize, Index>,
    digest: u64,
}

/// What a snapshot holds of a collection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kept {
    schema: Schema,
    documents: BTreeMap<Number, Arc<Document>>,
    next: Number,
}

/// What a query selects.
#[derive(Debug)]
pub struct Selection {
    /// The documents, in the order of their insertion.
    pub numbers: Vec<Number>,
    /// How many documents were looked at to find them.
    pub looked_at: usize,
}

/// The place of a document in the order of insertion.
pub type Number = u64;

type Index = BTreeMap<Value, BTreeSet<Number>>;

impl Collection {
    /// An empty collection.
    #[must_use]
    pub fn new(schema: Schema) -> Self {
        Self::restored(Kept {
            schema,
            documents: BTreeMap::new(),
            next: 0,
        })
    }

    /// The collection of a snapshot, with its indexes.
    #[must_use]
    pub fn restored(kept: Kept) -> Self {
        let attributes = kept.schema.0.iter().enumerate();
        let indexed = attributes.filter(|(_, attribute)| attribute.lookup == Lookup::Index);
        let mut collection = Self {
            indexes: indexed.map(|(at, _)| (at, Index::new())).collect(),
            by_id: BTreeMap::new(),
            digest: 0,
            kept,
        };
        let documents = collection.kept.documents.clone();
        for (number, document) in &documents {
            collection.note(*number, document);
        }
        collection
    }

    /// What a snapshot holds of it.
    #[must_use]
    pub fn frozen(&self) -> Kept {
        self.kept.clone()
    }

    /// Its schema.
    #[must_use]
    pub fn schema(&self) -> &Schema {
        &self.kept.schema
    }

    /// How many documents it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.kept.documents.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kept.documents.is_empty()
    }

    /// A number that differs when the collection does.
    #[must_use]
    pub fn digest(&self) -> u64 {
        xxh3_64(&encode(&(&self.kept.schema, self.kept.next, self.digest)))
    }

    /// Whether a document has this id.
    #[must_use]
    pub fn has(&self, id: Uuid) -> bool {
        self.by_id.contains_key(&id)
    }

    /// A document.
    #[must_use]
    pub fn get(&self, number: Number) -> Option<&Document> {
        self.kept.documents.get(&number).map(Arc::as_ref)
    }

    /// Adds a document behind the others.
    pub fn insert(&mut self, document: Document) {
        let number = self.kept.next;
        self.kept.next += 1;
        self.note(number, &document);
        self.kept.documents.insert(number, Arc::new(document));
    }

    /// Gives these attributes of a document new values.
    pub fn update(&mut self, number: Number, changes: &[(usize, Value)]) {
        let Some(document) = self.take(number) else {
            return;
        };
        let mut document = Arc::unwrap_or_clone(document);
        for (position, value) in changes {
            document.values[*position] = Some(value.clone());
        }
        self.note(number, &document);
        self.kept.documents.insert(number, Arc::new(document));
    }

    /// Removes a document.
    pub fn delete(&mut self, number: Number) {
        self.take(number);
    }

    /// The documents that a query means. It looks at one document for an `_id`, at those that an index names where it
    /// has one for a condition, and else at all.
    #[must_use]
    pub fn select(&self, query: &Bound) -> Selection {
        let mut looked_at = 0;
        let mut matches = |number: &Number, document: &Document| {
            looked_at += 1;
            query
                .matches(document.id, &document.values)
                .then_some(*number)
        };
        let numbers = match self.candidates(query) {
            Some(candidates) => {
                let documents = candidates.iter().filter_map(|n| Some((n, self.get(*n)?)));
                documents.filter_map(|(n, d)| matches(n, d)).collect()
            }
            None => {
                let documents = self.kept.documents.iter();
                documents.filter_map(|(n, d)| matches(n, d)).collect()
            }
        };
        Selection { numbers, looked_at }
    }

    /// The documents among which all matches are, in order, where something narrows them down.
    fn candidates(&self, query: &Bound) -> Option<BTreeSet<Number>> {
        for (operator, id) in &query.ids {
            if *operator == Operator::Equal {
                let Id::Uuid(id) = id else {
                    return Some(BTreeSet::new());
                };
                return Some(self.by_id.get(id).copied().into_iter().collect());
            }
        }
        let equals = query
            .values
            .iter()
            .filter_map(|(position, operator, value)| {
                let index = self.indexes.get(position)?;
                (*operator == Operator::Equal).then(|| index.get(value))
            });
        // No entry in the index: no document. Of several attributes the one with the fewest documents narrows most.
        if let Some(fewest) = equals.min_by_key(|numbers| numbers.map_or(0, BTreeSet::len)) {
            return Some(fewest.cloned().unwrap_or_default());
        }
        let mut ranges: Vec<_> = self
            .indexes
            .iter()
            .filter_map(|(position, index)| Some((index, narrowed(query, *position)?)))
            .collect();
        ranges.sort_by_key(|(_, range)| match range {
            Range::Empty => 0,
            Range::Between(End::Unbounded, _) | Range::Between(_, End::Unbounded) => 2,
            Range::Between(..) => 1,
        });
        let (index, range) = ranges.into_iter().next()?;
        Some(match range {
            Range::Empty => BTreeSet::new(),
            Range::Between(low, high) => index
                .range::<Value, _>((low, high))
                .flat_map(|(_, numbers)| numbers.iter().copied())
                .collect(),
        })
    }

    /// Enters a document into the indexes and the digest.
    fn note(&mut self, number: Number, document: &Document) {
        self.by_id.insert(document.id, number);
        for (position, index) in &mut self.indexes {
            if let Some(value) = &document.values[*position] {
                index.entry(value.clone()).or_default().insert(number);
            }
        }
        self.digest = self.digest.wrapping_add(hash(number, document));
    }

    /// Takes a document out of everything.
    fn take(&mut self, number: Number) -> Option<Arc<Document>> {
        let document = self.kept.documents.remove(&number)?;
        self.by_id.remove(&document.id);
        for (position, index) in &mut self.indexes {
            let Some(value) = &document.values[*position] else {
                continue;
            };
            if let Some(numbers) = index.get_mut(value) {
                numbers.remove(&number);
                if numbers.is_empty() {
                    index.remove(value);
                }
            }
        }
        self.digest = self.digest.wrapping_sub(hash(number, &document));
        Some(document)
    }
}

/// The part of an index in which all matches are.
enum Range<'a> {
    Empty,
    Between(End<&'a Value>, End<&'a Value>),
}

/// What the conditions on one attribute leave of its index; `None` when there are none that narrow it.
fn narrowed(query: &Bound, position: usize) -> Option<Range<'_>> {
    let (mut low, mut high, mut narrows) = (End::Unbounded, End::Unbounded, false);
    for (at, operator, literal) in &query.values {
        if *at != position {
            continue;
        }
        let Some((from, to)) = operator.range(literal) else {
            continue;
        };
        narrows = true;
        low = tighter(low, from, |old, new| new > old);
        high = tighter(high, to, |old, new| new < old);
    }
    // The standard library panics on ranges that are upside down.
    let empty = match (low, high) {
        (End::Included(low), End::Included(high)) => low > high,
        (End::Included(low) | End::Excluded(low), End::Included(high) | End::Excluded(high)) => {
            low >= high
        }
        (End::Unbounded, _) | (_, End::Unbounded) => false,
    };
    narrows.then_some(if empty {
        Range::Empty
    } else {
        Range::Between(low, high)
    })
}

/// The end that leaves less.
fn tighter<'a>(
    old: End<&'a Value>,
    new: End<&'a Value>,
    beyond: impl Fn(&Value, &Value) -> bool,
) -> End<&'a Value> {
    match (old, new) {
        (End::Unbounded, end) | (end, End::Unbounded) => end,
        (End::Included(a) | End::Excluded(a), End::Included(b) | End::Excluded(b)) => {
            if beyond(a, b) || (a == b && matches!(new, End::Excluded(_))) {
                new
            } else {
                old
            }
        }
    }
}

fn hash(number: Number, document: &Document) -> u64 {
    xxh3_64(&encode(&(number, document)))
}
