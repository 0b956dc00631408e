//! What a typed line means.
//!
//! A line is a command, a collection and *terms* such as `age>10` or `name="John Smith"`. Terms are separated by blanks,
//! commas or both; what is quoted keeps its blanks and commas: a value, the name of an attribute or of a collection. Where one list of terms follows another, in
//! `update <col> <query> {key=val,}+`, terms joined by commas belong together: the query is the first such group, with those
//! after it that begin with a comparison (`age>10 age<20 name=a`), and what follows are the changes.
//!
//! Values stay texts: the server knows the schema, and what they are.

use crate::document_store::query::Operator;
use serde_json::{Map, Value as Json, json};

/// A command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Line {
    /// Nothing was typed.
    Empty,
    /// `help`
    Help,
    /// `exit`
    Exit,
    /// What is sent, and how its answer is shown.
    Ask {
        /// Of which kind it is.
        command: Command,
        /// The request, as JSON.
        request: String,
    },
}

/// A command that asks the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// `addcol`
    AddCollection,
    /// `rmcol`
    RemoveCollection,
    /// `desc`
    Describe,
    /// `add`
    Add,
    /// `search`
    Search,
    /// `update`
    Update,
    /// `remove`
    Remove,
    /// `nodes`, ours
    Nodes,
    /// `rmnode`, ours
    RemoveNode,
}

/// `key`, operator, value.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Term {
    key: String,
    operator: Operator,
    value: String,
}

/// Terms joined by commas.
type Group = Vec<Term>;

/// Reads a line.
///
/// # Errors
/// What is wrong with it.
pub fn parse(line: &str) -> Result<Line, String> {
    let (word, rest) = word(line);
    let command = match word {
        "" => return Ok(Line::Empty),
        "help" => return Ok(Line::Help),
        "exit" => return Ok(Line::Exit),
        "addcol" => Command::AddCollection,
        "rmcol" => Command::RemoveCollection,
        "desc" => Command::Describe,
        "add" => Command::Add,
        "search" => Command::Search,
        "update" => Command::Update,
        "remove" => Command::Remove,
        "nodes" => Command::Nodes,
        "rmnode" => Command::RemoveNode,
        _ => return Err(format!("no command {word:?}; help lists them")),
    };
    let request = request(command, rest)?.to_string();
    Ok(Line::Ask { command, request })
}

fn request(command: Command, rest: &str) -> Result<Json, String> {
    let usage = |what: &str| format!("write: {what}");
    let (collection, terms) = name(rest)?;
    let collection = collection.as_str();
    let alone = collection.is_empty();
    match command {
        Command::Describe if alone => return Ok(json!(["describe"])),
        Command::Nodes if alone => return Ok(json!(["status"])),
        Command::Describe | Command::Nodes => return Err(usage(command.usage())),
        // Here the first word is an address.
        Command::RemoveNode if !alone && terms.trim().is_empty() => {
            return Ok(json!(["remove-node", collection]));
        }
        Command::RemoveNode => return Err(usage(command.usage())),
        Command::AddCollection
        | Command::RemoveCollection
        | Command::Add
        | Command::Search
        | Command::Update
        | Command::Remove => {}
    }
    if collection.is_empty() {
        return Err(usage(command.usage()));
    }
    let groups = groups(terms)?;
    if groups.is_empty() && command.needs_terms() {
        return Err(usage(command.usage()));
    }
    Ok(match command {
        Command::Describe | Command::Nodes | Command::RemoveNode => {
            return Err(usage(command.usage()));
        }
        Command::RemoveCollection if groups.is_empty() => json!(["destroy", collection]),
        Command::RemoveCollection => return Err(usage(command.usage())),
        Command::AddCollection => json!(["create", collection, schema(&groups.concat())?]),
        Command::Add => json!(["insert", collection, fields(&groups.concat())?]),
        Command::Search => json!(["search", collection, query(&groups.concat())?]),
        Command::Remove => json!(["delete", collection, query(&groups.concat())?]),
        Command::Update => {
            let compares = |group: &Group| {
                group
                    .first()
                    .is_some_and(|term| term.operator != Operator::Equal)
            };
            let more = groups.iter().skip(1).take_while(|group| compares(group));
            let (wanted, changes) = groups.split_at(1 + more.count());
            if changes.is_empty() {
                return Err(usage(command.usage()));
            }
            let changes = fields(&changes.concat())?;
            json!(["update", collection, query(&wanted.concat())?, changes])
        }
    })
}

