//! System 0 with real processes: servers, monitor, client, and the brokers that are installed.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on says why it stops"
)]

use kvrep_examples::common::processes::{Process, Program};
use kvrep_examples::mqtt_kv::brokers::Broker;
use kvrep_examples::mqtt_kv::probe::{RAW_ANSWERS, key_of};
use kvrep_examples::mqtt_kv::stage::{Stage, TIMEOUT, WITHIN, all_equal};
use kvrep_transport_mqtt::MqttConfig;
use kvrep_transport_mqtt::ordered::{Event, OrderedTopic};
use serde_json::{Value, json};

async fn started(servers: usize, options: &[&str]) -> Stage {
    let mut stage = Stage::new(Broker::Embutido, servers, options)
        .await
        .unwrap();
    stage.start_all().await.unwrap();
    stage
}

async fn same_tables(stage: &mut Stage, ids: &[usize]) -> Value {
    let tables = stage.tables(ids).await.unwrap();
    all_equal(&tables).unwrap();
    serde_json::from_str(&tables[0]).unwrap()
}

async fn exit_code(program: Program) -> (i32, Vec<String>) {
    let mut process: Process = program.start().unwrap();
    process.close_input();
    let status = process.ended(WITHIN).await.unwrap();
    (status.code().unwrap_or(-1), process.printed())
}

fn story(broker: &str) {
    let told = std::process::Command::new(env!("CARGO_BIN_EXE_mqtt-kv-teste"))
        .args(["--pequeno", "--json", "--com", broker])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&told.stdout);
    let errors = String::from_utf8_lossy(&told.stderr);
    assert!(told.status.success(), "{said}{errors}");
    let report: Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!(report["holds"], true, "{report:#}");
}

#[test]
fn r0_40_r0_41_every_check_of_the_story_holds_on_the_embedded_broker() {
    story("embutido");
}

#[test]
fn r0_40_r0_41_every_check_of_the_story_holds_on_mosquitto_with_default_settings() {
    if Broker::installed().contains(&Broker::Mosquitto) {
        story("mosquitto");
    } else {
        eprintln!("mosquitto is not installed: this part did not run");
    }
}

#[tokio::test]
async fn c0_3_c0_4_a_foreign_monitors_word_has_the_unanswered_queries_replayed_once() {
    let mut stage = Stage::new(Broker::Embutido, 3, &[]).await.unwrap();
    stage.start_servers().await.unwrap();
    let mut probe = stage.probe().await.unwrap();
    let keys: Vec<_> = (0..3).map(|server| key_of(server, 3, 1)).collect();
    for key in &keys {
        probe.put(key, "v").await.unwrap();
    }
    probe.settled(0).await.unwrap();
    stage.kill(0).await.unwrap();
    let lost = probe.query(&keys[0]).unwrap();
    let inserted = probe.insert(&keys[0], "w").unwrap();
    let others = probe.query(&keys[1]).unwrap();
    assert_eq!(probe.answer(others).await.unwrap().server, 1);
    assert!(
        probe.answers(lost).is_empty(),
        "nobody knows yet that it is dead"
    );
    // No monitor of ours runs: another program says so, in seconds, as a text, under the other name.
    let seconds = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs_f64();
    let said = json!({"tipomsg": "falhaserv", "idServ": "0", "vistoem": seconds.to_string()});
    probe.say(said.to_string()).unwrap();
    // C0.5: with the current state, which the insertion has changed.
    let replayed = probe.answer(lost).await.unwrap();
    assert_eq!((replayed.server, replayed.value.as_deref()), (1, Some("w")));
    assert_eq!(
        probe.answer(inserted).await.unwrap().server,
        1,
        "A0.7: by the substitute"
    );
    let live = probe.get(&keys[0]).await.unwrap();
    assert_eq!((live.server, live.value.as_deref()), (1, Some("w")));
    for key in &keys {
        probe.get(key).await.unwrap();
    }
    assert_eq!(
        (probe.answers(lost).len(), probe.answers(others).len()),
        (1, 1)
    );
    // C0.11: a second word about the same changes nothing.
    probe
        .say(json!({"tipomsg": "falhaserv", "idserv": 0, "vistoem": 0}).to_string())
        .unwrap();
    stage.replace(0).await.unwrap();
    let back = probe.get(&keys[0]).await.unwrap();
    assert_eq!((back.server, back.value.as_deref()), (0, Some("w")));
    same_tables(&mut stage, &[0, 1, 2]).await;
}

