//! What clients and the store say to each other.
//!
//! A message is a text of JSON behind its length, two bytes in network order; there is one request and one response a
//! connection. A request is `[operation, argument, …]`, a response `["ok", result]` or `["ko", reason]`. Whatever is
//! wrong with a request is a reason, never the end of anything.
//!
//! Beside the operations of the text there are some of ours: `["status"]`, how the node stands; `["remove-node", "host:port"]`, a node that
//! is gone for good belongs no more; and `["make-room", "host:port"]`, by which a node that is not let in because the store is full asks for the
//! place of the one that has been away longest.

use super::distinct::Distinct;
use super::query::Query;
use super::schema::Schema;
use super::store::{Answer, Command, Fields, Look};
use super::value::Value;
use serde_json::{Value as Json, json};

/// The largest text of one message: its length must fit in two bytes.
pub const TEXT_BYTES_MAX: usize = u16::MAX as usize;

/// What a client asks for.
#[derive(Clone, PartialEq, Debug)]
pub enum Request {
    /// A change: the leader's business.
    Write(Command),
    /// A look: anybody's.
    Read(Look),
    /// How the node stands.
    Status,
    /// A node is to belong no more.
    RemoveNode(String),
    /// A node wants to belong, and the store is full.
    MakeRoom(String),
}

/// What a client is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Response {
    /// Done, with this result (JSON).
    Ok(String),
    /// Not done, and why.
    Ko(String),
}

/// Reads a request.
///
/// # Errors
/// What is wrong with it.
pub fn parse(text: &[u8]) -> Result<Request, String> {
    let text = std::str::from_utf8(text).map_err(|e| format!("a request is UTF-8: {e}"))?;
    let Distinct(request) =
        serde_json::from_str(text).map_err(|e| format!("a request is JSON: {e}"))?;
    let Json::Array(parts) = request else {
        return Err("a request is a list: [operation, argument, …]".into());
    };
    let Some((operation, arguments)) = parts.split_first() else {
        return Err("a request names an operation: the list is empty".into());
    };
    let Json::String(operation) = operation else {
        return Err(format!("an operation is named by a text, not {operation}"));
    };
    request_of(operation, arguments)
}

fn request_of(operation: &str, arguments: &[Json]) -> Result<Request, String> {
    let write = |command| Ok(Request::Write(command));
    match (operation, arguments) {
        ("create", [collection, schema]) => write(Command::Create {
            collection: new_name(collection)?,
            schema: Schema::from_json(schema)?,
        }),
        ("destroy", [collection]) => write(Command::Destroy {
            collection: name(collection)?,
        }),
        ("insert", [collection, document]) => write(Command::Insert {
            collection: name(collection)?,
            document: fields(document)?,
        }),
        ("update", [collection, query, changes]) => write(Command::Update {
            collection: name(collection)?,
            query: Query::from_json(query)?,
            changes: fields(changes)?,
        }),
        ("delete", [collection, query]) => write(Command::Delete {
            collection: name(collection)?,
            query: Query::from_json(query)?,
        }),
        ("describe", []) => Ok(Request::Read(Look::Describe(None))),
        ("describe", [collection]) => Ok(Request::Read(Look::Describe(Some(name(collection)?)))),
        ("search", [collection, query]) => Ok(Request::Read(Look::Search {
            collection: name(collection)?,
            query: Query::from_json(query)?,
        })),
        ("status", []) => Ok(Request::Status),
        ("remove-node", [node]) => Ok(Request::RemoveNode(address(node)?)),
        ("make-room", [node]) => Ok(Request::MakeRoom(address(node)?)),
        _ => Err(wrong(operation, arguments.len())),
    }
}

/// Why an operation with so many arguments is none.
fn wrong(operation: &str, arguments: usize) -> String {
    let known = OPERATIONS.iter().find(|(name, _)| *name == operation);
    match known {
        Some((_, usage)) => format!("{operation} with {arguments} arguments: write {usage}"),
        None => {
            let names: Vec<&str> = OPERATIONS.iter().map(|(name, _)| *name).collect();
            format!(
                "unknown operation {operation:?}: there are {}",
                names.join(", ")
            )
        }
    }
}

