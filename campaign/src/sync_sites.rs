//! Every sync of a replica's life goes wrong once.
//!
//! The life is a script: a first start, writes with snapshots, purges and new segments, a restart, and, after its disk
//! was wiped, the transfer of a snapshot. It is played again and again; the k-th time, the k-th sync of one replica is
//! refused, or its process is killed there. Then the process is started again on what it left, and in the end everything
//! is checked as in every campaign. It is over when a whole life passes without a k-th sync.
//!
//! Caveat: a killed process leaves its page cache behind. What the loss of power does to unsynced data is tested with a
//! simulated disk (`kvrep-core/src/storage/wal/tests`).

use crate::args::ConfirmArg;
use crate::group::{Group, Plan, authority_word};
use crate::load::{Load, Workload};
use crate::network::Kind;
use crate::serve::Scale;
use crate::sites::{Sites, Strike};
use crate::verdict::{Copy, Promise, copies, violations};
use indicatif::ProgressBar;
use kvrep_core::{Authority, ReplicaId};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// All sites of one replica with one kind of strike.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SyncSites {
    pub(crate) authority: Authority,
    pub(crate) victim: ReplicaId,
    pub(crate) strike: Strike,
    /// Where to begin, from 1.
    pub(crate) first: u64,
    /// Only every so many sites; 1 for all.
    pub(crate) every: u64,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SitesRow {
    pub(crate) authority: String,
    pub(crate) victim: String,
    pub(crate) strike: String,
    /// Lives in which the victim was struck.
    pub(crate) struck: u64,
    /// Syncs in the life that passed.
    pub(crate) syncs: u64,
    pub(crate) violations: Vec<String>,
}

const WITHIN: Duration = Duration::from_secs(20);

enum Life {
    Struck,
    /// With so many syncs.
    Passed(u64),
}

impl SyncSites {
    /// Plays lives until one passes.
    ///
    /// # Errors
    /// When one could not be played.
    pub(crate) async fn run(&self, bar: &ProgressBar) -> Result<SitesRow, String> {
        let strike = match self.strike {
            Strike::Eio => "eio",
            Strike::KillBefore => "kill-before",
            Strike::KillAfter => "kill-after",
        };
        let mut row = SitesRow {
            authority: authority_word(self.authority).into(),
            victim: self.victim.to_string(),
            strike: strike.into(),
            struck: 0,
            syncs: 0,
            violations: Vec::new(),
        };
        let mut at = self.first;
        loop {
            bar.set_message(format!(
                "{} {} {strike} at sync {at}",
                row.authority, row.victim
            ));
            let scratch = tempfile::Builder::new().prefix("kvrep-sites-").tempdir();
            let scratch = scratch.map_err(|e| format!("cannot make a directory: {e}"))?;
            let (life, wrong) = self.life(scratch.path(), at).await?;
            if !wrong.is_empty() {
                let kept = scratch.keep();
                let kept = kept.display();
                let told = |why| format!("sync {at}: {why} (data and logs: {kept})");
                row.violations.extend(wrong.into_iter().map(told));
            }
            match life {
                Life::Struck => row.struck += 1,
                Life::Passed(syncs) => {
                    row.syncs = syncs;
                    return Ok(row);
                }
            }
            bar.inc(1);
            at += self.every;
        }
    }

    async fn life(&self, directory: &Path, at: u64) -> Result<(Life, Vec<String>), String> {
        let mut group = Group::new(Plan {
            directory: directory.to_owned(),
            replicas: 3,
            authority: self.authority,
            network: Kind::Loopback,
            suspect_after: Duration::from_millis(500),
            confirm: ConfirmArg::Round,
            scale: Scale::Tiny,
        })?;
        let sites = Sites {
            count: directory.join("syncs"),
            at,
            strike: self.strike,
        };
        group.set_trap(self.victim, sites.clone());
        group.start()?;
        let mut script = Script {
            group,
            victim: self.victim,
            struck: false,
        };
        let mut wrong = Vec::new();
        // Clients that come before anybody serves wait for it.
        let workload = Workload {
            clients: 16,
            pause: Duration::from_millis(2),
            deadline: Duration::from_secs(10),
            padding_bytes: 0,
            seed: at,
        };
        let load = Load::start(workload, &script.group.client_addresses());
        let played = script.play(&load).await;
        wrong.extend(played.err());
        let recorded = load.finish().await?;
        match script.copies().await {
            Ok(copies) => {
                let told = script.group.told()?;
                wrong.extend(violations(Promise::Linearizable, &recorded, &copies, &told));
            }
            Err(why) => wrong.push(why),
        }
        script.group.stop().await;
        let syncs = std::fs::metadata(&sites.count).map_or(0, |file| file.len());
        // Also one that was struck while it was being ended.
        let life = if syncs >= at {
            Life::Struck
        } else {
            Life::Passed(syncs)
        };
        Ok((life, wrong))
    }
}

struct Script {
    group: Group,
    victim: ReplicaId,
    struck: bool,
}

impl Script {
    async fn play(&mut self, load: &Load) -> Result<(), String> {
        self.in_sync("after the first start").await?;
        self.answered(load, 120).await?;
        // A restart.
        self.revive().await?;
        self.group.end(self.victim).await;
        self.group.launch(self.victim)?;
        self.in_sync("after the restart").await?;
        self.answered(load, 60).await?;
        // A new disk: a snapshot is transferred.
        self.revive().await?;
        self.group.kill(self.victim).await?;
        self.answered(load, 60).await?;
        let data = self.group.data(self.victim);
        std::fs::remove_dir_all(&data).map_err(|e| format!("{}: {e}", data.display()))?;
        self.group.launch(self.victim)?;
        self.in_sync("after the wipe").await?;
        self.answered(load, 30).await?;
        // It may have been struck by the very last write.
        self.in_sync("in the end").await
    }

    /// Starts the victim again if it was struck.
    async fn revive(&mut self) -> Result<(), String> {
        if self.group.ended(self.victim, Duration::ZERO).await
            && self.group.pid(self.victim).is_none()
        {
            if self.struck {
                return Err(format!("{} ended once more", self.victim));
            }
            self.struck = true;
            self.group.remove_trap(self.victim);
            self.group.launch(self.victim)?;
        }
        Ok(())
    }

    async fn in_sync(&mut self, when: &str) -> Result<(), String> {
        let deadline = Instant::now() + WITHIN;
        loop {
            self.revive().await?;
            match self.group.in_sync(Duration::from_millis(100)).await {
                Ok(_) if self.group.pid(self.victim).is_some() => return Ok(()),
                Err(why) if Instant::now() >= deadline => return Err(format!("{when}: {why}")),
                Ok(_) | Err(_) => {}
            }
        }
    }

    /// What every replica holds. One that was struck while the clients ended is started again first.
    async fn copies(&mut self) -> Result<BTreeMap<ReplicaId, Copy>, String> {
        loop {
            let struck_before = self.struck;
            let found = match self.in_sync("once the clients had ended").await {
                Ok(()) => copies(&self.group, WITHIN).await,
                Err(why) => Err(why),
            };
            self.revive().await?;
            if found.is_ok() || self.struck == struck_before {
                return found;
            }
        }
    }

    /// Waits until so many more operations are answered.
    async fn answered(&mut self, load: &Load, more: u64) -> Result<(), String> {
        let counted = || load.counted().answered.load(Ordering::Relaxed);
        let (wanted, deadline) = (counted() + more, Instant::now() + WITHIN);
        while counted() < wanted {
            if Instant::now() >= deadline {
                return Err("no operation is answered any more".into());
            }
            sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }
}
