//! R0.40, R0.41: normal operation and failures, played with real processes and checked.

use super::brokers::Broker;
use super::dialect::request::hash;
use super::faults;
use super::probe::{Answer, Probe, key_of};
use super::stage::{Stage, Stuck, TIMEOUT, WITHIN, all_equal};
use crate::common::story::Story;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// How large the stories are.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Groups of 1 to so many servers are routed in.
    pub groups: usize,
    /// Pairs in the state that is handed over.
    pub pairs: u64,
    /// For how long reads and writes go on around a failure.
    pub load_for: Duration,
    /// How long after a death the substitute has answered at the latest; `None` where the machine may have other things to do.
    pub substitute_within: Option<Duration>,
    /// Insertions that a stopped server misses.
    pub missed: usize,
    /// How often the broker is killed and started again.
    pub restarts: u32,
}

impl Scale {
    /// What the requirements name.
    #[must_use]
    pub fn full() -> Self {
        Self {
            groups: 7,
            pairs: 100_000,
            load_for: Duration::from_secs(3),
            substitute_within: Some(TIMEOUT + Duration::from_millis(50)),
            missed: 5_000,
            restarts: 10,
        }
    }

    /// Small enough for a test of every day.
    #[must_use]
    pub fn small() -> Self {
        Self {
            groups: 3,
            pairs: 3_000,
            load_for: Duration::from_secs(1),
            substitute_within: None,
            missed: 1_500,
            restarts: 2,
        }
    }
}

/// Plays all of them.
///
/// # Errors
/// When something does not happen that must for the story to go on.
pub async fn all(story: &mut Story, broker: Broker, scale: Scale) -> Result<(), Stuck> {
    for servers in 1..=scale.groups {
        routing(story, broker, servers).await?;
    }
    killed_owner(story, broker, scale).await?;
    hand_over_under_load(story, broker, scale).await?;
    false_suspicion(story, broker).await?;
    faults::all(story, broker, scale).await
}

/// (a) Normal operation: each query is answered once, by the server that its key names.
async fn routing(story: &mut Story, broker: Broker, servers: usize) -> Result<(), Stuck> {
    story.step(format!(
        "Operação normal: {servers} servidores, consultas de chaves variadas"
    ));
    let mut stage = Stage::new(broker, servers, &[]).await?;
    stage.start_all().await?;
    let mut probe = stage.probe().await?;
    let keys: Vec<String> = ["", "a", "ação", "ção", "𝄞", "aspas\"", "linha\n"]
        .into_iter()
        .map(str::to_owned)
        .chain((0..servers).map(|server| key_of(server, servers, 1)))
        .collect();
    for key in &keys {
        probe.insert(key, &format!("valor de {key}"))?;
    }
    let mut asked = Vec::new();
    for key in &keys {
        asked.push((key, probe.query(key)?));
    }
    let missing = probe.get("não está lá").await?;
    let mut wrong = Vec::new();
    for (key, id) in &asked {
        let answer = probe.answer(*id).await?;
        let wanted = Answer {
            server: hash(key) % servers as u64,
            status: "ok".into(),
            value: Some(format!("valor de {key}")),
        };
        if answer != wanted {
            wrong.push(format!("{key:?}: {answer:?}"));
        }
    }
    all_drained(&mut probe, servers).await?;
    let many = asked
        .iter()
        .filter(|(_, id)| probe.answers(*id).len() != 1)
        .count();
    story.check(
        "R0.13: quem responde é a soma dos bytes da chave mod n, com o valor certo",
        none_of(&wrong, asked.len()),
    );
    story.equal("R0.8: uma resposta para cada consulta", &many, &0);
    story.equal(
        "A0.8: uma chave que não existe tem resposta",
        &missing.status.as_str(),
        &"naoexiste",
    );
    let all: Vec<_> = (0..servers).collect();
    story.check(
        "R0.2: todos têm a mesma tabela",
        all_equal(&stage.tables(&all).await?),
    );
    Ok(())
}