const OPERATIONS: [(&str, &str); 10] = [
    ("create", r#"["create", collection, schema]"#),
    ("describe", r#"["describe"] or ["describe", collection]"#),
    ("destroy", r#"["destroy", collection]"#),
    ("insert", r#"["insert", collection, document]"#),
    ("search", r#"["search", collection, query]"#),
    ("update", r#"["update", collection, query, changes]"#),
    ("delete", r#"["delete", collection, query]"#),
    ("status", r#"["status"]"#),
    ("remove-node", r#"["remove-node", "host:port"]"#),
    ("make-room", r#"["make-room", "host:port"]"#),
];

fn address(json: &Json) -> Result<String, String> {
    match json {
        Json::String(address) => Ok(address.clone()),
        other @ (Json::Null
        | Json::Bool(_)
        | Json::Number(_)
        | Json::Array(_)
        | Json::Object(_)) => Err(format!("a node is named by its \"host:port\", not {other}")),
    }
}

fn name(json: &Json) -> Result<String, String> {
    match json {
        Json::String(name) => Ok(name.clone()),
        other @ (Json::Null
        | Json::Bool(_)
        | Json::Number(_)
        | Json::Array(_)
        | Json::Object(_)) => Err(format!("a collection is named by a text, not {other}")),
    }
}

fn new_name(json: &Json) -> Result<String, String> {
    let name = name(json)?;
    if name.is_empty() {
        return Err("a collection needs a name".into());
    }
    Ok(name)
}

fn fields(json: &Json) -> Result<Fields, String> {
    let Json::Object(fields) = json else {
        return Err(format!(
            "attributes are an object, such as {{\"age\": 18}}, not {json}"
        ));
    };
    let fields = fields.iter().map(|(name, value)| {
        let value = Value::from_json(value).map_err(|why| format!("{name:?}: {why}"))?;
        Ok((name.clone(), value))
    });
    fields.collect()
}

impl Response {
    /// Its text. One that would be too large says so instead.
    #[must_use]
    pub fn to_text(&self) -> String {
        let text = match self {
            Self::Ok(result) => format!("[\"ok\", {result}]"),
            Self::Ko(why) => format!("[\"ko\", {}]", Json::from(brief(why))),
        };
        if text.len() <= TEXT_BYTES_MAX {
            return text;
        }
        Self::Ko(too_large(text.len() as u64)).to_text()
    }

    /// Reads a response.
    ///
    /// # Errors
    /// When it is none.
    pub fn from_text(text: &[u8]) -> Result<Self, String> {
        let parts: Vec<Json> =
            serde_json::from_slice(text).map_err(|e| format!("the response is no list: {e}"))?;
        match parts.as_slice() {
            [Json::String(status), result] if status == "ok" => Ok(Self::Ok(result.to_string())),
            [Json::String(status), Json::String(why)] if status == "ko" => {
                Ok(Self::Ko(why.clone()))
            }
            [Json::String(status), why] if status == "ko" => Ok(Self::Ko(why.to_string())),
            _ => Err(format!(
                "the response is neither [\"ok\", result] nor [\"ko\", reason]: {}",
                String::from_utf8_lossy(text)
            )),
        }
    }
}

impl From<Answer> for Response {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Done => Self::Ok("null".into()),
            Answer::Inserted(id) => Self::Ok(Json::from(id.to_string()).to_string()),
            Answer::Changed(documents) => Self::Ok(documents.to_string()),
            Answer::Found { json, .. } => Self::Ok(json),
            Answer::Extent { documents, digest } => {
                let digest = format!("{digest:016x}");
                Self::Ok(json!({"documents": documents, "digest": digest}).to_string())
            }
            Answer::TooLarge { bytes } => Self::Ko(too_large(bytes)),
            Answer::Refused(why) => Self::Ko(why),
        }
    }
}

/// A text of bounded length: of a longer one the beginning and the end, for a reason may say in the middle what the client sent, and
/// behind it what to do.
#[must_use]
pub fn brief(text: &str) -> String {
    if text.len() <= HEAD_BYTES_MAX + TAIL_BYTES_MAX {
        return text.to_owned();
    }
    let mut head = HEAD_BYTES_MAX;
    while !text.is_char_boundary(head) {
        head -= 1;
    }
    let mut tail = text.len() - TAIL_BYTES_MAX;
    while !text.is_char_boundary(tail) {
        tail += 1;
    }
    let left_out = tail - head;
    format!("{} … ({left_out} bytes) … {}", &text[..head], &text[tail..])
}

const HEAD_BYTES_MAX: usize = 400;
const TAIL_BYTES_MAX: usize = 400;

/// The bytes of an `ok` response whose result has so many.
#[must_use]
pub fn ok_bytes(result_bytes: usize) -> usize {
    result_bytes + "[\"ok\", ]".len()
}

fn too_large(bytes: u64) -> String {
    format!("response too large ({bytes} bytes)")
}

/// Puts a text behind its length.
///
/// # Errors
/// The text's bytes, when they are more than a message may have.
pub fn framed(text: &str) -> Result<Vec<u8>, usize> {
    let length = u16::try_from(text.len()).map_err(|_| text.len())?;
    let mut frame = Vec::with_capacity(2 + text.len());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(text.as_bytes());
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &[u8]) -> String {
        parse(text).expect_err("it is refused")
    }

    #[test]
    fn c2_2_what_is_no_request_is_refused_with_the_reason() {
        for (text, why) in [
            (&b"{}"[..], "a list"),
            (b"[]", "empty"),
            (b"[3]", "named by a text"),
            (b"[\"create\"]", "0 arguments"),
            (b"[\"insert\", \"users\"]", "1 arguments"),
            (b"[\"describe\", \"a\", \"b\"]", "2 arguments"),
            (b"[\"search\", 3, {}]", "a text"),
            (b"[\"insert\", \"users\", []]", "an object"),
            (b"[\"drop\", \"users\"]", "unknown operation"),
            (b"[\"ok\"", "JSON"),
            (b"\xff\xfe", "UTF-8"),
            (b"[NaN]", "JSON"),
            (
                b"[\"delete\", \"users\", {\"n\":1, \"n\":2}]",
                "\"n\" is there twice",
            ),
        ] {
            let told = refusal(text);
            assert!(
                told.contains(why),
                "{}: {told}",
                String::from_utf8_lossy(text)
            );
        }
        let deep = "[".repeat(60_000);
        assert!(
            refusal(deep.as_bytes()).contains("JSON"),
            "no stack is exhausted"
        );
    }

    #[test]
    fn characters_come_raw_or_escaped() {
        let raw = parse("[\"destroy\", \"año\"]".as_bytes());
        assert_eq!(raw, parse(br#"["destroy", "a\u00f1o"]"#));
        let collection = "año".into();
        assert_eq!(raw, Ok(Request::Write(Command::Destroy { collection })));
    }

    #[test]
    fn r2_10_a_frame_is_two_bytes_of_length_and_the_text() {
        assert_eq!(
            framed("[\"describe\"]").as_deref(),
            Ok(&b"\x00\x0c[\"describe\"]"[..])
        );
        assert_eq!(
            framed("ñ").as_deref(),
            Ok(&b"\x00\x02\xc3\xb1"[..]),
            "bytes, not characters"
        );
        assert!(framed(&"x".repeat(65_535)).is_ok());
        assert_eq!(framed(&"x".repeat(65_536)), Err(65_536), "never wrapped");
    }

    #[test]
    fn a2_13_a_response_that_is_too_large_says_how_large() {
        let long = format!("\"{}\"", "x".repeat(70_000));
        let bytes = ok_bytes(long.len());
        let told = Response::Ok(long).to_text();
        assert_eq!(
            told,
            format!("[\"ko\", \"response too large ({bytes} bytes)\"]")
        );
    }

    #[test]
    fn what_a_client_sent_wrongly_is_not_sent_back_at_length() {
        let long = "ñ".repeat(30_000);
        for request in [
            format!("[\"{long}\"]"),
            format!("[\"insert\", \"{long}\", []]"),
            format!("[\"insert\", \"users\", {{\"{long}\": []}}]"),
            format!("[\"create\", \"users\", {{\"{long}\": \"{long}\"}}]")
                .replace(&long, &long[..30_000]),
            format!("[{{\"{long}\": 1}}]"),
        ] {
            let told = Response::Ko(refusal(request.as_bytes())).to_text();
            assert!(told.len() < 2_000, "{} bytes", told.len());
        }
        let unknown = Response::Ko(refusal(format!("[\"{long}\"]").as_bytes())).to_text();
        assert!(unknown.contains("unknown operation"), "{unknown}");
        assert!(unknown.contains("there are create, describe"), "{unknown}");
        assert_eq!(brief("short"), "short");
    }

    #[test]
    fn responses_are_read_as_they_are_written() {
        for response in [
            Response::Ok("null".into()),
            Response::Ko("it \"broke\"".into()),
        ] {
            let text = response.to_text();
            assert_eq!(Response::from_text(text.as_bytes()), Ok(response));
        }
        assert!(Response::from_text(b"[]").is_err());
        assert!(Response::from_text(b"[\"ok\"]").is_err());
    }
}
