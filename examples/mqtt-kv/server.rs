//! A server: the library's active scheme over the broker, in the language of the text.
//!
//! The policies that make the text's system: who answers is decided by the hash of the key, a monitor outside says who is dead, and
//! one with `--novo` never begins a history.

use super::connection::{Attempts, Ended, reach};
use super::dialect::answer::Form;
use super::dialect::{Insertions, Json, PIECE_BYTES, Refused};
use super::machine::Table;
use super::topics::Topics;
use crate::common::operator::{Said, asked_to_end};
use kvrep_core::node::NodeError;
use kvrep_core::node::active::ActiveEvent;
use kvrep_core::protocol::active::{
    Config, Create, Doubt, Event, Fence, Responder, Status, Timing, Watch,
};
use kvrep_core::{ActiveNode, ReplicaId};
use kvrep_transport_mqtt::MqttConfig;
use kvrep_transport_mqtt::stream::MqttStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Name of the group.
pub const GROUP: &str = "mqtt-kv";

/// What a server is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The connection.
    pub config: MqttConfig,
    /// How often the broker is tried at the start.
    pub attempts: Attempts,
    /// The group's topics.
    pub topics: Topics,
    /// Its id.
    pub id: u32,
    /// How many servers there are.
    pub servers: u32,
    /// Whether it may begin a history.
    pub create: Create,
    /// How often it says that it lives.
    pub heartbeat_every: Duration,
    /// After how long a silent server is dead, as the monitor has it.
    pub timeout: Duration,
    /// How many servers must be known to have what an answer says.
    pub confirmations: usize,
    /// In which form it answers.
    pub form: Form,
    /// Whether it answers insertions.
    pub insertions: Insertions,
    /// Where it writes its table at the end, and when it is asked to.
    pub dump: Option<PathBuf>,
    /// Where it keeps states that do not count any more.
    pub set_aside: Option<PathBuf>,
}

impl Settings {
    /// What all servers of the group must agree on.
    ///
    /// # Errors
    /// What to change.
    pub fn group(&self) -> Result<Config, String> {
        if self.id >= self.servers {
            return Err(format!(
                "o número deste servidor é {}: com {} servidores os números são 0 a {}",
                self.id,
                self.servers,
                self.servers - 1
            ));
        }
        if self.timeout < 3 * self.heartbeat_every {
            return Err("--timeout tem de ser ao menos três vezes --periodo".into());
        }
        let k = self.confirmations;
        if k == 0 || k > self.servers as usize || (k > 1 && 2 * k <= self.servers as usize) {
            return Err(format!(
                "--confirmacoes tem de ser 1, ou mais do que a metade dos {} servidores",
                self.servers
            ));
        }
        let mut group = Config::new((0..self.servers).map(ReplicaId));
        group.confirmations = k;
        group.responder = Responder::KeyHash;
        group.watch = Watch::Monitor;
        group.piece_bytes = PIECE_BYTES;
        group.timing = Timing {
            heartbeat_every: self.heartbeat_every,
            suspect_after: self.timeout,
            mark_every: self.timeout.max(Duration::from_millis(200)),
            resend_every: self.heartbeat_every.max(Duration::from_millis(200)),
            genesis_after: 2 * self.timeout,
            // R0.25: ten times as long as it takes to find out.
            keep_requests: LOG_FACTOR * self.timeout,
            ..Timing::default()
        };
        group.validate()?;
        Ok(group)
    }
}