#[tokio::test]
async fn a0_14_c0_8_one_after_the_other_fails_until_one_is_left_and_all_return_at_once() {
    let mut stage = started(3, &[]).await;
    let mut probe = stage.probe().await.unwrap();
    let key = key_of(0, 3, 1);
    probe.put(&key, "1").await.unwrap();
    for (dead, by) in [(0, 1), (1, 2)] {
        stage.kill(dead).await.unwrap();
        let said = format!("servidor {dead} falhou");
        stage.monitor().unwrap().line(&said, WITHIN).await.unwrap();
        let answer = probe.get(&key).await.unwrap();
        assert_eq!((answer.server, answer.value.as_deref()), (by, Some("1")));
        let value = format!("after {dead}");
        probe.put(&value, &value).await.unwrap();
    }
    for id in [0, 1] {
        stage.start_server(id, &["--novo"]).unwrap();
    }
    for id in [0, 1] {
        stage.serves(id).await.unwrap();
        assert_eq!(
            probe.get(&key_of(id, 3, 2)).await.unwrap().server,
            id as u64
        );
    }
    let table = same_tables(&mut stage, &[0, 1, 2]).await;
    assert_eq!(
        (&table["after 0"], &table["after 1"]),
        (&json!("after 0"), &json!("after 1"))
    );
}

#[tokio::test]
async fn c0_9_one_that_is_back_before_it_was_missed_gets_its_state_and_its_queries_are_answered() {
    let mut stage = Stage::new(Broker::Embutido, 3, &[]).await.unwrap();
    stage.start_servers().await.unwrap();
    let mut probe = stage.probe().await.unwrap();
    let key = key_of(2, 3, 1);
    probe.put(&key, "v").await.unwrap();
    probe.settled(2).await.unwrap();
    stage.kill(2).await.unwrap();
    let asked = probe.query(&key).unwrap();
    // Without a monitor, nobody ever says that it failed.
    stage.replace(2).await.unwrap();
    let answer = probe.answer(asked).await.unwrap();
    assert_eq!((answer.server, answer.value.as_deref()), (0, Some("v")));
    let answer = probe.get(&key).await.unwrap();
    assert_eq!((answer.server, answer.value.as_deref()), (2, Some("v")));
    same_tables(&mut stage, &[0, 1, 2]).await;
}

#[tokio::test]
async fn r0_17_c0_10_what_is_wrong_doubled_or_retained_stops_nobody_and_changes_nothing() {
    let mut stage = started(2, &[]).await;
    let mut probe = stage.probe().await.unwrap();
    let junk: [&[u8]; 6] = [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"{\"tipomsg\":\"novoserv\",\"topico-resp\":\"inf1406-rec-0\"}",
        b"{\"tipomsg\":\"falhaserv\",\"idserv\":77}",
    ];
    for payload in junk {
        probe.say(payload.to_vec()).unwrap();
    }
    // Before the servers hear of it, and after: a retained message is none of the order.
    let config = MqttConfig::new(stage.address());
    let (publisher, mut deliveries) = OrderedTopic::new(config).open().unwrap();
    let kept = json!({"tipomsg": "insercao", "chave": "kept", "novovalor": "x", "topico-resp": "r", "idpedido": 1});
    let sent = publisher
        .publish_retained("inf1406-reqs", kept.to_string())
        .unwrap();
    loop {
        match deliveries.next().await.unwrap() {
            Event::Acknowledged(id) if id == sent => break,
            _ => {}
        }
    }
    let doubled =
        json!({"tipomsg": "get", "chave": "k", "topicoresp": RAW_ANSWERS, "idpedido": "a"});
    for _ in 0..2 {
        probe.say(doubled.to_string()).unwrap();
    }
    let wrong =
        json!({"tipomsg": "apaga", "chave": "k", "topico_resp": RAW_ANSWERS, "idpedido": 1.5});
    probe.say(wrong.to_string()).unwrap();
    let answers = probe.raw_until(3).await.unwrap();
    let status = |n: usize| serde_json::from_slice::<Value>(&answers[n]).unwrap()["status"].clone();
    assert_eq!(
        [status(0), status(1), status(2)],
        ["naoexiste", "naoexiste", "erro"]
    );
    assert!(
        answers[2].starts_with(b"{\"idpedido\":1.5,"),
        "{:?}",
        answers[2]
    );
    for id in 0..2 {
        stage
            .server(id)
            .unwrap()
            .line("mensagens ignoradas", WITHIN)
            .await
            .unwrap();
    }
    // One that comes later meets the retained message first, and takes no notice.
    stage.kill(1).await.unwrap();
    stage.replace(1).await.unwrap();
    probe.put("k", "v").await.unwrap();
    // Who answers these has executed what stands before them.
    for server in 0..2 {
        probe.get(&key_of(server, 2, 2)).await.unwrap();
    }
    same_tables(&mut stage, &[0, 1]).await;
}

