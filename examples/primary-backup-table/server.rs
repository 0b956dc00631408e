//! `table-server`: starts as its directory and arguments say, serves clients, listens to the keyboard.

use super::keyboard::Keyboard;
use super::launch::start;
use super::loss::{Last, has_nothing, has_table, loss};
use super::message::Dialect;
use super::notes::Notes;
use super::policy::CLIENTS_MAX;
use super::primary_backup::{hello, update_state};
use super::roles::Known;
use super::roll::{Heard, Roll, call, of_this_table};
use super::server_console::printed;
use super::service::Service;
use super::start::{Force, Wanted};
use super::state_dir::StateDir;
use super::told::{print, say, tell};
use super::words::{Words, awaits_client, only_asks};
use crate::common::open_files::raise_open_files;
use crate::common::operator::{Said, asked_to_end, attend, is_told_by_transport};
use kvrep_core::Node;
use std::cell::Cell;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Once};
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

/// What a server is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Port, primary, log, force.
    pub wanted: Wanted,
    /// On which of this machine's addresses it listens.
    pub listen: IpAddr,
    /// Where the other server reaches it, if not there.
    pub advertise: Option<String>,
    /// Its directory.
    pub data: PathBuf,
    /// The `TIMEOUT` of its clients.
    pub timeout: Duration,
    /// Where the witness is, if there is one.
    pub witness: Option<String>,
    /// What is written before a frame.
    pub dialect: Dialect,
}

/// Serves until asked to end.
///
/// # Errors
/// Why it could not start or go on, for the operator.
pub async fn serve(options: Options) -> Result<(), String> {
    if let Some(files) = raise_open_files(CLIENTS_MAX as u64 + FILES_BESIDE)
        && files < CLIENTS_MAX as u64
    {
        tell(&format!(
            "the system lets this process have {files} connections; raise the limit (ulimit -n) for more clients"
        ));
    }
    // Listened for from the beginning, so that a signal during the start is not missed.
    let mut end = std::pin::pin!(asked_to_end().map_err(|e| e.to_string())?);
    let mut keyboard = Keyboard::new();
    let starting = start(&options);
    let mut starting = std::pin::pin!(starting);
    let Server {
        node,
        mut notes,
        words,
        service,
    } = loop {
        tokio::select! {
            started = &mut starting => break started?,
            line = keyboard.line() => obey(&line, None).await,
            () = &mut end => return Ok(()),
        }
    };
    tokio::select! {
        ended = tend(&node, (&mut notes, &service), &words, &mut keyboard) => return ended,
        () = &mut end => {}
    }
    node.shutdown().await.map_err(|e| e.to_string())
}

/// Says that the port is this server's, once.
pub(super) fn announce(options: &Options, dir: &StateDir) {
    static SAID: Once = Once::new();
    let (port, path) = (options.wanted.port, dir.path());
    SAID.call_once(|| {
        say(&format!(
            "table-server: na porta {port}, estado em {}",
            path.display()
        ));
    });
}

/// Does what a running server does beside serving, until the node ends by itself.
async fn tend(
    node: &Node,
    (notes, service): (&mut Notes, &Service),
    words: &Words,
    keyboard: &mut Keyboard,
) -> Result<(), String> {
    let mut watch = node.watch();
    watch.mark_changed();
    let knows_more = Cell::new(false);
    let heard = |what: &str| {
        // What force costs was said at the start, in more words.
        let was_said = what.starts_with("FORCED")
            || is_told_by_transport(what)
            || (knows_more.get() && only_asks(what));
        if !was_said {
            tell(&words.plainly(what));
        }
    };
    let mut attending = std::pin::pin!(attend(node, heard));
    let mut waking = std::pin::pin!(wake(node));
    let mut awake = false;
    let roll = Arc::clone(&notes.roll);
    let last = notes.alone.clone();
    let lost = nobody_has_it((node, words), &roll, last.as_ref(), &knows_more);
    let mut lost = std::pin::pin!(lost);
    let mut awaiting = std::pin::pin!(awaits_lost(node, &roll));
    // Whoever is forced has been told already.
    let mut is_told = notes.force == Force::Yes;
    let mut awaits = notes.keeps_log() && notes.witness.is_none() && !is_told;
    let mut looking = interval(LOOK_EVERY);
    looking.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (me, mut role) = (node.identity().replica, Known::default());
    loop {
        tokio::select! {
            ended = &mut attending => return ended.map_err(|e| words.plainly(&e.to_string())),
            line = keyboard.line() => obey(&line, Some(node)).await,
            () = &mut waking, if !awake => awake = true,
            () = &mut lost, if !is_told => is_told = true,
            () = &mut awaiting, if awaits => awaits = false,
            Ok(()) = watch.changed() => {
                let protocol = watch.borrow_and_update().protocol.clone();
                notes.take(&protocol).await?;
                if notes.has_begun() {
                    notes.roll.set_beginning(false);
                    service.begin(node);
                }
                if let Some(what) = role.news(me, &protocol, |id| words.address(id)) {
                    say(&format!("table-server: {what}"));
                }
            }
            // Of other servers one hears at any time.
            _ = looking.tick() => {
                let protocol = watch.borrow().protocol.clone();
                notes.take(&protocol).await?;
            }
        }
    }
}

