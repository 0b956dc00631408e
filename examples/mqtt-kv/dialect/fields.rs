//! The fields of a JSON object as other people write them: two or three names for one thing, numbers as strings.
//!
//! Bounds: [`FIELDS_MAX`] fields are kept, and of further ones those of a [request](REQUEST); what a field holds is read only when it is asked for.

use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fmt;

/// Fields of one object that are kept, whatever their names are. Servers and monitors have fewer.
pub const FIELDS_MAX: usize = 64;

/// Fields that count among however many others, which are ignored.
pub const REQUEST: [&str; 7] = [
    "tipomsg",
    "chave",
    "novovalor",
    "topico-resp",
    "topico_resp",
    "topicoresp",
    "idpedido",
];

/// The fields of an object; of two with the same name the later one.
#[derive(Debug)]
pub struct Fields<'a>(BTreeMap<String, &'a RawValue>);

impl<'a> Fields<'a> {
    /// Of this payload.
    ///
    /// # Errors
    /// When it is no JSON object.
    pub fn of(payload: &'a [u8]) -> Result<Self, String> {
        serde_json::from_slice(payload).map_err(|error| format!("não é um objeto JSON: {error}"))
    }

    /// As it stands there, under the first of these names that is.
    #[must_use]
    pub fn raw(&self, names: &[&str]) -> Option<&'a RawValue> {
        names.iter().find_map(|name| self.0.get(*name)).copied()
    }

    /// What is there; `None` when nothing is, or something else.
    #[must_use]
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_str(self.raw(&[name])?.get()).ok()
    }

    /// A text.
    ///
    /// # Errors
    /// When something else is there.
    pub fn text(&self, names: &[&str]) -> Result<Option<String>, String> {
        let Some(raw) = self.raw(names) else {
            return Ok(None);
        };
        let text = serde_json::from_str(raw.get()).map(Some);
        text.map_err(|_| format!("o campo {} tem de ser uma cadeia de caracteres", names[0]))
    }

    /// A number that is not below 0: as a number or as a text, and with nothing behind its point.
    #[must_use]
    pub fn whole(&self, names: &[&str]) -> Option<u64> {
        let raw = self.raw(names)?.get();
        let text: Option<String> = serde_json::from_str(raw).ok();
        let text = text.as_deref().unwrap_or(raw).trim();
        text.parse().ok().or_else(|| whole(text.parse().ok()?))
    }

    /// A number, as a number or as a text.
    #[must_use]
    pub fn number(&self, names: &[&str]) -> Option<f64> {
        let raw = self.raw(names)?.get();
        let text: Option<String> = serde_json::from_str(raw).ok();
        let number: f64 = text.as_deref().unwrap_or(raw).trim().parse().ok()?;
        number.is_finite().then_some(number)
    }

    /// A server's id, under either of its names.
    #[must_use]
    pub fn server(&self) -> Option<u32> {
        self.whole(&["idserv", "idServ"])
            .and_then(|id| u32::try_from(id).ok())
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("um objeto")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    if fields.len() < FIELDS_MAX
                        || fields.contains_key(&name)
                        || REQUEST.contains(&name.as_str())
                    {
                        fields.insert(name, value);
                    }
                }
                Ok(Fields(fields))
            }
        }
        from.deserialize_map(Reader)
    }
}

/// A float that is a whole number, as some languages write them.
fn whole(number: f64) -> Option<u64> {
    let is_whole = number.fract() == 0.0 && (0.0..=EXACT_MAX).contains(&number);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked the line before"
    )]
    is_whole.then_some(number as u64)
}

/// Up to here floats are exact.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a0_3_ids_are_numbers_or_numeric_strings_under_two_names() {
        let id = |json: &str| Fields::of(json.as_bytes()).ok()?.server();
        for sound in [
            r#"{"idserv":2}"#,
            r#"{"idServ":2}"#,
            r#"{"idserv":"2"}"#,
            r#"{"idServ":" 2 "}"#,
            r#"{"idServ":2.0}"#,
        ] {
            assert_eq!(id(sound), Some(2), "{sound}");
        }
        for wrong in [
            r#"{}"#,
            r#"{"idserv":-1}"#,
            r#"{"idserv":2.5}"#,
            r#"{"idserv":4294967296}"#,
            r#"{"idserv":"1e300"}"#,
            r#"{"idserv":null}"#,
            r#"{"idserv":[2]}"#,
            r#"{"idserv":"NaN"}"#,
        ] {
            assert_eq!(id(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn extra_fields_are_ignored_however_many_and_few_of_them_kept() {
        let mut many: Vec<_> = (0..10_000).map(|n| format!("\"x{n}\":0")).collect();
        for (n, name) in REQUEST.iter().enumerate() {
            many.insert((n + 1) * 1_000, format!("\"{name}\":\"{n}\""));
        }
        let json = format!("{{{}}}", many.join(","));
        let fields = Fields::of(json.as_bytes()).expect("an object");
        for (n, name) in REQUEST.iter().enumerate() {
            assert_eq!(fields.text(&[name]), Ok(Some(n.to_string())), "{name}");
        }
        assert_eq!(fields.0.len(), FIELDS_MAX + REQUEST.len());
    }

    #[test]
    fn what_is_no_object_is_refused_and_deep_nesting_does_no_harm() {
        for wrong in ["", "[]", "1", "{", "{\"a\":}", "\u{feff}", "{} {}"] {
            assert!(Fields::of(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
        assert!(Fields::of(b"{\"a\":\"\xff\"}").is_err());
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        let read = Fields::of(deep.as_bytes());
        if let Ok(fields) = read {
            assert_eq!(fields.get::<serde_json::Value>("a"), None);
        }
    }
}
