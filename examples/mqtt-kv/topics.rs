//! The topics of a group, and where answers may go.

use kvrep_core::ReplicaId;
use kvrep_transport_mqtt::check_topic;

/// The topics of the text; others only where several groups share a broker, as tests do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    /// Requests, and what the servers and the monitor say to all of them: the order.
    pub requests: String,
    /// Signs of life.
    pub monitor: String,
    /// What the topic on which a server gets its state begins with; its id follows.
    pub states: String,
}

impl Default for Topics {
    fn default() -> Self {
        Self::beginning_with("inf1406")
    }
}

impl Topics {
    /// Topics whose names begin with this.
    #[must_use]
    pub fn beginning_with(prefix: &str) -> Self {
        Self {
            requests: format!("{prefix}-reqs"),
            monitor: format!("{prefix}-monitor"),
            states: format!("{prefix}-rec-"),
        }
    }

    /// Where this server gets its state.
    #[must_use]
    pub fn state_of(&self, server: ReplicaId) -> String {
        format!("{}{}", self.states, server.0)
    }

    /// Whether an answer may be published there: to a topic that can be published to, and not to one of the group's own. (An answer there
    /// could be a request again, with itself for an answer, for ever.)
    #[must_use]
    pub fn takes_answers(&self, topic: &str) -> bool {
        let own =
            topic == self.requests || topic == self.monitor || topic.starts_with(&self.states);
        !own && check_topic(topic).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_go_to_topics_that_can_be_published_to_and_never_into_the_groups_own() {
        let topics = Topics::default();
        for sound in [
            "resp-c1",
            "a/b",
            "/",
            "inf1406-respostas",
            "resposta da Ação",
        ] {
            assert!(topics.takes_answers(sound), "{sound}");
        }
        let (longer, deeper) = ("x".repeat(513), "a/".repeat(201));
        let own = ["inf1406-reqs", "inf1406-monitor", "inf1406-rec-0"];
        let wrong = [
            "",
            "a/#",
            "+",
            "$SYS/x",
            "a\0b",
            "resp-\n",
            "r\u{1}",
            "r\u{7f}",
            "r\u{80}",
            "r\u{fdd0}",
            "r\u{ffff}",
            &longer,
            &deeper,
        ];
        for wrong in own.into_iter().chain(wrong) {
            assert!(!topics.takes_answers(wrong), "{wrong}");
        }
    }
}
