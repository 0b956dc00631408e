//! What a broker may do to its servers, played with real processes and checked: it drops from the queue of a slow one, dies with everything that it
//! had, loses a session.
//!
//! The order of the stream is known here: one probe publishes all of it, on one connection. So each answer can be compared with what it must be
//! at least, and all tables with what was acknowledged.

use super::brokers::{Broker, OPEN_TO_ALL};
use super::play::{Scale, none_of, number};
use super::probe::{Probe, key_of};
use super::stage::{Stage, Stuck, WITHIN, all_equal};
use crate::common::story::Story;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Who finds out that a server is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// The monitor declares it dead.
    ByMonitor,
    /// No monitor runs: everybody goes on counting on it.
    ByNobody,
}

/// All of them that this broker can play.
///
/// # Errors
/// When something does not happen that must for the story to go on.
pub async fn all(story: &mut Story, broker: Broker, scale: Scale) -> Result<(), Stuck> {
    match broker {
        Broker::Mosquitto => {
            slow_server(story, scale.missed, Watched::ByMonitor).await?;
            answered_by_one(story).await?;
            lost_session(story, Watched::ByMonitor).await?;
        }
        // It drops nothing, and has no log that says the sessions' names.
        Broker::Embutido => {}
    }
    forgetful_broker(story, broker, scale.restarts, 2).await
}

/// Mosquitto queues ten messages for a stopped server and drops the others without a word.
///
/// # Errors
/// As [`all`].
pub async fn slow_server(story: &mut Story, missed: usize, watched: Watched) -> Result<(), Stuck> {
    story.step(format!(
        "max_queued_messages 10: o servidor 1 de 3 é parado (SIGSTOP) durante {missed} inserções e continua (SIGCONT){}",
        words(watched)
    ));
    let settings = format!("{OPEN_TO_ALL}\nmax_queued_messages 10");
    let mut stage = start(Broker::Mosquitto, &settings, &[], watched).await?;
    let mut probe = stage.probe().await?;
    let mut reads = Reads::of(key_of(1, 3, 1), Floor::Published);
    reads.go_on(&mut probe, SHORT).await?;
    probe.answer(reads.last()).await?;
    stage.server(1)?.pause()?;
    // Of others, who answer: a few are known to be carried out before the next, so nobody but the stopped one falls behind.
    let inserted: Vec<_> = (0..missed)
        .map(|n| (key_of(2 * (n % 2), 3, n + 2), n.to_string()))
        .collect();
    for together in inserted.chunks(AT_ONCE) {
        put_together(&mut probe, together).await?;
        reads.write(&mut probe)?;
        reads.read(&mut probe)?;
    }
    stage.server(1)?.resume()?;
    let noticed = stage.server(1)?.line("retém as respostas", WITHIN).await;
    story.check(
        "ele nota que pode ter perdido algo, e retém as respostas",
        noticed.map_err(|why| why.to_string()),
    );
    let serving = until_it_serves(&mut stage, &mut probe, &mut reads).await;
    let fenced = stage.server(1)?.printed();
    story.check(
        "deixa de responder, entra de novo e serve",
        serving.and_then(|()| {
            let fenced = fenced
                .iter()
                .rfind(|line| line.contains("até entrar de novo"));
            fenced.cloned().ok_or_else(|| "nunca saiu".into())
        }),
    );
    reads.go_on(&mut probe, SHORT).await?;
    probe.each_answers(3).await?;
    reads.check(story, &probe).await;
    let tables = stage.tables(&[0, 1, 2]).await?;
    story.check("todos têm a mesma tabela", all_equal(&tables));
    story.check("e nenhuma inserção falta", none_missing(&tables, &inserted));
    Ok(())
}

