//! System 4 with real processes on the loopback, and with foreign clients and servers in plain UDP. Parts that need network namespaces need root and
//! `ip` and `iptables`; where they are missing the test says so.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on says why it stops"
)]

use kvrep_examples::common::processes::{Process, Program, free_ports};
use kvrep_transport_multicast::{GroupSocket, MulticastConfig};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, interval, timeout};

const WITHIN: Duration = Duration::from_secs(60);
const PERIOD: Duration = Duration::from_millis(600);

/// Groups of this test alone.
struct Groups {
    servers: SocketAddrV4,
    clients: SocketAddrV4,
}

impl Groups {
    fn new() -> Self {
        let [servers, clients] = free_ports::<2>().unwrap();
        let [high, low] = servers.to_be_bytes();
        Self {
            servers: SocketAddrV4::new(Ipv4Addr::new(239, 193, high, low), servers),
            clients: SocketAddrV4::new(Ipv4Addr::new(239, 194, high, low), clients),
        }
    }

    fn server(&self, id: u32) -> Program {
        Program::beside(format!("server {id}"), "calc-server")
            .unwrap()
            .args([id.to_string(), "--interface".into(), "127.0.0.1".into()])
            .args(self.server_options())
    }

    fn server_options(&self) -> [String; 8] {
        let (servers, clients) = (self.servers.to_string(), self.clients.to_string());
        let period = PERIOD.as_millis().to_string();
        [
            "--group",
            &servers,
            "--client-group",
            &clients,
            "--period",
            &period,
            "--lang",
            "en",
        ]
        .map(String::from)
    }

    fn client(&self, options: &[&str]) -> Program {
        Program::beside("client", "calc-client")
            .unwrap()
            .args([
                "--interface",
                "127.0.0.1",
                "--timeout",
                "60000",
                "--resend-every",
                "200",
            ])
            .args(["--group".to_owned(), self.clients.to_string()])
            .args(options)
    }

    fn config(group: SocketAddrV4) -> MulticastConfig {
        MulticastConfig::new(group).interface(Ipv4Addr::LOCALHOST)
    }

    /// A server's voice, from whoever this test plays.
    async fn alive(&self, id: &'static str) -> tokio::task::JoinHandle<()> {
        let voice = GroupSocket::open_own(&Self::config(self.servers)).unwrap();
        let group = self.servers;
        tokio::spawn(async move {
            let mut ticks = interval(PERIOD / 2);
            loop {
                ticks.tick().await;
                voice.send_to(id.as_bytes(), group).await.unwrap();
            }
        })
    }
}

/// What a client printed of answers.
fn answers(client: &Process) -> Vec<String> {
    let printed = client.printed();
    let answers = printed
        .iter()
        .filter_map(|line| line.strip_prefix("Answer: "));
    answers
        .map(|line| line.split(',').next().unwrap().to_owned())
        .collect()
}

async fn asked(groups: &Groups, expressions: &[&str]) -> (Vec<String>, i32) {
    let options: Vec<&str> = ["--"]
        .into_iter()
        .chain(expressions.iter().copied())
        .collect();
    let mut client = groups.client(&options).start().unwrap();
    let status = client.ended(WITHIN).await.unwrap();
    (answers(&client), status.code().unwrap())
}

/// The ids of those that have sent this result, as soon as anyone says so: a client may have it before the console does.
async fn senders(servers: &[(u32, Process)], result: &str) -> Vec<u32> {
    let line = format!("Sending result: {result}");
    let said = async {
        let mut looks = interval(Duration::from_millis(20));
        loop {
            looks.tick().await;
            let sent = servers
                .iter()
                .filter(|(_, server)| server.printed().contains(&line));
            let ids: Vec<u32> = sent.map(|(id, _)| *id).collect();
            if !ids.is_empty() {
                return ids;
            }
        }
    };
    timeout(WITHIN, said).await.unwrap()
}