/// Serves until it is asked to end.
///
/// # Errors
/// Why it could not start or go on, in words for its operator.
pub async fn serve(settings: Settings, mut tell: impl FnMut(&str)) -> Result<(), Ended> {
    let mut asked = std::pin::pin!(asked_to_end().map_err(|error| error.to_string())?);
    let mut dump_asked = DumpAsked::new()?;
    let group = settings.group()?;
    if let Some(file) = &settings.dump {
        may_write(file)?;
    }
    tokio::select! {
        () = &mut asked => return Ok(()),
        reached = reach(&settings.config, settings.attempts, &mut tell) => reached?,
    }
    let dialect = Json::new(settings.topics.clone())
        .form(settings.form)
        .insertions(settings.insertions)
        .period(settings.heartbeat_every);
    let refused = dialect.refused();
    let stream = MqttStream::new(settings.config.clone()).dialect(dialect);
    let mut node = ActiveNode::builder(GROUP, ReplicaId(settings.id))
        .group(group)
        .create(settings.create)
        .stream(stream)
        .raw_state_machine(Table::default());
    if let Some(directory) = &settings.set_aside {
        node = node.set_aside_in(directory);
    }
    let node = node.start().await.map_err(|error| error.to_string())?;
    let mut events = node.events();
    tell(&format!(
        "conectado ao broker {}; esperando pelos outros",
        settings.config.broker
    ));
    let ended = tokio::select! {
        () = &mut asked => Ok(()),
        ended = attend(&node, &mut events, &refused, &mut dump_asked, &settings, &mut tell) => ended,
    };
    if let Some(file) = settings.dump.as_deref().filter(|_| ended.is_ok()) {
        dump(&node, file, &mut tell).await;
    }
    let me = settings.id;
    let closed = node.shutdown().await;
    // What it said as it ended.
    while let Ok(event) = events.try_recv() {
        tell(&sentence(&event, &settings));
    }
    ended.and(closed.map_err(|error| ended_by(&error, me)))
}

/// Tells what happens until the replica ends by itself.
async fn attend(
    node: &ActiveNode,
    events: &mut Receiver<ActiveEvent>,
    refused: &Arc<Refused>,
    dump_asked: &mut DumpAsked,
    settings: &Settings,
    tell: &mut impl FnMut(&str),
) -> Result<(), Ended> {
    let me = settings.id;
    let mut waits = Waits::default();
    let mut said = Said::default();
    let mut counted = interval(COUNTED_EVERY);
    counted.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            ended = node.wait() => return ended.map_err(|error| ended_by(&error, me)),
            event = events.recv() => match event {
                Ok(event) => {
                    let what = sentence(&event, settings);
                    let is_repeated = matches!(event, ActiveEvent::Trouble(_)) && !said.is_news(&what, Instant::now());
                    if !is_repeated {
                        tell(&what);
                    }
                }
                Err(RecvError::Lagged(events)) => tell(&format!("{events} acontecimentos não foram contados aqui")),
                Err(RecvError::Closed) => {
                    return node.wait().await.map_err(|error| ended_by(&error, me));
                }
            },
            _ = counted.tick() => {
                if let Some(what) = waits.sentence(&node.status(), settings, Instant::now()) {
                    tell(&what);
                }
                if let Some((times, why)) = refused.take() {
                    tell(&format!("{times} mensagens ignoradas ou sem resposta; a última: {why}"));
                }
            }
            () = dump_asked.next() => match settings.dump.as_deref() {
                Some(file) => dump(node, file, tell).await,
                None => tell("para onde? inicie o servidor com --despejo ARQUIVO"),
            },
        }
    }
}

/// Whether the table can be written there, before anything depends on it.
fn may_write(file: &Path) -> Result<(), String> {
    let aside = file.with_extension("tmp");
    let written = if file.is_dir() {
        Err(std::io::ErrorKind::IsADirectory.into())
    } else {
        std::fs::write(&aside, b"").and_then(|()| std::fs::remove_file(&aside))
    };
    written.map_err(|error| {
        format!(
            "--despejo {}: não pode ser escrito ali: {error}",
            file.display()
        )
    })
}

/// Writes the table, in the order of its keys, as one JSON object.
async fn dump(node: &ActiveNode, file: &Path, tell: &mut impl FnMut(&str)) {
    let pairs = node.read_local(|table: &Table| table.pairs().clone()).await;
    let written = pairs
        .map_err(|error| error.to_string())
        .and_then(|(pairs, at)| {
            let json = serde_json::to_vec_pretty(&pairs).map_err(|error| error.to_string())?;
            // Whoever reads it finds all of it or nothing.
            let aside = file.with_extension("tmp");
            std::fs::write(&aside, json)
                .and_then(|()| std::fs::rename(&aside, file))
                .map_err(|error| error.to_string())?;
            Ok((pairs.len(), at))
        });
    match written {
        Ok((pairs, at)) => tell(&format!(
            "{pairs} pares em {}, na posição {}",
            file.display(),
            at.0
        )),
        Err(why) => tell(&format!("{} não pôde ser escrito: {why}", file.display())),
    }
}

