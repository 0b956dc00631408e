//! JSON in which no object has a name twice.
//!
//! Where one has, programs differ in what they read; ours would take the last. Then `{"age": 18, "age": 19}` would not mean that both hold, as the conditions of a
//! query do, and a `delete` would take documents that nobody asked for. So it is refused.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value as Json};
use std::fmt;

/// What was read.
#[derive(Clone, PartialEq, Debug)]
pub struct Distinct(pub Json);

impl<'de> Deserialize<'de> for Distinct {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reader).map(Self)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, found: bool) -> Result<Json, E> {
        Ok(found.into())
    }

    fn visit_i64<E>(self, found: i64) -> Result<Json, E> {
        Ok(found.into())
    }

    fn visit_u64<E>(self, found: u64) -> Result<Json, E> {
        Ok(found.into())
    }

    fn visit_f64<E>(self, found: f64) -> Result<Json, E> {
        Ok(found.into())
    }

    fn visit_str<E>(self, found: &str) -> Result<Json, E> {
        Ok(found.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(Distinct(item)) = from.next_element()? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Json, A::Error> {
        let mut object = Map::new();
        while let Some(name) = from.next_key::<String>()? {
            if object.contains_key(&name) {
                return Err(Error::custom(format!("{name:?} is there twice")));
            }
            let Distinct(value) = from.next_value()?;
            object.insert(name, value);
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Json, serde_json::Error> {
        serde_json::from_str(text).map(|Distinct(json)| json)
    }

    #[test]
    fn what_is_there_once_is_read_as_by_everybody() {
        for text in [
            r#"[null, true, -1, 18446744073709551615, 1.5, 1e300, "a\u00f1\n", [], {}]"#,
            r#"{"b": {"a": 1}, "a": [{"a": 1}, {"a": 2}], "": 0}"#,
            "7",
        ] {
            let plain: Json = serde_json::from_str(text).expect("JSON");
            let ours = read(text).expect("JSON");
            assert_eq!(ours, plain);
            assert_eq!(ours.to_string(), plain.to_string(), "in its order");
        }
        for wrong in ["", "[1", "{\"a\"}", "[1]]", &"[".repeat(60_000)] {
            assert!(read(wrong).is_err());
        }
    }

    #[test]
    fn a_name_that_is_there_twice_is_refused_at_any_depth() {
        for text in [
            r#"{"a": 1, "a": 1}"#,
            r#"[{"b": {"a": 1, "\u0061": 2}}]"#,
            r#"{"a": 1, "b": 2, "a": 3}"#,
        ] {
            let why = read(text).expect_err("twice").to_string();
            assert!(why.contains("\"a\" is there twice"), "{why}");
        }
    }
}
