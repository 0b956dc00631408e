//! What the monitor does about a dead server: says so in the stream, and has it started again.

use super::dialect::items;
use super::monitor::Settings;
use super::timers::{Failure, Timers};
use kvrep_core::ReplicaId;
use kvrep_core::protocol::active::{Item, Published};
use kvrep_transport_mqtt::ordered::{PublicationId, Publisher};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Who else lives when a server is declared dead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Others {
    SomeLive,
    AllSilent,
}

pub(super) struct Reporting<'a> {
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

impl<'a> Reporting<'a> {
    /// Nothing is reported yet; and what became of the operator's commands, to be told.
    pub(super) fn new(
        settings: &'a Settings,
        publisher: Publisher,
    ) -> (Self, mpsc::Receiver<String>) {
        let (relaunched, ends) = mpsc::channel(RELAUNCHES_MAX);
        let reporting = Self {
            settings,
            publisher,
            under_way: BTreeMap::new(),
            postponed: BTreeSet::new(),
            relaunch_at: None,
            relaunched,
        };
        (reporting, ends)
    }

    /// Asks whether this monitor hears itself. If the queue is full, it is asked again.
    pub(super) fn ask(&self, word: String) {
        let topic = self.settings.topics.monitor.as_str();
        let _ = self.publisher.publish(topic, word);
    }

    /// The broker has it.
    pub(super) fn acknowledged(&mut self, id: PublicationId) {
        self.under_way.remove(&id);
    }

    /// The broker may not have it.
    pub(super) fn abandoned(&mut self, id: PublicationId) {
        if let Some(said) = self.under_way.remove(&id) {
            self.say(said);
        }
    }

    pub(super) fn report(&mut self, failure: Failure, others: Others, tell: &mut impl FnMut(&str)) {
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
    pub(super) fn make_up(&mut self, now: Instant, timers: &Timers, tell: &mut impl FnMut(&str)) {
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
    pub(super) fn over(&mut self, publisher: Publisher) {
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
