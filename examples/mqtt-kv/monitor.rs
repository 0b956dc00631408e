//! The monitor: hears who lives, and tells the servers who does not.
//!
//! [`Timers`] is what it knows, without a clock or a connection; [`run`] is the program around it.
//!
//! A server that was declared dead is not watched until a later life of it is heard (a restart, or another join of the same start): one
//! `falhaserv` a failure, also while a suspected server goes on sending signs of its old life. What says nothing of lives counts as a later one.
//!
//! A server that was never heard is perhaps only about to start: it has longer, the *grace*. Once somebody serves, the group has begun without it, and it
//! has no more than the others.
//!
//! Times in which this monitor could not hear (no connection, or it did not run itself) count against nobody: all timers begin anew. Nor does
//! anybody count as dead while it has a connection and hears nothing through it: its [ears](super::ears).

use super::connection::{Attempts, Ended, Once, is_final, trouble};
use super::dialect::beside::{Sign, read_heartbeat};
use super::dialect::items;
use super::ears::Ears;
use super::topics::Topics;
use crate::common::operator::asked_to_end;
use kvrep_core::protocol::active::{Item, Life, Published};
use kvrep_core::{ReplicaId, Timestamp};
use kvrep_transport_mqtt::MqttConfig;
use kvrep_transport_mqtt::ordered::{Deliveries, Event, OrderedTopic, PublicationId, Publisher};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// A0.16: from when on a server that was never heard is late.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum CountFrom {
    /// From the monitor's start on.
    #[default]
    Inicio,
    /// Only from its first sign of life on.
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

/// A server is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which.
    pub server: ReplicaId,
    /// Which life of it, where it was heard of.
    pub life: Option<Life>,
    /// When it was heard last.
    pub seen_at: Timestamp,
}

/// Who was heard when.
#[derive(Clone, Debug)]
pub struct Timers {
    timeout: Duration,
    grace: Duration,
    /// When somebody was first heard to serve.
    served_since: Option<Instant>,
    servers: Vec<Watched>,
}

#[derive(Clone, Debug)]
struct Watched {
    /// `None`: is not waited for.
    since: Option<Instant>,
    /// When it gave a sign of life.
    heard: Option<Instant>,
    seen_at: Timestamp,
    life: Option<Life>,
    /// It was declared dead, in this life.
    reported: Option<Option<Life>>,
}

/// What a server says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It serves; so does one that says nothing of it.
    Serves,
    /// It waits for a state, or for others.
    Waits,
}

/// What a sign of life was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Nothing new.
    Alive,
    /// The first one, or the first after a failure.
    Returned,
    /// Of the life that was declared dead.
    Late,
    /// No such server.
    OutOfRange,
}

impl Timers {
    /// Nobody was heard yet.
    #[must_use]
    pub fn new(settings: &Settings, now: Instant, wall: Timestamp) -> Self {
        let since = match settings.count_from {
            CountFrom::Inicio => Some(now),
            CountFrom::PrimeiroSinal => None,
        };
        let watched = Watched {
            since,
            heard: None,
            seen_at: wall,
            life: None,
            reported: None,
        };
        Self {
            timeout: settings.timeout,
            grace: settings.grace.max(settings.timeout),
            served_since: None,
            servers: vec![watched; settings.servers as usize],
        }
    }

    /// A server was heard.
    pub fn heard(
        &mut self,
        now: Instant,
        wall: Timestamp,
        server: u32,
        (life, standing): (Option<Life>, Standing),
    ) -> News {
        let Some(watched) = self.servers.get_mut(server as usize) else {
            return News::OutOfRange;
        };
        if let (Some(known), Some(life)) = (watched.life, life)
            && life < known
        {
            return News::Late;
        }
        if let (Some(Some(dead)), Some(life)) = (watched.reported, life)
            && life <= dead
        {
            return News::Late;
        }
        if standing == Standing::Serves {
            self.served_since.get_or_insert(now);
        }
        let is_new = watched.heard.is_none();
        let news = if watched.reported.take().is_some() || is_new {
            News::Returned
        } else {
            News::Alive
        };
        (watched.since, watched.heard, watched.seen_at) = (Some(now), Some(now), wall);
        watched.life = life.or(watched.life);
        news
    }

    /// Who is late now. Each is told of once.
    pub fn late(&mut self, now: Instant) -> Vec<Failure> {
        let mut late = Vec::new();
        let due: Vec<_> = self.servers.iter().map(|one| self.due(one)).collect();
        for ((server, watched), due) in (0..).zip(&mut self.servers).zip(due) {
            if due.is_some_and(|due| now >= due) {
                watched.reported = Some(watched.life);
                late.push(Failure {
                    server: ReplicaId(server),
                    life: watched.life,
                    seen_at: watched.seen_at,
                });
            }
        }
        late
    }

