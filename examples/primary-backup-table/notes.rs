//! What a server writes down of the pair while it runs, and what becomes of one that cannot.
//!
//! A server with a log ends when its directory takes nothing any more: whoever asks the other one is served there, and what was acknowledged is in the log.
//! One whose table is in memory stays up, for the table would go with it. It says what could not be written and what follows, and tries again; what was
//! written before is marked as outdated where that can be done, so that a restart waits rather than letting an older table be served
//! (`last_holder.rs`). Before the table has begun nothing is served, so a directory that takes nothing then ends any server.

use super::loss::Last;
use super::roll::Roll;
use super::start::Force;
use super::state_dir::{Record, StateDir, StateDirError};
use super::told::tell;
use kvrep_core::ReplicaId;
use kvrep_core::protocol::ProtocolStatus;
use kvrep_core::transport::Transport as _;
use kvrep_transport_tcp::TcpTransport;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What a server writes down of the pair.
pub(super) struct Notes {
    pub(super) dir: StateDir,
    record: Record,
    pub(super) witness: Option<String>,
    /// What this server alone had when it ended, and has no more.
    pub(super) alone: Option<Last>,
    /// The table has begun, and that is written down: before, nothing is served and nothing is left in the directory, for a start that comes to
    /// nothing (the witness may be another one) must not stand in the way of the next.
    has_begun: bool,
    /// The record could not be written; when that is tried again.
    unwritten: Option<Instant>,
    /// Whether it was told to serve with what it has.
    pub(super) force: Force,
    pub(super) roll: Arc<Roll>,
    transport: Arc<TcpTransport>,
}

impl Notes {
    pub(super) fn new(
        (dir, record, witness): (StateDir, Record, Option<String>),
        (force, roll): (Force, Arc<Roll>),
        transport: Arc<TcpTransport>,
    ) -> Self {
        Self {
            dir,
            record,
            witness,
            alone: None,
            has_begun: false,
            unwritten: None,
            force,
            roll,
            transport,
        }
    }

    /// This server alone had that when it ended.
    pub(super) fn alone(self, alone: Option<Last>) -> Self {
        Self { alone, ..self }
    }

    /// Whether the table is in a log, too.
    pub(super) fn keeps_log(&self) -> bool {
        self.record.durable
    }

    /// Whether the table has begun, and that is written down.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Nothing is written down yet, but that the table is about to begin.
    pub(super) fn mark_beginning(&self) -> Result<(), String> {
        self.dir.mark_beginning().map_err(|e| e.to_string())
    }

    /// Writes down who this server is, before it serves anything.
    pub(super) fn begin(&mut self) -> Result<(), String> {
        self.dir.write(&self.record).map_err(|e| e.to_string())?;
        self.has_begun = true;
        Ok(())
    }

    /// Writes down what the pair has agreed on, and of whom was heard, if that is new.
    ///
    /// # Errors
    /// It could not be written, and this server does not go on without.
    pub(super) async fn take(&mut self, protocol: &ProtocolStatus) -> Result<(), String> {
        let me = ReplicaId(self.record.replica);
        let agreed = protocol.configuration.as_ref();
        let belongs = agreed.is_some_and(|c| c.has(me, protocol.store));
        if !self.has_begun && !belongs {
            return Ok(());
        }
        let before = self.record.clone();
        // A first command that was wrong is not remembered.
        if belongs {
            self.record.witness.clone_from(&self.witness);
        }
        if let Some(configuration) = agreed {
            let transport = &self.transport;
            self.record
                .learn(configuration, |id| transport.address_of(id));
        }
        for (other, address) in self.roll.known() {
            self.record.hear_of(other, &address);
        }
        self.roll.add(self.record.known());
        let is_due = match self.unwritten {
            None => !self.has_begun || self.record != before,
            Some(again) => Instant::now() >= again,
        };
        if !is_due {
            return Ok(());
        }
        let (dir, record) = (self.dir.clone(), self.record.clone());
        // A disk takes its time; heartbeats do not wait for it.
        let written = tokio::task::spawn_blocking(move || {
            let written = dir.write(&record);
            let is_marked = written.is_err() && !record.durable && dir.mark_outdated().is_ok();
            (written, is_marked)
        });
        let (written, is_marked) = written.await.map_err(|e| e.to_string())?;
        match written {
            Ok(()) => {
                if self.unwritten.take().is_some() {
                    let file = self.dir.file();
                    tell(&format!("{} is written again", file.display()));
                }
                self.has_begun = true;
            }
            Err(why) if self.keeps_log() || !self.has_begun => return Err(why.to_string()),
            Err(why) => {
                if self.unwritten.is_none() {
                    tell(&without_record(&why, is_marked));
                }
                self.unwritten = Some(Instant::now() + AGAIN_AFTER);
            }
        }
        Ok(())
    }
}

/// What is said by a server in memory that goes on without its record.
fn without_record(why: &StateDirError, is_marked: bool) -> String {
    let (what, restart) = match why {
        StateDirError::Io { path, source } => (
            format!("cannot write {}: {source}", path.display()),
            if is_marked {
                "A restart would find an older record, which says that it is outdated: it would wait for whoever may have an older table, and not know of servers that came since"
            } else {
                "A restart would find an older record, or none: it would not know who had the whole table last, nor the other server, so that an older table could be served, or an EMPTY one begun"
            },
        ),
        other => (other.to_string(), "A restart would not know of the table"),
    };
    format!(
        "{what}. This server goes on, for its table is in memory only, and goes when this process ends: do not stop it while no other server has the table. {restart}. Make room there, or make the directory again; this server tries again every {} s, and says when it is written",
        AGAIN_AFTER.as_secs()
    )
}

const AGAIN_AFTER: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_in_memory_says_what_a_restart_would_not_know_and_that_the_table_goes_with_it() {
        let why = StateDirError::Io {
            path: "d/server.json".into(),
            source: std::io::ErrorKind::StorageFull.into(),
        };
        for (is_marked, follows) in [(true, "outdated"), (false, "EMPTY one begun")] {
            let told = without_record(&why, is_marked);
            for part in [
                "cannot write d/server.json",
                "goes when this process ends",
                follows,
            ] {
                assert!(told.contains(part), "{part}: {told}");
            }
            assert!(!told.contains("--data"), "{told}");
        }
    }
}
