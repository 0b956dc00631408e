//! The state machine: collections by name.
//!
//! What is replicated are the clients' commands, not their effects: whether a document fits its schema, and which documents an
//! update means, is decided when the command's turn in the log has come, equally on every replica. So a refusal is a
//! response like any other, and an `_id` is drawn from the random source of its log entry.
//!
//! Invariants:
//! * a refused command changes nothing;
//! * whatever is in, can be read: a document whose `_id` is searched for, and a schema, fit into an answer;
//! * an update selects first and changes then, so that each document it means is updated once, also where its query
//!   tests what it changes.
//!
//! Caveat: a search without an index looks at every document while nothing else is applied. At about ten million
//! documents a second that is well below the group's suspicion up to some millions.

use super::collection::{Collection, Document, Kept};
use super::query::Query;
use super::schema::{ID, Schema};
use super::value::Value;
use super::wire::{TEXT_BYTES_MAX, ok_bytes};
use kvrep_core::{ApplyContext, StateMachine};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;
use uuid::{Builder, Uuid};
use xxhash_rust::xxh3::Xxh3;

/// The collections.
#[derive(Debug, Default)]
pub struct Store {
    collections: BTreeMap<String, Collection>,
}

/// Names and values, as a client wrote them.
pub type Fields = Vec<(String, Value)>;

/// What changes a store.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Command {
    /// A new collection.
    Create {
        /// Its name.
        collection: String,
        /// What its documents may hold.
        schema: Schema,
    },
    /// A collection goes, with its documents.
    Destroy {
        /// Its name.
        collection: String,
    },
    /// A new document.
    Insert {
        /// Into which collection.
        collection: String,
        /// Its attributes.
        document: Fields,
    },
    /// New values for some documents.
    Update {
        /// In which collection.
        collection: String,
        /// For which documents.
        query: Query,
        /// The values.
        changes: Fields,
    },
    /// Some documents go.
    Delete {
        /// From which collection.
        collection: String,
        /// Which.
        query: Query,
    },
}

/// What only looks at it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Look {
    /// The schema of one collection, or of all.
    Describe(Option<String>),
    /// Documents.
    Search {
        /// Of which collection.
        collection: String,
        /// Which.
        query: Query,
    },
    /// How much there is.
    Extent,
    /// Nothing: only the position of whoever answers is of interest.
    Nothing,
}

/// What is answered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// Done; there is nothing to say.
    Done,
    /// The document is in, with this `_id`.
    Inserted(Uuid),
    /// So many documents were updated or deleted.
    Changed(u64),
    /// The result of a read as JSON, which is made here because its size is bounded.
    Found {
        /// The JSON.
        json: String,
        /// How many documents were looked at.
        looked_at: u64,
    },
    /// How much there is, and a number that differs when the content does.
    Extent {
        /// Documents of all collections.
        documents: u64,
        /// Of everything.
        digest: u64,
    },
    /// The result would be larger than a message may be.
    TooLarge {
        /// The bytes of the whole message.
        bytes: u64,
    },
    /// Not done, and why.
    Refused(String),
}

type Refusal = String;

impl Store {
    /// A collection.
    ///
    /// # Errors
    /// When there is none of this name.
    fn collection(&self, name: &str) -> Result<&Collection, Refusal> {
        self.collections.get(name).ok_or_else(|| missing(name))
    }

    fn collection_mut(&mut self, name: &str) -> Result<&mut Collection, Refusal> {
        self.collections.get_mut(name).ok_or_else(|| missing(name))
    }

