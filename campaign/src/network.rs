//! Where the processes live: on the loopback, or each in a network namespace of its own, where packets between any two
//! can be dropped in one direction only.
//!
//! Every namespace has one end of a veth pair; the other ends are ports of a bridge in the namespace of the campaign,
//! whose address the clients speak from. Packets are dropped by `iptables` inside a process's namespace, so nothing
//! outside is touched. Everything made here is removed when the [`Network`] is dropped.
//!
//! Caveat: a campaign that is itself killed with SIGKILL leaves its namespaces (`ip netns list`, names starting with
//! `kvrep`) and its bridge behind.

use kvrep_core::ReplicaId;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Command, Stdio};

/// What kind of network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Addresses of the loopback: for faults that need no packet filter.
    Loopback,
    /// A namespace for each process; needs root.
    Namespaces,
}

/// The places of all processes.
#[derive(Debug)]
pub(crate) struct Network {
    addresses: BTreeMap<ReplicaId, SocketAddr>,
    namespaces: Option<Namespaces>,
}

#[derive(Debug)]
struct Namespaces {
    /// Start of all names; tells apart campaigns that run at the same time.
    prefix: String,
    cut: BTreeSet<ReplicaId>,
}

/// Which packets are dropped at a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Both,
    In,
    Out,
}

/// Somebody whose packets are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Process(ReplicaId),
    /// All clients.
    Clients,
}

impl Network {
    /// Places for these processes.
    ///
    /// # Errors
    /// A sentence that says what is missing. What was made until then is removed.
    pub(crate) fn new(kind: Kind, ids: &[ReplicaId]) -> Result<Self, String> {
        match kind {
            Kind::Loopback => Ok(Self {
                addresses: loopback(ids).map_err(|e| format!("no free port: {e}"))?,
                namespaces: None,
            }),
            Kind::Namespaces => Self::namespaces(ids),
        }
    }

    fn namespaces(ids: &[ReplicaId]) -> Result<Self, String> {
        let own = std::process::id();
        let prefix = format!("kvrep{own}");
        let network = format!("10.{}.{}", 128 + (own >> 8) % 128, own % 256);
        let mut made = Self {
            addresses: BTreeMap::new(),
            namespaces: Some(Namespaces {
                prefix: prefix.clone(),
                cut: BTreeSet::new(),
            }),
        };
        let ip = |arguments: &str| tool("ip", arguments);
        ip(&format!("link add {prefix} type bridge"))?;
        ip(&format!("addr add {network}.254/24 dev {prefix}"))?;
        ip(&format!("link set {prefix} up"))?;
        // Where bridged packets pass the packet filter, and its policy is to drop them.
        let _ = tool(
            "iptables",
            &format!("-w -I FORWARD -i {prefix} -o {prefix} -j ACCEPT"),
        );
        for (n, id) in (1_u8..).zip(ids) {
            let (space, host) = (format!("{prefix}-{n}"), format!("kv{own}h{n}"));
            ip(&format!("netns add {space}"))?;
            ip(&format!(
                "link add {host} type veth peer name eth0 netns {space}"
            ))?;
            ip(&format!("link set {host} master {prefix} up"))?;
            ip(&format!("-n {space} addr add {network}.{n}/24 dev eth0"))?;
            ip(&format!("-n {space} link set eth0 up"))?;
            ip(&format!("-n {space} link set lo up"))?;
            let address = format!("{network}.{n}:7000");
            let address = address.parse().map_err(|e| format!("{address}: {e}"))?;
            made.addresses.insert(*id, address);
        }
        Ok(made)
    }

    /// Where each process listens.
    pub(crate) fn addresses(&self) -> &BTreeMap<ReplicaId, SocketAddr> {
        &self.addresses
    }

