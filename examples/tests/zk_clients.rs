//! Clients of system 3, of our own making and of others', against three real servers.

mod zk;

use kvrep_examples::common::processes::Program;
use kvrep_examples::zk_like_kv::dialect::KEY_AND_VALUE_BYTES_MAX;
use kvrep_examples::zk_like_kv::session::Value;
use serde_json::json;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use zk::{Trio, WITHIN};

#[tokio::test]
async fn c3_7_the_leader_works_in_each_place_asked_directly_and_through_followers() {
    for leader in 0..3 {
        let trio = Trio::start(leader, [&[], &[], &[]]).await;
        for asked in 0..3 {
            let key = format!("k{asked}");
            let written = trio.session(&[asked], 1).put(&key, "v").await.unwrap();
            // A3.6: the server that was asked.
            assert_eq!(written.server, trio.addresses[asked]);
            for reader in 0..3 {
                let found = trio.session(&[reader], 1).get(&key).await.unwrap();
                assert_eq!(found.value, Value::Of("v".into()));
                assert_eq!(found.timestamp, written.timestamp);
            }
        }
    }
}

#[tokio::test]
async fn r3_2_r3_21_many_clients_are_answered_at_the_same_time_by_all_servers() {
    let trio = Trio::start(0, [&[], &[], &[]]).await;
    let clients: Vec<_> = (0..60)
        .map(|n| {
            let mut session = trio.session(&[0, 1, 2], n);
            tokio::spawn(async move {
                let key = format!("k{}", n % 7);
                let written = session.put(&key, "v").await?.timestamp;
                let found = session.get(&key).await?;
                Ok::<_, String>((written, found.timestamp))
            })
        })
        .collect();
    let mut timestamps = Vec::new();
    for client in clients {
        let (written, found) = client.await.unwrap().unwrap();
        assert!(found >= written);
        timestamps.push(written);
    }
    timestamps.sort_unstable();
    // One warmed the servers up.
    assert_eq!(timestamps, (2..62).collect::<Vec<u64>>());
}

