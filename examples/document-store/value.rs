//! The values of attributes, and how what a client sends becomes one.
//!
//! A client may send `18` or `"18"`: the command line knows no types, and a program in another language may not care. The
//! schema decides what it is ([`Kind::coerce`]). What is kept is exactly of the attribute's kind, so values of one
//! attribute are totally ordered and an index can hold them.
//!
//! Invariant: a kept float is finite and not negative zero, so that equal floats are equal in an index too.

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::cmp::Ordering;
use std::fmt;

/// What an attribute holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Kind {
    /// Text.
    Str,
    /// A whole number of 64 bits, with a sign.
    Int,
    /// A finite number of 64 bits with a fraction.
    Float,
    /// Yes or no.
    Bool,
}

/// A value: as a client sent it, or as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Value {
    /// Text.
    Str(String),
    /// A whole number.
    Int(i64),
    /// A number with a fraction.
    Float(f64),
    /// Yes or no.
    Bool(bool),
}

impl Kind {
    /// The kind of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [Self::Str, Self::Int, Self::Float, Self::Bool]
            .into_iter()
            .find(|kind| kind.name() == name)
    }

    /// Its name in a schema.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Str => "str",
            Self::Int => "int",
            Self::Float => "float",
            Self::Bool => "bool",
        }
    }

    /// What a client's value is as a value of this kind: itself, or the one that its text says.
    ///
    /// # Errors
    /// Why it is none.
    pub fn coerce(self, given: &Value) -> Result<Value, String> {
        let value = match (self, given) {
            (Self::Str, Value::Str(text)) => Some(Value::Str(text.clone())),
            (Self::Str, Value::Int(_) | Value::Float(_) | Value::Bool(_)) => {
                Some(Value::Str(given.to_string()))
            }
            (Self::Int, Value::Int(number)) => Some(Value::Int(*number)),
            (Self::Int, Value::Str(text)) => text.parse().ok().map(Value::Int),
            (Self::Int, Value::Float(number)) => whole(*number).map(Value::Int),
            (Self::Float, Value::Float(number)) => float(*number),
            // Beyond 2^53 the nearest float is meant, as everywhere.
            #[allow(clippy::cast_precision_loss)]
            (Self::Float, Value::Int(number)) => float(*number as f64),
            (Self::Float, Value::Str(text)) => text.parse().ok().and_then(float),
            (Self::Bool, Value::Bool(yes)) => Some(Value::Bool(*yes)),
            (Self::Bool, Value::Str(text)) => match text.to_ascii_lowercase().as_str() {
                "true" => Some(Value::Bool(true)),
                "false" => Some(Value::Bool(false)),
                _ => None,
            },
            (Self::Int | Self::Float, Value::Bool(_))
            | (Self::Bool, Value::Int(_) | Value::Float(_)) => None,
        };
        value.ok_or_else(|| format!("{} is no {}", given.quoted(), self.name()))
    }
}

impl Value {
    /// The value that a client sent.
    ///
    /// # Errors
    /// When it is neither a text, nor a number that fits, nor a truth value.
    pub fn from_json(json: &Json) -> Result<Self, String> {
        match json {
            Json::String(text) => Ok(Self::Str(text.clone())),
            Json::Bool(yes) => Ok(Self::Bool(*yes)),
            Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
                (Some(whole), _, _) => Ok(Self::Int(whole)),
                (None, None, Some(float)) if float.is_finite() => Ok(Self::Float(float)),
                _ => Err(format!(
                    "{number} is out of range: whole numbers have 64 bits"
                )),
            },
            Json::Null | Json::Array(_) | Json::Object(_) => Err(format!(
                "{json} is no value: a value is a text, a number, true or false"
            )),
        }
    }

    /// How much there is of it: of a text its bytes, of the others no less than they have as JSON.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Str(text) => text.len(),
            Self::Int(_) | Self::Float(_) | Self::Bool(_) => NUMBER_BYTES_MAX,
        }
    }

    /// The value as clients are sent it.
    #[must_use]
    pub fn to_json(&self) -> Json {
        match self {
            Self::Str(text) => Json::from(text.as_str()),
            Self::Int(number) => Json::from(*number),
            Self::Float(number) => Json::from(*number),
            Self::Bool(yes) => Json::from(*yes),
        }
    }

    fn quoted(&self) -> String {
        match self {
            Self::Str(text) => format!("{text:?}"),
            Self::Int(_) | Self::Float(_) | Self::Bool(_) => self.to_string(),
        }
    }

    /// Where values of different kinds stand to each other; in one attribute there are none.
    fn rank(&self) -> u8 {
        match self {
            Self::Str(_) => 0,
            Self::Int(_) => 1,
            Self::Float(_) => 2,
            Self::Bool(_) => 3,
        }
    }
}

impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Str(a), Self::Str(b)) => a.cmp(b),
            (Self::Int(a), Self::Int(b)) => a.cmp(b),
            (Self::Float(a), Self::Float(b)) => a.total_cmp(b),
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Str(_) | Self::Int(_) | Self::Float(_) | Self::Bool(_), _) => {
                self.rank().cmp(&other.rank())
            }
        }
    }
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Value {}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Str(text) => f.write_str(text),
            Self::Int(number) => write!(f, "{number}"),
            Self::Float(number) => write!(f, "{}", Json::from(*number)),
            Self::Bool(yes) => write!(f, "{yes}"),
        }
    }
}

fn float(number: f64) -> Option<Value> {
    // Adding zero turns negative zero into zero.
    number.is_finite().then_some(Value::Float(number + 0.0))
}

/// The whole number that this is, if it is one and fits.
fn whole(number: f64) -> Option<i64> {
    let fits = number.fract() == 0.0 && (-TWO_TO_63..TWO_TO_63).contains(&number);
    #[allow(clippy::cast_possible_truncation)]
    fits.then_some(number as i64)
}

const TWO_TO_63: f64 = 9_223_372_036_854_775_808.0;

/// Of a number of 64 bits as JSON.
const NUMBER_BYTES_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn coerced(kind: Kind, json: &str) -> Option<Value> {
        let json: Json = serde_json::from_str(json).expect("JSON");
        kind.coerce(&Value::from_json(&json).ok()?).ok()
    }

    #[test]
    fn a_2_4_the_schema_decides_what_a_number_or_its_text_is() {
        for given in ["18", "\"18\"", "18.0"] {
            assert_eq!(coerced(Kind::Int, given), Some(Value::Int(18)), "{given}");
        }
        for given in ["18", "\"18\"", "1.8e1"] {
            assert_eq!(
                coerced(Kind::Float, given),
                Some(Value::Float(18.0)),
                "{given}"
            );
        }
        assert_eq!(coerced(Kind::Str, "18"), Some(Value::Str("18".into())));
        for given in ["true", "\"true\"", "\"True\""] {
            assert_eq!(
                coerced(Kind::Bool, given),
                Some(Value::Bool(true)),
                "{given}"
            );
        }
    }

    #[test]
    fn a_2_4_what_is_not_of_the_kind_is_refused_with_the_reason() {
        for (kind, given) in [
            (Kind::Int, "\"a\""),
            (Kind::Int, "1.5"),
            (Kind::Int, "1e300"),
            (Kind::Int, "true"),
            (Kind::Int, "9223372036854775808"),
            (Kind::Float, "\"inf\""),
            (Kind::Float, "\"nan\""),
            (Kind::Bool, "1"),
            (Kind::Str, "null"),
            (Kind::Str, "[]"),
            (Kind::Str, "{}"),
        ] {
            assert_eq!(coerced(kind, given), None, "{kind:?} {given}");
        }
        let why = Kind::Int.coerce(&Value::Str("a".into()));
        assert_eq!(why, Err("\"a\" is no int".into()));
    }

    #[test]
    fn zero_is_one_value() {
        assert_eq!(coerced(Kind::Float, "-0.0"), coerced(Kind::Float, "0"));
    }
}