/// A server that runs.
pub(super) struct Server {
    pub(super) node: Node,
    pub(super) notes: Notes,
    pub(super) words: Arc<Words>,
    pub(super) service: Arc<Service>,
}

/// Tells when this server, if it is the secondary, has been heard and has the table.
async fn wake(node: &Node) {
    if hello(node, WAKE_WITHIN).await.is_err() || update_state(node, WAKE_WITHIN).await.is_err() {
        return;
    }
    let status = node.status().protocol;
    if status.primary != Some(node.identity().replica) {
        say("table-server: tabela atualizada, este servidor é o secundário");
    }
}

/// Tells what is lost, if none of the servers that are known has the table as it was last: they would wait for each other. While it knows that,
/// or who has the table, it says so in `knows_more`: that nobody lets this server in is then nothing to act on.
async fn nobody_has_it(
    (node, words): (&Node, &Words),
    roll: &Roll,
    last: Option<&Last>,
    knows_more: &Cell<bool>,
) {
    let me = node.identity().replica;
    let (mut said, mut waits) = (None, Said::default());
    let mut heard = Heard::default();
    while has_nothing(&node.status().protocol) {
        let (answers, _) = of_this_table(me, call(me, roll.known()).await);
        for answer in &answers {
            roll.add([(answer.replica, answer.address.clone())].into());
        }
        heard.note(&answers);
        // As it is now: the answers took their time.
        let now = loss(&node.status().protocol, last, &answers);
        if let Some(what) = &now
            && now != said
        {
            tell(&what.told(|at| heard.of(at)));
        }
        knows_more.set(
            now.is_some() || answers.iter().any(|a| a.begins) || has_table(&answers).is_some(),
        );
        said = now.or(said);
        if let Some(begins) = answers.iter().find(|a| a.begins) {
            let what = format!(
                "the table has not begun: the server at {} is to begin it and waits for its witness (it says there what is wrong); this one gets a copy as soon as it has begun",
                begins.address
            );
            if waits.is_news(&what, Instant::now()) {
                tell(&what);
            }
        }
        if let Some((at, waits_for)) = has_table(&answers) {
            let when = if waits_for.is_empty() || awaits_client(waits_for) {
                "it serves as soon as a client asks that one, or one that it knows".into()
            } else {
                format!("it waits there: {}", words.of_another(waits_for))
            };
            let what = format!(
                "the server at {at} has the table: {when}. This one gets a copy when there is a place for it; if it gets none though one is free, start it again"
            );
            if waits.is_news(&what, Instant::now()) {
                tell(&what);
            }
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Tells where one is for which this server waits, and which has lost what it alone had. Ends when somebody serves.
async fn awaits_lost(node: &Node, roll: &Roll) {
    let me = node.identity().replica;
    let mut said = Said::default();
    while node.status().protocol.primary.is_none() {
        // A moment, in which most that wait for somebody hear of him.
        sleep(LOOK_EVERY).await;
        if node.status().protocol.waiting_for.is_empty() {
            continue;
        }
        let (answers, _) = of_this_table(me, call(me, roll.known()).await);
        if let Some(lost) = answers.iter().find(|answer| answer.lost) {
            let what = format!(
                "the server at {} runs, and has lost the table as it was last, which this server may not have: that one says so there. To go on with what this one has, without what was written since, start this one with --force; the other one joins it then",
                lost.address
            );
            if said.is_news(&what, Instant::now()) {
                tell(&what);
            }
        }
    }
}

async fn obey(line: &str, node: Option<&Node>) {
    match line {
        "" => {}
        "print" => {
            print(&printed(node).await);
        }
        other => tell(&format!("{other}: the only command is print; Ctrl-C ends")),
    }
}

/// Open files besides clients' connections.
const FILES_BESIDE: u64 = 1_024;
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Longer than anybody waits for it.
const WAKE_WITHIN: Duration = Duration::from_secs(24 * 3_600);
