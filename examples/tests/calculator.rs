//! System 4 with real processes on the loopback, and with foreign clients and servers in plain UDP.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on says why it stops"
)]

mod calculator_support;

use calculator_support::{Groups, PERIOD, WITHIN, answers, asked, senders, update};
use kvrep_examples::common::processes::{Process, Program};
use kvrep_transport_multicast::GroupSocket;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

#[tokio::test(flavor = "multi_thread")]
async fn r4_1_r4_3_r4_4_r4_5_r4_16_r4_17_r4_18_of_five_servers_the_lowest_answers_two_clients_and_the_next_one_takes_over()
 {
    let groups = Groups::new();
    let mut servers: Vec<(u32, Process)> = Vec::new();
    for id in 1..=5 {
        servers.push((id, groups.server(id).start().unwrap()));
    }
    for (me, server) in &mut servers {
        for (what, group) in [
            ("STARTED COMMUNICATING state", groups.servers),
            ("STARTED LISTENING to state confirmations", groups.servers),
            ("STARTED LISTENING to client requests", groups.clients),
        ] {
            let (address, port) = (group.ip(), group.port());
            let line = format!("Server {me} {what} in the Multicast Group {address}, Port {port}");
            server.line(&line, WITHIN).await.unwrap();
        }
    }
    for (_, server) in &mut servers {
        // Each hears itself, too (R4.10). Whose processes come late are heard late.
        let of_all = |lines: &[String]| {
            let update = |id| format!("Update: Server {id} is Active");
            (1..=5).all(|id| lines.contains(&update(id)))
        };
        let begun = Instant::now();
        while !of_all(&server.printed()) {
            assert!(begun.elapsed() < WITHIN, "{:?}", server.printed());
            sleep(PERIOD / 10).await;
        }
    }

    // R4.3, R4.4: as people use it.
    let mut one = groups.client(&[]).start().unwrap();
    one.line("Type the arithmetic expression: ", WITHIN)
        .await
        .unwrap();
    one.type_line("3+5-4/3*4").await.unwrap();
    one.line("Requesting evaluation of expresion: 3+5-4/3*4", WITHIN)
        .await
        .unwrap();
    let from = format!(
        "Answer: 2.666666666666667, received from 127.0.0.1:{}",
        groups.clients.port()
    );
    assert_eq!(one.line("Answer", WITHIN).await.unwrap(), from);
    let (given, code) = asked(&groups, &["3+5", "4/2", "7//2", "-2**2"]).await;
    assert_eq!(
        (given, code),
        (["8", "2.0", "3", "-4"].map(String::from).to_vec(), 0)
    );
    // A4.6; R4.19: it goes on.
    let (given, code) = asked(&groups, &["1/0", "__import__('os')", "(", "1+1"]).await;
    let invalid = "Invalid Expression!";
    assert_eq!(
        (given, code),
        (
            [invalid, invalid, invalid, "2"].map(String::from).to_vec(),
            1
        )
    );
    assert_eq!(senders(&servers, "2.666666666666667").await, [1]);
    assert_eq!(senders(&servers, "2").await, [1], "R4.17");
    servers[4]
        .1
        .line(
            "Client message received, expecting server 1 will answer",
            WITHIN,
        )
        .await
        .unwrap();

    // The lowest is killed; the client's resend hides it (A4.8).
    servers[0].1.kill().await.unwrap();
    let killed = Instant::now();
    let (given, code) = asked(&groups, &["6*7"]).await;
    let took = killed.elapsed();
    assert_eq!((given, code), (vec!["42".to_owned()], 0));
    assert_eq!(senders(&servers, "42").await, [2]);
    assert!(
        took > PERIOD,
        "it was counted on for more than two ticks: {took:?}"
    );
    for (_, server) in &mut servers[1..] {
        update(server, 1, "Unresponsive").await;
        update(server, 1, "Disconnected").await;
    }
    // And back again.
    servers[0].1 = groups.server(1).start().unwrap();
    update(&mut servers[1].1, 1, "Active").await;
    loop {
        assert_eq!(asked(&groups, &["11*11"]).await.0, ["121"]);
        if senders(&servers, "121").await.contains(&1) {
            break;
        }
        assert!(killed.elapsed() < WITHIN, "the lowest answers again");
    }

    // R4.18: the last one still answers.
    for (_, server) in &mut servers[..4] {
        server.kill().await.unwrap();
    }
    one.type_line("2**10").await.unwrap();
    one.line("Answer: 1024,", WITHIN).await.unwrap();
    assert_eq!(senders(&servers, "1024").await, [5]);
    one.close_input();
    assert_eq!(one.ended(WITHIN).await.unwrap().code(), Some(0));
    assert_eq!(answers(&one).len(), 2, "one answer per request");
    servers[4].1.interrupt().unwrap();
    assert_eq!(servers[4].1.ended(WITHIN).await.unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lowest_server_that_is_stopped_is_replaced_and_answers_no_backlog_when_it_goes_on() {
    let groups = Groups::new();
    let mut servers = vec![
        (1, groups.server(1).start().unwrap()),
        (2, groups.server(2).start().unwrap()),
    ];
    update(&mut servers[0].1, 2, "Active").await;
    update(&mut servers[1].1, 1, "Active").await;
    assert_eq!(asked(&groups, &["1+1"]).await.0, ["2"]);
    assert_eq!(senders(&servers, "2").await, [1]);

    servers[0].1.pause().unwrap();
    update(&mut servers[1].1, 1, "Unresponsive").await;
    assert_eq!(asked(&groups, &["2+2", "3+3"]).await.0, ["4", "6"]);
    assert_eq!(senders(&servers, "4").await, [2]);
    update(&mut servers[1].1, 1, "Disconnected").await;
    servers[0].1.resume().unwrap();
    update(&mut servers[1].1, 1, "Active").await;
    let begun = Instant::now();
    loop {
        assert_eq!(asked(&groups, &["5+5"]).await.0, ["10"]);
        if senders(&servers, "10").await.contains(&1) {
            break;
        }
        assert!(begun.elapsed() < WITHIN, "the lowest answers again");
    }
    assert_eq!(
        senders(&servers, "4").await,
        [2],
        "the backlog was not answered"
    );
    assert_eq!(senders(&servers, "6").await, [2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn section_2_r4_6_c4_8_foreign_servers_and_clients_in_plain_udp_are_understood_byte_by_byte()
{
    let groups = Groups::new();
    let servers = GroupSocket::open(&Groups::config(groups.servers)).unwrap();
    let clients = GroupSocket::open(&Groups::config(groups.clients)).unwrap();
    let foreign = groups.alive("1").await;
    let mut two = groups
        .server(2)
        .args(["--status-every", "1000"])
        .start()
        .unwrap();

    // R4.6: its heartbeat is the id as a digit.
    let mut buffer = [0; 1024];
    let mut heard = async || loop {
        let (bytes, _) = servers.group().recv_from(&mut buffer).await.unwrap();
        if buffer[..bytes] != *b"1" {
            return buffer[..bytes].to_vec();
        }
    };
    assert_eq!(timeout(WITHIN, heard()).await.unwrap(), b"2");
    let first = Instant::now();
    for _ in 0..3 {
        assert_eq!(timeout(WITHIN, heard()).await.unwrap(), b"2");
    }
    // One each period, of which the first may have come late.
    let three = first.elapsed();
    assert!(three > PERIOD * 3 / 2, "{three:?}");
    update(&mut two, 1, "Active").await;
    update(&mut two, 2, "Active").await;

    // Malformed heartbeats, and one of a server that is not of this cluster (R4.19, A4.3).
    let loopback = GroupSocket::open_own(&Groups::config(groups.servers)).unwrap();
    for wrong in [b"one".as_slice(), b"", b"\xff\xff", b"77", &[b'9'; 600]] {
        loopback.send_to(wrong, groups.servers).await.unwrap();
    }
    let me = loopback.local_addr().unwrap();
    two.line(
        &format!("Received invalid data one from server {me}"),
        WITHIN,
    )
    .await
    .unwrap();

    // While the foreign server lives it is to answer, and ours does not.
    let asking = GroupSocket::open_own(&Groups::config(groups.clients)).unwrap();
    let expecting = "Client message received, expecting server 1 will answer";
    for _ in 0..100 {
        asking.send_to(b"3+5", groups.clients).await.unwrap();
        if two.line(expecting, PERIOD).await.is_ok() {
            break;
        }
    }
    assert!(two.printed().contains(&expecting.to_owned()));
    // The block, in the other language's words (R4.5), while one is active and the others were never heard.
    two.line("------------------------------------------", WITHIN)
        .await
        .unwrap();
    for line in [
        "   Server 1 is Active",
        "   Server 2 is Active",
        "   Server 3 is Disconnected",
        "   Server 5 is Disconnected",
    ] {
        two.line(line, WITHIN).await.unwrap();
    }

    // It dies: the answer is a unicast datagram (C4.8) from the group's port, the result as text.
    foreign.abort();
    update(&mut two, 1, "Unresponsive").await;
    asking.send_to(b"3+5-4/3*4", groups.clients).await.unwrap();
    let (bytes, from) = timeout(WITHIN, asking.recv_from(&mut buffer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&buffer[..bytes], b"2.666666666666667");
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, groups.clients.port()));
    assert_eq!(from, here);
    for (expression, result) in [
        (b"1/0".as_slice(), b"Invalid Expression!".as_slice()),
        (b"\xff\xfe", b"Invalid Expression!"),
        (b"", b"Invalid Expression!"),
        (&[b'1'; 600], b"Invalid Expression!"),
        (b"2**100", b"1267650600228229401496703205376"),
    ] {
        asking.send_to(expression, groups.clients).await.unwrap();
        let (bytes, _) = timeout(WITHIN, asking.recv_from(&mut buffer))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(&buffer[..bytes], result);
    }
    // The group itself has heard the requests and no answer.
    let mut in_group = Vec::new();
    while let Ok(bytes) = clients.group().try_recv(&mut buffer) {
        in_group.push(buffer[..bytes].to_vec());
    }
    assert!(
        in_group
            .iter()
            .all(|datagram| datagram != b"2.666666666666667"),
        "{in_group:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn r4_14_r4_15_c4_2_all_servers_of_a_host_receive_what_a_client_multicasts_and_the_groups_do_not_mix()
 {
    // Both groups at one port: only the address to which a socket is bound keeps them apart.
    let mut groups = Groups::new();
    groups.clients.set_port(groups.servers.port());
    let mut servers = Vec::new();
    for id in 1..=3 {
        servers.push((id, groups.server(id).start().unwrap()));
    }
    for (id, server) in &mut servers {
        update(server, *id, "Active").await;
    }
    // What in the servers' group were a sign of life of server 5.
    assert_eq!(asked(&groups, &["5"]).await, (vec!["5".to_owned()], 0));
    for (_, server) in &mut servers {
        let line = server.line("Client message received, ", WITHIN).await;
        let line = line.unwrap();
        let what = ["evaluating expression 5", "expecting server "];
        assert!(what.iter().any(|what| line.contains(what)), "{line}");
    }
    sleep(PERIOD * 2).await;
    for (_, server) in &servers {
        let printed = server.printed().join("\n");
        assert!(!printed.contains("Server 5 is Active"), "{printed}");
        // And no sign of life is taken for a request.
        for id in 1..=3 {
            let taken = format!("evaluating expression {id}");
            assert!(!printed.contains(&taken), "{printed}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a4_8_requests_that_the_dead_left_unanswered_are_answered_when_they_are_kept() {
    let groups = Groups::new();
    let foreign = groups.alive("1").await;
    let mut two = groups.server(2).arg("--keep-unanswered").start().unwrap();
    update(&mut two, 1, "Active").await;
    update(&mut two, 2, "Active").await;
    let asking = GroupSocket::open_own(&Groups::config(groups.clients)).unwrap();
    let expecting = "Client message received, expecting server 1 will answer";
    for _ in 0..100 {
        asking.send_to(b"6*7", groups.clients).await.unwrap();
        if two.line(expecting, PERIOD).await.is_ok() {
            break;
        }
    }
    asking.send_to(b"6*7", groups.clients).await.unwrap();
    foreign.abort();
    let mut buffer = [0; 128];
    let (bytes, _) = timeout(WITHIN, asking.recv_from(&mut buffer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&buffer[..bytes], b"42");
}

#[tokio::test(flavor = "multi_thread")]
async fn a4_7_c4_4_the_client_shows_the_first_answer_and_no_late_duplicate() {
    let groups = Groups::new();
    let clients = Arc::new(GroupSocket::open(&Groups::config(groups.clients)).unwrap());
    // Servers that answer everything three times, the last time when the next request is under way; and lose the first of each.
    let lazy = Arc::clone(&clients);
    let foreign = tokio::spawn(async move {
        let (mut buffer, mut before, mut lost) = ([0; 512], None::<(Vec<u8>, SocketAddr)>, None);
        loop {
            let (bytes, from) = lazy.group().recv_from(&mut buffer).await.unwrap();
            if let Some((answer, asker)) = &before {
                let _ = lazy.group().send_to(answer, asker).await;
            }
            if lost != Some(from) {
                lost = Some(from);
                continue;
            }
            let answer = [b"=".as_slice(), &buffer[..bytes]].concat();
            for _ in 0..2 {
                lazy.group().send_to(&answer, from).await.unwrap();
            }
            before = Some((answer, from));
        }
    });
    let expressions: Vec<String> = (0..20).map(|n| format!("{n}+1")).collect();
    let asked_for: Vec<&str> = expressions.iter().map(String::as_str).collect();
    let (given, code) = asked(&groups, &asked_for).await;
    let wanted: Vec<String> = expressions.iter().map(|text| format!("={text}")).collect();
    assert_eq!((given, code), (wanted, 0));
    foreign.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a4_4_c4_5_the_status_block_comes_with_its_period_and_does_not_drift() {
    let groups = Groups::new();
    let every = Duration::from_secs(1);
    let mut server = groups
        .server(1)
        .args(["--status-every", "1000"])
        .start()
        .unwrap();
    let rule = "------------------------------------------";
    server.line(rule, WITHIN).await.unwrap();
    let first = Instant::now();
    let mut late = Vec::new();
    for block in 1..=10 {
        server.line(rule, WITHIN).await.unwrap();
        late.push(first.elapsed().as_secs_f64() - (every * block).as_secs_f64());
    }
    // Whatever the machine delays one block by, the next ones are not later for it: by a twentieth, the tenth would be late by half a second.
    let least = late[5..].iter().copied().fold(f64::INFINITY, f64::min);
    assert!(least < 0.25, "{late:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn r4_2_a4_3_ids_out_of_range_are_refused_at_the_start_and_a_client_without_servers_says_so()
{
    let groups = Groups::new();
    for (id, options) in [(0, vec![]), (6, vec![]), (3, vec!["--max", "2"])] {
        let mut refused = groups.server(id).args(options).start().unwrap();
        assert_eq!(refused.ended(WITHIN).await.unwrap().code(), Some(2));
        assert!(refused.printed().join("\n").contains("is not from 1 to"));
    }
    let mut larger = groups.server(6).args(["--max", "6"]).start().unwrap();
    update(&mut larger, 6, "Active").await;
    larger.kill().await.unwrap();

    let mut alone = Program::beside("client", "calc-client").unwrap();
    alone = alone.args([
        "--interface",
        "127.0.0.1",
        "--timeout",
        "500",
        "--resend-every",
        "100",
    ]);
    alone = alone.args([
        "--group".to_owned(),
        groups.clients.to_string(),
        "1+1".to_owned(),
    ]);
    let mut client = alone.start().unwrap();
    assert_eq!(client.ended(WITHIN).await.unwrap().code(), Some(1));
    assert!(client.printed().join("\n").contains("no server answered"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a4_2_a4_9_states_are_portuguese_by_default_and_a_second_server_with_the_same_id_is_warned_of()
 {
    let groups = Groups::new();
    let options = groups.server_options();
    let portuguese = || {
        Program::beside("server 1", "calc-server")
            .unwrap()
            .args(["1", "--interface", "127.0.0.1"])
            .args(&options[..6])
    };
    let mut one = portuguese().start().unwrap();
    one.line("Update: Server 1 is Ativo", WITHIN).await.unwrap();
    let _other = portuguese().start().unwrap();
    one.line("another server seems to have the id 1", WITHIN)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn c4_7_expressions_that_take_long_delay_no_heartbeat() {
    let groups = Groups::new();
    let mut one = groups.server(1).start().unwrap();
    let mut two = groups.server(2).start().unwrap();
    update(&mut two, 1, "Active").await;
    update(&mut one, 2, "Active").await;
    assert_eq!(asked(&groups, &["1+1"]).await.0, ["2"]);
    let asking = GroupSocket::open_own(&Groups::config(groups.clients)).unwrap();
    let dear = format!("7**23340%7**11670{}", "*7**11660%7**11670".repeat(27));
    for _ in 0..200 {
        asking
            .send_to(dear.as_bytes(), groups.clients)
            .await
            .unwrap();
        tokio::task::yield_now().await;
    }
    // It answers others meanwhile, and is never taken for dead.
    assert_eq!(asked(&groups, &["8-1"]).await.0, ["7"]);
    let dead = |line: &String| line.contains("Server 1 is Unresponsive");
    assert!(!two.printed().iter().any(dead));
}

#[tokio::test(flavor = "multi_thread")]
async fn r4_19_of_datagrams_that_say_nothing_some_are_shown_and_the_number_of_the_others_is_said() {
    let groups = Groups::new();
    let mut server = groups.server(1).start().unwrap();
    update(&mut server, 1, "Active").await;
    let voice = GroupSocket::open_own(&Groups::config(groups.servers)).unwrap();
    for _ in 0..100 {
        voice.send_to(b"nothing", groups.servers).await.unwrap();
    }
    server
        .line("Received invalid data nothing", WITHIN)
        .await
        .unwrap();
    server
        .line(
            "more datagrams that say nothing came than are shown",
            WITHIN,
        )
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_interrupted_ends_with_1_while_it_waits_and_with_0_where_nothing_is_asked()
{
    let groups = Groups::new();
    let mut given = groups.client(&["1+1"]).start().unwrap();
    let mut typed = groups.client(&[]).start().unwrap();
    typed.type_line("1+1").await.unwrap();
    for waiting in [&mut given, &mut typed] {
        waiting.line("Requesting evaluation", WITHIN).await.unwrap();
        waiting.interrupt().unwrap();
        let status = waiting.ended(WITHIN).await.unwrap();
        assert_eq!(status.code(), Some(1));
    }
    let mut idle = groups.client(&[]).start().unwrap();
    idle.line("Type the arithmetic expression: ", WITHIN)
        .await
        .unwrap();
    idle.interrupt().unwrap();
    assert_eq!(idle.ended(WITHIN).await.unwrap().code(), Some(0));
}
