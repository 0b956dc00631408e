//! Reading and writing together: what can be asked for can be answered.

use super::*;
use crate::zk_like_kv::message::{Answer, Mensagem, Request};
use serde_json::json;
use std::net::SocketAddr;

/// A request of this key and value in each dialect.
fn puts(key: &str, value: &str) -> [Vec<u8>; 3] {
    [
        json!({"tipo": "PUT", "key": key, "value": value}),
        json!({"tipo": "PUT", "conteudo": [key, value]}),
        json!({"command": "PUT", "key": key, "value": value}),
    ]
    .map(|put| put.to_string().into_bytes())
}

#[test]
fn what_can_be_written_fits_into_every_message_about_it_and_the_rest_is_refused() {
    let cliente: SocketAddr = "[2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff]:65535"
        .parse()
        .unwrap();
    // A quote is two bytes in JSON, a control character six.
    for (unit, bytes) in [("x", 1), ("\"", 2), ("\u{1}", 6), ("ç", 2)] {
        let key = "k".repeat(KEY_AND_VALUE_BYTES_MAX % bytes + bytes);
        let value = unit.repeat((KEY_AND_VALUE_BYTES_MAX - key.len()) / bytes);
        for (json, expected) in
            puts(&key, &value)
                .iter()
                .zip([Dialect::Mensagem, Dialect::Conteudo, Dialect::Command])
        {
            let (dialect, request) = read_request(json).unwrap();
            assert_eq!(dialect, expected);
            let Request::Put { key, value, .. } = request else {
                panic!("{request:?}");
            };
            let passed_on =
                serde_json::to_vec(&Mensagem::put(&key, &value, Some(cliente))).unwrap();
            assert!(passed_on.len() <= MESSAGE_BYTES_MAX);
            let found = Answer::GetOk {
                key,
                value,
                timestamp: u64::MAX,
            };
            assert!(write_answer(dialect, found, cliente).len() <= MESSAGE_BYTES_MAX);
        }
        let more = format!("{value}y");
        for json in puts(&key, &more) {
            let (_, why) = read_request(&json).unwrap_err();
            assert!(why.contains("no máximo 258048 bytes"), "{why}");
        }
    }
    let key = "k".repeat(KEY_AND_VALUE_BYTES_MAX + 1);
    let get = json!({"tipo": "GET", "key": key}).to_string();
    assert!(
        read_request(get.as_bytes())
            .unwrap_err()
            .1
            .contains("no máximo")
    );
}