    /// The command that runs `program` at the place of `id`.
    pub(crate) fn command(&self, id: ReplicaId, program: &std::path::Path) -> Command {
        match self.space(id) {
            None => Command::new(program),
            Some(space) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &space]).arg(program);
                command
            }
        }
    }

    /// Drops packets between `id` and `others`, until [`heal`](Self::heal).
    ///
    /// # Errors
    /// When there are no namespaces or the packet filter refuses.
    pub(crate) fn cut(
        &mut self,
        id: ReplicaId,
        direction: Direction,
        others: &[Side],
    ) -> Result<(), String> {
        let mut rules = String::from("*filter\n");
        for other in others {
            let address = match other {
                Side::Process(other) => self.addresses[other].ip().to_string(),
                Side::Clients => self.clients_address(id),
            };
            if direction != Direction::Out {
                rules.push_str(&format!("-A INPUT -s {address} -j DROP\n"));
            }
            if direction != Direction::In {
                rules.push_str(&format!("-A OUTPUT -d {address} -j DROP\n"));
            }
        }
        rules.push_str("COMMIT\n");
        self.filter(id, &rules)?;
        if let Some(namespaces) = &mut self.namespaces {
            namespaces.cut.insert(id);
        }
        Ok(())
    }

    /// Lets all packets through again.
    ///
    /// # Errors
    /// When the packet filter refuses.
    pub(crate) fn heal(&mut self) -> Result<(), String> {
        let cut = match &mut self.namespaces {
            Some(namespaces) => std::mem::take(&mut namespaces.cut),
            None => return Ok(()),
        };
        for id in cut {
            self.filter(id, "*filter\n:INPUT ACCEPT\n:OUTPUT ACCEPT\nCOMMIT\n")?;
        }
        Ok(())
    }

    /// Replaces all rules at once.
    fn filter(&self, id: ReplicaId, rules: &str) -> Result<(), String> {
        let space = self.space(id).ok_or("packets are cut in namespaces only")?;
        let mut child = Command::new("ip")
            .args(["netns", "exec", &space, "iptables-restore", "-w"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| format!("cannot run ip ({e}); install iproute2 and iptables"))?;
        let fed = child
            .stdin
            .take()
            .map(|mut to| to.write_all(rules.as_bytes()));
        let output = child.wait_with_output().map_err(|e| e.to_string())?;
        if !output.status.success() || !matches!(fed, Some(Ok(()))) {
            let why = String::from_utf8_lossy(&output.stderr);
            return Err(format!("iptables-restore refused: {}", why.trim()));
        }
        Ok(())
    }

    fn clients_address(&self, id: ReplicaId) -> String {
        match self.addresses[&id] {
            SocketAddr::V4(address) => {
                let [a, b, c, _] = address.ip().octets();
                Ipv4Addr::new(a, b, c, 254).to_string()
            }
            SocketAddr::V6(address) => address.ip().to_string(),
        }
    }

    fn space(&self, id: ReplicaId) -> Option<String> {
        let namespaces = self.namespaces.as_ref()?;
        let n = self.addresses.keys().position(|key| *key == id)? + 1;
        Some(format!("{}-{n}", namespaces.prefix))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let Some(Namespaces { prefix, .. }) = &self.namespaces else {
            return;
        };
        // Whatever is missing was not made. Removing a namespace removes its veth pair too, but later.
        let own = std::process::id();
        for n in 1..=self.addresses.len() + 1 {
            let _ = tool("ip", &format!("link del kv{own}h{n}"));
            let _ = tool("ip", &format!("netns del {prefix}-{n}"));
        }
        let _ = tool(
            "iptables",
            &format!("-w -D FORWARD -i {prefix} -o {prefix} -j ACCEPT"),
        );
        let _ = tool("ip", &format!("link del {prefix}"));
    }
}

/// Runs a tool of the system.
pub(crate) fn tool(program: &str, arguments: &str) -> Result<(), String> {
    let output = Command::new(program)
        .args(arguments.split(' '))
        .output()
        .map_err(|e| format!("cannot run {program} ({e}); install it"))?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    Err(format!(
        "{program} {arguments}: {} (this needs root)",
        why.trim()
    ))
}

/// A free port for each, on loopback addresses that no other campaign uses.
fn loopback(ids: &[ReplicaId]) -> io::Result<BTreeMap<ReplicaId, SocketAddr>> {
    let own = std::process::id();
    let host = |n| Ipv4Addr::new(127, 100 + (own >> 8) as u8 % 100, own as u8, n);
    let listeners = (1_u8..)
        .zip(ids)
        .map(|(n, id)| Ok((*id, TcpListener::bind((host(n), 0))?)))
        .collect::<io::Result<Vec<_>>>()?;
    // Only when all are chosen are they given back, so that no two are equal.
    let address = |(id, listener): (ReplicaId, TcpListener)| Ok((id, listener.local_addr()?));
    listeners.into_iter().map(address).collect()
}
