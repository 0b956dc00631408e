//! What the demo loads: CSV with a header line, or JSON lines; the bundled cities, or a file of the user's.
//!
//! Each record becomes one write of a value under a key. The key is the column (the field) that `--key` names. The value
//! of a CSV record is a JSON object of all its columns, in their order, as strings; that of a JSON line is the line.
//! Keys may repeat: each record is a write of its own, in the order of the file, and the last one stays.
//!
//! Nothing is read without a bound ([`InputLimits`]); every error names the line and says what to do.

use serde_json::Value;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// One write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Never empty.
    pub key: String,
    /// A JSON object.
    pub value: String,
}

/// Where the records come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// The cities in `data/cities.csv`; their key is `geonameid` unless another column is named.
    Bundled,
    /// A file.
    File(PathBuf),
}

/// How much is read at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InputLimits {
    /// Bytes of one record.
    pub record_bytes_max: usize,
    /// Bytes of the whole input.
    pub total_bytes_max: u64,
}

impl Default for InputLimits {
    /// 256 KiB and 256 MiB.
    fn default() -> Self {
        Self {
            record_bytes_max: 256 << 10,
            total_bytes_max: 256 << 20,
        }
    }
}

/// Why the input was refused. Nothing was loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// The file cannot be opened or read.
    #[error("cannot read {name}: {source}; check the path given to --input")]
    Unreadable {
        /// The file.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// There is nothing in it.
    #[error("{name} has no records; give a CSV file with a header line, or JSON lines")]
    Empty {
        /// The file.
        name: String,
    },
    /// It is larger than is allowed.
    #[error(
        "{name} is larger than {bytes_max} bytes, which is the most that the demo loads; split it"
    )]
    TooLarge {
        /// The file.
        name: String,
        /// The bound.
        bytes_max: u64,
    },
    /// No key was named.
    #[error("no key was named; add --key with one of the columns of {name}: {columns}")]
    KeyNotNamed {
        /// The file.
        name: String,
        /// What there is to choose from.
        columns: String,
    },
    /// There is no such column.
    #[error("{name}, line {line}: there is no `{key}`; --key takes one of: {columns}")]
    NoSuchKey {
        /// The file.
        name: String,
        /// The line.
        line: u64,
        /// The key that was asked for.
        key: String,
        /// What there is to choose from.
        columns: String,
    },
    /// The key of a record is no key.
    #[error(
        "{name}, line {line}: `{key}` is {what}; a key is a text that is not empty, or a number: correct the line, or choose another --key"
    )]
    BadKey {
        /// The file.
        name: String,
        /// The line.
        line: u64,
        /// The key's column.
        key: String,
        /// What it is.
        what: &'static str,
    },
    /// The line is not what it should be.
    #[error("{name}, line {line}: {what}; {advice}")]
    Malformed {
        /// The file.
        name: String,
        /// The line.
        line: u64,
        /// What is wrong.
        what: String,
        /// What to do.
        advice: &'static str,
    },
}

/// Reads all records of `source`.
///
/// # Errors
/// When it cannot be read, is malformed, or too large.
pub fn read(
    source: &Source,
    key: Option<&str>,
    limits: InputLimits,
) -> Result<Vec<Record>, InputError> {
    match source {
        Source::Bundled => parse(
            "the bundled cities.csv",
            BUNDLED,
            Some(key.unwrap_or(BUNDLED_KEY)),
            limits,
        ),
        Source::File(path) => {
            let name = path.display().to_string();
            let file = open(path).map_err(|source| InputError::Unreadable {
                name: name.clone(),
                source,
            })?;
            parse(&name, BufReader::new(file), key, limits)
        }
    }
}

/// Parses records: JSON lines if the first character is `{`, else CSV. `name` is used in errors only.
///
/// # Errors
/// As [`read`].
pub fn parse(
    name: &str,
    input: impl BufRead,
    key: Option<&str>,
    limits: InputLimits,
) -> Result<Vec<Record>, InputError> {
    // One byte more than allowed, so that the end of the input can be told from the end of the allowance.
    let mut input = input.take(limits.total_bytes_max.saturating_add(1));
    let parser = Parser { name, key, limits };
    let records = match first_byte(&mut input).map_err(|error| parser.unreadable(error))? {
        Some(b'{') => parser.json_lines(&mut input),
        Some(b'[') => Err(parser.malformed(
            1,
            "this is a JSON array".into(),
            "give JSON lines, one object a line (jq -c '.[]' FILE)",
        )),
        Some(_) | None => parser.csv(&mut input),
    };
    if input.limit() == 0 {
        return Err(InputError::TooLarge {
            name: name.into(),
            bytes_max: limits.total_bytes_max,
        });
    }
    let records = records?;
    if records.is_empty() {
        return Err(InputError::Empty { name: name.into() });
    }
    Ok(records)
}

