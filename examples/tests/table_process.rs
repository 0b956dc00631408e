//! The programs as their users run them: keyboard, signals, exit codes, and the story.

mod table_support;

use kvrep_examples::common::processes::Program;
use kvrep_examples::primary_backup_table::network_client::Patience;
use kvrep_examples::primary_backup_table::pair::WITHIN;
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;
use table_support::{
    Witness, kill, last_words, prepare, processor_ticks, put, script, seen, updated, waits_for,
};
use tokio::time::{Instant, sleep};

/// C1.10: the end of standard input neither ends a server nor keeps it busy; what is typed wrongly is answered.
#[tokio::test]
async fn the_end_of_its_input_does_not_end_a_server_and_an_interrupt_does() {
    let pair = prepare(&[]);
    let (mut first, mut second) = pair.start().await.expect("the pair");
    first.type_line("dance").await.expect("typed");
    first
        .line("the only command is print", WITHIN)
        .await
        .expect("told");
    first.close_input();
    second.close_input();
    let mut client = pair.client(Patience::default());
    let before = processor_ticks(first.id());
    for n in 0..20 {
        put(&mut client, "k", &n.to_string()).await;
        sleep(Duration::from_millis(50)).await;
    }
    // A second of this: a loop over a closed input would have burnt all of it.
    let burnt = processor_ticks(first.id()) - before;
    assert!(burnt < 80, "{burnt} hundredths of a second");
    for mut server in [first, second] {
        server.interrupt().expect("asked to end");
        assert!(server.ended(WITHIN).await.expect("it ends").success());
    }
}

/// R1.21, A1.8: the client gives up after primary, secondary, TIMEOUT, primary, secondary.
#[tokio::test]
async fn a_client_without_servers_gives_up_after_the_timeout() {
    let pair = prepare(&[]);
    let began = Instant::now();
    let mut script = script("put 1 k\nsize\n");
    script.arguments = &["--timeout", "0.5"];
    let (printed, status) = script.run(&pair).await;
    assert_eq!(status.code(), Some(1));
    assert!(began.elapsed() >= Duration::from_millis(500));
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines, ["Abortar . . ."], "{printed}");
}

/// The story that people see holds.
#[tokio::test]
async fn the_story_comes_to_its_end_and_every_check_in_it_holds() {
    let story = Program::beside("the story", "table-story")
        .expect("built")
        .arg("--json");
    let mut story = story.start().expect("started");
    let status = story.ended(WITHIN * 3).await.expect("it ends");
    let printed = story.printed().join("\n");
    assert!(status.success(), "{printed}");
    let report: serde_json::Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!(report["holds"], true);
    assert!(
        report["steps"].as_array().map(Vec::len) >= Some(10),
        "{printed}"
    );
}

/// A client says why it turns to the other server, with its address, and takes no server for two.
#[tokio::test]
async fn a_client_says_why_a_server_failed_and_takes_none_twice() {
    let pair = prepare(&[]);
    let (first, second) = (pair.first.address(), pair.second.address());
    let run = async |servers: [&str; 2]| {
        let program = Program::beside("the client", "table-client").expect("it is built");
        let mut client = program
            .args(servers)
            .args(["--timeout", "0.2"])
            .start()
            .expect("a client");
        // Whoever has refused its arguments does not read it.
        drop(client.type_bytes(b"size\n").await);
        client.close_input();
        let status = client.ended(WITHIN).await.expect("it ends");
        (status.code(), client.printed().join("\n"))
    };
    let (code, told) = run([&first, &second]).await;
    assert_eq!(code, Some(1));
    for server in [&first, &second] {
        let why = format!("table-client: {server}: Connection refused");
        assert!(told.contains(&why), "{told}");
    }
    let (code, told) = run([&first, &first]).await;
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("given twice"), "{told}");
}

/// A server that waits for its primary says for whom, and what to do; also where something else listens there, or two wait for each other.
#[tokio::test]
async fn a_secondary_that_waits_for_its_primary_says_for_whom_and_what_begins_a_table() {
    let pair = prepare(&[]);
    let [one, other] = [pair.second.address(), pair.first.address()];
    let first = pair.first.alone(pair.directory(), &[&one]).expect("built");
    let mut both = [
        (first.launch().expect("started"), one),
        (pair.second.launch().expect("started"), other),
    ];
    for (server, awaited) in &mut both {
        let told = server.line("waits for the other", WITHIN).await;
        let told = told.expect("it says so");
        assert!(told.contains(awaited.as_str()), "{told}");
        assert!(told.contains("with its port alone"), "{told}");
        assert!(!told.contains("sent"), "{told}");
        let now = seen(server).await;
        assert!(
            now.entries
                .iter()
                .any(|line| line.contains("espera por quem lha dê")),
            "{now:?}"
        );
    }
    let stranger = Witness::of("another-group").await;
    let mistaken = prepare(&[]);
    let at = [stranger.address.as_str()];
    let mistaken = mistaken.second.alone(mistaken.directory(), &at);
    let mut mistaken = mistaken.expect("built").launch().expect("started");
    let told = mistaken.line("is no table-server", WITHIN).await;
    assert!(told.expect("it says so").contains(&stranger.address));
}

