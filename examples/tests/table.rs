//! The table's pair as real processes: what every requirement and case asks of two servers and their clients.

mod table_support;

use kvrep_examples::common::processes::Process;
use kvrep_examples::primary_backup_table::client_stub::Outcome;
use kvrep_examples::primary_backup_table::network_client::{NoAnswer, Patience, TIMEOUT};
use kvrep_examples::primary_backup_table::pair::{Dump, Pair, WITHIN, dump, dump_when};
use kvrep_examples::primary_backup_table::policy::{SUSPECT_AFTER, request_within};
use std::time::Duration;
use table_support::{Script, cput, del, get, hasty, plain, prepare, put, script};
use tokio::time::{Instant, sleep, timeout};

/// R1.1, R1.2, R1.4, R1.5, R1.6, R1.7, R1.8, R1.10, R1.34, R1.35, R1.36, A1.3, A1.9.
#[tokio::test]
async fn both_servers_have_what_a_client_was_told() {
    let pair = prepare(&[]);
    let mut first = pair.first.start().await.expect("the first");
    let alone = dump(&mut first).await.expect("a dump");
    assert_eq!(alone.role, "primário (outro servidor: DOWN)");
    assert_eq!(alone.entries, ["Nao existem keys!!"]);
    let mut second = pair.second.start().await.expect("the second");
    second
        .line("tabela atualizada", WITHIN)
        .await
        .expect("the table");

    let script = Script {
        typed: "put two words k\ncput no k\ncput yes n\nget k\nget none\nsize\ngetkeys\ndel n\ndel n\nquit\n",
        arguments: &[],
    };
    let (printed, status) = script.run(&pair).await;
    assert!(status.success());
    assert_eq!(
        printed,
        "Operacao put bem sucedida!\nOperacao cput falhou!\nOperacao cput bem sucedida!\n\
         Operacao get bem sucedida! Os dados de \"k\" sao:\n - \"two words\"\nOperacao get falhou!\n\
         Operacao size bem sucedida! Tamanho = 2.\nOperacao getkeys bem sucedida! As keys sao:\n - \"k\"\n - \"n\"\n\
         Operacao del bem sucedida!\nOperacao del falhou!\n"
    );
    let (at_first, at_second) = (
        dump(&mut first).await.expect("a dump"),
        dump(&mut second).await.expect("a dump"),
    );
    assert_eq!(at_first.role, "primário (outro servidor: UP)");
    assert_eq!(at_second.role, "secundário (outro servidor: UP)");
    assert_eq!(at_first.entries, ["k: two words"]);
    assert_eq!(at_second.entries, at_first.entries);
}

/// C1.1, C1.2: a write that fails marks nobody down.
#[tokio::test]
async fn writes_that_fail_change_neither_server_and_mark_nobody_down() {
    let pair = prepare(&[]);
    let (mut first, mut second) = pair.start().await.expect("the pair");
    let mut client = pair.client(Patience::default());
    put(&mut client, "k", "1").await;
    for _ in 0..20 {
        assert_eq!(cput(&mut client, "k", "2").await, Outcome::Failed);
        assert_eq!(del(&mut client, "none").await, Outcome::Failed);
    }
    for server in [&mut first, &mut second] {
        let dump = dump(server).await.expect("a dump");
        assert!(dump.is_up(), "{dump:?}");
        assert_eq!(dump.entries, ["k: 1"]);
    }
}

/// R1.12, R1.13, R1.14, R1.16: a dead secondary is marked down, and up again when it is back.
#[tokio::test]
async fn the_primary_goes_on_without_a_dead_secondary_and_brings_it_up_to_date() {
    let pair = prepare(&[]);
    let (mut first, mut second) = pair.start().await.expect("the pair");
    let mut client = pair.client(Patience::default());
    put(&mut client, "a", "1").await;
    second.kill().await.expect("killed");
    put(&mut client, "b", "2").await;
    assert_eq!(del(&mut client, "a").await, Outcome::Done(()));
    let alone = dump(&mut first).await.expect("a dump");
    assert!(alone.is_primary() && !alone.is_up(), "{alone:?}");

    let mut second = pair.second.start().await.expect("again");
    second
        .line("tabela atualizada", WITHIN)
        .await
        .expect("the table");
    let copied = dump(&mut second).await.expect("a dump");
    assert_eq!(copied.role, "secundário (outro servidor: UP)");
    assert_eq!(copied.entries, ["b: 2"]);
    assert!(dump(&mut first).await.expect("a dump").is_up());
}