/// What its operator is told of an event.
fn sentence(event: &ActiveEvent, settings: &Settings) -> String {
    let confirmations = settings.confirmations;
    match event {
        ActiveEvent::Protocol(Event::Listening { wait }) => format!(
            "escuta por {} ms se outro processo já tem o número deste servidor",
            wait.as_millis()
        ),
        ActiveEvent::Protocol(Event::ClockBehind { by }) => format!(
            "o relógio desta máquina está {} s atrás do último início deste servidor: ele segue como início posterior a esse, e nada se perde",
            by.div_ceil(1_000_000)
        ),
        ActiveEvent::Protocol(Event::Superseded { at }) => format!(
            "outro processo foi iniciado depois com o número deste servidor: este não responde mais, e guarda o estado (até a posição {}) até que um servidor que serve o tenha",
            at.0
        ),
        ActiveEvent::Protocol(Event::LastStateGone { at }) => format!(
            "PERDIDO: este processo termina com um estado (até a posição {}) que nenhum outro servidor que serve mostrou ter",
            at.0
        ),
        ActiveEvent::Protocol(Event::Serving { from, .. }) => {
            format!("servindo a partir da posição {}", from.0)
        }
        ActiveEvent::Protocol(Event::Fenced { why }) => {
            format!("não responde até entrar de novo: {}", fenced(*why))
        }
        ActiveEvent::Protocol(Event::Holding { why }) => {
            format!(
                "retém as respostas até que uma marca confirme o que tem: {}",
                doubted(*why)
            )
        }
        ActiveEvent::Protocol(Event::Agreed { at }) => {
            format!("confirmado até a posição {}", at.0)
        }
        ActiveEvent::Protocol(Event::Failed(server)) => format!("servidor {} falhou", server.0),
        ActiveEvent::Protocol(Event::Joined(server)) => {
            format!("servidor {} está pronto", server.0)
        }
        ActiveEvent::Protocol(Event::Began { from }) => {
            format!("a história começa aqui, na posição {}", from.0)
        }
        ActiveEvent::Protocol(Event::Decided { number, listed }) => {
            let listed: Vec<_> = listed.iter().map(|server| server.0).collect();
            format!("decisão {number}: vale a história de {listed:?}")
        }
        ActiveEvent::Protocol(Event::HistoryLost {
            agreed,
            upto,
            acknowledged,
            ..
        }) if *acknowledged == 0 => format!(
            "a história deste servidor de {} a {} não vale e foi trocada pela que vale; ele não tinha respondido nada dela",
            agreed.0, upto.0
        ),
        ActiveEvent::Protocol(Event::HistoryLost {
            agreed,
            upto,
            apart: false,
            ..
        }) if confirmations > 1 => {
            format!(
                "a história deste servidor de {} a {} não vale e foi trocada pela que vale; o que foi respondido foi confirmado por {confirmations}, e só se perde se \
                 tantos servidores perdem o estado",
                agreed.0, upto.0
            )
        }
        ActiveEvent::Protocol(Event::HistoryLost {
            agreed,
            upto,
            acknowledged,
            ..
        }) => format!(
            "PERDIDO: a história deste servidor de {} a {} não vale; até {acknowledged} inserções respondidas por ele se perderam",
            agreed.0, upto.0
        ),
        ActiveEvent::Protocol(Event::StateNotRead { from, why }) => format!(
            "não entende o estado que o servidor {} lhe dá ({why}) e não pode servir: é a mesma versão do programa?",
            from.0
        ),
        ActiveEvent::Protocol(Event::AwaitsWord { missing }) => {
            let missing: Vec<_> = missing.iter().map(|server| server.0.to_string()).collect();
            format!(
                "espera por notícias de um destes servidores (mesmo sem estado, iniciado de novo): {}",
                missing.join(", ")
            )
        }
        ActiveEvent::Protocol(Event::Expired(requests)) => {
            format!("{requests} pedidos saíram do registro sem que nenhum servidor dissesse tê-los respondido: quem devia responder não servia, ou não se fez ouvir")
        }
        ActiveEvent::SetAside(path) => format!("o estado que não vale está em {}", path.display()),
        ActiveEvent::NotSetAside(_) if settings.set_aside.is_none() => {
            "o estado que não vale foi jogado fora: para que estados assim sejam guardados, dê --guardar DIR".into()
        }
        ActiveEvent::NotSetAside(why) => format!("o estado que não vale não foi guardado: {why}"),
        ActiveEvent::ConfiguredOtherwise(server) => format!(
            "o servidor {} tem outras opções (n, --periodo, --timeout ou --confirmacoes) e não é levado em conta",
            server.0
        ),
        ActiveEvent::Trouble(why) => format!("broker: {why}"),
        other => format!("{other:?}"),
    }
}

