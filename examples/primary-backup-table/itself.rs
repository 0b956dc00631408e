//! Whose address it is: this server's own, another one's that is known, or a stranger's. Names are resolved, for a server has more than one.

use super::server::Options;
use super::state_dir::{Record, StateDir};
use crate::common::address::resolved;
use std::net::SocketAddr;

/// Whether this address is none of those that the directory knows, written in whatever way.
pub(super) fn is_strange(address: &str, record: &Record) -> bool {
    let places = |at: &str| resolved("", at).unwrap_or_default();
    let given = places(address);
    let is_given =
        |known: &String| known == address || places(known).iter().any(|p| given.contains(p));
    !record.known().values().any(is_given)
}

/// A server is no secondary of itself.
pub(super) fn refuse_own(address: &str, options: &Options) -> Result<(), String> {
    let found = resolved("the primary's address", address)?;
    if is_here(&found, options) {
        return Err(format!(
            "{address} is this server itself; give it the address of the other one"
        ));
    }
    Ok(())
}

/// Nor is it the other one of its own pair.
pub(super) fn refuse_own_peer(
    record: &Record,
    options: &Options,
    dir: &StateDir,
) -> Result<(), String> {
    let address = record.peer_address.as_deref();
    // The system is asked for a name only where that can matter.
    let own_port = format!(":{}", options.wanted.port);
    let is_mine = |at: &str| {
        at.ends_with(&own_port) && is_here(&resolved("", at).unwrap_or_default(), options)
    };
    let is_own = record.peer == Some(record.replica) || address.is_some_and(is_mine);
    if !is_own {
        return Ok(());
    }
    Err(format!(
        "{} says that the other server is number {}, at {}, and that is this server itself. Write there which number the other one has (peer: what \"replica\" says in its server.json) and where it listens (peer_address), or put the file back if there is a copy. This server was not started",
        dir.file().display(),
        record.peer.map_or("null".into(), |id| id.to_string()),
        address.unwrap_or("null"),
    ))
}

/// Whether one of these is where this server listens.
fn is_here(found: &[SocketAddr], options: &Options) -> bool {
    found.iter().any(|at| {
        let ip = at.ip();
        let by_any_way = options.listen.is_unspecified() && ip.is_loopback();
        at.port() == options.wanted.port && (ip == options.listen || by_any_way)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primary_backup_table::message::Dialect;
    use crate::primary_backup_table::start::{Force, Wanted};
    use crate::primary_backup_table::state_dir::Durability;
    use kvrep_core::ReplicaId;
    use std::path::PathBuf;
    use std::time::Duration;

    fn listens(listen: &str) -> Options {
        Options {
            wanted: Wanted {
                port: 5_001,
                primary: None,
                durability: Durability::Memory,
                force: Force::No,
            },
            listen: listen.parse().expect("an address"),
            advertise: None,
            data: PathBuf::new(),
            timeout: Duration::from_secs(5),
            witness: None,
            dialect: Dialect::Plain,
        }
    }

    /// A record that was edited, or copied from elsewhere.
    #[test]
    fn a_record_that_takes_this_server_for_the_other_one_is_refused_with_what_to_do() {
        let temporary = tempfile::tempdir().expect("a directory");
        let dir = StateDir::open(temporary.path()).expect("made");
        let refused = |listen: &str, peer: u32, at: &str| {
            let mut record = Record::new(5_001, ReplicaId(9), Durability::Memory);
            record.peer = Some(peer);
            record.peer_address = Some(at.into());
            refuse_own_peer(&record, &listens(listen), &dir).err()
        };
        for (listen, peer, at) in [
            ("0.0.0.0", 9, "h:5000"),
            ("0.0.0.0", 1, "127.0.0.1:5001"),
            ("127.0.0.1", 1, "localhost:5001"),
        ] {
            let why = refused(listen, peer, at).expect("itself");
            for part in ["server.json", at, "peer_address", "was not started"] {
                assert!(why.contains(part), "{part}: {why}");
            }
        }
        for (listen, at) in [
            ("0.0.0.0", "127.0.0.1:5000"),
            // The same port at another address of this machine, and on another machine.
            ("127.0.0.2", "127.0.0.1:5001"),
            ("0.0.0.0", "192.0.2.1:5001"),
        ] {
            assert_eq!(refused(listen, 1, at), None, "{at}");
        }
    }

    /// A primary that does not know its secondary is none of this pair.
    #[test]
    fn another_primary_is_told_from_one_that_is_known_by_another_name() {
        let mut record = Record::new(5_001, ReplicaId(9), Durability::Memory);
        record.peer = Some(1);
        record.peer_address = Some("127.0.0.1:5000".into());
        record.hear_of(ReplicaId(7), "127.0.0.1:5002");
        for known in ["127.0.0.1:5000", "localhost:5000", "127.0.0.1:5002"] {
            assert!(!is_strange(known, &record), "{known}");
        }
        assert!(is_strange("127.0.0.1:6000", &record));
    }
}
