//! What a broker says of itself: its limits, and why it refuses.

use super::event::{Refusal, Rejection};
use super::suspects::Blame;
use super::trouble::{Limit, Loss};
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
    pub fn warnings(&self, payload_bytes_max: usize) -> Vec<Limit> {
        let mut warnings = self.losses(payload_bytes_max);
        warnings.extend(self.slowness());
        warnings
    }

    /// That it takes few publications at a time, which matters to who has many.
    pub(crate) fn slowness(&self) -> Option<Limit> {
        let few = self.unacknowledged_max < FEW_IN_FLIGHT;
        few.then_some(Limit::FewInFlight(self.unacknowledged_max))
    }

    /// What may lose or refuse something.
    pub(crate) fn losses(&self, payload_bytes_max: usize) -> Vec<Limit> {
        let small = Limit::SmallPackets {
            packet_bytes_max: self.packet_bytes_max,
            payload_bytes_max,
        };
        let is_small = self.packet_bytes_max < payload_bytes_max.saturating_add(1024);
        [
            (!self.at_least_once).then_some(Limit::AtMostOnce),
            (!self.retains).then_some(Limit::NothingRetained),
            is_small.then_some(small),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Why a connection ended or was not made.
pub(super) enum Ended {
    /// Told to whoever reads the events; tried again.
    Lost(Loss),
    /// The broker says no; trying again soon is of no use.
    Refused(Rejection),
    /// Another process took this one's place at the broker; to take it back at once would begin a quarrel.
    Displaced(Loss),
    /// It cannot go on from the session: what comes next would end the connection again.
    Poisoned(Loss),
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
    let at = || broker.to_owned();
    match error {
        ConnectionError::ConnectionRefused(code)
        | ConnectionError::MqttState(StateError::ConnFail { reason: code }) => {
            let said = format!("{code:?}");
            if is_passing(*code) {
                Ended::Lost(Loss::RefusedForNow {
                    broker: at(),
                    code: said,
                })
            } else {
                Ended::Refused(Rejection::Connection {
                    refusal: refusal(*code),
                    code: said,
                })
            }
        }
        ConnectionError::Io(error) => Ended::Lost(io(error, broker, reached)),
        ConnectionError::MqttState(
            StateError::Io(error) | StateError::Deserialization(mqttbytes::Error::Io(error)),
        ) => Ended::Lost(io(error, broker, reached)),
        ConnectionError::Timeout(_) => Ended::Lost(Loss::Unanswered(at())),
        ConnectionError::NotConnAck(_) => Ended::Lost(Loss::NoBroker(at())),
        ConnectionError::MqttState(StateError::ServerDisconnect {
            reason_code: DisconnectReasonCode::SessionTakenOver,
            ..
        }) => Ended::Displaced(Loss::NameTaken(at())),
        ConnectionError::MqttState(StateError::ServerDisconnect {
            reason_code,
            reason_string,
        }) => {
            let words = reason_string.as_deref();
            let words = words.map_or_else(String::new, |words| format!(" ({words})"));
            Ended::Lost(Loss::Ended(format!("{reason_code:?}{words}")))
        }
        ConnectionError::MqttState(StateError::ConnectionAborted) => {
            Ended::Lost(io(&ErrorKind::ConnectionAborted.into(), broker, reached))
        }
        ConnectionError::MqttState(StateError::AwaitPingResp) => Ended::Lost(Loss::Silent(at())),
        error if blame(error) == Blame::TooLarge && reached == Reached::Up => {
            Ended::Poisoned(Loss::TooLarge(at()))
        }
        ConnectionError::MqttState(
            error @ (StateError::IncomingPacketTooLarge { .. } | StateError::Deserialization(_)),
        ) => Ended::Poisoned(Loss::Unreadable {
            broker: at(),
            why: error.to_string(),
        }),
        ConnectionError::SessionStateMismatch { .. } => Ended::Poisoned(Loss::EarlierSession(at())),
        error => Ended::Lost(Loss::Otherwise {
            broker: at(),
            why: error.to_string(),
        }),
    }
}

/// What this end of a connection says about the publications that were under way.
pub(super) fn blame(error: &ConnectionError) -> Blame {
    let ConnectionError::MqttState(error) = error else {
        return match error {
            ConnectionError::Io(_) => Blame::Unsaid,
            _ => Blame::Else,
        };
    };
    match error {
        // An acknowledgement with a code that the library does not know.
        StateError::Deserialization(mqttbytes::Error::InvalidConnectReturnCode(
            PACKET_TOO_LARGE,
        ))
        | StateError::ServerDisconnect {
            reason_code: DisconnectReasonCode::PacketTooLarge,
            ..
        } => Blame::TooLarge,
        StateError::Deserialization(mqttbytes::Error::InvalidConnectReturnCode(_))
        | StateError::ServerDisconnect {
            reason_code:
                DisconnectReasonCode::MalformedPacket
                | DisconnectReasonCode::ProtocolError
                | DisconnectReasonCode::TopicNameInvalid
                | DisconnectReasonCode::PayloadFormatInvalid
                | DisconnectReasonCode::RetainNotSupported
                | DisconnectReasonCode::QoSNotSupported,
            ..
        } => Blame::Content,
        // Many brokers end a connection without a word, or with one that may mean anything.
        StateError::Io(_)
        | StateError::ConnectionAborted
        | StateError::Deserialization(mqttbytes::Error::Io(_))
        | StateError::ServerDisconnect {
            reason_code:
                DisconnectReasonCode::UnspecifiedError
                | DisconnectReasonCode::ImplementationSpecificError
                | DisconnectReasonCode::NotAuthorized,
            ..
        } => Blame::Unsaid,
        _ => Blame::Else,
    }
}

fn io(error: &std::io::Error, broker: &str, reached: Reached) -> Loss {
    let broker = broker.to_owned();
    match error.kind() {
        ErrorKind::ConnectionRefused => Loss::NobodyListens(broker),
        ErrorKind::ConnectionAborted | ErrorKind::UnexpectedEof if reached == Reached::Up => {
            Loss::Closed(broker)
        }
        ErrorKind::ConnectionAborted | ErrorKind::UnexpectedEof => Loss::ClosedAtOnce(broker),
        _ => Loss::Otherwise {
            broker,
            why: error.to_string(),
        },
    }
}

fn refusal(code: ConnectReturnCode) -> Refusal {
    match code {
        ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => {
            Refusal::Credentials
        }
        ConnectReturnCode::RefusedProtocolVersion
        | ConnectReturnCode::UnsupportedProtocolVersion => Refusal::Protocol,
        ConnectReturnCode::BadClientId | ConnectReturnCode::ClientIdentifierNotValid => {
            Refusal::ClientId
        }
        ConnectReturnCode::PacketTooLarge => Refusal::SmallPackets,
        ConnectReturnCode::RetainNotSupported => Refusal::NothingRetained,
        _ => Refusal::Otherwise,
    }
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

/// The code for it in acknowledgements [MQTT 5, 2.4], which mosquitto uses there.
const PACKET_TOO_LARGE: u8 = 0x95;
const MQTT_PACKET_BYTES_MAX: usize = 268_435_455;
/// Header, length, packet id, lengths of topic and properties; the properties that we send.
const PACKET_OVERHEAD_BYTES: usize = 1 + 4 + 2 + 2 + 4 + 3 + crate::names::TOPIC_BYTES_MAX;
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
        let said = mean.warnings(4 << 20);
        let said: Vec<_> = said.iter().map(ToString::to_string).collect();
        let said = said.join("\n");
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