fn fenced(why: Fence) -> String {
    let why = match why {
        Fence::DeclaredDead => "foi dado como morto",
        Fence::SaidNotToServe => "os outros dizem que não serve, e a ordem não lhe disse isso",
        Fence::DecisionMissed => "uma decisão sobre histórias diferentes passou sem ele",
        Fence::NotChosen => "a sua história não vale",
        Fence::OlderHistoryServed => {
            "uma história mais antiga do que a que ele começou é servida por outros"
        }
        Fence::LongerHistoryServed => {
            "outros servem uma história que começou à parte da sua e que vale mais"
        }
        Fence::Behind => "falta-lhe algo que outros confirmaram",
        Fence::Differs => "a sua história é outra do que a dos outros",
        unknown => return unknown.to_string(),
    };
    why.into()
}

fn doubted(why: Doubt) -> String {
    let why = match why {
        Doubt::Slept => "este processo esteve parado",
        Doubt::Disconnected => "a conexão com o broker se perdeu",
        Doubt::Gap => "falta algo que um servidor publicou",
        Doubt::Differs => "outro servidor tem outra história",
        Doubt::Decided => "as histórias eram diferentes",
        unknown => return unknown.to_string(),
    };
    why.into()
}

/// Why it ended by itself.
fn ended_by(error: &NodeError, me: u32) -> Ended {
    match error {
        NodeError::AlreadyRunning(_) => Ended::NumberTaken(format!(
            "o servidor {me} já está em funcionamento, em outro processo: termine aquele antes, ou inicie este com o número de um servidor que não está em funcionamento"
        )),
        NodeError::Superseded => Ended::NumberTaken(format!(
            "outro processo foi iniciado depois com o número {me}: aquele fica, este termina"
        )),
        NodeError::ConfiguredOtherwise(server) => Ended::Otherwise(format!(
            "o servidor {} está no grupo com outras opções: inicie este com o mesmo N, --periodo, --timeout e --confirmacoes",
            server.0
        )),
        NodeError::ShutdownTimedOut(_) => {
            Ended::Otherwise("não terminou a tempo: a conexão com o broker não se fechou".into())
        }
        NodeError::Panicked(why) => Ended::Otherwise(format!("erro deste programa: {why}")),
        other => Ended::Otherwise(other.to_string()),
    }
}

/// Since when a server waits for what it needs to serve.
#[derive(Debug, Default)]
struct Waits(Option<Instant>);