#[tokio::test]
async fn c0_11_a_restarted_monitor_finds_the_dead_and_a_restarted_broker_is_served_again() {
    let mut stage = started(3, &[]).await;
    let mut probe = stage.probe().await.unwrap();
    let key = key_of(1, 3, 1);
    probe.put(&key, "v").await.unwrap();
    stage.monitor().unwrap().kill().await.unwrap();
    stage.kill(1).await.unwrap();
    stage.start_monitor(&[]).await.unwrap();
    stage
        .monitor()
        .unwrap()
        .line("servidor 1 falhou", WITHIN)
        .await
        .unwrap();
    assert_eq!(probe.get(&key).await.unwrap().server, 2);
    stage.replace(1).await.unwrap();
    stage.kill_broker().await.unwrap();
    stage.start_broker().await.unwrap();
    // The stream begins anew at the broker; what the servers have is compared, and they go on.
    let mut probe = stage.probe().await.unwrap();
    let answer = probe.get(&key).await.unwrap();
    assert_eq!(answer.value.as_deref(), Some("v"));
    probe.put(&key, "w").await.unwrap();
    for server in 0..3 {
        probe.get(&key_of(server, 3, 2)).await.unwrap();
    }
    let table = same_tables(&mut stage, &[0, 1, 2]).await;
    assert_eq!(table[&key], "w");
}

#[tokio::test]
async fn a0_10_the_monitor_has_a_dead_server_started_again() {
    let mut stage = Stage::new(Broker::Embutido, 2, &[]).await.unwrap();
    stage.start_servers().await.unwrap();
    let called = stage.file("called");
    let command = format!("echo {{id}} $IDSERV >>{}", called.display());
    stage
        .start_monitor(&["--relancar", &command])
        .await
        .unwrap();
    // Both, in whatever order.
    for _ in 0..2 {
        let monitor = stage.monitor().unwrap();
        monitor.line("está vivo", WITHIN).await.unwrap();
    }
    stage.kill(0).await.unwrap();
    stage
        .monitor()
        .unwrap()
        .line("relançando o servidor 0", WITHIN)
        .await
        .unwrap();
    let deadline = tokio::time::Instant::now() + WITHIN;
    while std::fs::read_to_string(&called).unwrap_or_default() != "0 0\n" {
        assert!(
            tokio::time::Instant::now() < deadline,
            "the command was not run"
        );
        tokio::time::sleep(TIMEOUT / 20).await;
    }
}