    /// Whether somebody gave a sign of life so lately that he is not about to be late: he can give the state to one that is started again.
    #[must_use]
    pub fn somebody_lives(&self, now: Instant) -> bool {
        let lately = |watched: &Watched| {
            let heard = watched.heard.filter(|_| watched.reported.is_none());
            heard.is_some_and(|heard| now - heard < self.timeout / 2)
        };
        self.servers.iter().any(lately)
    }

    /// When somebody is late next, if nobody is heard.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.servers.iter().filter_map(|one| self.due(one)).min()
    }

    /// When this one is late; `None` when it is not waited for, or was said to be dead.
    fn due(&self, watched: &Watched) -> Option<Instant> {
        let since = watched.since.filter(|_| watched.reported.is_none())?;
        Some(match (watched.heard, self.served_since) {
            (Some(_), _) => since + self.timeout,
            (None, Some(served)) => since.max(served) + self.timeout,
            (None, None) => since + self.grace,
        })
    }

    /// Whether this one was said to be dead, and was not heard again.
    #[must_use]
    pub fn is_dead(&self, server: ReplicaId) -> bool {
        let watched = self.servers.get(server.0 as usize);
        watched.is_some_and(|watched| watched.reported.is_some())
    }

    /// Nothing could be heard for a while: nobody is late yet.
    pub fn afresh(&mut self, now: Instant) {
        for watched in &mut self.servers {
            watched.since = watched.since.map(|_| now);
        }
    }
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
    let (relaunched, mut ends) = mpsc::channel(RELAUNCHES_MAX);
    let mut reporting = Reporting {
        settings: &settings,
        publisher,
        under_way: BTreeMap::new(),
        postponed: BTreeSet::new(),
        relaunch_at: None,
        relaunched,
    };
    let (mut connected, mut ever) = (false, false);
    let (mut troubles, mut strangers, mut hasty) =
        (Once::default(), Once::default(), Once::default());
    let mut awake = Instant::now();
    loop {
        let now = Instant::now();
        if now - awake > settings.timeout / 2 {
            tell("este monitor esteve parado: os temporizadores recomeçam");
            timers.afresh(now);
            ears.afresh(now);
        }
        awake = now;
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
                // If the queue is full, it is asked again.
                let topic = settings.topics.monitor.as_str();
                let _ = reporting.publisher.publish(topic, word);
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
                return Err(Ended::NoBroker(why));
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
            Event::Acknowledged(id) => drop(reporting.under_way.remove(&id)),
            Event::Abandoned(id) => {
                if let Some(said) = reporting.under_way.remove(&id) {
                    reporting.say(said);
                }
            }
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
                        if strangers.is_news(&why) {
                            tell(&format!(
                                "uma mensagem que não é um sinal de vida é ignorada: {why}"
                            ));
                        }
                        continue;
                    }
                };
                match timers.heard(Instant::now(), wall(), server, said) {
                    News::Alive | News::Late => {}
                    News::Returned => tell(&format!("servidor {server} está vivo")),
                    News::OutOfRange => {
                        let why = format!(
                            "um sinal de vida do servidor {server} é ignorado: os servidores são 0 a {}",
                            settings.servers - 1
                        );
                        if strangers.is_news(&why) {
                            tell(&why);
                        }
                    }
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

/// Who else lives when a server is declared dead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Others {
    SomeLive,
    AllSilent,
}

struct Reporting<'a> {
    settings: &'a Settings,
    publisher: Publisher,
    /// What the broker does not have yet.
    under_way: BTreeMap<PublicationId, String>,
    /// Servers that are to be started again when another one lives.
    postponed: BTreeSet<ReplicaId>,
    /// When they are, as another one lives now: the others have as long to return by themselves.
    relaunch_at: Option<Instant>,
    /// What became of the operator's commands, where that is to be told.
    relaunched: mpsc::Sender<String>,
}

