//! What is done to the processes: one fault, its length, and its end.

use crate::group::Group;
use crate::network::{Direction, Side};
use kvrep_core::random::Rng;
use kvrep_core::{Authority, ReplicaId};
use rustix::process::Signal;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::time::sleep;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Fault {
    /// SIGKILL, and a restart on the same data.
    Kill,
    /// SIGSTOP for less or more than the detector's timeout, and SIGCONT.
    Pause,
    /// All packets between a process and some others are dropped.
    CutBoth,
    /// The same in one direction only.
    CutOneWay,
    /// The disk of a replica is filled until its process ends; then there is room again.
    FullDisk,
    /// A system call of the log is refused (EIO, ENOSPC) by `strace`; the process ends and is started again.
    Eio,
    /// Any of the first four, drawn for each cycle.
    Mixed,
}

/// What a fault may do to the promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// A process crashes and restarts with its disk; nobody is suspected falsely.
    Crash,
    /// A process lives and is not heard.
    Silence,
}

impl Fault {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::CutBoth => "cut-both",
            Self::CutOneWay => "cut-one-way",
            Self::FullDisk => "full-disk",
            Self::Eio => "eio",
            Self::Mixed => "mixed",
        }
    }

    pub(crate) fn class(self) -> Class {
        match self {
            Self::Kill | Self::FullDisk | Self::Eio => Class::Crash,
            Self::Pause | Self::CutBoth | Self::CutOneWay | Self::Mixed => Class::Silence,
        }
    }

    /// Whether processes must be apart.
    pub(crate) fn needs_namespaces(self) -> bool {
        match self {
            Self::CutBoth | Self::CutOneWay | Self::Mixed => true,
            Self::Kill | Self::Pause | Self::FullDisk | Self::Eio => false,
        }
    }
}

/// One fault as it was done.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    /// What, to whom and for how long.
    pub(crate) what: String,
    /// Whether it came to what it was meant to be.
    pub(crate) outcome: Outcome,
}

/// Whether a fault struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Struck,
    /// For one, no system call came in time that could be refused.
    Missed,
}

/// Draws one fault of this kind, does it, and undoes it. When this returns all processes run and hear each other.
///
/// # Errors
/// When it cannot be done at all.
pub(crate) async fn strike(
    fault: Fault,
    group: &mut Group,
    primary: ReplicaId,
    random: &mut Rng,
) -> Result<Done, String> {
    let fault = match fault {
        Fault::Mixed => {
            let kinds = [Fault::Kill, Fault::Pause, Fault::CutBoth, Fault::CutOneWay];
            kinds[random.below(4) as usize]
        }
        other => other,
    };
    let victim = victim(fault, group, primary, random);
    let what = format!("{} {victim}", fault.word());
    let struck = |what| Done {
        what,
        outcome: Outcome::Struck,
    };
    match fault {
        Fault::Kill => {
            let away = Duration::from_millis(random.below(400));
            group.kill(victim).await?;
            sleep(away).await;
            group.launch(victim)?;
            Ok(struck(format!("{what} for {away:?}")))
        }
        Fault::Pause => {
            let timeout = group.plan().suspect_after;
            let length = match random.below(2) {
                0 => timeout * (20 + random.below(60) as u32) / 100,
                _ => timeout * (120 + random.below(200) as u32) / 100,
            };
            group.signal(victim, Signal::STOP)?;
            sleep(length).await;
            group.signal(victim, Signal::CONT)?;
            Ok(struck(format!("{what} for {length:?}")))
        }
        Fault::CutBoth | Fault::CutOneWay => {
            let direction = match fault {
                Fault::CutBoth => Direction::Both,
                _ if random.one_in(2) => Direction::In,
                _ => Direction::Out,
            };
            let others = whom_not_to_hear(group, victim, random);
            let length = group.plan().suspect_after * (40 + random.below(260) as u32) / 100;
            group.network.cut(victim, direction, &others)?;
            sleep(length).await;
            group.network.heal()?;
            Ok(struck(format!(
                "{what} {direction:?} {others:?} for {length:?}"
            )))
        }
        Fault::FullDisk => fill(group, victim, what).await,
        Fault::Eio => refuse(group, victim, what, random).await,
        Fault::Mixed => Err("drawn above".into()),
    }
}

/// The primary half of the time; now and then the witness, where that makes sense.
fn victim(fault: Fault, group: &Group, primary: ReplicaId, random: &mut Rng) -> ReplicaId {
    let disk = matches!(fault, Fault::FullDisk | Fault::Eio);
    if !disk && group.plan().authority == Authority::Witness && random.one_in(8) {
        return ReplicaId::WITNESS;
    }
    if random.one_in(2) {
        return primary;
    }
    let backups: Vec<_> = group
        .replicas()
        .into_iter()
        .filter(|id| *id != primary)
        .collect();
    backups[random.below(backups.len() as u64) as usize]
}