#[tokio::test]
async fn r0_26_a0_7_the_client_program_inserts_queries_and_says_by_its_code_what_came_of_it() {
    let mut stage = started(2, &[]).await;
    let run = |arguments: &[&str]| exit_code(stage.client(arguments).unwrap());
    let (code, said) = run(&["insere", "cor", "azul \"claro\"\n"]).await;
    assert_eq!(code, 0, "{said:?}");
    let (code, said) = run(&["consulta", "cor"]).await;
    assert_eq!((code, said[0].as_str()), (0, "azul \"claro\""), "{said:?}");
    assert_eq!(run(&["consulta", "forma"]).await.0, 1);
    assert_eq!(run(&["apaga", "cor"]).await.0, 2);
    let mut typed = stage.client(&[]).unwrap().start().unwrap();
    typed.type_line("insere cor verde").await.unwrap();
    typed.type_line("consulta cor").await.unwrap();
    typed.line("verde", WITHIN).await.unwrap();
    typed.type_line("consulta nada").await.unwrap();
    typed.line("nao existe", WITHIN).await.unwrap();
    typed.close_input();
    assert_eq!(typed.ended(WITHIN).await.unwrap().code(), Some(1));
    // Nobody serves: it is not known what came of it.
    for id in 0..2 {
        stage.kill(id).await.unwrap();
    }
    let (code, said) = exit_code(
        stage
            .client(&["--espera", "500", "consulta", "cor"])
            .unwrap(),
    )
    .await;
    assert_eq!(code, 4, "{said:?}");
    // No broker.
    stage.kill_broker().await.unwrap();
    let (code, said) = exit_code(stage.client(&["--once", "consulta", "cor"]).unwrap()).await;
    assert_eq!(code, 5, "{said:?}");
}

#[tokio::test]
async fn a0_6_a0_7_bare_answers_and_none_to_insertions_where_servers_are_told_so() {
    let stage = started(2, &["--resposta-crua", "--sem-resposta-insercao"]).await;
    let probe = stage.probe().await.unwrap();
    let insertion = json!({"tipomsg": "I", "chave": "k", "novovalor": "só isto", "topico-resp": RAW_ANSWERS, "idpedido": 1});
    let query = json!({"tipomsg": "C", "chave": "k", "topico-resp": RAW_ANSWERS, "idpedido": 2});
    probe.say(insertion.to_string()).unwrap();
    probe.say(query.to_string()).unwrap();
    assert_eq!(probe.raw_until(1).await.unwrap(), ["só isto"]);
    let inserted = stage
        .client(&["--sem-resposta", "insere", "k", "outro"])
        .unwrap();
    assert_eq!(exit_code(inserted).await.0, 0);
    let (code, said) = exit_code(stage.client(&["consulta", "k"]).unwrap()).await;
    assert_eq!((code, said[0].as_str()), (0, "outro"));
}

#[tokio::test]
async fn with_two_confirmations_answers_come_and_one_server_alone_gives_none() {
    let mut stage = started(3, &["--confirmacoes", "2"]).await;
    let mut probe = stage.probe().await.unwrap();
    for server in 0..3 {
        let key = key_of(server, 3, 1);
        probe.put(&key, "v").await.unwrap();
        assert_eq!(probe.get(&key).await.unwrap().server, server as u64);
    }
    stage.kill(0).await.unwrap();
    stage
        .monitor()
        .unwrap()
        .line("servidor 0 falhou", WITHIN)
        .await
        .unwrap();
    assert_eq!(probe.get(&key_of(0, 3, 1)).await.unwrap().server, 1);
    stage.replace(0).await.unwrap();
    probe.put("last", "v").await.unwrap();
    for id in [1, 2] {
        stage.kill(id).await.unwrap();
    }
    let alone = ["--espera", "2000", "consulta", "last"];
    let (code, said) = exit_code(stage.client(&alone).unwrap()).await;
    assert_eq!(code, 4, "nobody else can say that it has this: {said:?}");
}

#[tokio::test]
async fn r0_11_wrong_options_and_a_missing_broker_are_said_with_a_code_and_another_configuration_is_refused()
 {
    let mut stage = started(2, &[]).await;
    let server = |arguments: &[&str]| {
        Program::beside("servidor", "mqtt-kv-server")
            .unwrap()
            .args(arguments)
    };
    for wrong in [
        &["2", "2"][..],
        &["0"],
        &["zero", "2"],
        &["0", "2", "--periodo", "500"],
        &["0", "2", "--broker", "aqui"],
        &["0", "2", "--confirmacoes", "3"],
    ] {
        let (code, said) = exit_code(server(wrong)).await;
        assert_eq!(code, 2, "{wrong:?}: {said:?}");
    }
    let address = stage.address();
    let other = [
        "1",
        "2",
        "--broker",
        &address,
        "--periodo",
        "100",
        "--timeout",
        "999",
    ];
    let (code, said) = exit_code(server(&other)).await;
    assert_eq!(code, 1, "{said:?}");
    assert!(said.join("\n").contains("outras opções"), "{said:?}");
    stage.kill_broker().await.unwrap();
    let monitor = Program::beside("monitor", "mqtt-kv-monitor").unwrap();
    for program in [
        server(&["0", "2", "--once", "--broker", &address]),
        monitor.args(["2", "--once", "--broker", &address]),
    ] {
        let (code, said) = exit_code(program).await;
        assert_eq!(code, 5, "{said:?}");
    }
}