impl Reporting<'_> {
    fn report(&mut self, failure: Failure, others: Others, tell: &mut impl FnMut(&str)) {
        let Failure {
            server,
            life,
            seen_at,
        } = failure;
        let item = Item::Failed {
            replica: server,
            life,
            seen_at,
        };
        let published = Published { stamp: None, item };
        if let Some(said) = items::write(&published, &self.settings.topics, 0) {
            tell(&format!("servidor {} falhou: {said}", server.0));
            self.say(said);
        }
        if self.settings.relaunch.is_none() {
            return;
        }
        match others {
            Others::SomeLive => self.relaunch(server, tell),
            Others::AllSilent => {
                tell(&format!(
                    "servidor {}: não é relançado agora, pois nenhum outro servidor dá sinal de vida que lhe daria o estado; se não voltarem, inicie um sem --novo, e os outros são relançados",
                    server.0
                ));
                self.postponed.insert(server);
            }
        }
    }

    /// Starts those again for whom there was nobody who could give them the state, when there is.
    fn make_up(&mut self, now: Instant, timers: &Timers, tell: &mut impl FnMut(&str)) {
        self.postponed.retain(|server| timers.is_dead(*server));
        if self.postponed.is_empty() || !timers.somebody_lives(now) {
            self.relaunch_at = None;
        } else if now >= *self.relaunch_at.get_or_insert(now + self.settings.timeout) {
            for server in std::mem::take(&mut self.postponed) {
                self.relaunch(server, tell);
            }
        }
    }

    fn relaunch(&self, server: ReplicaId, tell: &mut impl FnMut(&str)) {
        let Some(command) = &self.settings.relaunch else {
            return;
        };
        match relaunch(command, server, self.relaunched.clone()) {
            Ok(()) => tell(&format!("relançando o servidor {}", server.0)),
            Err(error) => tell(&format!(
                "o servidor {} não pôde ser relançado: {error}",
                server.0
            )),
        }
    }

    /// Another connection takes the place of the one that was.
    fn over(&mut self, publisher: Publisher) {
        self.publisher = publisher;
        for said in std::mem::take(&mut self.under_way).into_values() {
            self.say(said);
        }
    }

    fn say(&mut self, said: String) {
        let topic = self.settings.topics.requests.as_str();
        // At most one for each server waits, so the queue does not fill.
        if let Ok(id) = self.publisher.publish(topic, said.clone()) {
            self.under_way.insert(id, said);
        }
    }
}

/// A0.16: what is wrong with a timer that is shorter than the servers' signs of life are apart, if it is.
fn too_hasty(timeout: Duration, period: Option<Duration>) -> Option<String> {
    let period = period.filter(|period| timeout < 3 * *period)?;
    Some(format!(
        "o --timeout deste monitor ({} ms) é menor do que três vezes o --periodo dos servidores ({} ms): servidores vivos serão dados como mortos; inicie o monitor com o --timeout que os servidores têm",
        timeout.as_millis(),
        period.as_millis()
    ))
}

/// Runs the operator's command. What it starts lives on when the monitor ends. If it fails, that is told.
fn relaunch(command: &str, server: ReplicaId, told: mpsc::Sender<String>) -> std::io::Result<()> {
    let id = server.0.to_string();
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &command.replace("{id}", &id)])
        .env("IDSERV", &id)
        .stdin(Stdio::null());
    #[cfg(unix)]
    shell.process_group(0);
    let mut child = shell.spawn()?;
    tokio::spawn(async move {
        let why = match child.wait().await {
            Ok(status) if status.success() => return,
            Ok(status) => match status.code() {
                Some(127) => "código 127: o shell não encontra o programa".into(),
                Some(code) => format!("código {code}"),
                None => status.to_string(),
            },
            Err(error) => error.to_string(),
        };
        // The monitor may have ended.
        drop(
            told.send(format!(
                "o comando que relançou o servidor {id} terminou com um erro ({why})"
            ))
            .await,
        );
    });
    Ok(())
}

