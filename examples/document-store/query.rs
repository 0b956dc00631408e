//! Which documents a client means.
//!
//! A query is a list of conditions, all of which must hold. What the client wrote ([`Query`]) travels in the log, for an
//! update or a delete is decided by what is there when its turn comes; against a schema it becomes [`Bound`], with
//! attributes as positions and literals of their kinds.
//!
//! A document that lacks an attribute meets no condition on it but `!=`.

use super::schema::{ID, Schema};
use super::value::Value;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use std::cmp::Ordering;
use std::ops::Bound as End;
use uuid::Uuid;

/// What a client wrote: the conditions that must all hold.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Query(pub Vec<Condition>);

/// One condition, as written.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Condition {
    /// The attribute.
    pub attribute: String,
    /// How it is compared.
    pub operator: Operator,
    /// With what.
    pub literal: Value,
}

/// How a value is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Operator {
    /// `=`
    Equal,
    /// `!=`
    Unequal,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// A query against a schema.
#[derive(Debug, Default)]
pub struct Bound {
    /// The conditions on `_id`.
    pub ids: Vec<(Operator, Id)>,
    /// The others, by the attribute's position.
    pub values: Vec<(usize, Operator, Value)>,
}

/// What `_id` is compared with.
#[derive(Debug, PartialEq, Eq)]
pub enum Id {
    /// An id.
    Uuid(Uuid),
    /// A text that is none, so no document has it.
    Other(String),
}

impl Operator {
    /// The operator of this name, in any dialect.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "=" | "==" | "$eq" => Self::Equal,
            "!=" | "$ne" => Self::Unequal,
            "<" | "$lt" => Self::Less,
            "<=" | "$lte" => Self::LessOrEqual,
            ">" | "$gt" => Self::Greater,
            ">=" | "$gte" => Self::GreaterOrEqual,
            _ => return None,
        })
    }

    /// The name that clients are sent.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::Unequal => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }

    fn accepts(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::Unequal => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }

    /// The part of an index in which all matches are.
    #[must_use]
    pub fn range(self, literal: &Value) -> Option<(End<&Value>, End<&Value>)> {
        Some(match self {
            Self::Equal => (End::Included(literal), End::Included(literal)),
            Self::Unequal => return None,
            Self::Less => (End::Unbounded, End::Excluded(literal)),
            Self::LessOrEqual => (End::Unbounded, End::Included(literal)),
            Self::Greater => (End::Excluded(literal), End::Unbounded),
            Self::GreaterOrEqual => (End::Included(literal), End::Unbounded),
        })
    }
}

impl Query {
    /// Reads `{"age": 18}` or `{"age": {">": 10, "<": 20}}`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_json(json: &Json) -> Result<Self, String> {
        let Json::Object(fields) = json else {
            return Err("a query is an object, such as {\"age\": {\">\": 10}}".into());
        };
        let mut conditions = Vec::new();
        for (attribute, wanted) in fields {
            let mut push = |operator, literal: &Json| {
                let literal =
                    Value::from_json(literal).map_err(|why| format!("{attribute:?}: {why}"))?;
                let attribute = attribute.clone();
                conditions.push(Condition {
                    attribute,
                    operator,
                    literal,
                });
                Ok::<_, String>(())
            };
            let Json::Object(compared) = wanted else {
                push(Operator::Equal, wanted)?;
                continue;
            };
            for (name, literal) in compared {
                let operator = Operator::named(name).ok_or_else(|| {
                    format!("unknown operator {name:?}: there are = > < >= <= !=")
                })?;
                push(operator, literal)?;
            }
        }
        Ok(Self(conditions))
    }

    /// The query against a schema.
    ///
    /// # Errors
    /// When it names what the schema lacks, or compares with what is not of the attribute's kind.
    pub fn bind(&self, schema: &Schema) -> Result<Bound, String> {
        let mut bound = Bound::default();
        for condition in &self.0 {
            let Condition {
                attribute,
                operator,
                literal,
            } = condition;
            if attribute == ID {
                bound.ids.push((*operator, Id::of(&literal.to_string())));
                continue;
            }
            let position = schema.position(attribute)?;
            let literal = schema.0[position].kind.coerce(literal);
            let literal = literal.map_err(|why| format!("{attribute:?}: {why}"))?;
            bound.values.push((position, *operator, literal));
        }
        Ok(bound)
    }
}

impl Bound {
    /// Whether a document is meant.
    #[must_use]
    pub fn matches(&self, id: Uuid, values: &[Option<Value>]) -> bool {
        self.ids
            .iter()
            .all(|(operator, wanted)| operator.accepts(wanted.compared_with(id)))
            && self
                .values
                .iter()
                .all(|(position, operator, literal)| match &values[*position] {
                    Some(value) => operator.accepts(value.cmp(literal)),
                    None => *operator == Operator::Unequal,
                })
    }
}

impl Id {
    fn of(text: &str) -> Self {
        Uuid::try_parse(text).map_or_else(|_| Self::Other(text.to_owned()), Self::Uuid)
    }

    /// How `id` stands to this: in the order of their texts.
    fn compared_with(&self, id: Uuid) -> Ordering {
        match self {
            Self::Uuid(wanted) => id.cmp(wanted),
            Self::Other(text) => id.to_string().as_str().cmp(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Query, String> {
        Query::from_json(&serde_json::from_str(text).expect("JSON"))
    }

    #[test]
    fn a_2_5_operators_are_read_in_every_dialect() {
        let plain = read(r#"{"age":{">":10,"<":20,">=":11,"<=":19,"=":15,"!=":16}}"#);
        let other = read(r#"{"age":{"$gt":10,"$lt":20,"$gte":11,"$lte":19,"==":15,"$ne":16}}"#);
        assert_eq!(plain.as_ref().map(|query| query.0.len()), Ok(6));
        assert_eq!(plain, other);
        assert_eq!(read(r#"{"age":18}"#), read(r#"{"age":{"$eq":18}}"#));
        assert_eq!(read("{}"), Ok(Query::default()), "all documents");
    }

    #[test]
    fn a_2_5_what_is_no_query_is_refused() {
        for text in [
            r#"[]"#,
            r#"{"age":{"~":1}}"#,
            r#"{"age":null}"#,
            r#"{"age":{">":[]}}"#,
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