/// A broker without a disk is killed again and again under load, and comes back at once at the same port.
///
/// # Errors
/// As [`all`].
pub async fn forgetful_broker(
    story: &mut Story,
    broker: Broker,
    restarts: u32,
    confirmations: usize,
) -> Result<(), Stuck> {
    story.step(format!(
        "O broker é morto (kill -9) e reiniciado {restarts} vezes sob carga, sem guardar nada; --confirmacoes {confirmations}"
    ));
    let options = ["--confirmacoes", &confirmations.to_string()];
    let mut stage = start(broker, OPEN_TO_ALL, &options, Watched::ByMonitor).await?;
    let mut probe = stage.probe().await?;
    let mut reads = Reads::of(key_of(1, 3, 1), Floor::Acknowledged);
    let mut said = Vec::new();
    for restart in 0..restarts {
        for turn in 0..LOAD_TURNS {
            for n in 0..AT_ONCE {
                let pair = (format!("par {restart}-{turn}-{n}"), format!("{turn}"));
                said.push((probe.insert(&pair.0, &pair.1)?, pair));
            }
            reads.go_on(&mut probe, Duration::from_millis(10)).await?;
            if turn == LOAD_TURNS / 2 {
                stage.kill_broker().await?;
            }
            if turn == LOAD_TURNS / 2 + 4 {
                stage.start_broker().await?;
            }
        }
        probe
            .put_surely(&format!("depois de {restart}"), "sim")
            .await?;
    }
    all_answer(
        story,
        &mut probe,
        "C0.11: todos voltam a servir sem operador",
    )
    .await;
    settle(&mut stage, &mut probe).await?;
    let acknowledged: Vec<_> = (said.iter())
        .filter(|(id, _)| {
            probe
                .answers(*id)
                .iter()
                .any(|answer| answer.status == "ok")
        })
        .map(|(_, pair)| pair.clone())
        .collect();
    story.saw(format!(
        "{} de {} inserções foram respondidas",
        acknowledged.len(),
        said.len()
    ));
    let lines = printed(&mut stage)?;
    let tables = stage.tables(&[0, 1, 2]).await?;
    story.check("todos têm a mesma tabela", all_equal(&tables));
    let missing = none_missing(&tables, &acknowledged);
    if confirmations > 1 {
        story.check("nada do que foi respondido se perdeu", missing);
        reads.check_those_answered(story, &probe);
    } else {
        let missing = count_missing(&tables, &acknowledged);
        story.check(
            "o que foi respondido e se perdeu foi dito",
            all_reported(missing, &lines),
        );
    }
    Ok(())
}

/// With one confirmation: one server answers alone, and then sleeps while the broker dies with what the others were to get.
///
/// # Errors
/// As [`all`].
pub async fn answered_by_one(story: &mut Story) -> Result<(), Stuck> {
    story.step(
        "Com uma confirmação: só o servidor 0 de 3 corre e responde, e é parado; o broker é morto com o que os outros receberiam",
    );
    let mut stage = start(Broker::Mosquitto, OPEN_TO_ALL, &[], Watched::ByNobody).await?;
    let mut probe = stage.probe().await?;
    probe.put(&key_of(0, 3, 0), "antes").await?;
    for server in 0..3 {
        probe.settled(server).await?;
    }
    for server in [1, 2] {
        stage.server(server)?.pause()?;
    }
    let inserted: Vec<_> = (0..ALONE)
        .map(|n| (key_of(0, 3, n + 1), n.to_string()))
        .collect();
    for together in inserted.chunks(AT_ONCE) {
        put_together(&mut probe, together).await?;
    }
    stage.server(0)?.pause()?;
    stage.kill_broker().await?;
    stage.start_broker().await?;
    for server in [1, 2] {
        stage.server(server)?.resume()?;
    }
    stage.start_monitor(&[]).await?;
    stage.monitor()?.line("servidor 0 falhou", WITHIN).await?;
    let after = probe.put_surely(&key_of(0, 3, 0), "depois").await?;
    story.equal(
        "os outros dois seguem com o que têm",
        &after.status.as_str(),
        &"ok",
    );
    stage.server(0)?.resume()?;
    all_answer(
        story,
        &mut probe,
        "quem esteve parado entra de novo sem operador",
    )
    .await;
    settle(&mut stage, &mut probe).await?;
    let lines = printed(&mut stage)?;
    let tables = stage.tables(&[0, 1, 2]).await?;
    story.check("todos têm a mesma tabela", all_equal(&tables));
    let missing = count_missing(&tables, &inserted);
    story.check(
        "algo do que só um tinha respondido se perdeu",
        if missing > 0 {
            Ok(format!("{missing} de {ALONE}"))
        } else {
            Err("nada".into())
        },
    );
    story.check("e isto foi dito", all_reported(missing, &lines));
    Ok(())
}

