//! What the library says of a broker, in the language of the text: by its types, so that nothing is taken for something else when a sentence changes.
//!
//! What a broker or the system says by itself (a code, the text of an error) stays in its own words.

use kvrep_transport_mqtt::ordered::{Limit, Loss, Objection, PublishError, Refusal, Rejection};
use kvrep_transport_mqtt::stream::Trouble;

/// What is wrong between a server and its broker.
#[must_use]
pub fn trouble(trouble: &Trouble) -> String {
    match trouble {
        Trouble::Lost(loss) => lost(loss),
        Trouble::Refused(rejection) => refused_by("ele", rejection),
        Trouble::Limit(limit) => limited(limit),
        Trouble::SmallPackets { topic, bytes_max } => format!(
            "{topic}: ele aceita ali no máximo {bytes_max} bytes, e isso não basta: nenhum estado chega a um servidor novo, ou nenhum sinal de vida aos outros; aumente o limite do broker para pacotes (mosquitto: max_packet_size)"
        ),
        Trouble::GivenUp { topic, why } => format!("{topic}: {}", unpublished(why)),
        Trouble::ConnectsAnew => {
            "o que este servidor publica não volta para ele: conecta-se de novo".into()
        }
        Trouble::CannotConnectAnew(why) => format!("não é possível conectar-se de novo: {why}"),
        unknown => unknown.to_string(),
    }
}

/// Why there is no connection.
#[must_use]
pub fn lost(loss: &Loss) -> String {
    match loss {
        Loss::NobodyListens(at) => {
            format!("ninguém escuta em {at}: inicie o broker, ou dê o seu endereço (--broker)")
        }
        Loss::Closed(at) => format!("{at} fechou a conexão"),
        Loss::ClosedAtOnce(at) => format!(
            "{at} fechou a conexão (alguns brokers o fazem sem uma palavra se usuário ou senha estão errados)"
        ),
        Loss::Unanswered(at) => {
            format!("{at} não respondeu a tempo: é um broker, e este é o seu endereço?")
        }
        Loss::SubscriptionsUnanswered(at) => format!("{at} não respondeu a tempo às assinaturas"),
        Loss::NoBroker(at) => format!("{at} não responde como um broker"),
        Loss::Silent(at) => format!("{at} não dá sinal de vida"),
        Loss::RefusedForNow { code, .. } => format!("ele recusa a conexão por enquanto ({code})"),
        Loss::Refused(rejection) => refused_by("ele", rejection),
        Loss::Ended(code) => format!("ele terminou a conexão ({code})"),
        Loss::NameTaken(_) => {
            "outro processo conectou-se com o mesmo nome de cliente: dê a cada um o seu".into()
        }
        Loss::EarlierSession(_) => {
            "ele tem uma sessão de um processo anterior com o mesmo nome; uma nova é iniciada"
                .into()
        }
        Loss::Unreadable { why, .. } => format!("ele enviou o que não se pode ler ({why})"),
        Loss::TooLarge(at) => format!("{at} recusa uma publicação que é grande demais para ele"),
        Loss::TooMuchUnderWay(_) => {
            "ele enviou mais mensagens de uma vez do que MQTT permite".into()
        }
        Loss::Otherwise { why, .. } => format!("erro do sistema: {why}"),
        unknown => unknown.to_string(),
    }
}

/// What `broker` refuses.
#[must_use]
pub fn refused_by(broker: &str, rejection: &Rejection) -> String {
    match rejection {
        Rejection::Connection { refusal, code } => {
            let remedy = match refusal {
                Refusal::Credentials => {
                    "confira o usuário (--usuario) e a senha (variável de ambiente MQTT_SENHA)"
                }
                Refusal::Protocol => "ele tem de falar MQTT 5",
                Refusal::ClientId => "ele não aceita o nome deste cliente",
                Refusal::SmallPackets => {
                    "aumente o seu limite para pacotes (mosquitto: max_packet_size)"
                }
                Refusal::NothingRetained => "ele tem de guardar mensagens retidas",
                _ => "veja o seu registro",
            };
            format!("{broker} recusa a conexão: {remedy}; ele diz {code}")
        }
        Rejection::Subscription { topic, why } => {
            format!("{broker} recusa a assinatura de {topic}: {why}")
        }
        Rejection::Publication {
            topic, bytes, why, ..
        } => format!(
            "uma publicação de {bytes} bytes em {topic} foi abandonada: {}",
            objection(broker, why)
        ),
        unknown => unknown.to_string(),
    }
}