/// C1.4: a secondary that takes connections and says nothing.
#[tokio::test]
async fn a_stopped_secondary_is_marked_down_and_its_late_answers_do_no_harm() {
    let pair = prepare(&[]);
    let (mut first, mut second) = pair.start().await.expect("the pair");
    let mut client = pair.client(Patience::default());
    put(&mut client, "k", "1").await;
    second.pause().expect("stopped");
    put(&mut client, "k", "2").await;
    let alone = dump(&mut first).await.expect("a dump");
    assert!(alone.is_primary() && !alone.is_up(), "{alone:?}");
    put(&mut client, "k", "3").await;
    second.resume().expect("it goes on");
    dump_when(&mut first, "the other is UP", |d| d.is_up())
        .await
        .expect("UP");
    let same = |d: &Dump| d.entries == ["k: 3"] && d.is_up();
    let role = dump_when(&mut second, "the same table", same)
        .await
        .expect("a dump")
        .role;
    assert!(role.starts_with("secundário"), "{role}");
}

/// C1.11: what a crash could undo is not read.
#[tokio::test]
async fn a_read_does_not_show_a_write_that_the_secondary_has_not_confirmed() {
    let pair = prepare(&[]);
    let (_first, second) = pair.start().await.expect("the pair");
    let (mut writer, mut reader) = (pair.client(plain()), pair.client(plain()));
    put(&mut writer, "k", "old").await;
    assert_eq!(get(&mut reader, "k").await.as_deref(), Some("old"));
    second.pause().expect("stopped");
    let began = Instant::now();
    let reading = async {
        let mut before = 0;
        while get(&mut reader, "k").await.as_deref() != Some("new") {
            before += 1;
        }
        (began.elapsed(), before)
    };
    let both = async { tokio::join!(put(&mut writer, "k", "new"), reading) };
    let ((), (shown, before)) = timeout(WITHIN, both)
        .await
        .expect("the secondary is dropped");
    // The secondary counts until it has been silent for a second: what was shown earlier would not be confirmed by it.
    assert!(shown > SUSPECT_AFTER * 7 / 10, "shown after {shown:?}");
    assert!(before > 0, "reads go on while a write waits");
    second.resume().expect("it goes on");
}

/// R1.20, R1.22, R1.23, R1.24, A1.6: takeover by a client, and the old primary's return.
#[tokio::test]
async fn the_secondary_takes_over_when_a_client_asks_and_the_old_primary_returns_as_secondary() {
    for both in [&[][..], &["--durable"]] {
        let pair = prepare(both);
        let (mut first, mut second) = pair.start().await.expect("the pair");
        let mut client = pair.client(Patience::default());
        put(&mut client, "k", "1").await;
        assert_eq!(dump(&mut second).await.expect("a dump").entries, ["k: 1"]);
        first.kill().await.expect("killed");
        let waits = |d: &Dump| !d.is_up();
        let waiting = dump_when(&mut second, "the primary is gone", waits)
            .await
            .expect("a dump");
        // Nobody asked yet.
        assert_eq!(waiting.role, "secundário (outro servidor: DOWN)");
        assert_eq!(waiting.entries, ["k: 1"]);
        put(&mut client, "k", "2").await;
        assert_eq!(client.network().primary(), pair.second.address());
        let alone = dump(&mut second).await.expect("a dump");
        assert_eq!(alone.role, "primário (outro servidor: DOWN)");

        // Its arguments say primary; its directory knows better.
        let mut first = pair.first.start().await.expect("again");
        first
            .line("tabela atualizada", WITHIN)
            .await
            .expect("the table");
        put(&mut client, "n", "3").await;
        let back = dump(&mut first).await.expect("a dump");
        assert_eq!(back.role, "secundário (outro servidor: UP)");
        assert_eq!(back.entries, ["k: 2", "n: 3"]);
        assert_eq!(
            dump(&mut second).await.expect("a dump").role,
            "primário (outro servidor: UP)"
        );
    }
}

