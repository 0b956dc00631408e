//! What a broker says of itself: its limits, and why it refuses.

use super::event::{Refusal, Rejection};
use rumqttc::mqttbytes;
use rumqttc::{
    ConnAck, ConnectReturnCode, ConnectionError, DisconnectReasonCode, PubAckReason, StateError,
};
use std::io::ErrorKind;

/// What a broker allows, as far as it says so. Brokers that speak MQTT 5 tell what differs from the most that MQTT allows;
/// how much they queue for a slow receiver before they drop silently, none tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct BrokerLimits {
    /// Publications of ours that it has not acknowledged, at most.
    pub unacknowledged_max: u16,
    /// Bytes of a packet, at most: payload, topic, and some ten bytes more.
    pub packet_bytes_max: usize,
    /// Whether it keeps retained messages.
    pub retains: bool,
    /// Whether it takes messages of QoS 1.
    pub at_least_once: bool,
}

impl BrokerLimits {
    pub(super) fn of(connack: &ConnAck) -> Self {
        let said = connack.properties.as_ref();
        let packet_bytes = said.and_then(|p| p.max_packet_size);
        Self {
            unacknowledged_max: said.and_then(|p| p.receive_max).unwrap_or(u16::MAX),
            packet_bytes_max: packet_bytes.map_or(MQTT_PACKET_BYTES_MAX, |max| max as usize),
            retains: said.and_then(|p| p.retain_available) != Some(0),
            at_least_once: said.and_then(|p| p.max_qos) != Some(0),
        }
    }

    /// Largest payload that goes out to this topic.
    pub(crate) fn payload_bytes_max(&self, topic: &str) -> usize {
        self.packet_bytes_max
            .saturating_sub(topic.len() + PACKET_OVERHEAD_BYTES)
    }

    /// What makes this broker slow, or a loss likely, for payloads of up to `payload_bytes_max`: sentences for an operator.
    ///
    /// ```
    /// # use kvrep_transport_mqtt::ordered::BrokerLimits;
    /// # fn check(limits: BrokerLimits) {
    /// for warning in limits.warnings(4 << 20) {
    ///     eprintln!("broker: {warning}");
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn warnings(&self, payload_bytes_max: usize) -> Vec<String> {
        let mut warnings = self.losses(payload_bytes_max);
        warnings.extend(self.slowness());
        warnings
    }

    /// That it takes few publications at a time, which matters to who has many.
    pub(crate) fn slowness(&self) -> Option<String> {
        (self.unacknowledged_max < FEW_IN_FLIGHT).then(|| format!(
            "the broker takes {} unacknowledged publications at a time, which bounds the rate to so many a round trip; raise it (mosquitto: max_inflight_messages), and with it what it queues for slow receivers before it drops silently (max_queued_messages)",
            self.unacknowledged_max
        ))
    }

    /// What may lose or refuse something.
    pub(crate) fn losses(&self, payload_bytes_max: usize) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.at_least_once {
            warnings.push(
                "the broker takes messages of QoS 0 only: whatever is published may be lost; use another broker".into(),
            );
        }
        if !self.retains {
            warnings.push(
                "the broker keeps no retained messages: who starts does not learn who is there; allow them (mosquitto: retain_available true)".into(),
            );
        }
        if self.packet_bytes_max < payload_bytes_max.saturating_add(1024) {
            warnings.push(format!(
                "the broker takes packets of up to {} bytes, payloads here may have {payload_bytes_max}: larger ones are refused; raise its limit (mosquitto: max_packet_size), or lower ours and the group's",
                self.packet_bytes_max
            ));
        }
        warnings
    }
}

/// Why a connection ended or was not made.
pub(super) enum Ended {
    /// Told to whoever reads the events; tried again.
    Lost(String),
    /// The broker says no; trying again soon is of no use.
    Refused(Rejection),
    /// Another process took this one's place at the broker; to take it back at once would begin a quarrel.
    Displaced(String),
    /// It cannot go on from the session: what comes next would end the connection again.
    Poisoned(String),
}

/// How far a connection had come when it ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reached {
    /// The broker had not taken it yet.
    Nothing,
    /// It was up.
    Up,
}