/// Why a publication is given up.
#[must_use]
pub fn objection(broker: &str, why: &Objection) -> String {
    match why {
        Objection::Said(code) => {
            format!("{broker} a recusa ({code}): confira o que este usuário pode escrever")
        }
        Objection::TooLarge { bytes_max } => {
            format!("{broker} aceita ali no máximo {bytes_max} bytes")
        }
        Objection::FoundTooLarge { bytes_max } => format!(
            "ela é maior do que {broker} aceita; de agora em diante ele recebe no máximo {bytes_max} bytes de uma vez; aumente o limite dele para mensagens (mosquitto: message_size_limit)"
        ),
        Objection::EndsConnections { breaks, why } => format!(
            "com ela, a conexão terminou {breaks} vezes seguidas ({})",
            lost(why)
        ),
        unknown => unknown.to_string(),
    }
}

/// Why something cannot be published.
#[must_use]
pub fn unpublished(why: &PublishError) -> String {
    match why {
        PublishError::Full => "a fila está cheia: tente de novo".into(),
        PublishError::TooLarge { bytes, bytes_max } => {
            format!("{bytes} bytes; o limite é de {bytes_max}")
        }
        PublishError::Topic => "não é um tópico em que se possa publicar".into(),
        PublishError::Closed => "a conexão foi encerrada".into(),
        unknown => unknown.to_string(),
    }
}

fn limited(limit: &Limit) -> String {
    match limit {
        Limit::AtMostOnce => {
            "ele só aceita mensagens de QoS 0: o que se publica pode perder-se; use outro broker"
                .into()
        }
        Limit::NothingRetained => "ele não guarda mensagens retidas".into(),
        Limit::SmallPackets {
            packet_bytes_max,
            payload_bytes_max,
        } => format!(
            "ele aceita pacotes de até {packet_bytes_max} bytes, e um pedido pode ter aqui {payload_bytes_max}: maiores são recusados (mosquitto: max_packet_size)"
        ),
        Limit::FewInFlight(packets) => format!(
            "ele aceita só {packets} publicações não confirmadas de uma vez, o que limita a vazão; aumente o limite (mosquitto: max_inflight_messages), e o do que guarda para receptores lentos (max_queued_messages)"
        ),
        unknown => unknown.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvrep_transport_mqtt::ordered::PublicationId;

    #[test]
    fn nothing_that_the_library_says_of_a_broker_stays_in_its_language() {
        let at = || "b:1".to_owned();
        let losses = [
            Loss::NobodyListens(at()),
            Loss::Closed(at()),
            Loss::ClosedAtOnce(at()),
            Loss::Unanswered(at()),
            Loss::SubscriptionsUnanswered(at()),
            Loss::NoBroker(at()),
            Loss::Silent(at()),
            Loss::RefusedForNow {
                broker: at(),
                code: "ServerBusy".into(),
            },
            Loss::Refused(Rejection::Connection {
                refusal: Refusal::Protocol,
                code: "UnsupportedProtocolVersion".into(),
            }),
            Loss::Ended("ServerShuttingDown".into()),
            Loss::NameTaken(at()),
            Loss::EarlierSession(at()),
            Loss::TooLarge(at()),
            Loss::TooMuchUnderWay(at()),
        ];
        let objections = [
            Objection::Said("NotAuthorized".into()),
            Objection::TooLarge { bytes_max: 1 },
            Objection::FoundTooLarge { bytes_max: 1 },
            Objection::EndsConnections {
                breaks: 5,
                why: Box::new(Loss::Closed(at())),
            },
        ];
        let objections = objections.map(|why| {
            Trouble::Refused(Rejection::Publication {
                id: PublicationId(1),
                topic: "t".into(),
                bytes: 2,
                why,
            })
        });
        let limits = [
            Limit::AtMostOnce,
            Limit::NothingRetained,
            Limit::SmallPackets {
                packet_bytes_max: 1,
                payload_bytes_max: 2,
            },
            Limit::FewInFlight(20),
        ];
        let others = [
            Trouble::SmallPackets {
                topic: "t".into(),
                bytes_max: 1,
            },
            Trouble::GivenUp {
                topic: "t".into(),
                why: PublishError::Topic,
            },
            Trouble::ConnectsAnew,
        ];
        let all = (losses.map(Trouble::Lost).into_iter())
            .chain(limits.map(Trouble::Limit))
            .chain(objections)
            .chain(others);
        for one in all {
            let (ours, theirs) = (trouble(&one), one.to_string());
            assert_ne!(ours, theirs);
            for english in [" the ", "broker is", "connection", "takes"] {
                assert!(!ours.contains(english), "{ours}");
            }
        }
    }
}
