//! System 4 between network namespaces, where datagrams are lost in one direction. That needs root and `ip` and `iptables`; where they are missing the test
//! says so.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on says why it stops"
)]

mod calculator_support;

use calculator_support::{WITHIN, senders, update};
use kvrep_examples::common::processes::Program;

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