/// R1.3, A1.7, C1.9: a secondary that is asked passes on, and stays what it is.
#[tokio::test]
async fn a_secondary_that_is_asked_passes_requests_on_to_a_live_primary() {
    let pair = prepare(&[]);
    let (mut first, mut second) = pair.start().await.expect("the pair");
    let mut script = script("put 1 k\nget k\nsize\n");
    script.arguments = &["--plain"];
    let (printed, status) = script.run_at(&pair.second, &pair.first).await;
    assert!(status.success());
    assert!(
        printed.contains("\"1\"") && printed.contains("= 1."),
        "{printed}"
    );
    assert!(dump(&mut first).await.expect("a dump").is_primary());
    let asked = dump(&mut second).await.expect("a dump");
    assert_eq!(asked.role, "secundário (outro servidor: UP)");
    assert_eq!(asked.entries, ["k: 1"]);
}

/// C1.7, A1.6: an empty table is not served while somebody has the data, nor without force when nobody has.
#[tokio::test]
async fn a_server_that_lost_its_table_serves_no_empty_one() {
    let pair = prepare(&[]);
    let (mut first, mut second) = pair.start().await.expect("the pair");
    let mut client = pair.client(hasty());
    put(&mut client, "k", "1").await;
    first.kill().await.expect("killed");
    put(&mut client, "k", "2").await;
    second.pause().expect("stopped");
    // The secondary has the data and does not answer: the old primary is back, empty.
    let mut first = pair.first.start().await.expect("again");
    let refused = client.size().await.expect_err("nobody serves");
    assert!(matches!(refused, NoAnswer::GaveUp(_)), "{refused}");
    assert!(!dump(&mut first).await.expect("a dump").is_primary());
    second.resume().expect("it goes on");
    assert_eq!(get(&mut client, "k").await.as_deref(), Some("2"));

    // Now both lose it.
    first
        .line("tabela atualizada", WITHIN)
        .await
        .expect("the table");
    second.kill().await.expect("killed");
    first.kill().await.expect("killed");
    let mut first = pair.first.start().await.expect("again");
    let mut second = pair.second.start().await.expect("again");
    for server in [&mut first, &mut second] {
        let why = server.line("--force", WITHIN).await.expect("it says why");
        assert!(why.contains("nobody has the table"), "{why}");
    }
    client.size().await.expect_err("nobody serves");
    first.kill().await.expect("killed");
    let forced = pair.first.with(&["--force"]);
    let first = forced.start().await.expect("by force");
    let told = first.printed().join("\n");
    assert!(told.contains("FORCED: the table starts EMPTY"), "{told}");
    put(&mut client, "k", "3").await;
    second
        .line("tabela atualizada", WITHIN)
        .await
        .expect("the table");
    assert_eq!(dump(&mut second).await.expect("a dump").entries, ["k: 3"]);
}

/// A1.6: who had the table alone in its memory, and ended, is told that it is lost and what there is to choose from.
#[tokio::test]
async fn the_last_one_that_had_the_table_says_that_it_is_lost() {
    let pair = prepare(&[]);
    let (mut first, mut second) = pair.start().await.expect("the pair");
    let mut client = pair.client(hasty());
    put(&mut client, "k", "1").await;
    second.kill().await.expect("killed");
    put(&mut client, "k", "2").await;
    let alone = |d: &Dump| d.is_primary() && !d.is_up();
    dump_when(&mut first, "the other is DOWN", alone)
        .await
        .expect("DOWN");
    wait_for_record(&pair, &["1"]).await;
    first.kill().await.expect("killed");
    let mut first = pair.first.start().await.expect("again");
    first
        .line("in its memory alone when it ended", WITHIN)
        .await
        .expect("it says what is lost");
    // The other one has nothing either.
    let second = pair.second.start().await.expect("again");
    let why = first.line("both servers were started again", WITHIN).await;
    assert!(why.expect("a choice").contains("--force"));
    client.size().await.expect_err("nobody serves");
    speak_of_servers_only(&[&first, &second]);
}

