//! What servers tell each other beside the stream: signs of life (which the monitor hears, too), and the state for one that joins.
//!
//! A sign of life has the one field of the text and those that the servers need; among them is `acordo`, the hash of everything that
//! the group agrees on. A state comes as `estado` messages of a bounded size ([`super::pairs`]), each acknowledged by a `recebido`.

use super::fields::Fields;
use super::items::{LifeJson, StampJson, life, life_alone};
use super::pairs::{self, Parts};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use kvrep_core::protocol::active::{Claim, Confirmed, Heartbeat, Life, Message, split_state};
use kvrep_core::{Index, ReplicaId};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::time::Duration;

#[derive(Serialize, Deserialize)]
struct ClaimJson {
    marca: StampJson,
    posicao: u64,
    cadeia: u64,
    resumo: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct HeartbeatJson {
    servindo: bool,
    posicao: u64,
    cadeia: u64,
    respondido_ate: u64,
    confirmado_ate: u64,
    confirmado_cadeia: u64,
    origem: Option<u64>,
    retendo: bool,
    visao: u64,
    falhos: Vec<LifeJson>,
    marcas: Vec<ClaimJson>,
}

/// A sign of life. `period` is how often it is given: a monitor compares it with its own options.
#[must_use]
pub fn write_heartbeat(heartbeat: &Heartbeat, agreement: u64, period: Option<Duration>) -> String {
    let claim = |claim: &Claim| ClaimJson {
        marca: claim.mark.into(),
        posicao: claim.at.0,
        cadeia: claim.chain,
        resumo: claim.digest,
    };
    let body = HeartbeatJson {
        servindo: heartbeat.serving,
        posicao: heartbeat.at.0,
        cadeia: heartbeat.chain,
        respondido_ate: heartbeat.answered.0,
        confirmado_ate: heartbeat.confirmed.at.0,
        confirmado_cadeia: heartbeat.confirmed.chain,
        origem: heartbeat.origin,
        retendo: heartbeat.holding,
        visao: heartbeat.view,
        falhos: heartbeat
            .failed
            .iter()
            .copied()
            .map(LifeJson::from)
            .collect(),
        marcas: heartbeat.claims.iter().map(claim).collect(),
    };
    let mut json = json!({
        "idServ": heartbeat.replica.0,
        "encarnacao": heartbeat.life.incarnation.0,
        "tentativa": heartbeat.life.attempt,
        "acordo": agreement,
    });
    if let Some(period) = period {
        json["periodo"] = u64::try_from(period.as_millis()).unwrap_or(u64::MAX).into();
    }
    if let (Some(json), Ok(Value::Object(body))) =
        (json.as_object_mut(), serde_json::to_value(body))
    {
        json.extend(body);
    }
    json.to_string()
}

/// What a payload on the monitor's topic says.
#[derive(Debug, PartialEq, Eq)]
pub enum Sign {
    /// A server of ours says all of it.
    Ours {
        /// It.
        heartbeat: Heartbeat,
        /// What it takes for agreed.
        agreement: u64,
        /// How often it gives one, where it says so.
        period: Option<Duration>,
    },
    /// A server lives, and more is not said.
    Alive {
        /// Which.
        server: u32,
        /// In which life, where it says so.
        life: Option<Life>,
    },
}

/// Reads a sign of life.
///
/// # Errors
/// Why it is none.
pub fn read_heartbeat(payload: &[u8]) -> Result<Sign, String> {
    let fields = Fields::of(payload)?;
    let server = fields.server();
    let server = server.ok_or("um sinal de vida sem idServ")?;
    let life = life_alone(&fields);
    let agreement = fields.get("acordo");
    let body = serde_json::from_slice::<HeartbeatJson>(payload).ok();
    let (Some(life), Some(agreement), Some(body)) = (life, agreement, body) else {
        return Ok(Sign::Alive { server, life });
    };
    let claim = |claim: ClaimJson| Claim {
        mark: claim.marca.into(),
        at: Index(claim.posicao),
        chain: claim.cadeia,
        digest: claim.resumo,
    };
    let heartbeat = Heartbeat {
        replica: ReplicaId(server),
        life,
        serving: body.servindo,
        at: Index(body.posicao),
        chain: body.cadeia,
        answered: Index(body.respondido_ate),
        confirmed: Confirmed {
            at: Index(body.confirmado_ate),
            chain: body.confirmado_cadeia,
        },
        origin: body.origem,
        holding: body.retendo,
        view: body.visao,
        failed: body.falhos.into_iter().map(Into::into).collect(),
        claims: body.marcas.into_iter().map(claim).collect(),
    };
    Ok(Sign::Ours {
        heartbeat,
        agreement,
        period: fields.get("periodo").map(Duration::from_millis),
    })
}

/// A message to one server; `parte` and `partes` count pieces of `piece_bytes`, also where they go over in smaller ones. `None` for a sign of life, which is for all.
#[must_use]
pub fn write_to(to: ReplicaId, message: &Message, piece_bytes: u64) -> Option<String> {
    let json = match message {
        Message::Heartbeat(_) => return None,
        Message::Got {
            by,
            life,
            chain,
            bytes,
        } => json!({
            "tipomsg": "recebido",
            "idserv": by.0,
            "encarnacao": life.incarnation.0,
            "tentativa": life.attempt,
            "cadeia": chain,
            "bytes": bytes,
        }),
        Message::Piece {
            life,
            from,
            at,
            chain,
            offset,
            whole,
            data,
        } => {
            // Where the scheme's part is whole in the first piece, nothing in it is taken for pairs.
            let scheme = (*offset == 0).then(|| split_state(data)).flatten();
            let table = scheme.map_or(0, |(scheme, _)| scheme.len());
            let Parts {
                before,
                pairs,
                after,
            } = pairs::split(data, table);
            json!({
                "tipomsg": "estado",
                "idserv": to.0,
                "conteudo": pairs,
                "seq": at.0,
                "parte": offset / piece_bytes + 1,
                "partes": whole.div_ceil(piece_bytes),
                "encarnacao": life.incarnation.0,
                "tentativa": life.attempt,
                "de": from.0,
                "cadeia": chain,
                "desvio": offset,
                "total": whole,
                "antes": BASE64.encode(before),
                "depois": BASE64.encode(after),
            })
        }
    };
    Some(json.to_string())
}

/// A message for this server. States that are larger than `state_bytes_max` are refused with their first piece.
///
/// # Errors
/// Why it is none.
pub fn read_to(payload: &[u8], state_bytes_max: u64) -> Result<Message, String> {
    let fields = Fields::of(payload)?;
    let kind = fields
        .text(&["tipomsg"])?
        .unwrap_or_default()
        .to_lowercase();
    match kind.as_str() {
        "recebido" => got(&fields).ok_or_else(|| "recebido sem todos os seus campos".into()),
        "estado" | "atualizacao" => piece(&fields, state_bytes_max),
        _ if fields.raw(&["payload"]).is_some() => piece(&fields, state_bytes_max),
        other => Err(format!("tipomsg {other:?} não se espera aqui")),
    }
}

fn got(fields: &Fields<'_>) -> Option<Message> {
    let (by, life) = life(fields)?;
    Some(Message::Got {
        by,
        life,
        chain: fields.get("cadeia")?,
        bytes: fields.get("bytes")?,
    })
}

/// A0.12: the pairs are in `conteudo`, or in `payload`.
fn piece(fields: &Fields<'_>, state_bytes_max: u64) -> Result<Message, String> {
    let raw = fields
        .raw(&["conteudo", "payload"])
        .ok_or("um estado sem conteudo")?;
    let pairs: Map<String, Value> = serde_json::from_str(raw.get())
        .map_err(|error| format!("o conteudo do estado não é um objeto: {error}"))?;
    let bytes = |name: &str| {
        let text: Option<String> = fields.get(name);
        text.map_or(Some(Vec::new()), |text| BASE64.decode(text).ok())
    };
    let read = || {
        let parts = Parts {
            before: bytes("antes")?,
            pairs,
            after: bytes("depois")?,
        };
        Some(Message::Piece {
            life: life_alone(fields)?,
            from: ReplicaId(fields.get("de")?),
            at: Index(fields.get("seq")?),
            chain: fields.get("cadeia")?,
            offset: fields.get("desvio")?,
            whole: fields
                .get("total")
                .filter(|whole| *whole <= state_bytes_max)?,
            data: Bytes::from(pairs::join(&parts)?),
        })
    };
    read().ok_or_else(|| {
        format!("um estado sem os campos de um servidor deste grupo, ou de mais de {state_bytes_max} bytes")
    })
}