/// Every server has answered what was asked before: one more query of each is answered.
async fn all_drained(probe: &mut Probe, servers: usize) -> Result<(), Stuck> {
    for server in 0..servers {
        probe.get(&key_of(server, servers, 0)).await?;
    }
    Ok(())
}

/// (b) 200 reads a second on one owner, which is killed and started again with `--novo`.
async fn killed_owner(story: &mut Story, broker: Broker, scale: Scale) -> Result<(), Stuck> {
    story.step("Falha: 200 consultas por segundo ao servidor 1 de 3, que é morto (kill -9) e volta com --novo");
    let mut stage = Stage::new(broker, 3, &[]).await?;
    stage.start_all().await?;
    let mut probe = stage.probe().await?;
    let key = key_of(1, 3, 1);
    probe.put(&key, "0").await?;
    let (mut reads, mut value) = (Vec::new(), 0_u64);
    load(&mut probe, &key, &mut reads, &mut value, scale.load_for).await?;
    let before = reads.len();
    // What it has not said to have answered when it dies is answered again: the failure's window begins with its last word.
    probe.answer(reads[before - 1].0).await?;
    probe.settled(1).await?;
    load(&mut probe, &key, &mut reads, &mut value, scale.load_for / 4).await?;
    stage.kill(1).await?;
    let dead = reads.len();
    let killed = Instant::now();
    load(&mut probe, &key, &mut reads, &mut value, scale.load_for).await?;
    stage.monitor()?.line("servidor 1 falhou", WITHIN).await?;
    let first = reads[dead].0;
    let answer = probe.answer(first).await?;
    let after = probe.answered_at(first).map(|at| at - killed);
    let after = after.unwrap_or_default();
    story.saw(format!(
        "a primeira consulta depois da morte teve resposta do servidor {}, {} ms depois dela (--timeout {})",
        answer.server,
        after.as_millis(),
        TIMEOUT.as_millis()
    ));
    // R0.22: the timer runs from the last sign of life, which came up to one period before the death.
    if let Some(within) = scale.substitute_within {
        let said = format!("{} ms", after.as_millis());
        let found = if after <= within { Ok(said) } else { Err(said) };
        story.check("R0.22, R0.24: até --timeout + 50 ms depois da morte", found);
    }
    load(&mut probe, &key, &mut reads, &mut value, scale.load_for).await?;
    stage.replace(1).await?;
    let back = reads.len();
    load(&mut probe, &key, &mut reads, &mut value, scale.load_for).await?;
    let mut unanswered = Vec::new();
    for (id, _) in &reads {
        // Once one is missed for good, the others are not waited for.
        if unanswered.is_empty() && probe.answer(*id).await.is_ok() {
            continue;
        }
        if probe.answers(*id).is_empty() {
            unanswered.push(format!("pedido {id}"));
        }
    }
    story.check(
        "R0.24, R0.27: toda consulta teve resposta",
        none_of(&unanswered, reads.len()),
    );
    if let Some(first) = unanswered.first() {
        return Err(Stuck::Otherwise(format!("sem resposta: {first}")));
    }
    all_drained(&mut probe, 3).await?;
    let answers: Vec<_> = reads
        .iter()
        .map(|(id, value)| (probe.answers(*id), *value))
        .collect();
    let by: Vec<_> = answers
        .iter()
        .map(|(answers, _)| answers[0].server)
        .collect();
    let handed_over = by[dead..].iter().filter(|server| **server == 2).count();
    story.check(
        "R0.24: o substituto (2) respondeu pelo morto",
        if handed_over > 0 {
            Ok(format!("{handed_over} consultas"))
        } else {
            Err("nenhuma".into())
        },
    );
    story.equal(
        "R0.30: depois de servpronto o novo servidor responde",
        &by[answers.len() - 1],
        &1,
    );
    let outside = answers[..before].iter().chain(&answers[back..]);
    let twice = outside.filter(|(answers, _)| answers.len() != 1).count();
    story.equal("R0.30: fora da falha, exatamente uma resposta", &twice, &0);
    let stale: Vec<_> = (answers.iter())
        .flat_map(|(answers, at_least)| answers.iter().map(move |answer| (answer, *at_least)))
        .filter(|(answer, at_least)| number(answer) < Some(*at_least))
        .map(|(answer, at_least)| format!("{answer:?} em vez de {at_least}"))
        .collect();
    story.check(
        "R0.12: nenhuma resposta é mais velha do que a ordem manda",
        none_of(&stale, answers.len()),
    );
    let exact = |range: &[(Vec<Answer>, u64)]| -> Vec<String> {
        let other = range
            .iter()
            .filter(|(answers, value)| number(&answers[0]) != Some(*value));
        other
            .map(|(answers, value)| format!("{:?} em vez de {value}", answers[0]))
            .collect()
    };
    story.check(
        "C0.2: antes da falha, o valor que a ordem manda",
        none_of(&exact(&answers[..before]), before),
    );
    story.check(
        "C0.2: depois da volta também",
        none_of(&exact(&answers[back..]), answers.len() - back),
    );
    story.check(
        "R0.32: todos têm a mesma tabela",
        all_equal(&stage.tables(&[0, 1, 2]).await?),
    );
    Ok(())
}