impl Command {
    fn usage(self) -> &'static str {
        match self {
            Self::AddCollection => {
                "addcol <name> {key=val,}+, such as addcol users *email=str,age=int"
            }
            Self::RemoveCollection => "rmcol <name>",
            Self::Describe => "desc",
            Self::Add => "add <col> {key=val,}+, such as add users email=a age=18",
            Self::Search => "search <col> <query>, such as search users age>10 age<20",
            Self::Update => {
                "update <col> <query> {key=val,}+, such as update users name=a email=c,age=19"
            }
            Self::Remove => "remove <col> <query>, such as remove users age>10",
            Self::Nodes => "nodes",
            Self::RemoveNode => "rmnode <host:port>, such as rmnode localhost:8001",
        }
    }

    /// A search without a query shows all documents; a remove without one would remove them.
    fn needs_terms(self) -> bool {
        match self {
            Self::AddCollection | Self::Add | Self::Update | Self::Remove => true,
            Self::RemoveCollection
            | Self::Describe
            | Self::Search
            | Self::Nodes
            | Self::RemoveNode => false,
        }
    }
}

/// The first word, or what is quoted there, and what follows it.
fn name(text: &str) -> Result<(String, &str), String> {
    let text = text.trim_start();
    if quote(text).is_some() {
        return quoted(text);
    }
    let (word, rest) = word(text);
    Ok((word.to_owned(), rest))
}

/// The first word and what follows it.
fn word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    match text.find(char::is_whitespace) {
        Some(end) => (&text[..end], &text[end..]),
        None => (text, ""),
    }
}

fn groups(text: &str) -> Result<Vec<Group>, String> {
    let mut groups: Vec<Group> = Vec::new();
    let mut rest = text.trim_start();
    let mut joined = false;
    while !rest.is_empty() {
        let (term, behind) = term(rest)?;
        match groups.last_mut() {
            Some(last) if joined => last.push(term),
            _ => groups.push(vec![term]),
        }
        let next = behind.trim_start();
        let separators = next.trim_start_matches(|c: char| c == ',' || c.is_whitespace());
        joined = separators.len() < next.len();
        rest = separators;
    }
    Ok(groups)
}

/// The term at the beginning, and what is behind it.
fn term(text: &str) -> Result<(Term, &str), String> {
    let ends = |c: char| c.is_whitespace() || c == ',';
    let (star, name) = match text.strip_prefix('*') {
        Some(name) if quote(name).is_some() => ("*", name),
        Some(_) | None => ("", text),
    };
    let (key, behind) = if quote(name).is_some() {
        quoted(name)?
    } else {
        let key_ends = text.find(|c: char| "=<>!".contains(c) || ends(c));
        let (key, behind) = text.split_at(key_ends.unwrap_or(text.len()));
        (key.to_owned(), behind)
    };
    let wrong = || {
        let shown = text.split(ends).next().unwrap_or(text);
        format!(
            "{shown:?} is no key=val (in a query also != < <= > >=), without blanks around the sign"
        )
    };
    // The longer signs first.
    let sign = ["==", "!=", "<=", ">=", "=", "<", ">"]
        .into_iter()
        .find(|sign| behind.starts_with(sign));
    let operator = sign.and_then(Operator::named);
    let (Some(sign), Some(operator), false) = (sign, operator, key.is_empty()) else {
        return Err(wrong());
    };
    let (value, behind) = value(&behind[sign.len()..])?;
    let term = Term {
        key: format!("{star}{key}"),
        operator,
        value,
    };
    Ok((term, behind))
}

