//! To the broker: which one, and what is said when it does not answer.

use super::words;
use clap::Args;
use kvrep_transport_mqtt::MqttConfig;
use kvrep_transport_mqtt::ordered::{Event, OrderedTopic, Refusal, Rejection};
use std::process::ExitCode;
use std::time::Duration;

/// Exit code where the broker refuses user or password, or could not be reached and was to be tried once.
pub const NO_BROKER: u8 = 5;

/// Exit code where another process has a server's number.
pub const NUMBER_TAKEN: u8 = 7;

/// Why a program ends that should go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// The broker refuses user or password, or was to be tried once.
    #[error("{0}")]
    NoBroker(String),
    /// Another process has this server's number.
    #[error("{0}")]
    NumberTaken(String),
    /// Anything else.
    #[error("{0}")]
    Otherwise(String),
}

impl Ended {
    /// What the program's caller is told.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::NoBroker(_) => ExitCode::from(NO_BROKER),
            Self::NumberTaken(_) => ExitCode::from(NUMBER_TAKEN),
            Self::Otherwise(_) => ExitCode::FAILURE,
        }
    }
}

impl From<String> for Ended {
    fn from(why: String) -> Self {
        Self::Otherwise(why)
    }
}

/// The options of every program that talks to a broker.
#[derive(Args, Clone, Debug)]
pub struct BrokerArgs {
    /// Onde está o broker MQTT.
    #[arg(
        long,
        global = true,
        value_name = "HOST:PORTA",
        default_value = "127.0.0.1:1883"
    )]
    pub broker: String,
    /// Nome de usuário no broker; a senha vem da variável de ambiente MQTT_SENHA.
    #[arg(long, global = true, value_name = "NOME")]
    pub usuario: Option<String>,
    /// Se o broker não pode ser alcançado, termina com o código 5 em vez de tentar de novo (como sempre faz se ele recusa usuário e senha).
    #[arg(long, global = true)]
    pub once: bool,
}

impl BrokerArgs {
    /// The settings of a connection.
    ///
    /// # Errors
    /// What to change.
    pub fn config(&self) -> Result<MqttConfig, String> {
        let mut config = MqttConfig::new(&self.broker);
        if let Some(user) = &self.usuario {
            let password = std::env::var("MQTT_SENHA").unwrap_or_default();
            config = config.login(user, password);
        }
        let wrong = |_| {
            format!(
                "o endereço do broker é {:?}: escreva HOST:PORTA, como 127.0.0.1:1883",
                self.broker
            )
        };
        config.validate().map_err(wrong)?;
        Ok(config)
    }

    /// How often it is tried.
    #[must_use]
    pub fn attempts(&self) -> Attempts {
        if self.once {
            Attempts::Once
        } else {
            Attempts::UntilThere
        }
    }
}

/// How often a broker is tried that does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempts {
    /// Once.
    Once,
    /// Until it does, with longer and longer waits.
    UntilThere,
}

/// What an operator is told of this event: nothing where all is well.
#[must_use]
pub fn trouble(broker: &str, event: &Event) -> Option<String> {
    match event {
        Event::Disconnected { why, retry_in } => {
            Some(not_reached(broker, &words::lost(why), *retry_in))
        }
        Event::Rejected(rejection) => {
            Some(words::refused_by(&format!("o broker {broker}"), rejection))
        }
        _ => None,
    }
}

/// Whether a program that has not reached its broker yet ends at this [`trouble`]: it was to try once, or would never be let in.
#[must_use]
pub fn is_final(attempts: Attempts, event: &Event) -> bool {
    let credentials = matches!(
        event,
        Event::Rejected(Rejection::Connection {
            refusal: Refusal::Credentials,
            ..
        })
    );
    // What becomes of one publication, whoever made it is told.
    let of_one = matches!(event, Event::Rejected(Rejection::Publication { .. }));
    credentials || (attempts == Attempts::Once && !of_one)
}

fn not_reached(broker: &str, why: &str, retry_in: Duration) -> String {
    format!(
        "o broker {broker} não pode ser usado: {why} (nova tentativa em {} ms)",
        retry_in.as_millis()
    )
}

/// A trouble of a program that does not try again, or that is compared with another one: waits differ.
#[must_use]
pub fn without_retry(why: &str) -> String {
    why.split(" (nova").next().unwrap_or(why).to_owned()
}

/// Says a trouble once, until all is well again.
#[derive(Debug, Default)]
pub struct Once(Option<String>);

impl Once {
    /// Whether this is to be said. When it is tried again, is left out of the comparison.
    pub fn is_news(&mut self, why: &str) -> bool {
        let why = without_retry(why);
        let news = self.0.as_ref() != Some(&why);
        self.0 = Some(why);
        news
    }

    /// All is well.
    pub fn well(&mut self) {
        self.0 = None;
    }
}

/// Waits until the broker takes a connection. `tell` is called when it does not, once for each reason.
///
/// # Errors
/// Why it does not, where it is to be tried once.
pub async fn reach(
    config: &MqttConfig,
    attempts: Attempts,
    mut tell: impl FnMut(&str),
) -> Result<(), Ended> {
    let opened = OrderedTopic::new(config.clone()).open();
    let (_publisher, mut deliveries) = opened.map_err(|error| error.to_string())?;
    let mut said = Once::default();
    while let Some(event) = deliveries.next().await {
        if matches!(event, Event::Connected { .. }) {
            deliveries.close().await;
            return Ok(());
        }
        if let Some(why) = trouble(&config.broker, &event) {
            if is_final(attempts, &event) {
                return Err(Ended::NoBroker(without_retry(&why)));
            }
            if said.is_news(&why) {
                tell(&why);
            }
        }
    }
    Err(Ended::Otherwise("a conexão com o broker terminou".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvrep_transport_mqtt::EmbeddedBroker;

    #[test]
    fn a_trouble_is_said_once_until_all_is_well() {
        let mut said = Once::default();
        assert!(said.is_news("a (nova tentativa em 20 ms)"));
        assert!(!said.is_news("a (nova tentativa em 40 ms)"));
        assert!(said.is_news("b"));
        said.well();
        assert!(said.is_news("b"));
    }

    #[tokio::test]
    async fn a_broker_that_is_not_there_is_said_to_be_and_one_that_is_is_reached() {
        let broker = EmbeddedBroker::start("127.0.0.1:0").expect("a broker");
        let there = MqttConfig::new(broker.address().to_string());
        assert_eq!(reach(&there, Attempts::Once, |_| ()).await, Ok(()));
        drop(broker);
        let why = reach(&there, Attempts::Once, |_| ())
            .await
            .expect_err("nobody is there");
        assert!(
            matches!(&why, Ended::NoBroker(why) if why.contains("não pode ser usado") && !why.contains("nova tentativa")),
            "{why}"
        );
    }
}
