//! What servers and monitor say in the stream itself.
//!
//! The words of the text have its fields, and ours beside them. Origin, comparison and healing of histories, of which the text says
//! nothing, have words of ours: `inicio`, `objecao`, `marca`, `decisao`.
//!
//! Everything that a server says carries its `carimbo`, by which the others notice what they miss. The word of a foreign monitor has none.

use super::fields::Fields;
use crate::mqtt_kv::topics::Topics;
use kvrep_core::protocol::active::{Decision, Item, Life, Published, Stamp};
use kvrep_core::{Incarnation, Index, ReplicaId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A life in JSON: whose, which start, which join of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LifeJson {
    idserv: u32,
    encarnacao: u64,
    tentativa: u32,
}

/// A stamp in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StampJson {
    idserv: u32,
    encarnacao: u64,
    numero: u64,
}

impl From<(ReplicaId, Life)> for LifeJson {
    fn from((replica, life): (ReplicaId, Life)) -> Self {
        Self {
            idserv: replica.0,
            encarnacao: life.incarnation.0,
            tentativa: life.attempt,
        }
    }
}

impl From<LifeJson> for (ReplicaId, Life) {
    fn from(json: LifeJson) -> Self {
        let life = Life {
            incarnation: Incarnation(json.encarnacao),
            attempt: json.tentativa,
        };
        (ReplicaId(json.idserv), life)
    }
}

impl From<Stamp> for StampJson {
    fn from(stamp: Stamp) -> Self {
        Self {
            idserv: stamp.replica.0,
            encarnacao: stamp.incarnation.0,
            numero: stamp.seq,
        }
    }
}

impl From<StampJson> for Stamp {
    fn from(json: StampJson) -> Self {
        Self {
            replica: ReplicaId(json.idserv),
            incarnation: Incarnation(json.encarnacao),
            seq: json.numero,
        }
    }
}

/// The item as JSON; `None` for a client's request, which is written by [`super::request`]. What is stamped says what its server takes for agreed.
#[must_use]
pub fn write(published: &Published, topics: &Topics, agreement: u64) -> Option<String> {
    let mut json = match &published.item {
        Item::Request(_) | Item::Unreadable => return None,
        Item::Announce { replica, life } => {
            let topic = topics.state_of(*replica);
            with_life(
                json!({"tipomsg": "novoserv", "topico-resp": topic}),
                *replica,
                Some(*life),
            )
        }
        Item::Ready { replica, life } => {
            with_life(json!({"tipomsg": "servpronto"}), *replica, Some(*life))
        }
        Item::Failed {
            replica,
            life,
            seen_at,
        } => {
            let mut json = with_life(json!({"tipomsg": "falhaserv"}), *replica, *life);
            json["vistoem"] = (seen_at.0 / 1_000).into();
            json["vistoem_us"] = seen_at.0.into();
            json
        }
        Item::Genesis {
            replica,
            life,
            from,
        } => {
            let json = json!({"tipomsg": "inicio", "desde": from.0});
            with_life(json, *replica, Some(*life))
        }
        Item::Objection { genesis } => {
            json!({"tipomsg": "objecao", "inicio": StampJson::from(*genesis)})
        }
        Item::Mark { decisions, clock } => {
            json!({"tipomsg": "marca", "decisoes": decisions, "relogio": clock.0})
        }
        Item::Decision(decision) => {
            let listed: Vec<_> = decision
                .listed
                .iter()
                .copied()
                .map(LifeJson::from)
                .collect();
            json!({
                "tipomsg": "decisao",
                "numero": decision.number,
                "marca": StampJson::from(decision.mark),
                "conhecidas": decision.known,
                "posicao": decision.at.0,
                "cadeia": decision.chain,
                "listados": listed,
            })
        }
    };
    if let Some(stamp) = published.stamp {
        json["carimbo"] = json!(StampJson::from(stamp));
        json["acordo"] = agreement.into();
    }
    Some(json.to_string())
}