/// A request that nobody can serve is given up by the server before its client gives up.
#[tokio::test]
async fn a_request_that_nobody_serves_is_hung_up_on_within_the_timeout_of_clients() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let pair = prepare(&[]);
    let (mut first, mut second) = pair.start().await.expect("the pair");
    first.kill().await.expect("killed");
    second.kill().await.expect("killed");
    let _first = pair.first.start().await.expect("again, without the table");
    let connected = tokio::net::TcpStream::connect(pair.first.address()).await;
    let mut stream = connected.expect("a connection");
    let began = Instant::now();
    let size = [0, 0, 0, 8, 0, 50, 1, 0xf4, 0, 0, 0, 0];
    stream.write_all(&size).await.expect("asked");
    let mut answer = Vec::new();
    let read = timeout(WITHIN, stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "it hangs up");
    assert_eq!(answer, [0_u8; 0]);
    let waited = began.elapsed();
    let within = request_within(TIMEOUT);
    assert!(waited >= within, "{waited:?}");
    // With some room for a machine that is busy.
    assert!(waited < within * 3, "{waited:?}");
}

/// What is printed speaks of two servers and of options, not of replicas' ids, types and policies.
fn speak_of_servers_only(servers: &[&Process]) {
    for server in servers {
        for line in server.printed() {
            let words: Vec<&str> = line
                .split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':')
                .collect();
            let is_id = |word: &&&str| {
                let digits = word.strip_prefix('n').unwrap_or_default();
                !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
            };
            assert_eq!(words.iter().find(is_id), None, "{line}");
            for theirs in ["::", "members_max", "replica ", "with force"] {
                assert!(!line.contains(theirs), "{theirs} in {line}");
            }
        }
    }
}