/// Ends of commands that wait to be told.
const RELAUNCHES_MAX: usize = 64;

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
    use kvrep_core::Incarnation;

    const TIMEOUT: Duration = Duration::from_millis(500);

    fn settings(count_from: CountFrom) -> Settings {
        Settings {
            config: MqttConfig::new("127.0.0.1:1"),
            attempts: Attempts::Once,
            topics: Topics::default(),
            servers: 2,
            timeout: TIMEOUT,
            grace: 4 * TIMEOUT,
            count_from,
            relaunch: None,
        }
    }

    fn life(attempt: u32) -> Option<Life> {
        Some(Life {
            incarnation: Incarnation(1),
            attempt,
        })
    }

    fn serves(life: Option<Life>) -> (Option<Life>, Standing) {
        (life, Standing::Serves)
    }

    fn who(late: &[Failure]) -> Vec<u32> {
        late.iter().map(|failure| failure.server.0).collect()
    }

    #[test]
    fn r0_22_r0_31_a_silent_server_is_dead_once_and_again_when_a_later_life_of_it_falls_silent() {
        let start = Instant::now();
        let mut timers = Timers::new(&settings(CountFrom::Inicio), start, Timestamp(0));
        let at = |ms| start + Duration::from_millis(ms);
        for ms in [100, 400, 800, 1_200] {
            timers.heard(at(ms), Timestamp(ms * 1_000), 1, serves(life(1)));
        }
        timers.heard(at(200), Timestamp(200_000), 0, serves(life(1)));
        assert_eq!(timers.next(), Some(at(700)));
        assert!(timers.late(at(699)).is_empty());
        let late = timers.late(at(700));
        let wanted = Failure {
            server: ReplicaId(0),
            life: life(1),
            seen_at: Timestamp(200_000),
        };
        assert_eq!(late, [wanted]);
        assert!(timers.late(at(1_500)).is_empty(), "no second time");
        // Signs of the life that is dead change nothing; those of a later one do.
        assert_eq!(
            timers.heard(at(1_500), Timestamp(1), 0, serves(life(1))),
            News::Late
        );
        assert!(who(&timers.late(at(1_600))).is_empty());
        assert_eq!(
            timers.heard(at(1_650), Timestamp(1), 0, serves(life(2))),
            News::Returned
        );
        timers.heard(at(2_100), Timestamp(1), 1, serves(life(1)));
        assert_eq!(who(&timers.late(at(2_150))), [0]);
        // A program that says nothing of lives is believed.
        assert_eq!(
            timers.heard(at(2_200), Timestamp(1), 0, serves(None)),
            News::Returned
        );
        assert_eq!(
            timers.heard(at(2_200), Timestamp(1), 2, serves(None)),
            News::OutOfRange
        );
    }

    #[test]
    fn a0_16_one_that_was_never_heard_is_late_from_the_start_or_only_from_its_first_sign_on() {
        let start = Instant::now();
        let later = start + 10 * TIMEOUT;
        let mut timers = Timers::new(&settings(CountFrom::Inicio), start, Timestamp(0));
        assert_eq!(who(&timers.late(later)), [0, 1]);
        let mut timers = Timers::new(&settings(CountFrom::PrimeiroSinal), start, Timestamp(0));
        assert_eq!(timers.next(), None);
        assert!(timers.late(later).is_empty());
        assert_eq!(
            timers.heard(later, Timestamp(0), 1, serves(None)),
            News::Returned
        );
        assert_eq!(who(&timers.late(later + TIMEOUT)), [1]);
    }

    #[test]
    fn c0_11_after_a_time_without_hearing_all_timers_begin_anew() {
        let start = Instant::now();
        let mut timers = Timers::new(&settings(CountFrom::Inicio), start, Timestamp(0));
        timers.heard(start, Timestamp(0), 0, serves(life(1)));
        let later = start + 10 * TIMEOUT;
        timers.afresh(later);
        assert!(timers.late(later).is_empty());
        assert_eq!(who(&timers.late(later + TIMEOUT)), [0, 1]);
    }

    #[test]
    fn a0_16_c0_11_one_that_was_never_heard_has_longer_until_somebody_serves() {
        let start = Instant::now();
        let at = |timeouts: f64| start + TIMEOUT.mul_f64(timeouts);
        let settings = settings(CountFrom::Inicio);
        let begun = || Timers::new(&settings, start, Timestamp(0));
        // All start together: nobody is late before the grace is over.
        let mut timers = begun();
        assert_eq!(timers.next(), Some(at(4.0)));
        assert_eq!(who(&timers.late(at(3.9))), [0; 0]);
        let waits = (life(1), Standing::Waits);
        timers.heard(at(3.9), Timestamp(0), 0, waits);
        assert_eq!(who(&timers.late(at(4.0))), [1]);
        assert!(timers.is_dead(ReplicaId(1)) && !timers.is_dead(ReplicaId(0)));
        // A group that serves: who is not there now is dead.
        let mut timers = begun();
        timers.heard(at(0.1), Timestamp(0), 0, serves(life(1)));
        timers.heard(at(1.0), Timestamp(0), 0, serves(life(1)));
        assert_eq!(who(&timers.late(at(1.0))), [0; 0]);
        assert_eq!(who(&timers.late(at(1.1))), [1]);
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

    #[test]
    fn a_server_is_started_again_only_while_another_one_lives() {
        let start = Instant::now();
        let settings = settings(CountFrom::PrimeiroSinal);
        let mut timers = Timers::new(&settings, start, Timestamp(0));
        assert!(!timers.somebody_lives(start), "nobody was heard yet");
        for server in 0..settings.servers {
            timers.heard(start, Timestamp(0), server, serves(None));
        }
        let later = start + settings.timeout;
        timers.heard(later, Timestamp(0), 0, serves(None));
        assert!(!timers.late(later).is_empty());
        assert!(timers.somebody_lives(later));
        // All were stopped: none of them is dead because another one is.
        let much_later = later + settings.timeout;
        assert!(!timers.late(much_later).is_empty());
        assert!(!timers.somebody_lives(much_later));
    }
}