#[tokio::test]
async fn a3_1_clients_of_others_are_answered_in_their_dialects_and_then_let_go() {
    let trio = Trio::start(1, [&[], &[], &[]]).await;
    for server in 0..3 {
        let said = trio
            .ask_until_end(server, br#"{"tipo":"PUT","conteudo":["x","1"]}"#)
            .await;
        assert!(
            said.contains(r#""tipo":"PUT_OK""#) && said.ends_with('\n'),
            "{said}"
        );
        let said = trio
            .ask_until_end(server, br#"{"tipo":"GET","conteudo":["x",0.5]}"#)
            .await;
        assert!(said.contains(r#""conteudo":["1","#), "{said}");
        let said = trio
            .ask_until_end(server, br#"{"tipo":"GET","conteudo":["x",1e15]}"#)
            .await;
        assert!(said.contains("TRY_ANOTHER_SERVER_OR_LATER"), "{said}");
        let said = trio
            .ask_until_end(server, br#"{"tipo":"GET","conteudo":["none",0]}"#)
            .await;
        assert!(said.contains(r#""tipo":"NULL""#), "{said}");

        let put = br#"{"command":"PUT","timestamp":0,"key":"y","value":"2","host":"h","port":1}"#;
        let said = trio.ask(server, put).await;
        assert_eq!(said["command"], "PUT_OK");
        let get = br#"{"command":"GET","timestamp":"0","key":"y"}"#;
        let said = trio.ask(server, get).await;
        assert_eq!(
            (&said["command"], &said["value"]),
            (&json!("GET_OK"), &json!("2"))
        );
        assert!(said["timestamp"].is_string(), "{said}");
    }
}

/// Writes a text with a pause at this byte, so that the server reads it in two pieces, and then another request. What was answered.
async fn cut(mut stream: TcpStream, text: String, at: usize, answers: usize) -> Vec<String> {
    stream.set_nodelay(true).unwrap();
    let (before, after) = text.as_bytes().split_at(at);
    stream.write_all(before).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    stream.write_all(after).await.unwrap();
    let mut lines = BufReader::new(stream).lines();
    let mut said = Vec::new();
    for _ in 0..answers {
        said.extend(lines.next_line().await.unwrap());
    }
    said
}

/// A3.1: nothing is a message's end but its bracket, its line's end and the connection's; not the end of what is read at once.
#[tokio::test]
async fn a3_1_lines_that_are_cut_at_any_byte_are_all_answered() {
    let trio = Trio::start(0, [&[], &[], &[]]).await;
    let line = |kind: &str, key: &str, more: &str| {
        format!("{{\"tipo\":\"{kind}\",\"key\":\"{key}\"{more}}}\r\n")
    };
    let (get, put) = (",\"timestamp\":0", ",\"value\":\"1\"");
    // As a follower passes on what its clients ask.
    let passed_on = format!(
        ",\"value\":\"1\",\"cliente\":\"127.0.0.1:5\",\"servidor\":\"{}\"",
        trio.addresses[1]
    );
    let from_clients = line("GET", "none", get) + &line("PUT", "k", put) + &line("GET", "k", get);
    let from_a_server = line("PUT", "p", &passed_on) + &line("PUT", "q", &passed_on);
    for (server, text, expected) in [
        (1, &from_clients, &["NULL", "PUT_OK", "GET_OK"][..]),
        (0, &from_clients, &["NULL", "PUT_OK", "GET_OK"]),
        (0, &from_a_server, &["PUT_OK", "PUT_OK"]),
    ] {
        let mut cuts = JoinSet::new();
        for at in 0..text.len() {
            let (stream, text) = (trio.connect(server).await, text.clone());
            cuts.spawn(async move { (at, cut(stream, text, at, expected.len()).await) });
        }
        while let Some(done) = timeout(WITHIN, cuts.join_next()).await.unwrap() {
            let (at, said) = done.unwrap();
            assert_eq!(said.len(), expected.len(), "cut at {at}: {said:?}");
            for (said, expected) in said.iter().zip(expected) {
                let expected = format!("\"tipo\":\"{expected}\"");
                assert!(said.contains(&expected), "cut at {at}: {said}");
            }
        }
    }
    // Many at once, of which the server reads whatever is there.
    for server in 0..3 {
        let both = line("PUT", "many", put) + &line("GET", "many", get);
        let stream = trio.connect(server).await;
        let said = timeout(WITHIN, cut(stream, both.repeat(20), 0, 40)).await;
        assert_eq!(said.unwrap().len(), 40);
    }
}

/// A3.1: a program that sends a bare object reads until the connection ends, and does not wait for that as long as a silent one may stay.
#[tokio::test]
async fn a3_1_whoever_sends_a_bare_object_is_answered_at_once_and_soon_let_go() {
    let trio = Trio::start(0, [&[], &[], &[]]).await;
    for (bare, expected) in [
        (r#"{"tipo":"GET","key":"none","timestamp":0}"#, "NULL"),
        (r#"{"tipo":"GET","key":"none","timestamp":0} "#, "NULL"),
        (r#"{"tipo":"PUT","key":"k","value":"1"}"#, "PUT_OK"),
        (
            r#"{"tipo":"PUT","key":"k","value":"1","cliente":"127.0.0.1:5"}"#,
            "PUT_OK",
        ),
    ] {
        let began = Instant::now();
        let said = trio.ask_until_end(0, bare.as_bytes()).await;
        assert!(said.contains(expected), "{said}");
        assert_eq!(said.matches('\n').count(), 1, "{said}");
        assert!(began.elapsed() < Duration::from_secs(20), "{bare}");
    }
}

#[tokio::test]
async fn a3_1_requests_may_share_a_connection_come_in_pieces_or_end_with_it() {
    let trio = Trio::start(0, [&[], &[], &[]]).await;
    let stream = trio.connect(2).await;
    let (from, mut to) = stream.into_split();
    let mut lines = BufReader::new(from).lines();
    to.write_all(b"{\"tipo\":\"PUT\",\"key\":\"k\",\"value\":\"1\"}\n{\"tipo\":\"GET\",\"key\":\"k\",\"timestamp\":0}\n\n{\"tipo\":\"GE")
        .await
        .unwrap();
    for expected in ["PUT_OK", "GET_OK"] {
        let line = lines.next_line().await.unwrap().unwrap();
        assert!(line.contains(expected), "{line}");
    }
    // The rest of the third, whose end is that of the connection.
    to.write_all(b"T\",\"key\":\"none\"").await.unwrap();
    to.write_all(b"}").await.unwrap();
    to.shutdown().await.unwrap();
    let line = lines.next_line().await.unwrap().unwrap();
    assert!(line.contains("\"NULL\""), "{line}");
    assert_eq!(lines.next_line().await.unwrap(), None);
}

#[tokio::test]
async fn what_is_no_request_gets_an_erro_that_says_why_and_the_next_one_is_served() {
    let trio = Trio::start(0, [&[], &[], &[]]).await;
    let mut stream = trio.connect(1).await;
    stream
        .write_all(b"{\"tipo\":\"PUT\"}\n{\"tipo\":\n{\"tipo\":\"GET\",\"key\":\"k\"}\n")
        .await
        .unwrap();
    stream.shutdown().await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    assert!(
        lines[0].contains("ERRO") && lines[0].contains("key"),
        "{said}"
    );
    assert!(lines[1].contains("ERRO"), "{said}");
    assert!(lines[2].contains("NULL"), "{said}");
    // A registration is the leader's business; a fourth server is told who the three are.
    let said = trio
        .ask(1, b"{\"tipo\":\"JOIN\",\"servidor\":\"127.0.0.1:9\"}\n")
        .await;
    assert!(
        said["erro"].as_str().unwrap().contains(&trio.addresses[0]),
        "{said}"
    );
    let said = trio
        .ask(0, b"{\"tipo\":\"JOIN\",\"servidor\":\"127.0.0.1:9\"}\n")
        .await;
    assert!(said["erro"].as_str().unwrap().contains("os três"), "{said}");
    // R3.15, A3.8: one of the three is told too, leader first.
    let join = format!(
        "{{\"tipo\":\"JOIN\",\"servidor\":\"{}\"}}\n",
        trio.addresses[2]
    );
    let said = trio.ask(0, join.as_bytes()).await;
    assert_eq!(said["servidores"][0], trio.addresses[0]);
}

#[tokio::test]
async fn the_largest_value_that_is_written_is_read_everywhere_and_a_larger_one_is_refused_everywhere()
 {
    let trio = Trio::start(1, [&[], &[], &[]]).await;
    for server in 0..3 {
        let key = format!("large {server}");
        let largest = "x".repeat(KEY_AND_VALUE_BYTES_MAX - key.len());
        let mut session = trio.session(&[server], 1);
        session.put(&key, &largest).await.unwrap();
        for reader in 0..3 {
            let found = trio.session(&[reader], 1).get(&key).await.unwrap();
            assert_eq!(found.value, Value::Of(largest.clone()));
        }
        let why = session.put(&key, &format!("{largest}x")).await.unwrap_err();
        assert!(
            why.contains("nada foi feito") && why.contains("258048 bytes"),
            "{why}"
        );
        assert_eq!(session.get(&key).await.unwrap().value, Value::Of(largest));
    }
}

#[tokio::test]
async fn a_follower_whose_leader_is_not_there_says_within_the_bound_that_nothing_was_done() {
    let trio = Trio::prepared();
    let _alone = trio.server(0, 1, &["--limite-put", "300"]);
    let mut session = trio.session(&[0], 1);
    let why = loop {
        match session.put("k", "v").await {
            Err(why) if why.contains("conexão recusada") => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            other => break other.unwrap_err(),
        }
    };
    assert!(why.contains("nada foi feito"), "{why}");
    // It has no table: others may have one, with that key.
    assert_eq!(session.get("k").await.unwrap().value, Value::Behind);
}

#[tokio::test]
async fn a3_9_a_leader_alone_says_at_the_bound_that_nothing_was_done() {
    let trio = Trio::prepared();
    let _alone = trio.server(1, 1, &["--limite-put", "300"]);
    // The same follower twice is not two: C3.9.
    let _one = trio.server(0, 1, &[]);
    let mut session = trio.session(&[1], 1);
    let why = loop {
        match session.put("k", "v").await {
            Err(why) if why.contains("conexão recusada") => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            other => break other.unwrap_err(),
        }
    };
    assert!(why.contains("os três servidores"), "{why}");
}

#[tokio::test]
async fn an_operator_is_told_who_is_missing_in_the_words_of_this_system() {
    let mut trio = Trio::start(1, [&[], &[], &[]]).await;
    trio.servers[1].kill().await.unwrap();
    trio.said(&format!("falta {}", trio.addresses[1])).await;
    for theirs in ["missing", "force", "Start", "n1 "] {
        assert!(!trio.errors().contains(theirs), "{}", trio.errors());
    }
}

#[tokio::test]
async fn a_client_whose_write_is_not_acknowledged_is_told_which_server_is_missing() {
    let bound: &[&str] = &["--limite-put", "1500"];
    let mut trio = Trio::start(1, [bound; 3]).await;
    trio.servers[2].kill().await.unwrap();
    for asked in [0, 1] {
        let why = trio.session(&[asked], 1).put("k", "v").await.unwrap_err();
        let missing = format!("sem REPLICATION_OK de {} em 1.5s", trio.addresses[2]);
        assert!(why.contains(&missing), "{why}");
    }
    trio.servers[2] = trio.server(2, 1, bound);
    trio.writes(1, "k", "again").await;
}

#[tokio::test]
async fn a_directory_that_a_leader_cannot_use_is_refused_at_its_start_with_what_to_do() {
    let trio = Trio::prepared();
    let file = tempfile::NamedTempFile::new().unwrap();
    for (directory, why) in [
        (file.path().to_path_buf(), "não é um diretório"),
        (file.path().join("below"), "--dados"),
        ("/proc/no/such".into(), "não existe; crie-o"),
        ("/proc".into(), "não é possível escrever"),
    ] {
        let directory = directory.to_string_lossy().into_owned();
        let mut leader = trio.server(1, 1, &["--dados", &directory]);
        let ended = leader.ended(WITHIN).await.unwrap();
        assert_eq!(ended.code(), Some(1));
        trio.said(why).await;
        assert!(!trio.errors().contains("apague"), "{}", trio.errors());
    }
}

#[tokio::test]
async fn a_server_that_is_interrupted_ends_well_and_says_everything_first() {
    let mut trio = Trio::start(0, [&[], &[], &[]]).await;
    trio.session(&[0], 1).put("k", "v").await.unwrap();
    for server in &mut trio.servers {
        server.interrupt().unwrap();
        let status = server.ended(WITHIN).await.unwrap();
        assert!(status.success(), "{status}");
    }
    let printed: Vec<usize> = trio.servers.iter().map(|s| s.printed().len()).collect();
    assert!(printed[1] >= 2 && printed[2] >= 2, "{printed:?}");
    assert!(!trio.errors().contains("panicked"), "{}", trio.errors());
}

#[tokio::test]
async fn wrong_answers_flags_and_ports_are_refused_with_a_reason() {
    let refused = async |program: &str, args: &[&str], typed: &str, code: i32, why: &str| {
        let program = Program::beside(program, program).unwrap().args(args);
        let mut process = program.start().unwrap();
        let _ = process.type_bytes(typed.as_bytes()).await;
        process.close_input();
        let status = process.ended(WITHIN).await.unwrap();
        let said = process.printed().join("\n");
        assert_eq!(status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(why), "{args:?}: {said}");
    };
    let server = "zk-kv-server";
    refused(server, &[], "127.0.0.1\n", 1, "falta uma resposta").await;
    refused(
        server,
        &[],
        "127.0.0.1\nx\n127.0.0.1\n1\n",
        1,
        "não é uma porta",
    )
    .await;
    refused(server, &["--porta", "0"], "\n\n\n", 2, "não é uma porta").await;
    refused(
        server,
        &["--atraso-replicacao", "99999"],
        "\n\n\n\n",
        2,
        "no máximo",
    )
    .await;
    refused(server, &["--limite-put", "0"], "", 2, "1..=600000").await;
    refused(server, &["--no-such"], "", 2, "--no-such").await;
    let instead: &[&str] = &["--no-lugar-de", "127.0.0.1:10099"];
    refused(server, instead, "\n10097\n\n10097\n", 1, "é o líder").await;
    refused(server, &["--help"], "", 0, "Examples").await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    refused(server, &["--porta", &port], "\n\n\n", 1, "escutar").await;
    let client = "zk-kv-client";
    refused(client, &["--help"], "", 0, "Examples").await;
    refused(client, &["--espera", "x"], "", 2, "espera").await;
    refused(client, &[], "PUT\na\n1\n", 1, "INIT primeiro").await;
    let (no_name, own) = ("a.invalid:1,b.invalid:2,c.invalid:3", "127.0.0.1:1");
    for (servers, code, why) in [
        ("127.0.0.1:1,127.0.0.1:2,127.0.0.1:3", 1, "nada foi feito"),
        (no_name, 1, "nome ou endereço desconhecido"),
        (&format!("{own},127.0.0.1:2"), 2, "são três, e estes são 2"),
        (&format!("{own},{own},{own}"), 2, "aparece duas vezes"),
    ] {
        refused(client, &["--servidores", servers], "GET\na\n", code, why).await;
    }
    for wrong in [
        "foo",
        "127.0.0.1",
        "127.0.0.1:0",
        "127.0.0.1:x",
        ":10097",
        "::1:10097",
    ] {
        refused(client, &["--servidores", wrong], "GET\na\n", 2, "IP:PORTA").await;
    }
    refused(client, &[], "", 0, "").await;
}

#[tokio::test]
async fn a_text_that_is_not_utf_8_is_refused_by_client_and_server_and_nothing_is_written() {
    let trio = Trio::start(0, [&[], &[], &[]]).await;
    let servers = trio.addresses.join(",");
    let program = Program::beside("client", "zk-kv-client").unwrap();
    let mut client = program.args(["--servidores", &servers]).start().unwrap();
    client
        .type_bytes(b"PUT\nk\nv\xffw\nPUT\n\xe7\nv\nPUT\nk\n\xc3\xa7\nGET\nk\n")
        .await
        .unwrap();
    client.close_input();
    assert_eq!(client.ended(WITHIN).await.unwrap().code(), Some(1));
    let said = client.printed().join("\n");
    assert_eq!(said.matches("nada foi feito").count(), 2, "{said}");
    assert_eq!(said.matches("escreva em UTF-8").count(), 2, "{said}");
    assert!(said.contains("PUT_OK key: k value ç timestamp 2"), "{said}");
    assert!(said.contains("GET key: k value: ç "), "{said}");
    for server in 0..3 {
        for (put, why) in [
            (
                &b"{\"tipo\":\"PUT\",\"key\":\"k\",\"value\":\"v\xff\"}\n"[..],
                "texto em UTF-8",
            ),
            (
                b"{\"tipo\":\"PUT\",\"conteudo\":[\"k\",\"\xe7\"]}",
                "texto em UTF-8",
            ),
            (
                b"{\"command\":\"PUT\",\"key\":\"\xff\",\"value\":\"v\"}",
                "texto em UTF-8",
            ),
            (
                b"{\"tipo\":\"PUT\",\"key\":\"k\",\"value\":\"\\ud800\"}\n",
                "em par",
            ),
        ] {
            let said = trio.ask(server, put).await;
            let erro = said["erro"].as_str().unwrap();
            assert!(
                erro.contains("nada foi feito") && erro.contains(why),
                "{said}"
            );
        }
        let found = trio.session(&[server], 1).get("k").await.unwrap();
        assert_eq!((found.value, found.timestamp), (Value::Of("ç".into()), 2));
    }
}

#[tokio::test]
async fn a_write_at_two_servers_that_take_each_other_for_the_leader_is_refused_with_what_to_check()
{
    let mut trio = Trio::prepared();
    trio.servers = vec![trio.server(0, 1, &[]), trio.server(1, 0, &[])];
    trio.listens(0).await;
    trio.listens(1).await;
    for asked in [0, 1] {
        let why = trio.session(&[asked], 1).put("k", "v").await.unwrap_err();
        assert!(why.contains("nada foi feito"), "{why}");
        assert!(why.contains("confira IP e porta do líder"), "{why}");
        let (me, other) = (&trio.addresses[asked], &trio.addresses[1 - asked]);
        assert!(
            why.contains(&format!("{me} toma {other} por líder")),
            "{why}"
        );
    }
    for server in &mut trio.servers {
        let line = server.line("Encaminhando PUT key:k", WITHIN).await;
        line.expect("it was passed on");
        assert_eq!(server.printed().len(), 1, "and only once");
    }
    trio.said("este servidor não é o líder").await;
}