/// Waits until the first server has written down who had the whole table last.
async fn wait_for_record(pair: &Pair, in_sync: &[&str]) {
    let file = pair
        .directory()
        .join(format!("table-{}.d/server.json", pair.first.port));
    let deadline = Instant::now() + WITHIN;
    loop {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let record: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let ids = record["in_sync"].as_array().cloned().unwrap_or_default();
        if ids
            .iter()
            .map(ToString::to_string)
            .eq(in_sync.iter().copied())
        {
            return;
        }
        assert!(Instant::now() < deadline, "{text}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// A1.6: a lone server in memory that ends has lost its table, and says so; force is refused while the other has it.
#[tokio::test]
async fn force_is_for_when_nobody_has_the_table() {
    let pair = prepare(&[]);
    let mut first = pair.first.start().await.expect("the first");
    first.kill().await.expect("killed");
    let mut first = pair.first.launch().expect("again");
    first
        .line("nobody has the table any more", WITHIN)
        .await
        .expect("why");
    assert_eq!(first.ended(WITHIN).await.expect("it ends").code(), Some(1));
    let mut first = pair
        .first
        .with(&["--force"])
        .start()
        .await
        .expect("by force");
    let mut second = pair.second.start().await.expect("the second");
    second
        .line("tabela atualizada", WITHIN)
        .await
        .expect("the table");
    let mut client = pair.client(Patience::default());
    put(&mut client, "k", "1").await;
    first.kill().await.expect("killed");
    let mut first = pair.first.with(&["--force"]).launch().expect("again");
    first
        .line("start this one without --force", WITHIN)
        .await
        .expect("why");
    assert_eq!(first.ended(WITHIN).await.expect("it ends").code(), Some(1));
}

/// R1.2, C1.5: a third server is not let in, and does no harm; in the place of a dead one it is.
#[tokio::test]
async fn there_is_exactly_one_secondary() {
    let pair = prepare(&[]);
    let (mut first, mut second) = pair.start().await.expect("the pair");
    let mut client = pair.client(Patience::default());
    put(&mut client, "k", "1").await;
    let third = Pair::prepare(&[]).expect("ports");
    let primary = pair.first.address();
    let third_seat = third.first.with(&[&primary]);
    let mut third = third_seat.start().await.expect("the third");
    third
        .line("does not let it in", WITHIN)
        .await
        .expect("it is told");
    put(&mut client, "k", "2").await;
    assert!(dump(&mut first).await.expect("a dump").is_up());
    assert_eq!(dump(&mut second).await.expect("a dump").entries, ["k: 2"]);
    assert!(!dump(&mut third).await.expect("a dump").is_up());
    speak_of_servers_only(&[&first, &second, &third]);
    // Its place is free now.
    second.kill().await.expect("killed");
    third
        .line("tabela atualizada", WITHIN)
        .await
        .expect("the table");
    put(&mut client, "k", "3").await;
    assert_eq!(dump(&mut third).await.expect("a dump").entries, ["k: 3"]);
    // And taken: the second one says so when it is back.
    let mut second = pair.second.start().await.expect("again");
    second
        .line("does not let it in", WITHIN)
        .await
        .expect("it is told");
    // Until it is free again.
    third.kill().await.expect("killed");
    second
        .line("tabela atualizada", WITHIN)
        .await
        .expect("the table");
    assert_eq!(dump(&mut second).await.expect("a dump").entries, ["k: 3"]);
}

/// A directory that was begun by mistake as a primary's says what to do, and one that was never begun is not there.
#[tokio::test]
async fn a_server_that_was_begun_as_another_primary_is_told_how_to_join() {
    let pair = prepare(&[]);
    let _first = pair.first.start().await.expect("the first");
    // It forgot the address of the primary.
    let directory = tempfile::tempdir().expect("a directory");
    let mistaken = pair.second.alone(directory.path(), &[]).expect("built");
    let mut mistaken = mistaken.launch().expect("started");
    mistaken.line("na porta", WITHIN).await.expect("it runs");
    mistaken.kill().await.expect("killed");
    let primary = pair.first.address();
    let again = pair.second.alone(directory.path(), &[&primary]);
    let mut again = again.expect("built").launch().expect("started");
    let status = again.ended(WITHIN).await.expect("it ends");
    assert!(!status.success());
    let told = again.printed().join("\n");
    assert!(told.contains("remove the directory"), "{told}");
    // A port in use leaves nothing behind.
    let nothing = tempfile::tempdir().expect("a directory");
    let taken = pair.first.alone(nothing.path(), &[]).expect("built");
    let mut taken = taken.launch().expect("started");
    assert!(!taken.ended(WITHIN).await.expect("it ends").success());
    let kept = std::fs::read_dir(nothing.path()).expect("a directory");
    let named = |e: std::fs::DirEntry| e.file_name().into_string().unwrap_or_default();
    let kept: Vec<String> = kept.flatten().map(named).collect();
    assert!(!kept.iter().any(|n| n == "server.json"), "{kept:?}");
}

/// C1.5: `hello` to oneself, and from one who is not of this pair.
#[tokio::test]
async fn hello_to_oneself_and_from_a_stranger_does_no_harm() {
    let pair = prepare(&[]);
    let mut first = pair.first.start().await.expect("the first");
    let elsewhere = prepare(&[]);
    let itself = elsewhere.second.address();
    let selfish = elsewhere.second.alone(elsewhere.directory(), &[&itself]);
    let mut other = selfish.expect("built").launch().expect("started");
    let status = other.ended(WITHIN).await.expect("it ends");
    assert!(!status.success());
    let told = other.printed().join("\n");
    assert!(told.contains("is this server itself"), "{told}");
    let wrong = pair.second.with(&["--witness", "127.0.0.1:1"]);
    let mut stranger = wrong.launch().expect("started");
    // Its witness is what differs, and it is told so.
    let why = stranger.line("--witness", WITHIN).await.expect("why");
    assert!(why.contains("and this one with"), "{why}");
    speak_of_servers_only(&[&stranger]);
    let mut client = pair.client(Patience::default());
    put(&mut client, "k", "1").await;
    assert!(!dump(&mut first).await.expect("a dump").is_up());
    assert!(!dump(&mut stranger).await.expect("a dump").is_primary());
}

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

/// Hundredths of a second that a process has used.
fn processor_ticks(id: Option<u32>) -> u64 {
    let id = id.expect("it runs");
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or("")
        .split_whitespace()
        .collect();
    let number = |at: usize| {
        fields
            .get(at)
            .and_then(|f| f.parse::<u64>().ok())
            .unwrap_or(0)
    };
    number(11) + number(12)
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

/// A1.1: the dialect with role bytes, from a client to a server.
#[tokio::test]
async fn the_dialect_with_role_bytes_is_spoken() {
    let pair = prepare(&["--dialeto", "c-prefixo"]);
    let (_first, _second) = pair.start().await.expect("the pair");
    let mut script = script("put 1 k\nget k\n");
    script.arguments = &["--dialeto", "c-prefixo"];
    let (printed, status) = script.run(&pair).await;
    assert!(status.success());
    assert!(printed.contains(" - \"1\""), "{printed}");
}

/// The story that people see holds.
#[tokio::test]
async fn the_story_comes_to_its_end_and_every_check_in_it_holds() {
    use kvrep_examples::common::processes::Program;
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
