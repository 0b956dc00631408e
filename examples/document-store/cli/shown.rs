//! How answers are shown.

use super::line::Command;
use serde_json::{Map, Value as Json};
use std::fmt::Write as _;

/// The text for the result of a command.
#[must_use]
pub fn shown(command: Command, result: &Json) -> String {
    match command {
        Command::AddCollection => "Col added.".into(),
        Command::RemoveCollection => "Col removed.".into(),
        Command::Add => format!("Doc added with _id {}.", plain(result)),
        Command::Update if changed(result) => "Doc updated.".into(),
        Command::Remove if changed(result) => "Doc removed.".into(),
        Command::Update | Command::Remove => NOTHING.into(),
        Command::Search => match result.as_array().map(Vec::as_slice) {
            None | Some([]) => NOTHING.into(),
            Some(documents) => documents.iter().fold("Results:".into(), |text, document| {
                text + &document_lines(document)
            }),
        },
        Command::RemoveNode => "Node removed.".into(),
        Command::Nodes => {
            let is = |node: &Json, list: &str| {
                let list = result[list].as_array().map(Vec::as_slice);
                list.unwrap_or_default().contains(node)
            };
            let nodes = result["nodes"].as_array().map(Vec::as_slice);
            // What was agreed on last says nothing of who lives, when nobody leads.
            let (head, active, away) = if result["leader"].is_null() {
                (
                    "Nodes, as they were last (nobody leads now):",
                    "was active",
                    "was away",
                )
            } else {
                ("Nodes:", "active", "away")
            };
            let nodes = nodes.unwrap_or_default().iter();
            nodes.fold(head.into(), |text: String, node| {
                let how = if *node == result["leader"] {
                    "leader"
                } else if is(node, "active_nodes") {
                    active
                } else {
                    away
                };
                format!("{text}\n- {}: {how}", plain(node))
            })
        }
        Command::Describe => match result.as_object().filter(|all| !all.is_empty()) {
            None => "No cols.".into(),
            Some(all) => all.iter().fold("Cols:".into(), |text, (name, schema)| {
                format!("{text}\n- {}: {}", typed(name), schema_words(schema))
            }),
        },
    }
}

const NOTHING: &str = "No docs.";

fn changed(result: &Json) -> bool {
    result.as_u64() != Some(0)
}

/// `- id: …`, and the attributes below it.
fn document_lines(document: &Json) -> String {
    let empty = Map::new();
    let fields = document.as_object().unwrap_or(&empty);
    let id = fields.get("_id").map(plain).unwrap_or_default();
    let mut lines = format!("\n- id: {id}");
    for (name, value) in fields.iter().filter(|(name, _)| *name != "_id") {
        // Writing to a string does not fail.
        let _ = write!(lines, "\n  {}: {}", tame(name), plain(value));
    }
    lines
}

/// A schema as `addcol` takes it.
fn schema_words(schema: &Json) -> String {
    let empty = Map::new();
    let attributes = schema.as_object().unwrap_or(&empty).iter();
    let words = attributes.map(|(name, described)| {
        let star = if described["index"] == true { "*" } else { "" };
        format!("{star}{}={}", typed(name), plain(&described["type"]))
    });
    words.collect::<Vec<_>>().join(",")
}

/// A name as it is typed: quoted, where it has what would end it.
fn typed(name: &str) -> String {
    let ends = |c: char| c.is_whitespace() || ",=<>!\"'*".contains(c);
    if name.contains(ends) {
        let escaped = name.replace('\\', "\\\\").replace('"', "\\\"");
        format!("\"{}\"", tame(&escaped))
    } else {
        tame(name)
    }
}

fn plain(value: &Json) -> String {
    match value {
        Json::String(text) => tame(text),
        other @ (Json::Null
        | Json::Bool(_)
        | Json::Number(_)
        | Json::Array(_)
        | Json::Object(_)) => other.to_string(),
    }
}

/// A text from elsewhere without what would move the cursor or break the line.
#[must_use]
pub fn tame(text: &str) -> String {
    let mut tamed = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            tamed.extend(character.escape_default());
        } else {
            tamed.push(character);
        }
    }
    tamed
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn answers_are_shown_as_in_the_transcript() {
        let id = "2dc694b9-ead6-4805-9cfb-14fb00c47f1a";
        assert_eq!(shown(Command::AddCollection, &Json::Null), "Col added.");
        assert_eq!(
            shown(Command::Add, &json!(id)),
            format!("Doc added with _id {id}.")
        );
        let found = json!([
            {"_id": id, "email": "a", "name": "a", "age": 18},
            {"name": "b", "_id": "x", "score": 1.5, "ok": true},
        ]);
        assert_eq!(
            shown(Command::Search, &found),
            format!(
                "Results:\n- id: {id}\n  email: a\n  name: a\n  age: 18\n- id: x\n  name: b\n  score: 1.5\n  ok: true"
            )
        );
        assert_eq!(shown(Command::Update, &json!(2)), "Doc updated.");
    }

    #[test]
    fn a_2_8_where_nothing_was_meant_that_is_said() {
        assert_eq!(shown(Command::Update, &json!(0)), "No docs.");
        assert_eq!(shown(Command::Remove, &json!(0)), "No docs.");
        assert_eq!(shown(Command::Search, &json!([])), "No docs.");
    }

    #[test]
    fn nodes_are_listed_with_how_they_are() {
        let status = json!({"nodes": ["a:1", "b:2", "c:3"], "leader": "b:2", "active_nodes": ["a:1", "b:2"]});
        assert_eq!(
            shown(Command::Nodes, &status),
            "Nodes:\n- a:1: active\n- b:2: leader\n- c:3: away"
        );
        assert_eq!(shown(Command::RemoveNode, &Json::Null), "Node removed.");
        let nobody_leads =
            json!({"nodes": ["a:1", "b:2"], "leader": null, "active_nodes": ["a:1"]});
        assert_eq!(
            shown(Command::Nodes, &nobody_leads),
            "Nodes, as they were last (nobody leads now):\n- a:1: was active\n- b:2: was away"
        );
    }

    #[test]
    fn a_description_can_be_typed_again() {
        let all = json!({"users": {"email": {"type": "str", "index": true}, "age": {"type": "int", "index": false}}});
        assert_eq!(
            shown(Command::Describe, &all),
            "Cols:\n- users: *email=str,age=int"
        );
        let blanks = json!({"my col": {"a \"b": {"type": "str", "index": true}}});
        assert_eq!(
            shown(Command::Describe, &blanks),
            r#"Cols:
- "my col": *"a \"b"=str"#
        );
        assert_eq!(shown(Command::Describe, &json!({})), "No cols.");
    }

    #[test]
    fn a_document_cannot_play_with_the_terminal() {
        let found = json!([{"_id": "x", "name": "a\u{1b}[2J\nb"}]);
        assert_eq!(
            shown(Command::Search, &found),
            "Results:\n- id: x\n  name: a\\u{1b}[2J\\nb"
        );
    }
}
