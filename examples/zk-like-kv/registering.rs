//! A follower's side of the [registration](super::registry): it says `JOIN`, and hears who the three are, for as long as it runs.
//!
//! The leader's answer is checked by the leader asking back: at the address that a `JOIN` names it expects a server that says the same of
//! itself. So an address that was typed wrongly, or that the leader cannot reach, is refused with what is wrong, and counts for
//! nothing.
//!
//! A leader answers when it knows all three, so it may be silent for long; a service that is no leader may be, too. So a follower that hears nothing asks
//! there who that is, which every server answers at once, and says it if nobody does.
//!
//! One that is to take another one's place is told whether it may, and ends if not: one that went on asking would take that place
//! at the next opportunity, when its operator has forgotten it.

use super::failures::{of_io, of_json, of_talk};
use super::framing::{self, Framing};
use super::hearsay::Hearsay;
use super::message::Mensagem;
use super::trio::Trio;
use crate::common::conversation::{Conversation, Ended, Manners, dial};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// A follower that wants to be one of the three.
#[derive(Clone, Copy, Debug)]
pub struct Registering {
    /// Where it listens.
    pub me: SocketAddr,
    /// Where the leader listens.
    pub leader: SocketAddr,
    /// The follower whose place it takes, if it must.
    pub instead_of: Option<SocketAddr>,
}

impl Registering {
    /// Registers with the leader, and again whenever the connection ends, until the leader refuses to let it take another one's
    /// place. Returns why, in words for its operator.
    pub async fn stay(mut self, trio: &watch::Sender<Option<Trio>>, hearsay: &Hearsay) -> String {
        let mut told = String::new();
        // What it says of the three is out of date once it was refused: another one took its place.
        let mut knows = Known::AsHeard;
        loop {
            let ended = self.once(trio, knows, hearsay).await;
            knows = match &ended {
                Err(Unregistered::Refused(_)) => Known::OutOfDate,
                // Let in, and the leader ended.
                Ok(()) => Known::AsHeard,
                Err(Unregistered::Unheard(_)) => knows,
            };
            let (me, leader) = (self.me, self.leader);
            let why = match (ended, self.instead_of) {
                (Ok(()), _) => String::new(),
                (Err(Unregistered::Refused(why)), Some(dead)) => {
                    return format!(
                        "o líder {leader} não deixa {me} tomar o lugar de {dead}: {why}"
                    );
                }
                (Err(Unregistered::Refused(why) | Unregistered::Unheard(why)), _) => why,
            };
            // Nobody listens there yet: that is how every start looks.
            if why != told && !why.is_empty() {
                eprintln!(
                    "cadastro no líder {}: {why} (continua a tentar)",
                    self.leader
                );
            }
            told = why;
            sleep(REGISTER_AGAIN).await;
        }
    }

    async fn once(
        &mut self,
        trio: &watch::Sender<Option<Trio>>,
        knows: Known,
        hearsay: &Hearsay,
    ) -> Result<(), Unregistered> {
        let known = match knows {
            Known::AsHeard => trio.borrow().as_ref().map(Trio::servers),
            Known::OutOfDate => None,
        };
        let join = Mensagem::join(self.me, known, self.instead_of);
        let mut talk = say(self.leader, &join).await?;
        let (mut shown, mut registered) = (hearsay.watch(), false);
        loop {
            let message = tokio::select! {
                message = hear(&mut talk) => message?,
                why = no_server(self.leader), if !registered => return Err(why.into()),
                Ok(()) = shown.changed(), if registered => {
                    let highest = *shown.borrow_and_update();
                    if highest > 0 {
                        tell(&mut talk, &Mensagem::seen(highest)).await?;
                    }
                    continue;
                }
            };
            let Some(message) = message else {
                // That a leader which has not answered is gone says nothing.
                return registered.then_some(()).ok_or_else(|| String::new().into());
            };
            let Some(servers) = message.servidores.filter(|_| message.tipo == "JOIN_OK") else {
                let why = message.erro.unwrap_or(message.tipo);
                return Err(Unregistered::Refused(why));
            };
            let servers: Result<Vec<SocketAddr>, _> = servers.iter().map(|s| s.parse()).collect();
            let servers = servers
                .map_err(|_| "o líder respondeu com endereços que não são ip:porta".to_owned())?;
            let others = servers.into_iter().filter(|at| *at != self.leader);
            let heard = Trio::new(self.leader, others)?;
            if heard.id_of(self.me).is_none() {
                return Err(format!("o líder não conhece {}", self.me).into());
            }
            // Should another one take its place, it does not get it back by what it was started with.
            self.instead_of = None;
            trio.send_if_modified(|known| {
                let news = known.as_ref() != Some(&heard);
                *known = Some(heard);
                news
            });
            registered = true;
        }
    }
}