async fn update(server: &mut Process, of: u32, state: &str) {
    server
        .line(&format!("Update: Server {of} is {state}"), WITHIN)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn r4_1_r4_5_r4_16_r4_18_of_five_servers_the_lowest_answers_two_clients_and_the_next_one_takes_over()
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
        // Each hears itself, too (R4.10), and server 5 as the last one: it is listened to for two periods.
        update(server, 5, "Active").await;
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
async fn section_2_foreign_servers_and_clients_in_plain_udp_are_understood_byte_by_byte() {
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
    let heard = async {
        loop {
            let (bytes, _) = servers.group().recv_from(&mut buffer).await.unwrap();
            if buffer[..bytes] != *b"1" {
                return buffer[..bytes].to_vec();
            }
        }
    };
    assert_eq!(timeout(WITHIN, heard).await.unwrap(), b"2");
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

/// Three network namespaces on one bridge, removed when dropped.
struct Spaces {
    prefix: String,
}

impl Spaces {
    const NAMES: [&str; 3] = ["1", "2", "3"];

    fn new(mark: &str) -> Result<Self, String> {
        let spaces = Self {
            prefix: format!("kc{}{mark}", std::process::id() % 100_000),
        };
        let bridge = format!("{}b", spaces.prefix);
        tool("iptables", "-w -L INPUT -n")?;
        tool(
            "ip",
            &format!("link add {bridge} type bridge mcast_snooping 0"),
        )?;
        tool("ip", &format!("link set {bridge} up"))?;
        // Where bridged packets pass the packet filter.
        let _ = tool(
            "iptables",
            &format!("-w -I FORWARD -i {bridge} -o {bridge} -j ACCEPT"),
        );
        for n in Self::NAMES {
            let (space, host) = (spaces.space(n), format!("{}h{n}", spaces.prefix));
            tool("ip", &format!("netns add {space}"))?;
            tool(
                "ip",
                &format!("link add {host} type veth peer name eth0 netns {space}"),
            )?;
            tool("ip", &format!("link set {host} master {bridge} up"))?;
            tool(
                "ip",
                &format!("-n {space} addr add 10.77.0.{n}/24 dev eth0"),
            )?;
            tool("ip", &format!("-n {space} link set eth0 up"))?;
            tool("ip", &format!("-n {space} link set lo up"))?;
        }
        Ok(spaces)
    }

    fn space(&self, n: &str) -> String {
        format!("{}-{n}", self.prefix)
    }

    /// The multicast route that the text asks for.
    fn route(&self, n: &str) {
        tool(
            "ip",
            &format!("-n {} route add 224.0.0.0/4 dev eth0", self.space(n)),
        )
        .unwrap();
    }

    /// Nothing that `from` sends reaches `n`.
    fn deafen(&self, n: &str, from: &str) {
        self.filter(n, &format!("-A INPUT -s 10.77.0.{from} -j DROP"));
    }

    fn heal(&self, n: &str) {
        self.filter(n, "-F INPUT");
    }

    fn filter(&self, n: &str, rule: &str) {
        tool(
            "ip",
            &format!("netns exec {} iptables -w {rule}", self.space(n)),
        )
        .unwrap();
    }

    fn program(&self, n: &str, file: &str) -> Program {
        let here = std::env::current_exe().unwrap();
        let file = here.parent().unwrap().parent().unwrap().join(file);
        Program::at(format!("{} in {n}", file.display()), "ip")
            .args(["netns", "exec", &self.space(n)])
            .arg(file)
    }
}

impl Drop for Spaces {
    fn drop(&mut self) {
        let bridge = format!("{}b", self.prefix);
        for n in Self::NAMES {
            let _ = tool("ip", &format!("link del {}h{n}", self.prefix));
            let _ = tool("ip", &format!("netns del {}", self.space(n)));
        }
        let _ = tool(
            "iptables",
            &format!("-w -D FORWARD -i {bridge} -o {bridge} -j ACCEPT"),
        );
        let _ = tool("ip", &format!("link del {bridge}"));
    }
}

fn tool(program: &str, arguments: &str) -> Result<(), String> {
    let output = std::process::Command::new(program)
        .args(arguments.split(' '))
        .output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{program} {arguments}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn c4_4_c4_6_with_one_way_loss_between_namespaces_the_client_shows_one_answer_per_request() {
    let spaces = match Spaces::new("a") {
        Ok(spaces) => spaces,
        Err(why) => {
            eprintln!("no network namespaces here ({why}): this part did not run");
            return;
        }
    };
    // With the groups, ports and periods of the text, without --interface.
    let mut servers = Vec::new();
    for n in ["1", "2"] {
        let program = spaces.program(n, "calc-server").args([n, "--lang", "en"]);
        let mut server = program.start().unwrap();
        // C4.6: without a route it says so and keeps trying.
        let said = server
            .line("there is no route to the multicast groups", WITHIN)
            .await
            .unwrap();
        assert!(said.contains("ip route add 224.0.0.0/4"), "{said}");
        spaces.route(n);
        servers.push((n.parse().unwrap(), server));
    }
    spaces.route("3");
    for (_, server) in &mut servers {
        update(server, 2, "Active").await;
    }
    async fn ask(spaces: &Spaces, expressions: &[&str]) -> Vec<(String, String)> {
        let client = spaces
            .program("3", "calc-client")
            .args(["--timeout", "60000"])
            .args(expressions);
        let mut client = client.start().unwrap();
        assert_eq!(client.ended(WITHIN).await.unwrap().code(), Some(0));
        let printed = client.printed();
        let shown = printed
            .iter()
            .filter_map(|line| line.strip_prefix("Answer: "));
        let shown = shown.map(|line| line.split_once(", received from ").unwrap());
        shown
            .map(|(text, from)| (text.to_owned(), from.to_owned()))
            .collect()
    }
    let shown = |text: &str, from: &str| (text.to_owned(), format!("10.77.0.{from}:5007"));
    assert_eq!(ask(&spaces, &["3+5"]).await, [shown("8", "1")]);

    // 2 does not hear 1: both answer everything, and the client shows one answer each.
    spaces.deafen("2", "1");
    update(&mut servers[1].1, 1, "Unresponsive").await;
    let expressions: Vec<String> = (100..130).map(|n| format!("{n}*2")).collect();
    let asked_for: Vec<&str> = expressions.iter().map(String::as_str).collect();
    let given: Vec<String> = ask(&spaces, &asked_for)
        .await
        .into_iter()
        .map(|(text, _)| text)
        .collect();
    let wanted: Vec<String> = (100..130).map(|n| (n * 2).to_string()).collect();
    assert_eq!(given, wanted);
    // Two answered.
    for (_, server) in &mut servers {
        server.line("Sending result: 258", WITHIN).await.unwrap();
    }
    // The client does not hear 1 either: it gets 2's answers.
    spaces.deafen("3", "1");
    assert_eq!(ask(&spaces, &["6*7"]).await, [shown("42", "2")]);
    spaces.heal("3");

    // Healed, the lowest answers alone again.
    spaces.heal("2");
    update(&mut servers[1].1, 1, "Active").await;
    assert_eq!(ask(&spaces, &["7*11"]).await, [shown("77", "1")]);
    assert_eq!(senders(&servers, "77").await, [1]);
}
