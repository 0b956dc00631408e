//! The monitor: hears who lives, and tells the servers who does not.
//!
//! What it knows is in its [timers](super::timers), what it does about a dead one in its [reporting](super::reporting); [`run`] is the program around them.
//!
//! Times in which this monitor could not hear (no connection, or it did not run itself) count against nobody: all timers begin anew. Nor does
//! anybody count as dead while it has a connection and hears nothing through it: its [ears](super::ears).

use super::connection::{Attempts, Ended, Once, is_final, trouble, without_retry};
use super::dialect::beside::{Sign, read_heartbeat};
use super::ears::Ears;
use super::reporting::{Others, Reporting};
use super::timers::{News, Standing, Timers};
use super::topics::Topics;
use crate::common::operator::asked_to_end;
use kvrep_core::Timestamp;
use kvrep_transport_mqtt::MqttConfig;
use kvrep_transport_mqtt::ordered::{Deliveries, Event, OrderedTopic, Publisher};
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::{Instant, sleep_until};

/// A0.16: from when on a server that was never heard is late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum CountFrom {
    /// From the monitor's start on.
    #[value(help = "desde o início do monitor")]
    #[default]
    Inicio,
    /// Only from its first sign of life on.
    #[value(help = "só desde o seu primeiro sinal de vida")]
    PrimeiroSinal,
}

/// What the monitor is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The connection.
    pub config: MqttConfig,
    /// How often the broker is tried at the start.
    pub attempts: Attempts,
    /// The group's topics.
    pub topics: Topics,
    /// How many servers there are.
    pub servers: u32,
    /// After how long a silent one is dead.
    pub timeout: Duration,
    /// After how long one that was never heard is, as long as nobody serves.
    pub grace: Duration,
    /// From when on.
    pub count_from: CountFrom,
    /// A0.10: what is run when a server is dead, by the shell, with its id for `{id}` and in `IDSERV`.
    pub relaunch: Option<String>,
}

/// Watches until it is asked to end.
///
/// # Errors
/// Why it could not start, in words for its operator.
pub async fn run(settings: Settings, mut tell: impl FnMut(&str)) -> Result<(), Ended> {
    let mut asked = std::pin::pin!(asked_to_end().map_err(|error| error.to_string())?);
    let (publisher, mut deliveries) = connect(&settings)?;
    let mut timers = Timers::new(&settings, Instant::now(), wall());
    let me = RandomState::new().hash_one(std::process::id());
    let mut ears = Ears::new(me, settings.timeout, Instant::now());
    let (mut reporting, mut ends) = Reporting::new(&settings, publisher);
    let (mut connected, mut ever) = (false, false);
    let (mut troubles, mut hasty) = (Once::default(), Once::default());
    let mut ignored = Ignored::default();
    let mut awake = Instant::now();
    loop {
        let now = Instant::now();
        if now - awake > settings.timeout / 2 {
            tell("este monitor esteve parado: os temporizadores recomeçam");
            timers.afresh(now);
            ears.afresh(now);
        }
        awake = now;
        if let Some(what) = ignored.sentence(now) {
            tell(&what);
        }
        if connected {
            if ears.hears(now) {
                for failure in timers.late(now) {
                    let others = if timers.somebody_lives(now) {
                        Others::SomeLive
                    } else {
                        Others::AllSilent
                    };
                    reporting.report(failure, others, &mut tell);
                }
                reporting.make_up(now, &timers, &mut tell);
            }
            if let Some(word) = ears.say(now) {
                reporting.ask(word);
            }
            if ears.is_deaf(now) {
                tell("este monitor está conectado e não ouve nem a si mesmo: conecta-se de novo");
                connected = false;
                let publisher;
                (publisher, deliveries) = connect(&settings)?;
                reporting.over(publisher);
            }
        }
        // Looks at the clock often enough to notice that it was stopped.
        let at_latest = now + settings.timeout / 4;
        let next = timers.next().filter(|_| connected && ears.hears(now));
        let alarm = sleep_until(next.map_or(at_latest, |next| next.min(at_latest)));
        let event = tokio::select! {
            biased;
            () = &mut asked => break,
            event = deliveries.next() => event,
            Some(end) = ends.recv() => {
                tell(&end);
                continue;
            }
            () = alarm => continue,
        };
        let Some(event) = event else {
            return Err(Ended::Otherwise("a conexão com o broker terminou".into()));
        };
        if let Some(why) = trouble(&settings.config.broker, &event) {
            if !ever && is_final(settings.attempts, &event) {
                return Err(Ended::NoBroker(without_retry(&why)));
            }
            if troubles.is_news(&why) {
                tell(&why);
            }
        }
        match event {
            Event::Connected { .. } => {
                tell(&format!("conectado ao broker {}", settings.config.broker));
                troubles.well();
                (connected, ever) = (true, true);
                timers.afresh(Instant::now());
                ears.afresh(Instant::now());
            }
            Event::Disconnected { .. } => connected = false,
            Event::Acknowledged(id) => reporting.acknowledged(id),
            Event::Abandoned(id) => reporting.abandoned(id),
            Event::Delivered {
                payload,
                ack,
                retained,
                ..
            } => {
                ack.acknowledge();
                if retained || ears.take_echo(&payload) {
                    continue;
                }
                ears.heard(Instant::now());
                let (server, said) = match read_heartbeat(&payload) {
                    Ok(Sign::Ours {
                        heartbeat, period, ..
                    }) => {
                        if let Some(why) = too_hasty(settings.timeout, period)
                            && hasty.is_news(&why)
                        {
                            tell(&why);
                        }
                        let standing = if heartbeat.serving {
                            Standing::Serves
                        } else {
                            Standing::Waits
                        };
                        (heartbeat.replica.0, (Some(heartbeat.life), standing))
                    }
                    Ok(Sign::Alive { server, life }) => (server, (life, Standing::Serves)),
                    Err(why) => {
                        ignored.note(why);
                        continue;
                    }
                };
                match timers.heard(Instant::now(), wall(), server, said) {
                    News::Alive | News::Late => {}
                    News::Returned => tell(&format!("servidor {server} está vivo")),
                    News::OutOfRange => ignored.note(format!(
                        "um sinal de vida do servidor {server}: os servidores são 0 a {}",
                        settings.servers - 1
                    )),
                }
            }
            _ => {}
        }
    }
    deliveries.close().await;
    Ok(())
}