/// 200 reads a second of the key, a write of the next number before every tenth; notes what each read must give at least.
async fn load(
    probe: &mut Probe,
    key: &str,
    reads: &mut Vec<(u64, u64)>,
    value: &mut u64,
    lasts: Duration,
) -> Result<(), Stuck> {
    let mut tick = interval(Duration::from_millis(5));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let end = Instant::now() + lasts;
    let mut turn = 0_u32;
    while Instant::now() < end {
        tick.tick().await;
        if turn.is_multiple_of(10) {
            *value += 1;
            probe.insert(key, &value.to_string())?;
        }
        turn += 1;
        reads.push((probe.query(key)?, *value));
    }
    Ok(())
}

/// (c) A large state is handed over while writes go on, and the substitute dies in the middle.
async fn hand_over_under_load(
    story: &mut Story,
    broker: Broker,
    scale: Scale,
) -> Result<(), Stuck> {
    story.step(format!(
        "Transferência de {} pares com 500 inserções por segundo",
        scale.pairs
    ));
    let mut stage = Stage::new(broker, 4, &[]).await?;
    stage.start_all().await?;
    let mut probe = stage.probe().await?;
    fill(&mut probe, scale.pairs).await?;
    stage.kill(0).await?;
    stage.monitor()?.line("servidor 0 falhou", WITHIN).await?;
    stage.start_server(0, &["--novo"])?;
    let mut n = 0;
    let served = write_until(&mut probe, &mut n, &mut stage, 0).await;
    story.check(
        "R0.29: o novo servidor recebe o estado e serve",
        found(&served, format!("com {n} inserções no meio")),
    );
    served?;

    story.step("O mesmo, e o substituto morre no meio da transferência");
    stage.kill(0).await?;
    stage.monitor()?.line("servidor 0 falhou", WITHIN).await?;
    stage.start_server(0, &["--novo"])?;
    stage.server(0)?.line("conectado ao broker", WITHIN).await?;
    write(&mut probe, &mut n, 25).await?;
    stage.kill(1).await?;
    let served = write_until(&mut probe, &mut n, &mut stage, 0).await;
    story.check(
        "C0.8: o próximo servidor vivo termina a transferência",
        found(&served, String::new()),
    );
    served?;
    stage.replace(1).await?;
    let last = probe.put("última", "sim").await?;
    story.equal("e o grupo responde", &last.status.as_str(), &"ok");
    all_drained(&mut probe, 4).await?;
    let tables = stage.tables(&[0, 1, 2, 3]).await?;
    let equal = all_equal(&tables);
    let pairs = serde_json::from_str::<std::collections::BTreeMap<String, String>>(&tables[0]);
    story.check("R0.32: os despejos são idênticos", equal);
    let wanted = scale.pairs + n + 1;
    let found = pairs.map_or(0, |pairs| pairs.len() as u64);
    story.check(
        "R0.32: e nenhuma inserção falta",
        if found == wanted {
            Ok(format!("{found} pares"))
        } else {
            Err(format!("{found} de {wanted} pares"))
        },
    );
    Ok(())
}

