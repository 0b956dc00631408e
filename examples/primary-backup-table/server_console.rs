//! What a server prints when `print` is typed: its role, how the other one is, and the table.

use super::table::Table;
use bytes::Bytes;
use kvrep_core::client_wire::{Op, Outcome};
use kvrep_core::node::{LocalReadError, Node, NodeStatus};
use kvrep_core::protocol::{ProtocolStatus, Role};
use kvrep_core::{Read, ReplicaId, Token};
use std::fmt::Write as _;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// The lines for `print`, with an empty one at the end. Works at any time: also before there is a table, and while it is being replaced.
pub async fn printed(node: Option<&Node>) -> String {
    let Some(node) = node else {
        return format!("{}\n{WAITING}\n\n", role_line(None));
    };
    let mut table = entries(node, newest(node).await).await;
    let newest_is_shown = table.is_ok();
    if !newest_is_shown {
        // Nobody says any more what of it is decided.
        table = entries(node, Read::Local).await;
    }
    let mut text = role_line(Some((node.identity().replica, &node.status())));
    text.push('\n');
    let complete = counts(node, &node.status());
    let undecided = match table {
        // Everything was there when it was asked for.
        Ok(_) if newest_is_shown => 0,
        Ok(_) | Err(_) => undecided(&node.status().protocol),
    };
    if !complete {
        text.push_str(incomplete(node.status().protocol.role));
        text.push('\n');
    }
    match table {
        Ok(entries) if entries.is_empty() && (!complete || undecided > 0) => {}
        Ok(entries) if entries.is_empty() => {
            text.push_str(EMPTY);
            text.push('\n');
        }
        Ok(entries) => {
            for (key, data) in entries {
                let _ = writeln!(text, "{}: {}", shown(&key), shown(&data));
            }
        }
        Err(LocalReadError::Behind | LocalReadError::Busy) => {}
        Err(error) => {
            let _ = writeln!(text, "({error})");
        }
    }
    if complete && undecided > 0 {
        let _ = writeln!(text, "{}", more(undecided));
    }
    text.push('\n');
    text
}

/// The line in place of a table that is not complete.
fn incomplete(role: Role) -> &'static str {
    match role {
        Role::Primary | Role::Candidate | Role::Backup => UPDATING,
        // Nobody gives it one yet: it waits for the primary, or as a third server for a place.
        Role::Seeking | Role::Witness => WAITING,
    }
}

/// How many entries this server has in its log that are not in the table that is shown: it has them, and has said so to the primary,
/// but has not heard that they are decided. They are carried out when it hears so, or takes over.
fn undecided(status: &ProtocolStatus) -> u64 {
    status.last.index.0.saturating_sub(status.applied.0)
}

/// The line for them.
fn more(undecided: u64) -> String {
    let (entries, are) = match undecided {
        1 => ("escrita", "está"),
        _ => ("escritas", "estão"),
    };
    format!(
        "(mais {undecided} {entries} que {are} neste servidor: aparecem quando o primário as confirmar, ou quando este servidor for primário)"
    )
}

/// Everything that this server has: a secondary has a write before the client hears of it, and carries it out when it is
/// told to, or when it asks.
async fn newest(node: &Node) -> Read {
    let deadline = Instant::now() + NEWEST_WITHIN;
    match node.call(Op::Status, deadline).await {
        Ok(Outcome::Status(status)) => Read::AtLeast(Token {
            term: status.last.term,
            index: status.last.index,
        }),
        Ok(_) | Err(_) => Read::Local,
    }
}

async fn entries(node: &Node, read: Read) -> Result<Vec<(Bytes, Bytes)>, LocalReadError> {
    let look = node.read_local(read, |table: &Table| {
        let entries = table.entries();
        let entries = entries.map(|(key, data)| (key.clone(), data.clone()));
        entries.collect::<Vec<_>>()
    });
    match timeout(NEWEST_WITHIN, look).await {
        Ok(seen) => seen.map(|(entries, _)| entries),
        Err(_) => Err(LocalReadError::Behind),
    }
}

/// Whether this server has the whole table, as far as it knows.
fn counts(node: &Node, status: &NodeStatus) -> bool {
    let me = node.identity().replica;
    let known = status.protocol.configuration.as_ref();
    known.is_some_and(|c| c.has(me, status.protocol.store))
}

/// The role, and how the other server is.
fn role_line(me: Option<(ReplicaId, &NodeStatus)>) -> String {
    let Some((me, status)) = me else {
        return "secundário (outro servidor: DOWN)".into();
    };
    let protocol = &status.protocol;
    let (role, up) = match protocol.role {
        Role::Primary => {
            let in_sync = protocol.configuration.as_ref().map(|c| &c.in_sync);
            let up = in_sync.is_some_and(|ids| ids.keys().any(|id| *id != me));
            ("primário", up)
        }
        Role::Backup => ("secundário", true),
        Role::Seeking | Role::Candidate | Role::Witness => ("secundário", false),
    };
    let other = if up { "UP" } else { "DOWN" };
    format!("{role} (outro servidor: {other})")
}

/// Bytes as people read them: text where they are text, without the zero that some clients store at its end, and nothing
/// that would disturb a terminal.
#[must_use]
pub fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes.strip_suffix(&[0]).unwrap_or(bytes));
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// How long `print` waits for the other server to say what is decided.
const NEWEST_WITHIN: Duration = Duration::from_millis(500);
const EMPTY: &str = "Nao existem keys!!";
/// Printed in place of a table that is not complete.
pub const UPDATING: &str = "(a tabela está a ser atualizada)";
/// Printed in place of a table that nobody gives to this server yet.
pub const WAITING: &str = "(este servidor não tem a tabela toda: espera por quem lha dê)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_are_shown_without_one_trailing_zero_and_without_control_characters() {
        assert_eq!(shown(b"xyz\0"), "xyz");
        assert_eq!(shown(b"xyz\0\0"), "xyz\\u{0}");
        assert_eq!(shown("olá".as_bytes()), "olá");
        assert_eq!(shown(b"a\nb\x1b[2J"), "a\\nb\\u{1b}[2J");
        assert_eq!(shown(b"\xff"), "\u{fffd}");
    }

    /// The line is there for what a secondary has acknowledged and cannot show yet.
    #[test]
    fn what_is_not_decided_is_counted() {
        assert!(
            more(1).starts_with("(mais 1 escrita que está"),
            "{}",
            more(1)
        );
        assert!(
            more(2).starts_with("(mais 2 escritas que estão"),
            "{}",
            more(2)
        );
    }
}
