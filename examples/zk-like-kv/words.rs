//! What the operator of a server is told: the library's sentences in the language and the words of this system, which knows servers by
//! their addresses, and has no option to force anybody.
//!
//! Caveat: what nobody foresaw is told in the library's own words, with addresses; better so than not at all.

use super::trio::Trio;
use crate::common::operator::{News, sentence, without_force};
use kvrep_core::node::NodeEvent;
use kvrep_core::protocol::{Acknowledged, Event};
use kvrep_core::storage::StorageEvent;
use std::net::SocketAddr;

/// What the operator of one of these three hears of some news, if anything.
#[must_use]
pub fn told(trio: &Trio, news: News<'_>) -> Option<String> {
    let event = match news {
        News::Waits(what) => return Some(plainly(trio, what)),
        News::Happened(event) => event,
    };
    Some(match event {
        NodeEvent::Protocol(
            Event::AcknowledgedWritesLost {
                writes: Some(0), ..
            }
            | Event::TailTruncated {
                writes: Some(0), ..
            },
        ) => return None,
        NodeEvent::Protocol(Event::AcknowledgedWritesLost { from, writes, .. }) => {
            format!(
                "PERDA: {} deste servidor, a partir da entrada {} do log, que ele tinha por gravadas em todos, não estão na \
                 história que vale",
                counted(*writes),
                from.0
            )
        }
        NodeEvent::Protocol(Event::TailTruncated {
            from,
            writes,
            acknowledged,
            ..
        }) => {
            let then = match acknowledged {
                Acknowledged::Never => "nenhum cliente recebeu PUT_OK delas, nada se perdeu",
                Acknowledged::Perhaps => "não se sabe se algum cliente recebeu PUT_OK delas",
            };
            format!(
                "{} deste servidor, a partir da entrada {} do log, não estão na história que vale e foram descartadas: {then}",
                counted(*writes),
                from.0
            )
        }
        NodeEvent::Protocol(Event::RivalRefused { term }) => format!(
            "recusadas as escritas de {}, que ainda se tem por líder",
            trio.name_of(term.replica)
        ),
        // What was cut off is told already, and a memory sets nothing aside.
        NodeEvent::Storage(StorageEvent::TailSaved { .. }) => return None,
        other => plainly(trio, &sentence(other)?),
    })
}

/// So many writes.
fn counted(writes: Option<u64>) -> String {
    match writes {
        Some(writes) => format!("escritas ({writes})"),
        None => "escritas".into(),
    }
}

/// A sentence of the library, at one of these three.
#[must_use]
pub fn plainly(trio: &Trio, text: &str) -> String {
    let text = trio.named(without_force(text));
    let (serves, text) = match text.strip_prefix("serves nothing: ") {
        Some(why) => ("não atende: ", why),
        None => ("", &*text),
    };
    let [leader, ..] = trio.servers();
    format!("{serves}{}", translated(leader, text))
}

fn translated(leader: SocketAddr, text: &str) -> String {
    if let Some(missing) = listed(text, "writes wait for [") {
        let names = together(&missing);
        return match (text.contains("which answer"), &missing[..]) {
            (true, [_]) => format!(
                "as escritas esperam por {names}, que responde mas não confirma: está parado ou lento"
            ),
            (true, _) => format!(
                "as escritas esperam por {names}, que respondem mas não confirmam: estão parados ou lentos"
            ),
            (false, missing) => format!("as escritas esperam por {names}: {}", remedy(missing)),
        };
    }
    if let Some(missing) = listed(text, "missing: [") {
        let leader = leader.to_string();
        // Nobody takes the leader's place.
        let (are_missing, remedy) = match (&missing[..], missing.contains(&leader)) {
            ([_], true) => ("falta", "inicie-o nesse endereço"),
            ([_], false) => ("falta", remedy(&missing)),
            (_, true) => ("faltam", "inicie-os nesses endereços"),
            (_, false) => ("faltam", remedy(&missing)),
        };
        return format!(
            "as escritas começam quando todos estiverem no ar; {are_missing} {}: {remedy}",
            together(&missing)
        );
    }
    let known = [
        (
            "writes wait until [",
            "as escritas esperam até que todos saibam quem são os três",
        ),
        (
            "no holder of the state remains",
            "nenhum servidor tem mais a tabela: pare os três e inicie-os de novo",
        ),
        (
            "is not in the last in-sync set",
            "espera por um servidor que tenha a tabela",
        ),
        (
            "was removed from the group",
            "este servidor não é mais um dos três: pare-o",
        ),
        (
            "is not a member of",
            "quem daria o lugar não é mais um dos três",
        ),
        (
            "another process runs as",
            "parado: outro processo atende como este servidor; pare um dos dois",
        ),
    ];
    let found = known.iter().find(|(theirs, _)| text.contains(theirs));
    found.map_or_else(|| text.to_owned(), |(_, ours)| (*ours).to_owned())
}