/// The value at the beginning, quoted or not, and what is behind it.
fn value(text: &str) -> Result<(String, &str), String> {
    let ends = |c: char| c.is_whitespace() || c == ',';
    if quote(text).is_none() {
        let end = text.find(ends).unwrap_or(text.len());
        return Ok((text[..end].to_owned(), &text[end..]));
    }
    let (value, behind) = quoted(text)?;
    if behind.is_empty() || behind.starts_with(ends) {
        return Ok((value, behind));
    }
    let shown = &text[..text.len() - behind.len()];
    Err(format!("put a blank or a comma behind {shown}"))
}

/// The quote with which this begins, if it does.
fn quote(text: &str) -> Option<char> {
    text.chars().next().filter(|c| "\"'".contains(*c))
}

/// What is quoted at the beginning, and what is behind it.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let quote = quote(text).unwrap_or('"');
    let mut value = String::new();
    let mut characters = text.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some((_, escaped)) if escaped == quote || escaped == '\\' => value.push(escaped),
                Some((_, other)) => value.extend(['\\', other]),
                None => break,
            },
            end if end == quote => return Ok((value, &text[at + 1..])),
            other => value.push(other),
        }
    }
    Err(format!("the {quote} of {text} is not closed"))
}

fn schema(terms: &[Term]) -> Result<Json, String> {
    let mut attributes = Map::new();
    for term in terms {
        let (name, index) = match term.key.strip_prefix('*') {
            Some(name) => (name, true),
            None => (term.key.as_str(), false),
        };
        let described = json!({"type": term.assigned()?, "index": index});
        once(&mut attributes, name, described)?;
    }
    Ok(Json::Object(attributes))
}

fn fields(terms: &[Term]) -> Result<Json, String> {
    let mut fields = Map::new();
    for term in terms {
        once(&mut fields, &term.key, Json::from(term.assigned()?))?;
    }
    Ok(Json::Object(fields))
}

fn query(terms: &[Term]) -> Result<Json, String> {
    let mut conditions: Vec<(&str, Map<String, Json>)> = Vec::new();
    for term in terms {
        let at = match conditions.iter().position(|(key, _)| *key == term.key) {
            Some(at) => at,
            None => {
                conditions.push((&term.key, Map::new()));
                conditions.len() - 1
            }
        };
        let sign = term.operator.name();
        once(&mut conditions[at].1, sign, Json::from(term.value.as_str()))
            .map_err(|_| format!("{}{sign} is there twice", term.key))?;
    }
    let conditions = conditions.into_iter().map(|(key, mut compared)| {
        let equals = Operator::Equal.name();
        let wanted = match (compared.len(), compared.contains_key(equals)) {
            (1, true) => compared.remove(equals).unwrap_or_default(),
            _ => Json::Object(compared),
        };
        (key.to_owned(), wanted)
    });
    Ok(Json::Object(conditions.collect()))
}

impl Term {
    /// The value of a `key=val`.
    fn assigned(&self) -> Result<&str, String> {
        match self.operator {
            Operator::Equal => Ok(&self.value),
            Operator::Unequal
            | Operator::Less
            | Operator::LessOrEqual
            | Operator::Greater
            | Operator::GreaterOrEqual => Err(format!(
                "{}{}{} compares: write {}={} here",
                self.key,
                self.operator.name(),
                self.value,
                self.key,
                self.value
            )),
        }
    }
}