fn open(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::Error::other("it is a directory"));
    }
    Ok(file)
}

/// The first byte of the text, behind a byte order mark, which is consumed.
fn first_byte(input: &mut impl BufRead) -> io::Result<Option<u8>> {
    let start = input.fill_buf()?;
    if start.starts_with(BYTE_ORDER_MARK) {
        input.consume(BYTE_ORDER_MARK.len());
    }
    Ok(input.fill_buf()?.first().copied())
}

struct Parser<'a> {
    name: &'a str,
    key: Option<&'a str>,
    limits: InputLimits,
}

impl Parser<'_> {
    fn csv(&self, input: impl Read) -> Result<Vec<Record>, InputError> {
        let mut reader = csv::Reader::from_reader(input);
        let header = reader
            .headers()
            .map_err(|error| self.bad_csv(&error))?
            .clone();
        if header.is_empty() {
            return Ok(Vec::new());
        }
        let columns = || header.iter().collect::<Vec<_>>().join(", ");
        let key = self.key.ok_or_else(|| self.key_not_named(columns()))?;
        let key_at = header
            .iter()
            .position(|column| column == key)
            .ok_or_else(|| self.no_such_key(1, key, columns()))?;
        let names: Vec<String> = header.iter().map(json_text).collect();
        let mut records = Vec::new();
        for row in reader.records() {
            let row = row.map_err(|error| self.bad_csv(&error))?;
            let line = row.position().map_or(0, csv::Position::line);
            self.check_length(line, row.as_slice().len())?;
            let key = match row.get(key_at) {
                None | Some("") => return Err(self.bad_key(line, key, "empty")),
                Some(key) => key.to_owned(),
            };
            let fields: Vec<String> = names
                .iter()
                .zip(&row)
                .map(|(name, field)| format!("{name}:{}", json_text(field)))
                .collect();
            let value = format!("{{{}}}", fields.join(","));
            records.push(Record { key, value });
        }
        Ok(records)
    }

    fn json_lines(&self, input: &mut impl BufRead) -> Result<Vec<Record>, InputError> {
        let mut records = Vec::new();
        let mut text = Vec::new();
        for line in 1.. {
            text.clear();
            let most = self.limits.record_bytes_max as u64 + 2; // a line end of two bytes
            let read = input
                .by_ref()
                .take(most)
                .read_until(b'\n', &mut text)
                .map_err(|error| self.unreadable(error))?;
            if read == 0 {
                break;
            }
            self.check_length(line, text.trim_ascii_end().len())?;
            if !text.trim_ascii().is_empty() {
                records.push(self.json_line(line, text.trim_ascii())?);
            }
        }
        Ok(records)
    }

    fn json_line(&self, line: u64, text: &[u8]) -> Result<Record, InputError> {
        let advice = "each line must be one JSON object";
        let text = std::str::from_utf8(text)
            .map_err(|_| self.malformed(line, "this is not UTF-8".into(), "convert the file"))?;
        let object = match serde_json::from_str(text) {
            Ok(Value::Object(object)) => object,
            Ok(_) => return Err(self.malformed(line, "this is no JSON object".into(), advice)),
            Err(error) => {
                // serde_json counts lines within this one; the column is what helps.
                let what = error.to_string();
                let what = what.split(" at line ").next().unwrap_or_default();
                let what = format!("column {}: {what}", error.column());
                return Err(self.malformed(line, what, advice));
            }
        };
        let columns = || {
            object
                .keys()
                .map(String::as_str)
                .collect::<Vec<_>>()
                .join(", ")
        };
        let key = self.key.ok_or_else(|| self.key_not_named(columns()))?;
        let key = match object.get(key) {
            None => return Err(self.no_such_key(line, key, columns())),
            Some(Value::String(text)) if text.is_empty() => {
                return Err(self.bad_key(line, key, "empty"));
            }
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            Some(Value::Null) => return Err(self.bad_key(line, key, "null")),
            Some(Value::Bool(_)) => return Err(self.bad_key(line, key, "true or false")),
            Some(Value::Array(_)) => return Err(self.bad_key(line, key, "an array")),
            Some(Value::Object(_)) => return Err(self.bad_key(line, key, "an object")),
        };
        Ok(Record {
            key,
            value: text.to_owned(),
        })
    }

    fn check_length(&self, line: u64, bytes: usize) -> Result<(), InputError> {
        let most = self.limits.record_bytes_max;
        if bytes <= most {
            return Ok(());
        }
        let what = format!("a record of more than {most} bytes");
        Err(self.malformed(
            line,
            what,
            "look for a quote that is not closed, or split it",
        ))
    }

    fn bad_csv(&self, error: &csv::Error) -> InputError {
        let line = error.position().map_or(1, csv::Position::line);
        match error.kind() {
            csv::ErrorKind::Io(error) => {
                self.unreadable(io::Error::new(error.kind(), error.to_string()))
            }
            csv::ErrorKind::Utf8 { .. } => {
                self.malformed(line, "this is not UTF-8".into(), "convert the file")
            }
            csv::ErrorKind::UnequalLengths {
                expected_len, len, ..
            } => self.malformed(
                line,
                format!("{len} fields where the header has {expected_len}"),
                "put fields that contain commas or quotes in quotes",
            ),
            _ => self.malformed(line, error.to_string(), "correct the line"),
        }
    }

    fn unreadable(&self, source: io::Error) -> InputError {
        InputError::Unreadable {
            name: self.name.into(),
            source,
        }
    }

    fn key_not_named(&self, columns: String) -> InputError {
        InputError::KeyNotNamed {
            name: self.name.into(),
            columns,
        }
    }

    fn no_such_key(&self, line: u64, key: &str, columns: String) -> InputError {
        InputError::NoSuchKey {
            name: self.name.into(),
            line,
            key: key.into(),
            columns,
        }
    }

    fn bad_key(&self, line: u64, key: &str, what: &'static str) -> InputError {
        InputError::BadKey {
            name: self.name.into(),
            line,
            key: key.into(),
            what,
        }
    }

    fn malformed(&self, line: u64, what: String, advice: &'static str) -> InputError {
        InputError::Malformed {
            name: self.name.into(),
            line,
            what,
            advice,
        }
    }
}