/// So many pairs, not faster than they are carried out.
async fn fill(probe: &mut Probe, pairs: u64) -> Result<(), Stuck> {
    let mut last = None;
    for pair in 0..pairs {
        let id = probe.insert(&format!("par {pair:06}"), "um valor de tamanho comum")?;
        if pair % FILL_AT_ONCE == FILL_AT_ONCE - 1
            && let Some(before) = last.replace(id)
        {
            probe.answer(before).await?;
        }
    }
    let id = probe.query("par 000000")?;
    probe.answer(id).await.map(drop)
}

/// 500 insertions a second, each of a key of its own.
async fn write(probe: &mut Probe, n: &mut u64, times: u32) -> Result<(), Stuck> {
    let mut tick = interval(Duration::from_millis(2));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for _ in 0..times {
        tick.tick().await;
        probe.insert(&format!("durante {n:06}"), "x")?;
        *n += 1;
    }
    Ok(())
}

/// The same until this server serves.
async fn write_until(
    probe: &mut Probe,
    n: &mut u64,
    stage: &mut Stage,
    server: usize,
) -> Result<(), Stuck> {
    let deadline = Instant::now() + 3 * WITHIN;
    loop {
        write(probe, n, 25).await?;
        let served = stage
            .server(server)?
            .line("servindo a partir", Duration::from_millis(1))
            .await;
        match served {
            Ok(_) => return Ok(()),
            Err(silent) if Instant::now() >= deadline => return Err(silent.into()),
            Err(_) => {}
        }
    }
}

/// (d) A server is stopped, declared dead, and goes on.
async fn false_suspicion(story: &mut Story, broker: Broker) -> Result<(), Stuck> {
    story.step("Suspeita falsa: o servidor 1 de 3 é parado (SIGSTOP), dado como morto, e continua (SIGCONT)");
    let mut stage = Stage::new(broker, 3, &[]).await?;
    stage.start_all().await?;
    let mut probe = stage.probe().await?;
    let key = key_of(1, 3, 1);
    probe.put(&key, "1").await?;
    stage.server(1)?.pause()?;
    let asked = [probe.query(&key)?, probe.query(&key)?];
    stage.monitor()?.line("servidor 1 falhou", WITHIN).await?;
    for id in asked {
        let answer = probe.answer(id).await?;
        story.equal("o substituto responde", &answer.server, &2);
    }
    let changed = probe.put(&key, "2").await?;
    story.equal("e insere", &changed.value.as_deref(), &Some("2"));
    stage.server(1)?.resume()?;
    stage.serves(1).await?;
    all_drained(&mut probe, 3).await?;
    let answer = probe.get(&key).await?;
    story.equal(
        "A0.15: ele entra de novo e responde",
        &(answer.server, answer.value.as_deref()),
        &(1, Some("2")),
    );
    let differing: Vec<_> = asked
        .into_iter()
        .flat_map(|id| probe.answers(id))
        .filter(|answer| !matches!(answer.value.as_deref(), Some("1" | "2")))
        .map(|answer| format!("{answer:?}"))
        .collect();
    story.check(
        "nenhuma resposta contradiz outra",
        none_of(&differing, asked.len()),
    );
    story.check(
        "todos têm a mesma tabela",
        all_equal(&stage.tables(&[0, 1, 2]).await?),
    );
    Ok(())
}

pub(super) fn number(answer: &Answer) -> Option<u64> {
    answer.value.as_deref()?.parse().ok()
}

fn found(happened: &Result<(), Stuck>, detail: String) -> Result<String, String> {
    happened
        .as_ref()
        .map(|()| detail)
        .map_err(ToString::to_string)
}

pub(super) fn none_of(wrong: &[String], of: usize) -> Result<String, String> {
    match wrong.first() {
        None => Ok(format!("{of}")),
        Some(first) => Err(format!("{} de {of}, por exemplo {first}", wrong.len())),
    }
}

const FILL_AT_ONCE: u64 = 500;