/// Another client takes a server's name at the broker, with a clean session, and keeps it for a while.
///
/// # Errors
/// As [`all`].
pub async fn lost_session(story: &mut Story, watched: Watched) -> Result<(), Stuck> {
    story.step(format!(
        "Outro cliente toma o nome do servidor 1 de 3 no broker, com sessão limpa{}",
        words(watched)
    ));
    let mut stage = start(Broker::Mosquitto, OPEN_TO_ALL, &[], watched).await?;
    let mut probe = stage.probe().await?;
    let mut reads = Reads::of(key_of(1, 3, 1), Floor::Published);
    reads.go_on(&mut probe, SHORT).await?;
    let name = name_at_broker(&stage, 1)?;
    let thief = take_the_name(&stage.address(), &name).await?;
    let inserted: Vec<_> = (0..WITHOUT_NAME)
        .map(|n| (key_of(2 * (n % 2), 3, n + 2), n.to_string()))
        .collect();
    for together in inserted.chunks(AT_ONCE) {
        put_together(&mut probe, together).await?;
        reads.write(&mut probe)?;
        reads.read(&mut probe)?;
    }
    // It takes its name back, and what was published meanwhile is not there.
    let noticed = stage.server(1)?.line("retém as respostas", WITHIN).await;
    story.check(
        "ele nota que pode ter perdido algo, e retém as respostas",
        noticed.map_err(|why| why.to_string()),
    );
    drop(thief);
    let serving = until_it_serves(&mut stage, &mut probe, &mut reads).await;
    story.check(
        "entra de novo sem operador",
        serving.map(|()| String::new()),
    );
    reads.go_on(&mut probe, SHORT).await?;
    probe.each_answers(3).await?;
    reads.check(story, &probe).await;
    let tables = stage.tables(&[0, 1, 2]).await?;
    story.check("todos têm a mesma tabela", all_equal(&tables));
    story.check("e nenhuma inserção falta", none_missing(&tables, &inserted));
    Ok(())
}

/// Reads of one key, with what each must give at least: what was written to it before, in the stream.
struct Reads {
    key: String,
    /// Whether what was published may be lost.
    floor: Floor,
    asked: Vec<(u64, u64)>,
    written: u64,
    /// Insertions that are not known to be carried out, with their numbers.
    open: VecDeque<(u64, u64)>,
    acknowledged: u64,
}

/// What a read must give at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Floor {
    /// What was published before it.
    Published,
    /// What was answered before it was published: the broker may lose the rest.
    Acknowledged,
}

impl Reads {
    fn of(key: String, floor: Floor) -> Self {
        Self {
            key,
            floor,
            asked: Vec::new(),
            written: 0,
            open: VecDeque::new(),
            acknowledged: 0,
        }
    }

    /// 200 reads a second, a write of the next number before every tenth.
    async fn go_on(&mut self, probe: &mut Probe, lasts: Duration) -> Result<(), Stuck> {
        let mut tick = interval(Duration::from_millis(5));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = Instant::now() + lasts;
        while Instant::now() < end {
            tick.tick().await;
            if self.asked.len().is_multiple_of(10) {
                self.write(probe)?;
            }
            self.read(probe)?;
        }
        Ok(())
    }

    fn write(&mut self, probe: &mut Probe) -> Result<(), Stuck> {
        self.written += 1;
        let id = probe.insert(&self.key, &self.written.to_string())?;
        self.open.push_back((id, self.written));
        Ok(())
    }