fn once(map: &mut Map<String, Json>, key: &str, value: Json) -> Result<(), String> {
    match map.insert(key.to_owned(), value) {
        None => Ok(()),
        Some(_) => Err(format!("{key} is there twice")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(line: &str) -> String {
        match parse(line) {
            Ok(Line::Ask { request, .. }) => request,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn the_lines_of_the_transcript_become_requests() {
        for (line, request) in [
            (
                "addcol users *email=str,name=str,*age=int",
                r#"["create","users",{"email":{"type":"str","index":true},"name":{"type":"str","index":false},"age":{"type":"int","index":true}}]"#,
            ),
            (
                "add users email=a name=a age=18",
                r#"["insert","users",{"email":"a","name":"a","age":"18"}]"#,
            ),
            (
                "search users _id=2dc694b9",
                r#"["search","users",{"_id":"2dc694b9"}]"#,
            ),
            (
                "search users age>10 age<20",
                r#"["search","users",{"age":{">":"10","<":"20"}}]"#,
            ),
            (
                "update users _id=2dc694b9 email=c,age=19",
                r#"["update","users",{"_id":"2dc694b9"},{"email":"c","age":"19"}]"#,
            ),
            ("rmcol users", r#"["destroy","users"]"#),
            ("desc", r#"["describe"]"#),
            (
                "remove users age>=10",
                r#"["delete","users",{"age":{">=":"10"}}]"#,
            ),
            ("search users", r#"["search","users",{}]"#),
        ] {
            assert_eq!(sent(line), request, "{line}");
        }
        assert_eq!(parse("  "), Ok(Line::Empty));
        assert_eq!(parse("help"), Ok(Line::Help));
        assert_eq!(parse("exit"), Ok(Line::Exit));
    }

    #[test]
    fn a_2_6_commas_and_blanks_separate_everywhere_and_quotes_keep_them() {
        let expected = sent("add users email=a,name=b,age=18");
        for line in [
            "add users email=a name=b age=18",
            "add users email=a, name=b ,age=18,",
        ] {
            assert_eq!(sent(line), expected, "{line}");
        }
        assert_eq!(
            sent(r#"add users name="Smith, John" email='a"b' note="a \"b\" \c""#),
            r#"["insert","users",{"name":"Smith, John","email":"a\"b","note":"a \"b\" \\c"}]"#
        );
        assert_eq!(
            sent("add users url=http://x?a=b,e="),
            r#"["insert","users",{"url":"http://x?a=b","e":""}]"#
        );
    }

    #[test]
    fn a_2_6_the_query_of_an_update_ends_where_the_changes_begin() {
        let update = |terms: &str| sent(&format!("update users {terms}"));
        assert_eq!(
            update("age>10 age<20 name=a email=c"),
            r#"["update","users",{"age":{">":"10","<":"20"}},{"name":"a","email":"c"}]"#
        );
        assert_eq!(
            update("name=a,age=18 email=c"),
            r#"["update","users",{"name":"a","age":"18"},{"email":"c"}]"#
        );
        assert_eq!(
            update("_id=x email=c age=19"),
            r#"["update","users",{"_id":"x"},{"email":"c","age":"19"}]"#
        );
    }

    #[test]
    fn names_with_blanks_are_quoted() {
        let sent = |line: &str| match parse(line) {
            Ok(Line::Ask { request, .. }) => serde_json::from_str::<Json>(&request).expect("JSON"),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            sent(r#"addcol "my col" *"first name"=str,'a,b'=int"#),
            json!(["create", "my col", {"first name": {"type": "str", "index": true}, "a,b": {"type": "int", "index": false}}])
        );
        assert_eq!(
            sent(r#"add "my col" "first name"="John Smith" 'a,b'=1"#),
            json!(["insert", "my col", {"first name": "John Smith", "a,b": "1"}])
        );
        assert_eq!(
            sent(r#"search 'my col' "first name"!=x"#),
            json!(["search", "my col", {"first name": {"!=": "x"}}])
        );
        assert_eq!(sent(r#"rmcol 'a "b"'"#), json!(["destroy", "a \"b\""]));
        for wrong in [r#"rmcol "a"#, r#"add c "a b" =1"#, r#"rmcol "a" b"#] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_what_to_write() {
        for (line, why) in [
            ("drop users", "help lists them"),
            ("addcol", "write: addcol"),
            ("add users", "write: add"),
            ("add users age", "key=val"),
            ("add users age = 18", "key=val"),
            ("add users =18", "key=val"),
            ("add users age>18", "write age=18"),
            ("add users age=1 age=2", "twice"),
            ("search users age>1 age>2", "twice"),
            ("add users name=\"a", "not closed"),
            ("add users name=\"a\\", "not closed"),
            ("add users name=\"a\"b", "behind"),
            ("update users name=a", "write: update"),
            ("remove users", "write: remove"),
            ("rmcol users now=yes", "write: rmcol"),
            ("desc users", "write: desc"),
        ] {
            let told = parse(line).expect_err(line);
            assert!(told.contains(why), "{line}: {told}");
        }
    }
}