    fn carry_out(
        &mut self,
        context: &mut ApplyContext,
        command: Command,
    ) -> Result<Answer, Refusal> {
        match command {
            Command::Create { collection, schema } => {
                if self.collections.contains_key(&collection) {
                    return Err(format!("collection {collection:?} exists already"));
                }
                fits("schema", schema.to_json().to_string().len())?;
                self.collections.insert(collection, Collection::new(schema));
                Ok(Answer::Done)
            }
            Command::Destroy { collection } => match self.collections.remove(&collection) {
                Some(_) => Ok(Answer::Done),
                None => Err(missing(&collection)),
            },
            Command::Insert {
                collection,
                document,
            } => {
                let collection = self.collection_mut(&collection)?;
                let mut values = vec![None; collection.schema().0.len()];
                for (position, value) in coerced(collection.schema(), &document)? {
                    values[position] = Some(value);
                }
                let id = draw(collection, context);
                let document = Document { id, values };
                can_be_found(collection.schema(), &document, &[])?;
                collection.insert(document);
                Ok(Answer::Inserted(id))
            }
            Command::Update {
                collection,
                query,
                changes,
            } => {
                let collection = self.collection_mut(&collection)?;
                let changes = coerced(collection.schema(), &changes)?;
                let meant = collection.select(&query.bind(collection.schema())?);
                for document in meant.numbers.iter().filter_map(|n| collection.get(*n)) {
                    can_be_found(collection.schema(), document, &changes)?;
                }
                for number in &meant.numbers {
                    collection.update(*number, &changes);
                }
                Ok(Answer::Changed(meant.numbers.len() as u64))
            }
            Command::Delete { collection, query } => {
                let collection = self.collection_mut(&collection)?;
                let meant = collection.select(&query.bind(collection.schema())?);
                for number in &meant.numbers {
                    collection.delete(*number);
                }
                Ok(Answer::Changed(meant.numbers.len() as u64))
            }
        }
    }

    fn look(&self, look: &Look) -> Result<Answer, Refusal> {
        match look {
            Look::Describe(Some(name)) => {
                let schema = self.collection(name)?.schema();
                Ok(bounded(schema.to_json().to_string(), 0))
            }
            Look::Describe(None) => {
                let all = self.collections.iter();
                Ok(described(all.map(|(name, one)| (name, one.schema()))))
            }
            Look::Search { collection, query } => search(self.collection(collection)?, query),
            Look::Nothing => Ok(Answer::Done),
            Look::Extent => Ok(Answer::Extent {
                documents: self.collections.values().map(|c| c.len() as u64).sum(),
                digest: self.content_digest(),
            }),
        }
    }

    fn content_digest(&self) -> u64 {
        let mut hash = Xxh3::new();
        for (name, collection) in &self.collections {
            hash.update(&(name.len() as u64).to_be_bytes());
            hash.update(name.as_bytes());
            hash.update(&collection.digest().to_be_bytes());
        }
        hash.digest()
    }
}

impl StateMachine for Store {
    type Command = Command;
    type Query = Look;
    type Response = Answer;
    type Snapshot = BTreeMap<String, Kept>;

    fn apply(&mut self, context: &mut ApplyContext, command: Command) -> Answer {
        self.carry_out(context, command)
            .unwrap_or_else(Answer::Refused)
    }

    fn query(&self, look: Look) -> Answer {
        self.look(&look).unwrap_or_else(Answer::Refused)
    }

    fn snapshot(&self) -> Self::Snapshot {
        let all = self.collections.iter();
        all.map(|(name, one)| (name.clone(), one.frozen()))
            .collect()
    }

    fn restore(&mut self, kept: Self::Snapshot) {
        let all = kept.into_iter();
        self.collections = all
            .map(|(name, one)| (name, Collection::restored(one)))
            .collect();
    }

    fn digest(&self) -> Option<u64> {
        Some(self.content_digest())
    }
}

/// The documents that are meant, as a JSON list, unless that would be too much for one message.
fn search(collection: &Collection, query: &Query) -> Result<Answer, Refusal> {
    let meant = collection.select(&query.bind(collection.schema())?);
    let looked_at = meant.looked_at as u64;
    let documents = meant.numbers.iter().filter_map(|n| collection.get(*n));
    let (mut json, mut bytes) = (String::from("["), 2);
    for (at, document) in documents.enumerate() {
        let text = shown(collection.schema(), document).to_string();
        bytes += text.len() + usize::from(at > 0);
        // Beyond the limit only the size is of interest.
        if bytes <= TEXT_BYTES_MAX {
            if at > 0 {
                json.push(',');
            }
            json.push_str(&text);
        }
    }
    if ok_bytes(bytes) > TEXT_BYTES_MAX {
        let bytes = ok_bytes(bytes) as u64;
        return Ok(Answer::TooLarge { bytes });
    }
    json.push(']');
    Ok(Answer::Found { json, looked_at })
}