fn connect(settings: &Settings) -> Result<(Publisher, Deliveries), Ended> {
    let opened = OrderedTopic::new(settings.config.clone())
        .subscribe(&settings.topics.monitor)
        .open();
    Ok(opened.map_err(|error| error.to_string())?)
}

/// What came and is no sign of life of a server: how often since it was told last, and why the last one was none.
#[derive(Debug, Default)]
struct Ignored {
    times: u64,
    why: String,
    told: Option<Instant>,
}

impl Ignored {
    fn note(&mut self, why: String) {
        self.times += 1;
        self.why = why;
    }

    /// What there is to tell, now and then.
    fn sentence(&mut self, now: Instant) -> Option<String> {
        let lately = self.told.is_some_and(|told| now - told < TOLD_EVERY);
        if self.times == 0 || lately {
            return None;
        }
        self.told = Some(now);
        let times = std::mem::take(&mut self.times);
        let why = &self.why;
        Some(match times {
            1 => format!("uma mensagem foi ignorada: {why}"),
            times => format!("{times} mensagens foram ignoradas; a última: {why}"),
        })
    }
}

/// As the servers do.
const TOLD_EVERY: Duration = Duration::from_secs(5);

/// A0.16: what is wrong with a timer that is shorter than the servers' signs of life are apart, if it is.
fn too_hasty(timeout: Duration, period: Option<Duration>) -> Option<String> {
    let period = period.filter(|period| timeout < 3 * *period)?;
    Some(format!(
        "o --timeout deste monitor ({} ms) é menor do que três vezes o --periodo dos servidores ({} ms): servidores vivos serão dados como mortos; inicie o monitor com o --timeout que os servidores têm",
        timeout.as_millis(),
        period.as_millis()
    ))
}

#[allow(
    clippy::disallowed_methods,
    reason = "the date that the text wants in vistoem"
)]
fn wall() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r0_17_garbage_is_told_now_and_then_with_a_count() {
        let mut ignored = Ignored::default();
        let start = Instant::now();
        assert_eq!(ignored.sentence(start), None);
        let mut said = Vec::new();
        for n in 0..2_000 {
            ignored.note(format!("lixo {n}"));
            said.extend(ignored.sentence(start + n * Duration::from_millis(10)));
        }
        assert_eq!(said.len(), 4, "{said:?}");
        assert!(
            said[0].ends_with("lixo 0") && said[3].contains("lixo 1500"),
            "{said:?}"
        );
        assert!(said[1].starts_with("500 "), "{said:?}");
    }

    #[test]
    fn a_timer_that_is_shorter_than_the_servers_signs_are_apart_is_said_to_be() {
        let period = Duration::from_millis(200);
        assert_eq!(too_hasty(3 * period, Some(period)), None);
        assert_eq!(too_hasty(period, None), None);
        let said = too_hasty(2 * period, Some(period)).expect("it is too short");
        assert!(
            said.contains("(400 ms)") && said.contains("(200 ms)"),
            "{said}"
        );
    }
}