/// A1.6: the directory says whose secondary a server is, and another primary is not passed over in silence.
#[tokio::test]
async fn a_secondary_that_is_given_another_primary_at_a_restart_says_that_it_goes_on_with_its_own()
{
    let pair = prepare(&[]);
    let (_first, mut second) = pair.start().await.expect("the pair");
    kill(&mut second).await;
    let elsewhere = prepare(&[]).first.address();
    let again = pair.second.alone(pair.directory(), &[&elsewhere]);
    let mut again = again.expect("built").start().await.expect("it goes on");
    updated(&mut again).await;
    let printed = again.printed().join("\n");
    let told = format!(
        "{elsewhere} is not asked: this server belongs to the table of the server at {}",
        pair.first.address()
    );
    assert!(printed.contains(&told), "{printed}");
    // The usual command is no news, nor the same place by another name.
    kill(&mut again).await;
    let known = format!("localhost:{}", pair.first.port);
    let again = pair.second.alone(pair.directory(), &[&known]);
    let mut again = again.expect("built").start().await.expect("it goes on");
    updated(&mut again).await;
    assert!(!again.printed().join("\n").contains("is not asked"));
}

#[tokio::test]
async fn a_witness_whose_name_does_not_resolve_is_refused_at_the_start() {
    let pair = prepare(&["--witness", "no-such-host.invalid:7000"]);
    let mut first = pair.first.launch().expect("started");
    let told = first
        .line("--witness no-such-host.invalid:7000", WITHIN)
        .await;
    assert!(told.expect("it says so").contains("HOST:PORT"));
    assert_eq!(first.ended(WITHIN).await.expect("it ends").code(), Some(1));
}

/// What a server says of where it is found may be wrong; then the primary hears it, and it hears nothing.
#[tokio::test]
async fn a_secondary_that_the_primary_cannot_reach_is_told_where_it_was_tried() {
    let pair = prepare(&[]);
    let _first = pair.first.start().await.expect("the primary");
    let nobody = prepare(&[]).first.address();
    let wrong = pair.second.with(&["--advertise", &nobody]);
    let mut second = wrong.start().await.expect("started");
    let told = second.line("cannot reach it at", WITHIN).await;
    let told = told.expect("it says so");
    for words in [
        &*pair.first.address(),
        &nobody,
        "nobody listens there",
        "--advertise",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    waits_for(&pair.second.address(), "cannot reach it to answer").await;
    assert_eq!(last_words(&second), told);
    kill(&mut second).await;
    let mut second = pair.second.start().await.expect("again");
    updated(&mut second).await;
}

/// C1.10: a terminal that is paused, or a pipe that nobody empties, holds no server up, and it ends when it is asked to.
#[tokio::test]
async fn a_console_that_nobody_reads_holds_no_server_up() {
    let pair = prepare(&[]);
    let mut server = Command::new(env!("CARGO_BIN_EXE_table-server"))
        .arg(pair.first.port.to_string())
        .arg("--data")
        .arg(pair.directory().join("unread"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut client = pair.client(Patience::default());
    for n in 0..8 {
        put(&mut client, &format!("key {n}"), &"x".repeat(32 << 10)).await;
    }
    let typed = ["print\n".repeat(3), "dance\n".repeat(4_000)].concat();
    let mut input = server.stdin.take().expect("its input");
    input.write_all(typed.as_bytes()).expect("typed");
    for n in 0..200 {
        put(&mut client, "k", &n.to_string()).await;
    }
    let asked = Command::new("kill").arg(server.id().to_string()).status();
    assert!(asked.expect("kill runs").success());
    let deadline = Instant::now() + WITHIN;
    while server.try_wait().expect("it is ours").is_none() {
        if Instant::now() >= deadline {
            server.kill().expect("killed");
            panic!("it does not end");
        }
        sleep(Duration::from_millis(20)).await;
    }
    let mut printed = Vec::new();
    let mut output = server.stdout.take().expect("its output");
    output.read_to_end(&mut printed).expect("read");
    assert!(printed.len() > 32 << 10, "it was printing");
}
