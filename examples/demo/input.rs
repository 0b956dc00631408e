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
mod tests;