/// The item that these fields are, under this word; `None` for another word, an error with why it cannot be taken.
#[must_use]
pub fn read(
    fields: &Fields<'_>,
    kind: &str,
    topics: &Topics,
    agreement: u64,
) -> Option<Result<Published, String>> {
    let item = match kind {
        "novoserv" => announce(fields, topics),
        "servpronto" => life(fields).map(|(replica, life)| Item::Ready { replica, life }),
        "falhaserv" => failed(fields),
        "inicio" => life(fields).and_then(|(replica, life)| {
            let from = Index(fields.get("desde")?);
            Some(Item::Genesis {
                replica,
                life,
                from,
            })
        }),
        "objecao" => stamp(fields, "inicio").map(|genesis| Item::Objection { genesis }),
        "marca" => mark(fields),
        "decisao" => decision(fields).map(Item::Decision),
        _ => return None,
    };
    let stamp = stamp(fields, "carimbo");
    let foreign = || format!("{kind} sem os campos de um servidor deste grupo");
    if stamp.is_some() && fields.get("acordo") != Some(agreement) {
        return Some(Err(format!("{kind} de um servidor com outras opções")));
    }
    Some(match item {
        // A foreign monitor's.
        Some(item @ Item::Failed { .. }) => Ok(Published { stamp, item }),
        Some(item) if stamp.is_some() => Ok(Published { stamp, item }),
        Some(_) | None => Err(foreign()),
    })
}

/// A0.11: where the id is missing, it is the number at the end of the topic.
fn announce(fields: &Fields<'_>, topics: &Topics) -> Option<Item> {
    let topic = fields.text(&["topico-resp", "topico_resp", "topicoresp"]);
    let of_topic = || {
        let topic = topic.ok().flatten()?;
        topic.strip_prefix(&topics.states)?.parse().ok()
    };
    let replica = ReplicaId(fields.server().or_else(of_topic)?);
    let life = life_alone(fields)?;
    Some(Item::Announce { replica, life })
}

fn failed(fields: &Fields<'_>) -> Option<Item> {
    let replica = ReplicaId(fields.server()?);
    let seen_at = seen_at(fields);
    // In doubt it is the current life that has failed: a needless return is better than a server that nobody replaces.
    let life = life_alone(fields);
    Some(Item::Failed {
        replica,
        life,
        seen_at,
    })
}

/// A0.4: milliseconds since 1970, or seconds where the number is too small for that. Where it is missing: long ago.
#[must_use]
pub fn seen_at(fields: &Fields<'_>) -> Timestamp {
    if let Some(exact) = fields.get("vistoem_us") {
        return Timestamp(exact);
    }
    if let Some(millis) = fields
        .whole(&["vistoem"])
        .filter(|whole| *whole >= SECONDS_BELOW)
    {
        return Timestamp(millis.saturating_mul(1_000));
    }
    let number = fields.number(&["vistoem"]).unwrap_or(0.0);
    #[allow(clippy::cast_precision_loss, reason = "a power of ten")]
    let unit = if number < SECONDS_BELOW as f64 {
        1e6
    } else {
        1e3
    };
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "this cast takes the nearest that there is, and 0 for what is below"
    )]
    Timestamp((number * unit) as u64)
}

fn mark(fields: &Fields<'_>) -> Option<Item> {
    Some(Item::Mark {
        decisions: fields.get("decisoes")?,
        clock: Timestamp(fields.get("relogio")?),
    })
}

fn decision(fields: &Fields<'_>) -> Option<Decision> {
    let listed: Vec<LifeJson> = fields.get("listados")?;
    Some(Decision {
        number: fields.get("numero")?,
        mark: stamp(fields, "marca")?,
        known: fields.get("conhecidas")?,
        at: Index(fields.get("posicao")?),
        chain: fields.get("cadeia")?,
        listed: listed.into_iter().map(Into::into).collect(),
    })
}

/// The life that the fields name.
#[must_use]
pub fn life(fields: &Fields<'_>) -> Option<(ReplicaId, Life)> {
    Some((ReplicaId(fields.server()?), life_alone(fields)?))
}

/// Which start and join the fields name.
#[must_use]
pub fn life_alone(fields: &Fields<'_>) -> Option<Life> {
    Some(Life {
        incarnation: Incarnation(fields.get("encarnacao")?),
        attempt: fields.get("tentativa")?,
    })
}

/// A stamp in a field.
fn stamp(fields: &Fields<'_>, name: &str) -> Option<Stamp> {
    fields.get::<StampJson>(name).map(Into::into)
}

fn with_life(mut json: Value, replica: ReplicaId, life: Option<Life>) -> Value {
    json["idserv"] = replica.0.into();
    if let Some(life) = life {
        json["encarnacao"] = life.incarnation.0.into();
        json["tentativa"] = life.attempt.into();
    }
    json
}

/// Milliseconds since 1970 that are less than this were before March 1973.
const SECONDS_BELOW: u64 = 100_000_000_000;