/// `text` as a JSON string.
fn json_text(text: &str) -> String {
    Value::from(text).to_string()
}

const BUNDLED: &[u8] = include_bytes!("data/cities.csv");
const BUNDLED_KEY: &str = "geonameid";
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn small() -> InputLimits {
        InputLimits {
            record_bytes_max: 100,
            total_bytes_max: 1_000,
        }
    }

    fn parsed(text: &str, key: &str) -> Vec<(String, String)> {
        let records = parse("in", text.as_bytes(), Some(key), small()).unwrap();
        let pair = |record: Record| (record.key, record.value);
        records.into_iter().map(pair).collect()
    }

    #[track_caller]
    fn refused(input: impl AsRef<[u8]>, key: Option<&str>, because: &str) {
        let error = parse("in", input.as_ref(), key, small()).unwrap_err();
        assert_eq!(error.to_string(), because);
    }

    #[test]
    fn the_bundled_cities_are_read_with_distinct_keys() {
        let records = read(&Source::Bundled, None, InputLimits::default()).unwrap();
        assert_eq!(records.len(), 34_006);
        let keys: std::collections::BTreeSet<_> =
            records.iter().map(|record| &record.key).collect();
        assert_eq!(keys.len(), records.len());
        let expected = r#"{"geonameid":"362","name":"Shahrak-e Qods","country":"IR","latitude":"35.75936","longitude":"51.37601","population":"29774","timezone":"Asia/Tehran"}"#;
        assert_eq!(records[0].value, expected);
        assert!(
            records
                .iter()
                .all(|record| serde_json::from_str::<Value>(&record.value).is_ok())
        );
    }

    #[test]
    fn csv_fields_may_hold_commas_quotes_and_line_ends() {
        let records = parsed("id,text\n1,\"a,\"\"b\"\"\nc\"\n", "id");
        let value = r#"{"id":"1","text":"a,\"b\"\nc"}"#;
        assert_eq!(records, [("1".into(), value.into())]);
    }

    #[test]
    fn json_lines_keep_their_text_and_blank_lines_are_skipped() {
        let records = parsed("{\"id\": 7, \"a\":[1]}\r\n\n  {\"id\":\"x\"}", "id");
        let expected = [("7", "{\"id\": 7, \"a\":[1]}"), ("x", "{\"id\":\"x\"}")];
        assert_eq!(
            records,
            expected.map(|(key, value)| (key.into(), value.into()))
        );
    }

    #[test]
    fn records_with_one_key_are_successive_writes() {
        let keys: Vec<_> = parsed("id,n\na,1\nb,2\na,3\n", "id")
            .into_iter()
            .map(|(key, _)| key)
            .collect();
        assert_eq!(keys, ["a", "b", "a"]);
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_column() {
        assert_eq!(parsed("\u{feff}id\nx\n", "id").len(), 1);
        assert_eq!(parsed("\u{feff}{\"id\":1}", "id").len(), 1);
    }

    #[test]
    fn an_error_names_the_line_and_says_what_to_do() {
        refused(
            "id,b\n1,2\n",
            Some("c"),
            "in, line 1: there is no `c`; --key takes one of: id, b",
        );
        refused(
            "id,b\n1,2\n",
            None,
            "no key was named; add --key with one of the columns of in: id, b",
        );
        refused(
            "id,b\n1,2\n3\n",
            Some("id"),
            "in, line 3: 1 fields where the header has 2; put fields that contain commas or quotes in quotes",
        );
        refused(
            "id,b\n1,2\n,2\n",
            Some("id"),
            "in, line 3: `id` is empty; a key is a text that is not empty, or a number: correct the line, or choose another --key",
        );
        refused(
            b"id\n\xff\n",
            Some("id"),
            "in, line 2: this is not UTF-8; convert the file",
        );
        refused(
            "{\"id\":1}\n{\"id\":}\n",
            Some("id"),
            "in, line 2: column 7: expected value; each line must be one JSON object",
        );
        refused(
            "{\"id\":1}\n5\n",
            Some("id"),
            "in, line 2: this is no JSON object; each line must be one JSON object",
        );
        refused(
            "{\"id\":1}\n{\"b\":1}\n",
            Some("id"),
            "in, line 2: there is no `id`; --key takes one of: b",
        );
        refused(
            "{\"id\":null}",
            Some("id"),
            "in, line 1: `id` is null; a key is a text that is not empty, or a number: correct the line, or choose another --key",
        );
        refused(
            "[1]",
            Some("id"),
            "in, line 1: this is a JSON array; give JSON lines, one object a line (jq -c '.[]' FILE)",
        );
    }

    #[test]
    fn nothing_in_it_is_an_error() {
        let because = "in has no records; give a CSV file with a header line, or JSON lines";
        refused("", Some("id"), because);
        refused("id,b\n", Some("id"), because);
    }

    #[test]
    fn records_and_inputs_that_are_too_long_are_refused() {
        let because = "in, line 2: a record of more than 100 bytes; look for a quote that is not closed, or split it";
        refused(format!("id\n{}\n", "x".repeat(101)), Some("id"), because);
        refused(
            format!("{{\"id\":1}}\n{{\"id\":\"{}\"}}", "x".repeat(101)),
            Some("id"),
            because,
        );
        let because =
            "in is larger than 1000 bytes, which is the most that the demo loads; split it";
        refused("id\n".to_owned() + &"x\n".repeat(999), Some("id"), because);
        refused("{\"id\":1}\n".repeat(999), Some("id"), because);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let missing = Source::File("/no/such/file.csv".into());
        let error = read(&missing, Some("id"), InputLimits::default())
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("cannot read /no/such/file.csv: "),
            "{error}"
        );
        let directory = Source::File(std::env::temp_dir());
        let error = read(&directory, Some("id"), InputLimits::default())
            .unwrap_err()
            .to_string();
        assert!(error.contains("it is a directory"), "{error}");
    }

    proptest! {
        #[test]
        fn no_input_makes_it_panic(input: Vec<u8>, object in "\\{[ -~\n]{0,80}") {
            let _ = parse("in", &input[..], Some("id"), small());
            let _ = parse("in", object.as_bytes(), Some("id"), small());
        }
    }
}