/// Those that a list in brackets behind these words names.
fn listed(text: &str, behind: &str) -> Option<Vec<String>> {
    let (_, rest) = text.split_once(behind)?;
    // An address may have brackets of its own, before its port.
    let (list, _) = rest
        .split_once(']')
        .filter(|(_, then)| !then.starts_with(':'))
        .or_else(|| rest.rsplit_once(']'))?;
    Some(list.split(", ").map(str::to_owned).collect())
}

/// Names in a sentence.
#[must_use]
pub fn together<T: ToString>(names: impl IntoIterator<Item = T>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| name.to_string()).collect();
    names.join(AND)
}

/// What to do about followers that are missing.
fn remedy(missing: &[String]) -> &'static str {
    match missing {
        [_] => "inicie-o de novo nesse endereço, ou outro com --no-lugar-de e esse endereço",
        _ => {
            "inicie-os de novo nesses endereços, ou outros com --no-lugar-de e um desses endereços cada um"
        }
    }
}

const AND: &str = " e ";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zk_like_kv::trio::LEADER;

    #[test]
    fn several_that_are_missing_are_missing_in_the_plural() {
        let [one, two, three] = [1, 2, 3].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let trio = Trio::new(one, [two, three]).unwrap();
        let [a, b] = [two, three].map(|at| trio.id_of(at).unwrap());
        for (sentence, ours) in [
            (
                format!("missing: [{a}]. Start"),
                format!("falta {two}: inicie-o de novo nesse"),
            ),
            (
                format!("missing: [{a}, {b}]. Start"),
                format!("faltam {two} e {three}: inicie-os de novo nesses"),
            ),
            (
                format!("missing: [{LEADER}, {a}]. Start"),
                format!("faltam {one} e {two}: inicie-os nesses"),
            ),
            (
                format!("writes wait for [{a}, {b}]: every"),
                format!("esperam por {two} e {three}: inicie-os"),
            ),
            (
                format!("writes wait for [{a}, {b}], which answer"),
                format!("{two} e {three}, que respondem"),
            ),
        ] {
            let told = plainly(&trio, &sentence);
            assert!(told.contains(&ours), "{told}");
        }
        let told = plainly(
            &trio,
            &format!("{a} is not a member of {{{LEADER}, {b}}} (version 5)"),
        );
        assert!(!told.contains("member"), "{told}");
    }

    #[test]
    fn an_operator_hears_of_addresses_in_the_language_of_the_system() {
        for ip in ["127.0.0.1", "::1"] {
            let at = |port| SocketAddr::new(ip.parse().unwrap(), port);
            let trio = Trio::new(at(1), [at(2), at(3)]).unwrap();
            let [two, three] = [at(2), at(3)].map(|at| trio.id_of(at).unwrap());
            for (sentence, names) in [
                (format!("writes wait for [{three}]: every full member must have them. Start it, or remove it"), vec![at(3)]),
                (format!("writes wait for [{two}, {three}], which answer but acknowledge nothing: a slow disk, a transfer, or too little bandwidth"), vec![at(2), at(3)]),
                (format!("serves nothing: only {LEADER} serves, and it begins when all of {{{LEADER}, {two}}} (version 3, decided by {LEADER} in term 2) are heard; missing: [{two}]. Start them, or start one replica with force"), vec![at(2)]),
                (format!("no holder of the state remains: [{two}] had it and came back without. Restore a copy, or start one replica with force"), vec![]),
                ("it was removed from the group, which is {} now; stop it, or start it again to join".into(), vec![]),
            ] {
                let told = plainly(&trio, &sentence);
                assert!(names.iter().all(|at| told.contains(&at.to_string())), "{told}");
                for theirs in ["start", "writes", "force", " n", "replica", "missing", "removed"] {
                    let ours = told.replace(" no ", "").replace(" nesse", "").replace(" novo", "").replace(" nenhum", "").replace(" não", "");
                    assert!(!ours.contains(theirs), "{theirs:?} in {told}");
                }
            }
        }
    }
}