impl Waits {
    /// For whom it waits, and how long; `None` while it serves, and at first.
    fn sentence(&mut self, status: &Status, settings: &Settings, now: Instant) -> Option<String> {
        if status.serving || status.superseded {
            self.0 = None;
            return None;
        }
        let since = *self.0.get_or_insert(now);
        if since == now {
            return None;
        }
        let seconds = (now - since).as_secs_f64();
        let heard: Vec<_> = status
            .heard_serving
            .iter()
            .map(|server| server.0.to_string())
            .collect();
        let others: Vec<_> = (0..settings.servers)
            .filter(|server| *server != settings.id)
            .map(|server| server.to_string())
            .collect();
        let whom = match (heard.as_slice(), settings.create) {
            ([_, ..], _) => format!("pelo estado; servem: {}", heard.join(", ")),
            ([], Create::Never) if others.is_empty() => {
                "por ninguém: não há outro servidor, e com --novo este nunca começa uma história; inicie-o sem --novo".into()
            }
            ([], Create::Never) => format!(
                "por um servidor que tenha o estado, e nenhum ({}) dá sinal de que serve; com --novo este nunca começa uma história: se todos perderam o estado, inicie um sem --novo",
                others.join(", ")
            ),
            ([], Create::Allowed) => {
                "por um servidor que tenha o estado; se nenhum dá sinal, um dos que esperam começa uma história".into()
            }
        };
        Some(format!("espera há {seconds:.0} s {whom}"))
    }
}

/// Somebody wants to see the table (SIGUSR1).
struct DumpAsked {
    #[cfg(unix)]
    signal: tokio::signal::unix::Signal,
}

impl DumpAsked {
    #[cfg(unix)]
    fn new() -> Result<Self, String> {
        use tokio::signal::unix::{SignalKind, signal};
        let signal = signal(SignalKind::user_defined1()).map_err(|error| error.to_string())?;
        Ok(Self { signal })
    }

    #[cfg(unix)]
    async fn next(&mut self) {
        if self.signal.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    #[cfg(not(unix))]
    fn new() -> Result<Self, String> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    async fn next(&mut self) {
        std::future::pending::<()>().await;
    }
}

/// R0.25.
const LOG_FACTOR: u32 = 10;
const COUNTED_EVERY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            config: MqttConfig::new("127.0.0.1:1"),
            attempts: Attempts::Once,
            topics: Topics::default(),
            id: 0,
            servers: 3,
            create: Create::Allowed,
            heartbeat_every: Duration::from_millis(200),
            timeout: Duration::from_secs(1),
            confirmations: 1,
            form: Form::Object,
            insertions: Insertions::Answered,
            dump: None,
            set_aside: None,
        }
    }

    #[test]
    fn what_happens_is_told_in_the_language_of_the_text() {
        let fences = [
            Fence::DeclaredDead,
            Fence::SaidNotToServe,
            Fence::DecisionMissed,
            Fence::NotChosen,
            Fence::OlderHistoryServed,
            Fence::LongerHistoryServed,
            Fence::Behind,
            Fence::Differs,
        ];
        let doubts = [
            Doubt::Slept,
            Doubt::Disconnected,
            Doubt::Gap,
            Doubt::Differs,
            Doubt::Decided,
        ];
        let theirs =
            (fences.iter().map(ToString::to_string)).chain(doubts.iter().map(ToString::to_string));
        let ours = fences.map(fenced).into_iter().chain(doubts.map(doubted));
        for (ours, theirs) in ours.zip(theirs) {
            assert_ne!(ours, theirs);
        }
    }

    #[test]
    fn r0_11_r0_25_ids_are_0_to_n_minus_1_and_the_log_lasts_ten_detection_times() {
        let group = settings().group().expect("sound");
        assert_eq!(group.members, (0..3).map(ReplicaId).collect());
        assert_eq!(group.timing.keep_requests, Duration::from_secs(10));
        let wrong = [
            Settings {
                id: 3,
                ..settings()
            },
            Settings {
                confirmations: 0,
                ..settings()
            },
            Settings {
                confirmations: 4,
                ..settings()
            },
            Settings {
                servers: 4,
                confirmations: 2,
                ..settings()
            },
            Settings {
                timeout: Duration::from_millis(599),
                ..settings()
            },
        ];
        for wrong in wrong {
            assert!(wrong.group().is_err(), "{wrong:?}");
        }
        assert_ne!(
            settings().group().map(|g| g.hash()),
            Settings {
                servers: 4,
                ..settings()
            }
            .group()
            .map(|g| g.hash())
        );
    }
}