#[tokio::test]
async fn r0_23_the_monitor_says_it_once_with_the_fields_of_the_text_and_ignores_ids_out_of_range() {
    let mut stage = Stage::new(Broker::Embutido, 2, &[]).await.unwrap();
    stage
        .start_monitor(&["--contar-de", "primeiro-sinal"])
        .await
        .unwrap();
    let config = MqttConfig::new(stage.address());
    let opened = OrderedTopic::new(config).subscribe("inf1406-reqs").open();
    let (publisher, mut deliveries) = opened.unwrap();
    let mut said = false;
    let failure = loop {
        match deliveries.next().await.unwrap() {
            Event::Connected { .. } if !said => {
                said = true;
                for sign in [r#"{"idServ":7}"#, r#"{"idserv":"1"}"#, "nada"] {
                    publisher.publish("inf1406-monitor", sign).unwrap();
                }
            }
            Event::Delivered { payload, .. } => break payload,
            _ => {}
        }
    };
    let failure: Value = serde_json::from_slice(&failure).unwrap();
    let named = (&failure["tipomsg"], &failure["idserv"]);
    assert_eq!(named, (&json!("falhaserv"), &json!(1)));
    assert!(failure["vistoem"].as_u64().unwrap() > 1_600_000_000_000);
    assert_eq!(failure.get("encarnacao"), None);
    let monitor = stage.monitor().unwrap();
    monitor.line("servidor 1 falhou", WITHIN).await.unwrap();
    let printed = monitor.printed().join("\n");
    let ignored = "ignorada: um sinal de vida do servidor 7";
    assert!(printed.contains(ignored), "{printed}");
    assert_eq!(printed.matches("falhou").count(), 1, "{printed}");
}

/// A monitor of this stage with options of its own.
async fn monitor(stage: &Stage, options: &[&str]) -> Process {
    let program = Program::beside("monitor", "mqtt-kv-monitor").unwrap();
    let program = program.args(["2", "--broker", &stage.address()]);
    let mut monitor = program.args(options).start().unwrap();
    monitor.line("conectado ao broker", WITHIN).await.unwrap();
    monitor
}

#[tokio::test]
async fn a0_16_a_monitor_that_starts_before_the_servers_declares_nobody_dead_while_they_start() {
    let mut stage = Stage::new(Broker::Embutido, 2, &[]).await.unwrap();
    // Shorter than the servers take to begin; what is not heard in the grace is far later.
    let options = [
        "--timeout",
        "3000",
        "--carencia",
        "60000",
        "--relancar",
        "true",
    ];
    let mut monitor = monitor(&stage, &options).await;
    stage.start_servers().await.unwrap();
    for _ in 0..2 {
        monitor.line("está vivo", WITHIN).await.unwrap();
    }
    let printed = monitor.printed().join("\n");
    assert!(!printed.contains("falhou"), "{printed}");
}

#[tokio::test]
async fn a0_10_a0_16_a_server_that_was_dead_before_the_monitor_started_is_declared_dead_and_started_again()
 {
    let mut stage = started(2, &[]).await;
    stage.kill(1).await.unwrap();
    let called = stage.file("called");
    let command = format!("echo {{id}} >>{}; exit 3", called.display());
    let mut monitor = monitor(&stage, &["--relancar", &command]).await;
    for said in [
        "servidor 1 falhou",
        "relançando o servidor 1",
        // It is said, too, that the command fails.
        "o comando que relançou o servidor 1 terminou com um erro (código 3)",
    ] {
        monitor.line(said, WITHIN).await.unwrap();
    }
    assert_eq!(std::fs::read_to_string(&called).unwrap(), "1\n");
}

