//! What the documents of a collection may hold.
//!
//! A schema is an ordered list of attributes: documents are shown in its order. The star of `*email=str` means that the
//! attribute is *indexed*, so that a search on it does not look at every document; it says nothing about uniqueness, and
//! the attribute may be absent. (Decision A2.2. One may also read the star as "required": the transcript, which always gives every
//! attribute, allows both.)

use super::value::Kind;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};
use std::collections::BTreeSet;

/// The attributes of a collection's documents, in the order in which they are shown.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Schema(pub Vec<Attribute>);

/// One of them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Attribute {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub kind: Kind,
    /// Whether it is searched through an index.
    pub lookup: Lookup,
}

/// How documents are found by an attribute.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Lookup {
    /// By looking at all of them.
    Scan,
    /// By an index.
    Index,
}

/// The attribute that every document has and no schema names.
pub const ID: &str = "_id";

impl Schema {
    /// The position of the attribute of this name.
    ///
    /// # Errors
    /// When there is none: which there are.
    pub fn position(&self, name: &str) -> Result<usize, String> {
        let found = self.0.iter().position(|attribute| attribute.name == name);
        found.ok_or_else(|| {
            let known: Vec<&str> = self.0.iter().map(|a| a.name.as_str()).collect();
            format!("no attribute {name:?}; there are {}", known.join(", "))
        })
    }

    /// Reads a schema in any of the forms `{"email": {"type": "str", "index": true}}`, `{"*email": "str"}`,
    /// `{"email": "str"}`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_json(json: &Json) -> Result<Self, String> {
        let Json::Object(fields) = json else {
            return Err("a schema is an object, such as {\"*email\": \"str\"}".into());
        };
        let mut names = BTreeSet::new();
        let attributes = fields.iter().map(|(name, described)| {
            let attribute = Attribute::from_json(name, described)?;
            if names.insert(attribute.name.clone()) {
                Ok(attribute)
            } else {
                Err(format!("{:?} is named twice", attribute.name))
            }
        });
        attributes.collect::<Result<_, String>>().map(Self)
    }

    /// The form in which clients are sent it.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let attributes = self.0.iter().map(|attribute| {
            let described =
                json!({"type": attribute.kind.name(), "index": attribute.lookup == Lookup::Index});
            (attribute.name.clone(), described)
        });
        Json::Object(attributes.collect::<Map<_, _>>())
    }
}

impl Attribute {
    fn from_json(given: &str, described: &Json) -> Result<Self, String> {
        let (name, starred) = match given.strip_prefix('*') {
            Some(name) => (name, Lookup::Index),
            None => (given, Lookup::Scan),
        };
        if name.is_empty() || name.starts_with('*') || name == ID {
            return Err(format!("{given:?} cannot be an attribute's name"));
        }
        let (kind, lookup) = match described {
            Json::String(kind) => (kind.as_str(), starred),
            Json::Object(fields) => described_in_full(given, fields, starred)?,
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::Array(_) => {
                return Err(format!("{given:?} needs a type, such as \"str\""));
            }
        };
        let kind = Kind::named(kind).ok_or_else(|| {
            format!("{given:?} has the unknown type {kind:?}: there are str, int, float and bool")
        })?;
        let name = name.to_owned();
        Ok(Self { name, kind, lookup })
    }
}

fn described_in_full<'a>(
    name: &str,
    fields: &'a Map<String, Json>,
    starred: Lookup,
) -> Result<(&'a str, Lookup), String> {
    let mut kind = None;
    let mut lookup = starred;
    for (field, value) in fields {
        match (field.as_str(), value) {
            ("type", Json::String(text)) => kind = Some(text.as_str()),
            ("index", Json::Bool(true)) => lookup = Lookup::Index,
            ("index", Json::Bool(false)) => {}
            _ => {
                return Err(format!(
                    "{name:?} is described by {{\"type\": \"str\", \"index\": true}}, not with {field:?}: {value}"
                ));
            }
        }
    }
    let kind = kind.ok_or_else(|| format!("{name:?} needs a type, such as \"str\""))?;
    Ok((kind, lookup))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Schema, String> {
        Schema::from_json(&serde_json::from_str(text).expect("JSON"))
    }

    #[test]
    fn a_2_2_every_form_of_a_schema_is_read_and_one_is_written() {
        let full = r#"{"email":{"type":"str","index":true},"name":{"type":"str","index":false},"age":{"type":"int","index":true}}"#;
        let schema = read(full).expect("a schema");
        assert_eq!(schema.to_json().to_string(), full, "in its own order");
        let short = r#"{"*email":"str","name":"str","*age":{"type":"int"}}"#;
        assert_eq!(read(short), Ok(schema));
    }

    #[test]
    fn a_2_3_an_unknown_type_and_other_mistakes_are_refused() {
        for (text, why) in [
            (r#"{"a":"text"}"#, "unknown type"),
            (r#"{"a":{"index":true}}"#, "needs a type"),
            (r#"{"a":{"type":"str","unique":true}}"#, "unique"),
            (r#"{"a":3}"#, "needs a type"),
            (r#"{"_id":"str"}"#, "cannot be"),
            (r#"{"*":"str"}"#, "cannot be"),
            (r#"{"**a":"str"}"#, "cannot be"),
            (r#"{"a":"str","*a":"int"}"#, "twice"),
            (r#"[]"#, "an object"),
        ] {
            let told = read(text).expect_err(text);
            assert!(told.contains(why), "{text}: {told}");
        }
    }
}
