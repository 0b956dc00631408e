//! Who replicates how, and over what: what the demo is assembled from, and which pairs do not work.
//!
//! A pair is one word for the scheme and one for the transport. [`Carrier`](super::carrier::Carrier) has a line for each transport,
//! [`Member`](super::member::Member) one for each scheme; here is what the two together mean for the story.

use super::catalog::Catalog;
use kvrep_core::detector::ticks::TickConfig;
use kvrep_core::node::Node;
use kvrep_core::{Authority, ReplicaId};

/// The group's name.
pub const GROUP: &str = "kvrep-demo";
/// The name of the passive group whose log is the order of an active one.
pub const LOG: &str = "kvrep-demo/log";

/// Who replicates how.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Scheme {
    /// One primary orders, and ships its log to the others
    Passive,
    /// All carry out one ordered stream, and each answers its share
    Active,
}

/// Over what.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Over {
    /// TCP
    Tcp,
    /// An MQTT broker, which the demo starts itself
    Mqtt,
    /// UDP multicast, over the loopback interface
    Multicast,
}

/// How the primary is taken away.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Fault {
    /// SIGKILL
    Kill,
    /// Drop all its packets for a while
    Cut,
}

/// Who orders the writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// The group's own primary.
    Primary,
    /// The primary of a passive group beside it.
    Log,
    /// The broker.
    Broker,
}

/// A scheme over a transport.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pair {
    /// Who replicates how.
    pub scheme: Scheme,
    /// Over what.
    pub over: Over,
    /// Who decides who may be primary; `None` where there is no primary.
    pub authority: Option<Authority>,
}

/// What the story calls what it shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Words {
    /// What becomes of those that stand in for the one that was taken away.
    pub mark: &'static str,
    /// What the time of a takeover is.
    pub takeover: &'static str,
    /// What is checked about all of them.
    pub survived: &'static str,
    /// Until when one that was restarted counts as away.
    pub caught_up: &'static str,
    /// What this pair does not promise, by its design.
    pub not_promised: Option<&'static str>,
}

impl Pair {
    /// This pair, with the [`authority`](Self::authority) that it has when none is named.
    ///
    /// # Errors
    /// Why this does not work, and what to choose instead.
    pub fn new(scheme: Scheme, over: Over, authority: Option<Authority>) -> Result<Self, String> {
        let mut pair = Self {
            scheme,
            over,
            authority: None,
        };
        if pair.order() != Order::Broker {
            pair.authority = Some(authority.unwrap_or(Authority::Witness));
        } else if authority.is_some() {
            return Err(
                "--authority says who decides on the primary, and the active scheme over MQTT has none: the broker orders. Leave it out, or choose \
                 --transport tcp or multicast, where a log with a primary orders"
                    .into(),
            );
        }
        Ok(pair)
    }

    /// Whether this fault can be shown.
    ///
    /// # Errors
    /// Why not, and what to choose instead.
    pub fn bears(&self, fault: Fault) -> Result<(), String> {
        if fault == Fault::Kill {
            return Ok(());
        }
        if self.over != Over::Tcp {
            return Err(
                "--fault cut drops packets by address, and only over TCP has each replica one of its own; use --transport tcp or --fault kill"
                    .into(),
            );
        }
        if self.scheme == Scheme::Active {
            return Err(
                "--fault cut drops packets by address, and in the active scheme a replica also speaks as a client of the log, from another address: it would \
                 only be deaf; use --scheme passive or --fault kill"
                    .into(),
            );
        }
        if self.authority == Some(Authority::Alone) {
            return Err(
                "without a witness two primaries are possible while packets are dropped, and the demo's checks would rightly fail; use --authority witness"
                    .into(),
            );
        }
        Ok(())
    }

    /// Who orders the writes.
    #[must_use]
    pub fn order(&self) -> Order {
        match (self.scheme, self.over) {
            (Scheme::Passive, _) => Order::Primary,
            (Scheme::Active, Over::Mqtt) => Order::Broker,
            (Scheme::Active, Over::Tcp | Over::Multicast) => Order::Log,
        }
    }

