//! System 0 on a broker that drops, dies, forgets or refuses: real processes, and mosquitto where it is installed.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on says why it stops"
)]

use kvrep_examples::common::processes::Program;
use kvrep_examples::common::story::{Printed, Story};
use kvrep_examples::mqtt_kv::brokers::{Broker, mosquitto, program};
use kvrep_examples::mqtt_kv::faults::{self, Watched};
use kvrep_examples::mqtt_kv::probe::key_of;
use kvrep_examples::mqtt_kv::stage::{Login, Stage, Stuck, WITHIN, all_equal};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// Whether mosquitto is here; says so where it is not.
fn has_mosquitto() -> bool {
    let here = mosquitto().is_some();
    if !here {
        eprintln!("mosquitto is not installed: this part did not run");
    }
    here
}

/// Plays a part of a story; every check in it must hold.
async fn holds(name: &str, part: impl AsyncFnOnce(&mut Story) -> Result<(), Stuck>) {
    let mut story = Story::begin(name, Printed::Text);
    let told = part(&mut story).await.map_err(|why| why.to_string());
    assert!(story.end(told), "see above what does not hold");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_for_which_the_broker_dropped_messages_notices_rejoins_and_never_answers_wrongly()
{
    if has_mosquitto() {
        holds("slow", async |story| {
            faults::slow_server(story, 5_000, Watched::ByMonitor).await
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_does_so_too_where_nobody_declares_it_dead_and_its_queries_are_answered_in_the_end() {
    if has_mosquitto() {
        holds("slow, unnoticed", async |story| {
            faults::slow_server(story, 1_500, Watched::ByNobody).await
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_two_confirmations_ten_restarts_of_a_broker_without_a_disk_lose_nothing_acknowledged()
{
    if has_mosquitto() {
        holds("restarts", async |story| {
            faults::forgetful_broker(story, Broker::Mosquitto, 10, 2).await
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_one_confirmation_restarts_of_a_broker_without_a_disk_are_survived_and_losses_are_said()
 {
    if has_mosquitto() {
        holds("restarts, one confirmation", async |story| {
            faults::forgetful_broker(story, Broker::Mosquitto, 5, 1).await
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_server_alone_had_acknowledged_and_the_broker_lost_is_reported() {
    if has_mosquitto() {
        holds("alone", async |story| faults::answered_by_one(story).await).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_began_from_nothing_while_the_others_were_away_yields_to_what_they_have() {
    let mut stage = Stage::new(Broker::Embutido, 3, &[]).await.unwrap();
    stage.start_servers().await.unwrap();
    let mut probe = stage.probe().await.unwrap();
    for n in 0..50 {
        probe.put(&key_of(1, 3, n), "antes").await.unwrap();
    }
    for server in 0..3 {
        probe.settled(server).await.unwrap();
    }
    drop(probe);
    stage.kill_broker().await.unwrap();
    stage.kill(0).await.unwrap();
    for server in [1, 2] {
        stage.server(server).unwrap().pause().unwrap();
    }
    stage.start_broker().await.unwrap();
    stage.start_server(0, &[]).unwrap();
    stage.serves(0).await.unwrap();
    let mut probe = stage.probe().await.unwrap();
    probe
        .put_surely(&key_of(0, 3, 0), "entretanto")
        .await
        .unwrap();
    for server in [1, 2] {
        stage.server(server).unwrap().resume().unwrap();
    }
    let alone = stage.server(0).unwrap();
    // (Why it does depends on what the two others have to settle first.)
    alone
        .line("não responde até entrar de novo", WITHIN)
        .await
        .unwrap();
    alone.line("PERDIDO", WITHIN).await.unwrap();
    stage.serves(0).await.unwrap();
    probe.each_answers(3).await.unwrap();
    let tables = stage.tables(&[0, 1, 2]).await.unwrap();
    all_equal(&tables).unwrap();
    let kept = (0..50).filter(|n| tables[0].contains(&key_of(1, 3, *n)));
    assert_eq!(kept.count(), 50, "{}", tables[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_session_another_client_took_and_cleaned_recovers_without_an_operator() {
    if has_mosquitto() {
        for watched in [Watched::ByMonitor, Watched::ByNobody] {
            holds("session", async |story| {
                faults::lost_session(story, watched).await
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c0_7_a_broker_that_refuses_large_messages_gets_smaller_ones_and_answers_are_errors() {
    if !has_mosquitto() {
        return;
    }
    let limit = "allow_anonymous true\nmessage_size_limit 20000";
    let mut stage = Stage::set(Broker::Mosquitto, limit, 3, &[]).await.unwrap();
    stage.start_all().await.unwrap();
    let mut probe = stage.probe().await.unwrap();
    // Twice in its answer.
    let large = probe.put("grande", &"v".repeat(12_000)).await.unwrap();
    assert_eq!(large.status, "erro", "{large:?}");
    for n in 0..100 {
        let put = probe.put(&key_of(n % 3, 3, n), &"v".repeat(1_000)).await;
        assert_eq!(put.unwrap().status, "ok");
    }
    probe.each_answers(3).await.unwrap();
    stage.kill(0).await.unwrap();
    stage.replace(0).await.unwrap();
    probe.each_answers(3).await.unwrap();
    let tables = stage.tables(&[0, 1, 2]).await.unwrap();
    assert!(all_equal(&tables).is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_access_list_as_the_readme_has_it_is_enough() {
    let (true, Some(maker)) = (has_mosquitto(), program("mosquitto_passwd")) else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let (passwords, list) = (directory.path().join("p"), directory.path().join("acl"));
    for (user, how) in [("servidor", "-c"), ("monitor", "-b"), ("cliente", "-b")] {
        let mut made = Program::at("mosquitto_passwd", maker.clone())
            .args(["-b", how])
            .arg(&passwords)
            .args([user, "certa"])
            .start()
            .unwrap();
        assert!(made.ended(WITHIN).await.unwrap().success());
    }
    let readme = include_str!("../mqtt-kv/README.md");
    let (_, example) = readme.split_once("user servidor\n").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    std::fs::write(&list, format!("user servidor\n{example}")).unwrap();
    let settings = format!(
        "allow_anonymous false\npassword_file {}\nacl_file {}",
        passwords.display(),
        list.display()
    );
    let stage = Stage::set(Broker::Mosquitto, &settings, 3, &[])
        .await
        .unwrap();
    let address = stage.address();
    let start = |program: &str, user: &str, arguments: &[&str]| {
        let program = Program::beside(program, program).unwrap();
        let program = program.args(["--broker", &address, "--usuario", user]);
        let program = program.env("MQTT_SENHA", "certa").args(arguments);
        program.start().unwrap()
    };
    let server = |id: &str, more: &[&str]| {
        let arguments = [&[id, "3", "--timeout", "600"], more].concat();
        start("mqtt-kv-server", "servidor", &arguments)
    };
    let monitor = start("mqtt-kv-monitor", "monitor", &["3", "--timeout", "600"]);
    let mut servers = ["0", "1", "2"].map(|id| server(id, &[]));
    for server in &mut servers {
        server.line("servindo", WITHIN).await.unwrap();
    }
    for request in [&["insere", "cor", "azul"][..], &["consulta", "cor"]] {
        let mut client = start("mqtt-kv-client", "cliente", request);
        let status = client.ended(WITHIN).await.unwrap();
        assert!(status.success(), "{:?}", client.printed());
    }
    servers[0].kill().await.unwrap();
    servers[0] = server("0", &["--novo"]);
    servers[0].line("servindo", WITHIN).await.unwrap();
    for process in servers.iter().chain([&monitor]) {
        let said = process.printed().join("\n");
        assert!(!said.contains("recusa"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r0_22_a_monitor_that_hears_nothing_declares_nobody_dead_says_so_and_connects_anew() {
    let mut stage = Stage::new(Broker::Embutido, 2, &[]).await.unwrap();
    stage.start_servers().await.unwrap();
    let way = Way::to(stage.address()).await;
    stage.start_monitor_at(&way.address, &[]).await.unwrap();
    let mut probe = stage.probe().await.unwrap();
    probe.put(&key_of(0, 2, 1), "v").await.unwrap();
    way.deafen();
    let monitor = stage.monitor().unwrap();
    monitor.line("conecta-se de novo", WITHIN).await.unwrap();
    monitor.line("conectado ao broker", WITHIN).await.unwrap();
    let printed = monitor.printed().join("\n");
    assert!(!printed.contains("falhou"), "{printed}");
    probe.each_answers(2).await.unwrap();
    // It hears again: who dies now is missed, also when all do and nobody is left to be heard.
    for id in [0, 1] {
        stage.kill(id).await.unwrap();
        let said = format!("servidor {id} falhou");
        stage.monitor().unwrap().line(&said, WITHIN).await.unwrap();
    }
}

/// A way to the broker on which those that are connected can be made deaf: what they publish goes through, and nothing that is published comes.
struct Way {
    address: String,
    /// Connections with a lower number are deaf.
    deaf_below: Arc<AtomicUsize>,
    opened: Arc<AtomicUsize>,
}

impl Way {
    async fn to(broker: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let way = Self {
            address: listener.local_addr().unwrap().to_string(),
            deaf_below: Arc::default(),
            opened: Arc::default(),
        };
        let (deaf_below, opened) = (Arc::clone(&way.deaf_below), Arc::clone(&way.opened));
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let number = opened.fetch_add(1, Ordering::SeqCst);
                let deaf_below = Arc::clone(&deaf_below);
                let Ok(far) = TcpStream::connect(&broker).await else {
                    continue;
                };
                let (near_read, near_write) = near.into_split();
                let (far_read, far_write) = far.into_split();
                tokio::spawn(pass(near_read, far_write, || false));
                let is_deaf = move || number < deaf_below.load(Ordering::SeqCst);
                tokio::spawn(pass(far_read, near_write, is_deaf));
            }
        });
        way
    }

    fn deafen(&self) {
        let opened = self.opened.load(Ordering::SeqCst);
        self.deaf_below.store(opened, Ordering::SeqCst);
    }
}

/// Passes packets of MQTT on, but no publications to one who is deaf.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, is_deaf: impl Fn() -> bool) {
    while let Ok(first) = from.read_u8().await {
        let mut packet = vec![first];
        let (mut length, mut shift) = (0_usize, 0);
        while let Ok(byte) = from.read_u8().await {
            packet.push(byte);
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 || shift > 21 {
                break;
            }
        }
        let head = packet.len();
        packet.resize(head + length, 0);
        if from.read_exact(&mut packet[head..]).await.is_err() {
            return;
        }
        let is_publication = first >> 4 == 3;
        if !(is_publication && is_deaf()) && to.write_all(&packet).await.is_err() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_credentials_are_said_and_end_every_program_with_a_code_and_right_ones_work() {
    let (true, Some(maker)) = (has_mosquitto(), program("mosquitto_passwd")) else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("passwords");
    let mut made = Program::at("mosquitto_passwd", maker)
        .args(["-b", "-c"])
        .arg(&file)
        .args(["ana", "certa"])
        .start()
        .unwrap();
    assert!(made.ended(WITHIN).await.unwrap().success());
    let settings = format!("allow_anonymous false\npassword_file {}", file.display());
    let stage = Stage::set(Broker::Mosquitto, &settings, 2, &[])
        .await
        .unwrap();
    let address = stage.address();
    for login in [None, Some(("ana", "errada")), Some(("eva", "certa"))] {
        for arguments in [
            &["mqtt-kv-server", "0", "2"][..],
            &["mqtt-kv-monitor", "2"],
            &["mqtt-kv-client", "consulta", "cor"],
        ] {
            let mut program = Program::beside(arguments[0], arguments[0])
                .unwrap()
                .args(["--broker", &address])
                .args(&arguments[1..]);
            if let Some((user, password)) = login {
                program = program
                    .args(["--usuario", user])
                    .env("MQTT_SENHA", password);
            }
            let mut process = program.start().unwrap();
            let status = process.ended(WITHIN).await.unwrap();
            let said = process.printed().join("\n");
            assert_eq!(status.code(), Some(5), "{arguments:?} {login:?}: {said}");
            for word in ["usuário", "senha", "MQTT_SENHA", &address] {
                assert!(said.contains(word), "{word} in {said}");
            }
            assert!(!said.contains("errada"), "{said}");
        }
    }
    let mut stage = stage.logged_in(Login {
        user: "ana".into(),
        password: "certa".into(),
    });
    stage.start_all().await.unwrap();
    let mut probe = stage.probe().await.unwrap();
    assert_eq!(probe.put("cor", "azul").await.unwrap().status, "ok");
    let mut client = stage.client(&["consulta", "cor"]).unwrap().start().unwrap();
    client.line("azul", WITHIN).await.unwrap();
}
