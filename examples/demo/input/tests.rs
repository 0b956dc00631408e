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
    let keys: std::collections::BTreeSet<_> = records.iter().map(|record| &record.key).collect();
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
    let because = "in is larger than 1000 bytes, which is the most that the demo loads; split it";
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