pub(super) fn why(error: &ConnectionError, broker: &str, reached: Reached) -> Ended {
    match error {
        ConnectionError::ConnectionRefused(code)
        | ConnectionError::MqttState(StateError::ConnFail { reason: code }) => {
            let (refusal, why) = refusal(*code);
            if is_passing(*code) {
                Ended::Lost(format!("{broker} refuses for now: {why}"))
            } else {
                Ended::Refused(Rejection::Connection { refusal, why })
            }
        }
        ConnectionError::Io(error) => Ended::Lost(io(error, broker, reached)),
        ConnectionError::MqttState(
            StateError::Io(error) | StateError::Deserialization(mqttbytes::Error::Io(error)),
        ) => Ended::Lost(io(error, broker, reached)),
        ConnectionError::Timeout(_) => Ended::Lost(format!(
            "{broker} did not answer in time: is it a broker, and this its address?"
        )),
        ConnectionError::NotConnAck(_) => {
            Ended::Lost(format!("{broker} does not answer as a broker does"))
        }
        ConnectionError::MqttState(StateError::ServerDisconnect {
            reason_code: DisconnectReasonCode::SessionTakenOver,
            ..
        }) => Ended::Displaced(format!(
            "another process connected to {broker} under this client id: give each its own"
        )),
        ConnectionError::MqttState(StateError::ServerDisconnect {
            reason_code,
            reason_string,
        }) => Ended::Lost(format!(
            "the broker ended the connection: {reason_code:?}{}",
            reason_string
                .as_deref()
                .map_or(String::new(), |s| format!(" ({s})"))
        )),
        ConnectionError::MqttState(StateError::ConnectionAborted) => {
            Ended::Lost(io(&ErrorKind::ConnectionAborted.into(), broker, reached))
        }
        ConnectionError::MqttState(StateError::AwaitPingResp) => {
            Ended::Lost(format!("{broker} gives no sign of life"))
        }
        ConnectionError::MqttState(
            error @ (StateError::IncomingPacketTooLarge { .. } | StateError::Deserialization(_)),
        ) => Ended::Poisoned(format!("{broker} sent what cannot be read: {error}")),
        ConnectionError::SessionStateMismatch { .. } => Ended::Poisoned(format!(
            "{broker} has a session of an earlier process under this client id; a new one is begun"
        )),
        error => Ended::Lost(format!("{broker}: {error}")),
    }
}

fn io(error: &std::io::Error, broker: &str, reached: Reached) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => {
            format!("nobody listens at {broker}: start the broker, or give its address")
        }
        ErrorKind::ConnectionAborted | ErrorKind::UnexpectedEof if reached == Reached::Up => {
            format!("{broker} closed the connection")
        }
        ErrorKind::ConnectionAborted | ErrorKind::UnexpectedEof => format!(
            "{broker} closed the connection (some brokers do so without a word when user or password are wrong)"
        ),
        _ => format!("{broker}: {error}"),
    }
}

fn refusal(code: ConnectReturnCode) -> (Refusal, String) {
    let (refusal, remedy) = match code {
        ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => {
            (Refusal::Credentials, "check user and password")
        }
        ConnectReturnCode::RefusedProtocolVersion
        | ConnectReturnCode::UnsupportedProtocolVersion => {
            (Refusal::Protocol, "it must speak MQTT 5")
        }
        ConnectReturnCode::BadClientId | ConnectReturnCode::ClientIdentifierNotValid => {
            (Refusal::ClientId, "choose another client id")
        }
        ConnectReturnCode::PacketTooLarge => (
            Refusal::Otherwise,
            "what it is told by who connects is too large for it: raise its limit (mosquitto: max_packet_size)",
        ),
        ConnectReturnCode::RetainNotSupported => {
            (Refusal::Otherwise, "it must keep retained messages")
        }
        _ => (Refusal::Otherwise, "see its log"),
    };
    (refusal, format!("{code:?}; {remedy}"))
}

/// Whether the broker may say otherwise soon.
fn is_passing(code: ConnectReturnCode) -> bool {
    matches!(
        code,
        ConnectReturnCode::ServiceUnavailable
            | ConnectReturnCode::ServerUnavailable
            | ConnectReturnCode::ServerBusy
            | ConnectReturnCode::QuotaExceeded
            | ConnectReturnCode::ConnectionRateExceeded
    )
}

/// Whether a publication that was answered so is lost.
pub(super) fn is_refusal(reason: PubAckReason) -> bool {
    !matches!(
        reason,
        PubAckReason::Success | PubAckReason::NoMatchingSubscribers
    )
}

const MQTT_PACKET_BYTES_MAX: usize = 268_435_455;
/// Header, length, packet id, lengths of topic and properties; the properties that we send.
const PACKET_OVERHEAD_BYTES: usize = 1 + 4 + 2 + 2 + 4 + 3 + crate::config::TOPIC_BYTES_MAX;
/// Fewer publications in flight make a broker slow over any network.
const FEW_IN_FLIGHT: u16 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_limits_are_told_in_words_that_say_what_to_change() {
        let generous = BrokerLimits {
            unacknowledged_max: 1_000,
            packet_bytes_max: MQTT_PACKET_BYTES_MAX,
            retains: true,
            at_least_once: true,
        };
        assert!(generous.warnings(4 << 20).is_empty());
        let mean = BrokerLimits {
            unacknowledged_max: 20,
            packet_bytes_max: 1 << 20,
            retains: false,
            at_least_once: false,
        };
        let said = mean.warnings(4 << 20).join("\n");
        for word in [
            "max_inflight_messages",
            "max_packet_size",
            "retain_available",
            "QoS 0",
        ] {
            assert!(said.contains(word), "{word} in {said}");
        }
    }
}