    fn read(&mut self, probe: &mut Probe) -> Result<(), Stuck> {
        let at_least = match self.floor {
            Floor::Published => self.written,
            Floor::Acknowledged => {
                for (id, number) in &self.open {
                    if !probe.answers(*id).is_empty() {
                        self.acknowledged = self.acknowledged.max(*number);
                    }
                }
                let acknowledged = self.acknowledged;
                self.open.retain(|(_, number)| *number > acknowledged);
                acknowledged
            }
        };
        self.asked.push((probe.query(&self.key)?, at_least));
        Ok(())
    }

    fn last(&self) -> u64 {
        self.asked.last().map_or(0, |(id, _)| *id)
    }

    /// All were answered, and none wrongly.
    async fn check(&self, story: &mut Story, probe: &Probe) {
        let mut unanswered = Vec::new();
        for (id, _) in &self.asked {
            // Once one is missed for good, the others are not waited for.
            let is_there = if unanswered.is_empty() {
                probe.answer(*id).await.is_ok()
            } else {
                !probe.answers(*id).is_empty()
            };
            if !is_there {
                unanswered.push(format!("pedido {id}"));
            }
        }
        story.check(
            "toda consulta teve resposta",
            none_of(&unanswered, self.asked.len()),
        );
        self.check_those_answered(story, probe);
    }

    /// None was answered wrongly.
    fn check_those_answered(&self, story: &mut Story, probe: &Probe) {
        let mut wrong = Vec::new();
        let mut answers = 0;
        for (id, at_least) in &self.asked {
            for answer in probe.answers(*id) {
                answers += 1;
                let given = number(&answer);
                if given.is_none_or(|given| given < *at_least || given > self.written) {
                    wrong.push(format!("{answer:?} em vez de {at_least}"));
                }
            }
        }
        story.check(
            "nenhuma resposta contradiz a ordem",
            none_of(&wrong, answers),
        );
    }
}

async fn start(
    broker: Broker,
    settings: &str,
    options: &[&str],
    watched: Watched,
) -> Result<Stage, Stuck> {
    let mut stage = Stage::set(broker, settings, 3, options).await?;
    stage.start_servers().await?;
    if watched == Watched::ByMonitor {
        stage.start_monitor(&[]).await?;
    }
    Ok(stage)
}

fn words(watched: Watched) -> &'static str {
    match watched {
        Watched::ByMonitor => "",
        Watched::ByNobody => ", sem monitor",
    }
}

/// Publishes these and waits for all answers; what got none is published again.
async fn put_together(probe: &mut Probe, pairs: &[(String, String)]) -> Result<(), Stuck> {
    let mut ids = Vec::new();
    for (key, value) in pairs {
        ids.push(probe.insert(key, value)?);
    }
    for (id, (key, value)) in ids.into_iter().zip(pairs) {
        if !probe.is_answered_soon(id).await {
            probe.put_surely(key, value).await?;
        }
    }
    Ok(())
}

/// Reads go on until server 1 says again that it serves.
async fn until_it_serves(
    stage: &mut Stage,
    probe: &mut Probe,
    reads: &mut Reads,
) -> Result<(), String> {
    let deadline = Instant::now() + WITHIN;
    loop {
        let turn = reads.go_on(probe, Duration::from_millis(50)).await;
        turn.map_err(|why| why.to_string())?;
        let server = stage.server(1).map_err(|why| why.to_string())?;
        match server
            .line("servindo a partir", Duration::from_millis(1))
            .await
        {
            Ok(_) => return Ok(()),
            Err(silent) if Instant::now() >= deadline => {
                return Err(silent.to_string());
            }
            Err(_) => {}
        }
    }
}

/// All serve, none doubts what it has, and every server has carried out what was asked so far.
async fn settle(stage: &mut Stage, probe: &mut Probe) -> Result<(), Stuck> {
    for server in 0..stage.size() as u64 {
        probe.settled(server).await?;
    }
    probe.put_surely("última", "sim").await?;
    probe.each_answers(stage.size()).await
}

/// Whether each of the three answers again, as a check of the story.
async fn all_answer(story: &mut Story, probe: &mut Probe, what: &str) {
    let answered = probe.each_answers(3).await;
    let answered = answered.map(|()| String::new());
    story.check(what, answered.map_err(|why| why.to_string()));
}

