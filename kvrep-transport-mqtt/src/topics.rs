//! The names of a group's topics.

use crate::config::MqttConfig;
use crate::names::check_topic;
use kvrep_core::{GroupId, ReplicaId};
use std::sync::Arc;

/// ```text
/// PREFIX/to/2/r    frames for replica 2
/// PREFIX/to/2/c    requests for replica 2
/// PREFIX/a/NAME    replies to the client NAME
/// PREFIX/all/s     the ordered stream of the active scheme
/// PREFIX/all/h     its members' heartbeats
/// PREFIX/j/2       what member 2 is told while it joins
/// PREFIX/life/2    what replica 2, or its last will, says of its life; retained
/// ```
/// What one reads side by side under load it subscribes to with one pattern: a broker then keeps one queue for all of it. With a subscription
/// for each topic, the embedded broker hands out nothing of the others while more waits on one of them than it sends ahead.
#[derive(Clone, Debug)]
pub(crate) struct Topics {
    prefix: String,
}

impl Topics {
    pub(crate) fn new(config: &MqttConfig, group: GroupId) -> Self {
        let prefix = config.prefix.clone();
        Self {
            prefix: prefix.unwrap_or_else(|| format!("kvrep/{:016x}", group.0)),
        }
    }

    pub(crate) fn frames(&self, replica: ReplicaId) -> Arc<str> {
        format!("{}/to/{}/r", self.prefix, replica.0).into()
    }

    pub(crate) fn requests(&self, replica: ReplicaId) -> Arc<str> {
        format!("{}/to/{}/c", self.prefix, replica.0).into()
    }

    /// All that is meant for this replica alone.
    pub(crate) fn for_replica(&self, replica: ReplicaId) -> String {
        format!("{}/to/{}/+", self.prefix, replica.0)
    }

    pub(crate) fn replies(&self, client: &str) -> Arc<str> {
        format!("{}/a/{client}", self.prefix).into()
    }

    pub(crate) fn stream(&self) -> Arc<str> {
        format!("{}/all/s", self.prefix).into()
    }

    pub(crate) fn heartbeats(&self) -> Arc<str> {
        format!("{}/all/h", self.prefix).into()
    }

    /// The stream and the heartbeats.
    pub(crate) fn for_all(&self) -> String {
        format!("{}/all/+", self.prefix)
    }

    pub(crate) fn joining(&self, replica: ReplicaId) -> Arc<str> {
        format!("{}/j/{}", self.prefix, replica.0).into()
    }

    pub(crate) fn life(&self, replica: ReplicaId) -> Arc<str> {
        format!("{}/life/{}", self.prefix, replica.0).into()
    }

    pub(crate) fn every_life(&self) -> String {
        format!("{}/life/+", self.prefix)
    }

    /// Whose life this topic is about.
    pub(crate) fn whose_life(&self, topic: &str) -> Option<ReplicaId> {
        let id = topic.strip_prefix(&self.prefix)?.strip_prefix("/life/")?;
        let replica = id.parse().ok().map(ReplicaId)?;
        // One name each: no plus sign, no leading zeros.
        (replica.0.to_string() == id).then_some(replica)
    }

    /// Whether replies may go there: to a client of this group, and nowhere where they would be taken for something else.
    pub(crate) fn takes_replies(&self, topic: &str) -> bool {
        let client = topic
            .strip_prefix(&self.prefix)
            .and_then(|rest| rest.strip_prefix("/a/"));
        client.is_some_and(|client| !client.is_empty() && !client.contains('/'))
            && check_topic(topic).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_go_to_clients_of_the_group_only_and_lives_have_one_name() {
        let topics = Topics::new(&MqttConfig::new("b:1").prefix("p"), GroupId(1));
        assert!(topics.takes_replies(&topics.replies("c1")));
        for wrong in [
            "p/to/1/r", "p/a/", "p/a/x/y", "p/a/#", "p/a/+", "p/a/x\n", "q/a/x", "", "$SYS",
        ] {
            assert!(!topics.takes_replies(wrong), "{wrong}");
        }
        let life = topics.life(ReplicaId(7));
        assert_eq!(topics.whose_life(&life), Some(ReplicaId(7)));
        for wrong in [
            "p/life/+7",
            "p/life/07",
            "p/life/",
            "p/to/7/r",
            "p/life/99999999999",
        ] {
            assert_eq!(topics.whose_life(wrong), None, "{wrong}");
        }
    }
}