/// A document as clients see it: `_id`, then what it has of the schema's attributes.
fn shown(schema: &Schema, document: &Document) -> Json {
    let mut fields = Map::new();
    fields.insert(ID.into(), Json::from(document.id.to_string()));
    for (attribute, value) in schema.0.iter().zip(&document.values) {
        if let Some(value) = value {
            fields.insert(attribute.name.clone(), value.to_json());
        }
    }
    Json::Object(fields)
}

/// The schemas of all collections as one object, as large as a message at most: of the rest only the size is of interest.
fn described<'a>(all: impl Iterator<Item = (&'a String, &'a Schema)>) -> Answer {
    let (mut json, mut bytes) = (String::from("{"), 2);
    for (at, (name, schema)) in all.enumerate() {
        let (name, schema) = (
            Json::from(name.as_str()).to_string(),
            schema.to_json().to_string(),
        );
        bytes += name.len() + 1 + schema.len() + usize::from(at > 0);
        if bytes <= TEXT_BYTES_MAX {
            if at > 0 {
                json.push(',');
            }
            json.push_str(&name);
            json.push(':');
            json.push_str(&schema);
        }
    }
    if ok_bytes(bytes) > TEXT_BYTES_MAX {
        let bytes = ok_bytes(bytes) as u64;
        return Answer::TooLarge { bytes };
    }
    json.push('}');
    Answer::Found { json, looked_at: 0 }
}

fn bounded(json: String, looked_at: u64) -> Answer {
    let bytes = ok_bytes(json.len());
    if bytes > TEXT_BYTES_MAX {
        let bytes = bytes as u64;
        Answer::TooLarge { bytes }
    } else {
        Answer::Found { json, looked_at }
    }
}

/// Whether a document, once it has these changes, fits into an answer.
fn can_be_found(
    schema: &Schema,
    document: &Document,
    changes: &[(usize, Value)],
) -> Result<(), Refusal> {
    // A byte is at most six in JSON: what is small need not be written to be measured.
    let kept = document.values.iter().flatten();
    let values = kept.chain(changes.iter().map(|(_, value)| value));
    let names = schema.0.iter().map(|attribute| attribute.name.len());
    let bytes: usize = names.chain(values.map(Value::bytes)).sum();
    if bytes * 6 + schema.0.len() * PUNCTUATION + ID_BYTES <= TEXT_BYTES_MAX {
        return Ok(());
    }
    let mut changed = document.clone();
    for (position, value) in changes {
        changed.values[*position] = Some(value.clone());
    }
    fits("document", shown(schema, &changed).to_string().len() + 2)
}

/// Whether an answer with so many bytes can be given.
fn fits(what: &str, json_bytes: usize) -> Result<(), Refusal> {
    let bytes = ok_bytes(json_bytes);
    if bytes <= TEXT_BYTES_MAX {
        return Ok(());
    }
    Err(format!(
        "{what} too large: nobody could read it, for the answer would have {bytes} bytes; at most {TEXT_BYTES_MAX} can be sent"
    ))
}

/// Quotes, colon and comma of an attribute.
const PUNCTUATION: usize = 8;
/// The `_id` in a document, and what is around that in an answer.
const ID_BYTES: usize = 128;

/// What a client wrote as values of the schema's attributes, by position.
fn coerced(schema: &Schema, fields: &Fields) -> Result<Vec<(usize, Value)>, Refusal> {
    let values = fields.iter().map(|(name, given)| {
        if name == ID {
            return Err("_id is given by the store: leave it out".into());
        }
        let position = schema.position(name)?;
        let value = schema.0[position].kind.coerce(given);
        Ok((position, value.map_err(|why| format!("{name:?}: {why}"))?))
    });
    values.collect()
}

/// An id that no document of the collection has: a UUID of version 4 from the entry's random source.
fn draw(collection: &Collection, context: &mut ApplyContext) -> Uuid {
    loop {
        let halves = [
            context.random().to_be_bytes(),
            context.random().to_be_bytes(),
        ];
        let mut bytes = [0; 16];
        bytes.copy_from_slice(halves.as_flattened());
        let id = Builder::from_random_bytes(bytes).into_uuid();
        if !collection.has(id) {
            return id;
        }
    }
}

fn missing(collection: &str) -> Refusal {
    format!("no collection {collection:?}")
}

#[cfg(test)]
mod tests;