/// Everybody; everybody but the clients; the other replicas; or one of them.
fn whom_not_to_hear(group: &Group, victim: ReplicaId, random: &mut Rng) -> Vec<Side> {
    let others = group.network.addresses().keys().filter(|id| **id != victim);
    let mut others: Vec<Side> = others.map(|id| Side::Process(*id)).collect();
    match random.below(4) {
        0 => others.push(Side::Clients),
        1 => {}
        2 => others.retain(|side| *side != Side::Process(ReplicaId::WITNESS)),
        _ => {
            let one = others[random.below(others.len() as u64) as usize];
            others = vec![one];
        }
    }
    others
}

/// Bytes of a replica's disk in a campaign that fills it.
const DISK_BYTES: u64 = 16 << 20;
/// For a process to notice that its disk fails.
const NOTICED_WITHIN: Duration = Duration::from_secs(10);

/// A small disk of its own for each replica; unmounted when dropped.
#[derive(Debug, Default)]
pub(crate) struct Disks(Vec<PathBuf>);

impl Disks {
    /// Mounts one where the data of each replica go. Nothing may run yet.
    ///
    /// # Errors
    /// When that is not permitted.
    pub(crate) fn mount(group: &Group) -> Result<Self, String> {
        let mut disks = Self::default();
        for id in group.replicas() {
            let data = group.data(id);
            let at = data.parent().unwrap_or(&data).to_owned();
            let disk = at.join("disk");
            std::fs::create_dir_all(&disk).map_err(|e| format!("{}: {e}", disk.display()))?;
            let options = format!("-t tmpfs -o size={DISK_BYTES} tmpfs {}", disk.display());
            crate::network::tool("mount", &options)?;
            disks.0.push(disk.clone());
            let inside = disk.join("data");
            std::fs::create_dir(&inside).map_err(|e| format!("{}: {e}", inside.display()))?;
            std::os::unix::fs::symlink(&inside, &data)
                .map_err(|e| format!("{}: {e}", data.display()))?;
        }
        Ok(disks)
    }

    /// For whoever wants to look at them.
    pub(crate) fn leave_mounted(mut self) {
        self.0.clear();
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        for disk in &self.0 {
            // A process that was killed just now may still hold it.
            if let Err(why) = crate::network::tool("umount", &format!("-l {}", disk.display())) {
                eprintln!("{why}");
            }
        }
    }
}

async fn fill(group: &mut Group, victim: ReplicaId, what: String) -> Result<Done, String> {
    let data = group.data(victim);
    let ballast = data.parent().unwrap_or(&data).join("disk/ballast");
    let mut free: u64 = DISK_BYTES;
    {
        use std::io::Write as _;
        let file = std::fs::File::create(&ballast);
        let mut file = file.map_err(|e| format!("{}: {e}", ballast.display()))?;
        // In ever smaller pieces, until not one byte fits.
        while free > 0 {
            let piece = vec![0; free as usize];
            if file.write_all(&piece).is_err() {
                free /= 2;
            }
        }
    }
    let ended = group.ended(victim, NOTICED_WITHIN).await;
    std::fs::remove_file(&ballast).map_err(|e| format!("{}: {e}", ballast.display()))?;
    restarted(group, victim, what, ended)
}

/// System calls of a log, and how they are refused.
const REFUSALS: [(&str, &str); 5] = [
    ("fdatasync,fsync", "EIO"),
    ("pwrite64", "ENOSPC"),
    ("pwrite64", "EIO"),
    ("?rename,?renameat,?renameat2", "ENOSPC"),
    ("?ftruncate,?fallocate", "ENOSPC"),
];

async fn refuse(
    group: &mut Group,
    victim: ReplicaId,
    what: String,
    random: &mut Rng,
) -> Result<Done, String> {
    let (calls, error) = REFUSALS[random.below(REFUSALS.len() as u64) as usize];
    let when = 1 + random.below(20);
    let what = format!("{what} {calls} {error} when={when}");
    let pid = group
        .pid(victim)
        .ok_or_else(|| format!("{victim} does not run"))?;
    // Rare calls are refused the first time they come.
    let when = if calls.contains("rename") || calls.contains("truncate") {
        1
    } else {
        when
    };
    let mut tracer = Command::new("strace")
        .args([
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-p",
            &pid.as_raw_nonzero().to_string(),
        ])
        .args(["-e", &format!("trace={calls}")])
        .args(["-e", &format!("inject={calls}:error={error}:when={when}+")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| format!("cannot run strace ({e}); install it, or leave out --faults eio"))?;
    let ended = group.ended(victim, NOTICED_WITHIN).await;
    // It ends with the process that it follows, or lets go of it.
    if !ended {
        let pid = rustix::process::Pid::from_raw(tracer.id().cast_signed());
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, Signal::TERM);
        }
    }
    tracer.wait().map_err(|e| format!("strace: {e}"))?;
    restarted(group, victim, what, ended)
}

fn restarted(
    group: &mut Group,
    victim: ReplicaId,
    what: String,
    ended: bool,
) -> Result<Done, String> {
    let outcome = if ended {
        group.launch(victim)?;
        Outcome::Struck
    } else {
        Outcome::Missed
    };
    Ok(Done { what, outcome })
}