/// Whether what it heard of the three still counts.
#[derive(Clone, Copy)]
enum Known {
    AsHeard,
    OutOfDate,
}

/// Why a registration ended.
enum Unregistered {
    /// The leader says so.
    Refused(String),
    /// The leader was not reached, not understood, or did not finish.
    Unheard(String),
}

impl From<String> for Unregistered {
    fn from(why: String) -> Self {
        Self::Unheard(why)
    }
}

/// Asks at this address for a server that says that it is the one there.
///
/// # Errors
/// Why it cannot be one of the three, in words for its operator.
pub async fn confirm(address: SocketAddr) -> Result<(), String> {
    let why = match who(address).await {
        Ok(Some(servidor)) if servidor == address.to_string() => return Ok(()),
        Ok(Some(servidor)) => format!("quem responde é {servidor}"),
        Ok(None) => "quem responde não diz quem é".into(),
        Err(why) => why,
    };
    Err(format!(
        "o líder não encontra este servidor em {address} ({why}): confira IP e porta"
    ))
}

/// Waits until it is certain that no server answers where the leader should be: what is there instead.
async fn no_server(leader: SocketAddr) -> String {
    loop {
        sleep(SILENT_FOR).await;
        if let Err(why) = who(leader).await {
            return format!(
                "quem escuta nesse endereço não responde como um servidor ({why}): confira IP e porta do líder"
            );
        }
    }
}

/// Which server is there, as it says.
async fn who(address: SocketAddr) -> Result<Option<String>, String> {
    let asked = async {
        let mut talk = say(address, &Mensagem::of("QUEM")).await?;
        hear(&mut talk).await
    };
    match timeout(CONFIRM_WITHIN, asked).await {
        Ok(Ok(Some(said))) if said.tipo == "SOU" => Ok(said.servidor),
        Ok(Ok(Some(_))) => Err("quem responde não é um servidor".into()),
        Ok(Ok(None)) => Err("a conexão terminou sem resposta".into()),
        Ok(Err(why)) => Err(why),
        Err(_) => Err("sem resposta".into()),
    }
}

type Talk = Conversation<TcpStream, Framing>;

/// Connects and says this.
async fn say(to: SocketAddr, message: &Mensagem) -> Result<Talk, String> {
    let stream = dial(&to.to_string(), DIAL_WITHIN).await;
    let stream = stream.map_err(|error| of_io(&error))?;
    let manners = Manners {
        idle: LONGEST,
        ..Manners::default()
    };
    let mut talk = framing::talk(stream, &[], manners);
    tell(&mut talk, message).await?;
    Ok(talk)
}

async fn tell(talk: &mut Talk, message: &Mensagem) -> Result<(), String> {
    let json = serde_json::to_vec(message).map_err(|error| error.to_string())?;
    talk.send(&json[..]).await.map_err(|ended| of_talk(&ended))
}

async fn hear(talk: &mut Talk) -> Result<Option<Mensagem>, String> {
    let strange = |why: String| format!("quem responde não fala como um servidor: {why}");
    let next = talk.next().await.map_err(|ended| match &ended {
        Ended::Malformed(_) => strange(of_talk(&ended)),
        Ended::Idle(_)
        | Ended::Slow(_)
        | Ended::Cut
        | Ended::Unread(_)
        | Ended::Unsendable(_)
        | Ended::Broken(_) => of_talk(&ended),
    })?;
    let Some(message) = next else {
        return Ok(None);
    };
    let json = serde_json::from_slice(&message.json);
    json.map_err(|error| strange(of_json(&message.json, &error)))
}

const DIAL_WITHIN: Duration = Duration::from_secs(1);
const CONFIRM_WITHIN: Duration = Duration::from_secs(3);
/// How long a leader may be silent before it is asked who it is.
const SILENT_FOR: Duration = Duration::from_secs(2);
const REGISTER_AGAIN: Duration = Duration::from_millis(100);
/// The leader ends a connection that says nothing; until then it is kept.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);