#[tokio::test]
async fn a_monitor_that_is_too_hasty_for_the_servers_says_so() {
    let stage = started(2, &[]).await;
    let mut monitor = monitor(&stage, &["--timeout", "250"]).await;
    let said = "menor do que três vezes o --periodo dos servidores (100 ms)";
    monitor.line(said, WITHIN).await.unwrap();
}

#[tokio::test]
async fn options_of_the_client_stand_before_or_behind_what_it_asks_and_a_wrong_address_is_an_option_too()
 {
    let stage = started(1, &[]).await;
    for arguments in [
        &["--espera", "60000", "insere", "cor", "azul"][..],
        &["insere", "cor", "azul", "--espera", "60000"],
        &["consulta", "cor", "--espera", "60000", "--reenvio", "900"],
    ] {
        let (code, said) = exit_code(stage.client(arguments).unwrap()).await;
        assert_eq!(code, 0, "{arguments:?}: {said:?}");
    }
    for wrong in ["aqui", "aqui:x", ":1883", "127.0.0.1:99999"] {
        let broker = Program::beside("broker", "mqtt-kv-broker").unwrap();
        let (code, said) = exit_code(broker.args(["--listen", wrong])).await;
        assert_eq!(code, 2, "{wrong}: {said:?}");
    }
}

/// Another process under a number of this stage.
fn beside(stage: &Stage, id: &str, more: &[&str]) -> Program {
    Program::beside("outro", "mqtt-kv-server")
        .unwrap()
        .args([id, "2", "--broker", &stage.address()])
        .args(["--periodo", "100", "--timeout", "1000"])
        .args(more)
}

#[tokio::test]
async fn r0_11_a_second_process_of_one_number_ends_with_a_code_of_its_own_and_the_first_serves_on()
{
    let mut stage = started(2, &[]).await;
    let mut probe = stage.probe().await.unwrap();
    let key = key_of(0, 2, 1);
    probe.put(&key, "v").await.unwrap();
    for more in [&[][..], &["--novo"]] {
        let (code, said) = exit_code(beside(&stage, "0", more)).await;
        assert_eq!(code, 7, "{said:?}");
        let said = said.join("\n");
        assert!(
            said.contains("o servidor 0 já está em funcionamento"),
            "{said}"
        );
        assert!(said.contains("escuta por 200 ms"), "{said}");
    }
    assert_eq!(probe.get(&key).await.unwrap().server, 0);
    let printed = stage.server(0).unwrap().printed().join("\n");
    assert_eq!(printed.matches("servindo a partir").count(), 1, "{printed}");
    same_tables(&mut stage, &[0, 1]).await;
}

#[tokio::test]
async fn c0_8_the_last_one_with_the_pairs_gives_them_to_one_that_was_started_in_its_place_while_it_was_stopped()
 {
    let mut stage = started(2, &[]).await;
    let mut probe = stage.probe().await.unwrap();
    let key = key_of(0, 2, 1);
    probe.put(&key, "v").await.unwrap();
    stage.kill(1).await.unwrap();
    let said = "servidor 1 falhou";
    stage.monitor().unwrap().line(said, WITHIN).await.unwrap();
    stage.server(0).unwrap().pause().unwrap();
    let mut second = beside(&stage, "0", &["--novo"]).start().unwrap();
    // It says for whom it waits.
    second.line("espera há", WITHIN).await.unwrap();
    let first = stage.server(0).unwrap();
    first.resume().unwrap();
    let what = "outro processo foi iniciado depois com o número deste servidor";
    first.line(what, WITHIN).await.unwrap();
    second.line("servindo a partir", WITHIN).await.unwrap();
    let ended = first.ended(WITHIN).await.unwrap();
    assert_eq!(ended.code(), Some(7), "{:?}", first.printed());
    let answer = probe.get(&key).await.unwrap();
    assert_eq!((answer.server, answer.value.as_deref()), (0, Some("v")));
}