    /// The passive group with a primary: the group itself, or the one beside it.
    #[must_use]
    pub fn ordering_group(&self) -> Option<&'static str> {
        match self.order() {
            Order::Primary => Some(GROUP),
            Order::Log => Some(LOG),
            Order::Broker => None,
        }
    }

    /// Who has a process.
    #[must_use]
    pub fn members(&self, replicas: u32) -> Vec<ReplicaId> {
        let mut members: Vec<ReplicaId> = (1..=replicas).map(ReplicaId).collect();
        if self.authority == Some(Authority::Witness) {
            members.push(ReplicaId::WITNESS);
        }
        members
    }

    /// What a process is told of it, on its command line.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            "--scheme".to_owned(),
            word(self.scheme),
            "--transport".to_owned(),
            word(self.over),
        ];
        if let Some(authority) = self.authority_word() {
            arguments.extend(["--authority".to_owned(), authority.to_owned()]);
        }
        arguments
    }

    /// The word on the command line.
    #[must_use]
    pub fn authority_word(&self) -> Option<&'static str> {
        self.authority.map(|authority| match authority {
            Authority::Alone => "alone",
            _ => "witness",
        })
    }

    /// For people, in a line.
    #[must_use]
    pub fn described(&self) -> String {
        let pair = format!("{} over {}", word(self.scheme), word(self.over));
        let authority = self.authority_word().unwrap_or("none");
        match self.order() {
            Order::Primary => format!("{pair}, authority: {authority}"),
            Order::Log => {
                format!("{pair}, ordered by the log of a passive group, its authority: {authority}")
            }
            Order::Broker => format!("{pair}, ordered by the broker"),
        }
    }

    /// What the story calls what it shows.
    #[must_use]
    pub fn words(&self) -> Words {
        match self.scheme {
            Scheme::Passive => Words {
                mark: "primary",
                takeover: "from the loss of the primary to the next acknowledged write",
                survived: "another replica took over each time",
                caught_up: "from restart to in sync",
                not_promised: None,
            },
            Scheme::Active => Words {
                mark: "cover",
                takeover: "from the loss of the replica until everybody who waited then was answered",
                survived: "the others covered for it each time",
                caught_up: "from restart to serving",
                not_promised: Some(
                    "that a state outlives all replicas at once: the active scheme keeps it in memory, and takes it from those that live",
                ),
            },
        }
    }
}

/// Why the demo does not run the lowest-id scheme, in the library's own words: a node of this state machine does not start with it.
pub async fn lowest_refused() -> String {
    let node = Node::builder(GROUP, ReplicaId(1))
        .lowest_id(TickConfig::default())
        .state_machine(Catalog::default());
    let why = match node.start().await {
        Ok(_) => "a catalog is nothing without its records".into(),
        Err(error) => error.to_string(),
    };
    format!(
        "--scheme lowest does not go with the demo's catalog, which is written to: {why}. Use --scheme passive or active"
    )
}

/// Why the demo does not run over the transport in memory.
pub const MEMORY_REFUSED: &str = "--transport memory connects nodes of one process, and the demo runs every replica as a process that it can kill; use \
     --transport tcp, mqtt or multicast";

/// The word on the command line.
#[must_use]
pub fn word(value: impl clap::ValueEnum) -> String {
    value
        .to_possible_value()
        .map(|word| word.get_name().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pair_says_who_orders_and_who_decides() {
        let described = |scheme, over| Pair::new(scheme, over, None).map(|pair| pair.described());
        let cases = [
            (
                (Scheme::Passive, Over::Multicast),
                "passive over multicast, authority: witness",
            ),
            (
                (Scheme::Active, Over::Tcp),
                "active over tcp, ordered by the log of a passive group, its authority: witness",
            ),
            (
                (Scheme::Active, Over::Mqtt),
                "active over mqtt, ordered by the broker",
            ),
        ];
        for ((scheme, over), words) in cases {
            assert_eq!(described(scheme, over).as_deref(), Ok(words));
        }
    }

    #[test]
    fn only_where_somebody_decides_is_there_a_witness() {
        let members = |over| {
            let pair = Pair::new(Scheme::Active, over, None);
            pair.map(|pair| pair.members(2))
        };
        let [one, two] = [ReplicaId(1), ReplicaId(2)];
        assert_eq!(members(Over::Mqtt), Ok(vec![one, two]));
        let decided = Ok(vec![one, two, ReplicaId::WITNESS]);
        assert_eq!(members(Over::Tcp), decided);
    }
}