fn printed(stage: &mut Stage) -> Result<Vec<String>, Stuck> {
    let mut lines = Vec::new();
    for server in 0..stage.size() {
        lines.extend(stage.server(server)?.printed());
    }
    Ok(lines)
}

fn count_missing(tables: &[String], pairs: &[(String, String)]) -> usize {
    let table: BTreeMap<String, String> = serde_json::from_str(&tables[0]).unwrap_or_default();
    let is_missing = |(key, value): &&(String, String)| table.get(key) != Some(value);
    pairs.iter().filter(is_missing).count()
}

fn none_missing(tables: &[String], pairs: &[(String, String)]) -> Result<String, String> {
    match count_missing(tables, pairs) {
        0 => Ok(format!("{} inserções", pairs.len())),
        missing => Err(format!("{missing} de {} faltam", pairs.len())),
    }
}

/// Whether servers have said of at least so many insertions that they are lost.
fn all_reported(missing: usize, lines: &[String]) -> Result<String, String> {
    let reported: usize = lines
        .iter()
        .filter(|line| line.contains("PERDIDO"))
        .filter_map(|line| {
            line.split("não vale; até ")
                .nth(1)?
                .split(' ')
                .next()?
                .parse::<usize>()
                .ok()
        })
        .sum();
    if reported >= missing {
        Ok(format!("{missing} perdidas, {reported} ditas"))
    } else {
        Err(format!("{missing} perdidas, {reported} ditas"))
    }
}

/// What the broker's log calls this server, last.
fn name_at_broker(stage: &Stage, server: usize) -> Result<String, Stuck> {
    let log = std::fs::read_to_string(stage.file("broker.log"))
        .map_err(|error| Stuck::Otherwise(error.to_string()))?;
    let middle = format!("-{server}-");
    let mut names = log.split_whitespace().filter(|word| {
        word.strip_prefix("kvrep-")
            .is_some_and(|name| name.contains(&middle))
    });
    let last = names.next_back().map(str::to_owned);
    last.ok_or_else(|| Stuck::Otherwise("o broker não diz o nome da sessão".into()))
}

/// Connects under this name, with a clean session, in the plainest MQTT 3.1.1 there is.
async fn take_the_name(broker: &str, name: &str) -> Result<TcpStream, Stuck> {
    let taken = async {
        let mut connection = TcpStream::connect(broker).await?;
        let keep_alive_secs = 60_u16.to_be_bytes();
        let mut body = b"\x00\x04MQTT\x04\x02".to_vec();
        body.extend_from_slice(&keep_alive_secs);
        let length = u16::try_from(name.len()).map_err(std::io::Error::other)?;
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(name.as_bytes());
        // A name that is so short that its packet's length is one byte.
        let whole = u8::try_from(body.len()).map_err(std::io::Error::other)?;
        connection
            .write_all(&[&[0x10, whole][..], &body].concat())
            .await?;
        let mut answer = [0; 4];
        connection.read_exact(&mut answer).await?;
        if answer[3] != 0 {
            return Err(std::io::Error::other(format!(
                "o broker recusa: {}",
                answer[3]
            )));
        }
        Ok(connection)
    };
    let within = tokio::time::timeout(WITHIN, taken).await;
    let taken = within.map_err(|late| Stuck::Otherwise(late.to_string()))?;
    taken.map_err(|error: std::io::Error| Stuck::Otherwise(error.to_string()))
}

/// Insertions that wait for their answers together: fewer than what makes a server that keeps up fall behind at the broker.
const AT_ONCE: usize = 5;
/// Insertions while a server is alone: more than what mosquitto has under way for one that is stopped, and what our connections take unread.
const ALONE: usize = 1_500;
/// Insertions while another client has a server's name.
const WITHOUT_NAME: usize = 200;
/// Of load, before and after a fault.
const SHORT: Duration = Duration::from_millis(300);
/// Of load around each restart of the broker.
const LOAD_TURNS: u32 = 60;
