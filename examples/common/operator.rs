//! What the operator of a process is told, one sentence a line, and how he asks it to end.

use kvrep_core::ReplicaId;
use kvrep_core::node::active::ActiveEvent;
use kvrep_core::node::{ActiveNode, Node, NodeError, NodeEvent};
use kvrep_core::protocol::active;
use kvrep_core::protocol::{Acknowledged, Event};
use kvrep_core::storage::StorageEvent;
use std::io::{self, Write as _};
use std::time::Duration;
use tokio::time::Instant;

/// What an operator may have to be told.
#[derive(Clone, Copy, Debug)]
pub enum News<'a> {
    /// Something happened.
    Happened(&'a NodeEvent),
    /// The node waits for something, in a sentence of the library.
    Waits(&'a str),
}

/// Tells what must not be missed, and what the node waits for as that changes, until the node ends by itself. May be dropped
/// at any time, as when the program is to end.
///
/// # Errors
/// Why the node ended.
pub async fn attend(node: &Node, mut tell: impl FnMut(&str)) -> Result<(), NodeError> {
    attend_news(node, |news| match news {
        News::Happened(event) => {
            if let Some(what) = sentence(event) {
                tell(&what);
            }
        }
        News::Waits(what) => tell(what),
    })
    .await
}

/// The same for programs that make their own sentences: they hear of every event, also of those of every day. May be dropped at any time.
///
/// # Errors
/// Why the node ended.
pub async fn attend_news(node: &Node, mut hear: impl FnMut(News<'_>)) -> Result<(), NodeError> {
    let (mut events, mut watch) = (node.events(), node.watch());
    let mut said = Said::default();
    loop {
        tokio::select! {
            ended = node.wait() => return ended,
            Ok(event) = events.recv() => {
                if let NodeEvent::Protocol(Event::Refused(why)) = &event
                    && !said.is_news(why, Instant::now())
                {
                    continue;
                }
                hear(News::Happened(&event));
            }
            Ok(()) = watch.changed() => {
                let now = watch.borrow_and_update().protocol.waiting_for.clone();
                if said.is_news(&now, Instant::now()) {
                    hear(News::Waits(&now));
                }
            }
        }
    }
}

/// The same for a replica of the active scheme. May be dropped at any time.
///
/// # Errors
/// Why the replica ended.
pub async fn attend_active(node: &ActiveNode, mut tell: impl FnMut(&str)) -> Result<(), NodeError> {
    let mut events = node.events();
    let mut said = Said::default();
    loop {
        tokio::select! {
            ended = node.wait() => return ended,
            Ok(event) = events.recv() => {
                if let Some(what) = active_sentence(&event)
                    && said.is_news(&what, Instant::now())
                {
                    tell(&what);
                }
            }
        }
    }
}

/// What the operator was told lately. What a node waits for comes and goes with every attempt, and by two ways; it is said once, and again
/// after some minutes.
#[derive(Debug, Default)]
pub struct Said(Vec<(String, Instant)>);

impl Said {
    /// Whether this is to be said now.
    pub fn is_news(&mut self, why: &str, now: Instant) -> bool {
        self.0.retain(|(_, at)| now - *at < SAID_AGAIN_AFTER);
        if why.is_empty() || self.0.iter().any(|(said, _)| said == why) {
            return false;
        }
        if self.0.len() >= SAID_MAX {
            self.0.remove(0);
        }
        self.0.push((why.to_owned(), now));
        true
    }
}

/// A sentence of the library in which replicas are called by their ids, with the names that the operator knows instead.
#[must_use]
pub fn with_names(text: &str, name: impl Fn(ReplicaId) -> String) -> String {
    let mut named = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('n') {
        let (before, after) = (&rest[..at], &rest[at + 1..]);
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        named.push_str(before);
        let word_begins = !named.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        match after[..digits].parse() {
            Ok(id) if word_begins => named.push_str(&name(ReplicaId(id))),
            _ => named.push_str(&rest[at..=at + digits]),
        }
        rest = &after[digits..];
    }
    named + rest
}

/// Whether this sentence of the library says less than what its transport says of the same: that somebody who is asked cannot reach this
/// replica, but not where (`TcpConfig::on_unreachable`).
#[must_use]
pub fn is_told_by_transport(sentence: &str) -> bool {
    sentence.contains("hears this replica, and cannot reach it to answer")
}

/// A sentence of the library without brackets round one replica alone: `{n1}` and `[n1]` become `n1`.
#[must_use]
pub fn sets_of_one_opened(text: &str) -> String {
    let mut opened = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['{', '[']) {
        let (before, set) = rest.split_at(at);
        opened.push_str(before);
        let closing = if set.starts_with('{') { '}' } else { ']' };
        let one = set[1..].split_once(closing).filter(|(id, _)| is_id(id));
        (opened, rest) = match one {
            Some((id, after)) => (opened + id, after),
            None => (opened + &set[..1], &set[1..]),
        };
    }
    opened + rest
}

fn is_id(word: &str) -> bool {
    let digits = word.strip_prefix('n').unwrap_or_default();
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

/// A sentence of the library in the words of a program: each of the first is replaced by the second.
#[must_use]
pub fn reworded(text: &str, words: &[(&str, &str)]) -> String {
    let reword = |text: String, (theirs, ours): &(&str, &str)| text.replace(theirs, ours);
    words.iter().fold(text.to_owned(), reword)
}

/// Ends when the process is asked to end, by Ctrl-C or SIGTERM. They are listened for from the call on, so that none is
/// missed while a program starts.
///
/// # Errors
/// When the system does not let this process listen for signals.
#[cfg(unix)]
pub fn asked_to_end() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Ends when the process is asked to end, by Ctrl-C.
///
/// # Errors
/// None here.
#[cfg(not(unix))]
pub fn asked_to_end() -> io::Result<impl Future<Output = ()>> {
    Ok(async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}

/// The sentence for what must not be missed; `None` for what happens every day.
#[must_use]
pub fn sentence(event: &NodeEvent) -> Option<String> {
    match event {
        NodeEvent::Protocol(Event::Forced {
            replaced,
            not_awaited,
            from,
        }) => {
            let serving = replaced.as_ref().map_or_else(
                || "no configuration that is known here".into(),
                |old| format!("{} (version {})", list(old.in_sync.keys()), old.version.0),
            );
            if not_awaited.is_empty() {
                return Some(format!(
                    "FORCED: this replica becomes primary with what it has; it replaces {serving}. Acknowledged writes from entry {} \
                     on are LOST if others had them: what is known here does not say who",
                    from.0
                ));
            }
            Some(format!(
                "FORCED: this replica becomes primary with what it has. It does not wait for {}; it replaces {serving}. \
                 Acknowledged writes from entry {} on are LOST if only those had them. If one of those returns, such \
                 writes are refuted, set aside and reported there",
                list(not_awaited),
                from.0
            ))
        }
        NodeEvent::Protocol(Event::AcknowledgedWritesLost {
            from,
            writes: Some(0),
            ..
        }) => Some(format!(
            "this replica's history is not the one that counts from entry {} on, though it took it for decided. There is no write in it, so nothing is lost",
            from.0
        )),
        NodeEvent::Protocol(Event::AcknowledgedWritesLost { from, writes, .. }) => Some(format!(
            "ACKNOWLEDGED WRITES ARE LOST: {} of this replica (from entry {} on), which it took for decided, {} not in the history that counts",
            counted(*writes),
            from.0,
            is(*writes)
        )),
        NodeEvent::Protocol(Event::TailTruncated {
            writes: Some(0), ..
        }) => None,
        NodeEvent::Protocol(Event::TailTruncated {
            from,
            writes,
            acknowledged: Acknowledged::Never,
            ..
        }) => Some(format!(
            "{} of this replica (from entry {} on) {} not in the history that counts, and cut off: nobody was ever told that {} done, so nothing is lost",
            counted(*writes),
            from.0,
            is(*writes),
            if *writes == Some(1) {
                "it is"
            } else {
                "they are"
            }
        )),
        NodeEvent::Protocol(Event::TailTruncated {
            from,
            writes,
            acknowledged: Acknowledged::Perhaps,
            ..
        }) => Some(format!(
            "{} of this replica (from entry {} on) {} not in the history that counts: cut off, and set aside. This replica does not know \
             which of that was acknowledged; what was is LOST",
            counted(*writes),
            from.0,
            is(*writes)
        )),
        NodeEvent::Protocol(Event::RivalRefused { term }) => Some(format!(
            "refused the writes of {}, which still took itself for the primary (in term {}): it must follow now",
            term.replica, term.number
        )),
        NodeEvent::Protocol(Event::OtherGroup { replica, .. }) => Some(format!(
            "{replica} is of ANOTHER GROUP of this name: one of the two was begun anew, in another directory or without being told of the others. It is not followed, and counts for \
             nothing here; where both serve, stop one of them and start it in an empty directory to join the other"
        )),
        NodeEvent::Protocol(Event::Refused(why)) => Some(format!("serves nothing: {why}")),
        // What is cut off of a memory is set aside nowhere.
        NodeEvent::Storage(StorageEvent::TailSaved { from, path, .. })
            if path.as_os_str().is_empty() =>
        {
            Some(format!(
                "what this replica had from entry {} on was in memory only: it is gone, for there is no log to set it aside in",
                from.0
            ))
        }
        NodeEvent::Storage(StorageEvent::TailSaved { from, path, .. }) => Some(format!(
            "what this replica had from entry {} on is set aside in {}",
            from.0,
            path.display()
        )),
        _ => None,
    }
}

/// The sentence for what must not be missed of a replica of the active scheme; `None` for what happens every day.
#[must_use]
pub fn active_sentence(event: &ActiveEvent) -> Option<String> {
    match event {
        ActiveEvent::Protocol(active::Event::HistoryLost {
            agreed,
            acknowledged: 0,
            ..
        }) => Some(format!(
            "this replica's history is not the one that counts from position {} on; it had answered nothing of it, so nothing is lost",
            agreed.0
        )),
        ActiveEvent::Protocol(active::Event::HistoryLost {
            agreed,
            acknowledged,
            ..
        }) => Some(format!(
            "ACKNOWLEDGED WRITES ARE LOST: up to {acknowledged} of this replica, from position {} on, are not in the history that counts",
            agreed.0
        )),
        ActiveEvent::Protocol(active::Event::StateNotRead { from, why }) => Some(format!(
            "cannot read the state that {from} gives ({why}), and cannot serve: does it run the same version of this program?"
        )),
        ActiveEvent::Protocol(active::Event::AwaitsWord { missing }) => Some(format!(
            "waits for word of one of {}, be it without its state",
            list(missing)
        )),
        ActiveEvent::Protocol(active::Event::ClockBehind { by }) => Some(format!(
            "this machine's clock is {} s behind this replica's last start: it goes on as a later start than that one, and loses nothing by it",
            by.div_ceil(1_000_000)
        )),
        ActiveEvent::Protocol(active::Event::Superseded { at }) => Some(format!(
            "another process was started later with this replica's number: this one answers no more, and keeps its state (up to position {}) until one that serves has it",
            at.0
        )),
        ActiveEvent::Protocol(active::Event::LastStateGone { at }) => Some(format!(
            "LOST: nobody who serves was heard with this replica's state (up to position {})",
            at.0
        )),
        ActiveEvent::SetAside(path) => Some(format!(
            "the state that does not count is set aside in {}",
            path.display()
        )),
        ActiveEvent::NotSetAside(why) => Some(format!(
            "the state that does not count is not set aside: {why}"
        )),
        ActiveEvent::ConfiguredOtherwise(replica) => {
            Some(format!("{replica} has other settings, and is not believed"))
        }
        ActiveEvent::Trouble(why) => Some(why.clone()),
        _ => None,
    }
}

/// So many writes. Entries that nobody wrote (a reign begins with one, a session too) are not counted.
fn counted(writes: Option<u64>) -> String {
    match writes {
        Some(1) => "1 write".into(),
        Some(writes) => format!("{writes} writes"),
        None => "the writes".into(),
    }
}

fn is(writes: Option<u64>) -> &'static str {
    if writes == Some(1) { "is" } else { "are" }
}

/// A sentence of the library without the advice to force a replica, for programs that have no such option.
#[must_use]
pub fn without_force(sentence: &str) -> &str {
    match sentence.split_once(", or start ") {
        Some((before, advice)) if advice.contains("with force") => before,
        _ => sentence,
    }
}

/// Prints a line on standard output.
pub fn tell(me: ReplicaId, what: &str) {
    // Whoever closed the other end does not want to read it.
    drop(writeln!(io::stdout(), "{me}: {what}"));
}

fn list<'a>(ids: impl IntoIterator<Item = &'a ReplicaId>) -> String {
    let words: Vec<String> = ids.into_iter().map(ToString::to_string).collect();
    if words.is_empty() {
        "nobody".into()
    } else {
        words.join(", ")
    }
}

/// What goes on is said again now and then.
const SAID_AGAIN_AFTER: Duration = Duration::from_secs(300);
/// Sentences that are remembered; of more the oldest are forgotten.
const SAID_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use kvrep_core::Index;
    use std::path::PathBuf;

    fn saved(path: &str) -> String {
        let event = StorageEvent::TailSaved {
            from: Index(7),
            entries: 2,
            path: PathBuf::from(path),
        };
        sentence(&NodeEvent::Storage(event)).expect("it is told")
    }

    #[test]
    fn what_was_in_memory_only_is_said_to_be_gone_and_not_to_be_set_aside() {
        assert!(saved("log/aside").contains("set aside in log/aside"));
        let memory = saved("");
        assert!(memory.contains("in memory only"), "{memory}");
        assert!(!memory.contains("set aside in  "), "{memory}");
        assert!(!memory.ends_with("in "), "{memory}");
    }

    fn cut_off(acknowledged: Acknowledged, writes: Option<u64>) -> Option<String> {
        let cut = Event::TailTruncated {
            from: Index(7),
            entries: 3,
            writes,
            acknowledged,
        };
        sentence(&NodeEvent::Protocol(cut))
    }

    fn cut(acknowledged: Acknowledged) -> String {
        cut_off(acknowledged, Some(1)).expect("it is told")
    }

    #[test]
    fn what_is_lost_is_counted_in_writes_and_what_nobody_wrote_is_no_loss() {
        let lost = |writes| {
            let (from, commit) = (Index(7), Index(20));
            let lost = Event::AcknowledgedWritesLost {
                from,
                commit,
                writes,
            };
            sentence(&NodeEvent::Protocol(lost)).expect("it is told")
        };
        for (writes, words) in [
            (Some(1), "LOST: 1 write of"),
            (Some(2), "LOST: 2 writes of"),
            (None, "LOST: the writes of"),
        ] {
            assert!(lost(writes).contains(words), "{}", lost(writes));
        }
        assert!(lost(Some(0)).contains("nothing is lost"));
        for acknowledged in [Acknowledged::Never, Acknowledged::Perhaps] {
            assert_eq!(cut_off(acknowledged, Some(0)), None);
            let told = cut_off(acknowledged, None).expect("it is told");
            assert!(told.contains("the writes of"), "{told}");
            assert!(cut(acknowledged).contains("1 write of this replica (from entry 7 on) is"));
        }
    }

    #[test]
    fn of_an_active_replica_what_was_answered_is_lost_and_what_was_not_is_no_loss() {
        let lost = |acknowledged| {
            let lost = active::Event::HistoryLost {
                agreed: Index(7),
                upto: Index(20),
                acknowledged,
                apart: false,
            };
            active_sentence(&ActiveEvent::Protocol(lost)).expect("it is told")
        };
        assert!(lost(0).contains("nothing is lost"), "{}", lost(0));
        assert!(lost(3).contains("LOST: up to 3"), "{}", lost(3));
        let daily = ActiveEvent::Protocol(active::Event::Joined(ReplicaId(2)));
        assert_eq!(active_sentence(&daily), None);
    }

    #[test]
    fn a_tail_that_is_cut_may_have_been_acknowledged() {
        let told = cut(Acknowledged::Perhaps);
        assert!(
            told.contains("does not know which of that was acknowledged"),
            "{told}"
        );
        assert!(told.contains("is LOST"), "{told}");
    }

    #[test]
    fn a_tail_of_which_nobody_was_told_is_no_loss() {
        let told = cut(Acknowledged::Never);
        assert!(told.contains("nothing is lost"), "{told}");
        assert!(!told.contains("LOST"), "{told}");
    }

    #[test]
    fn what_is_waited_for_is_said_once_though_it_comes_and_goes_and_comes_by_two_ways() {
        let mut said = Said::default();
        let now = Instant::now();
        let heard = ["", "a", "a", "", "a", "b", "", "b"].map(|why| said.is_news(why, now));
        assert_eq!(
            heard,
            [false, true, false, false, false, true, false, false]
        );
        assert!(said.is_news("b", now + SAID_AGAIN_AFTER));
    }

    #[test]
    fn ids_become_names_and_other_words_stay() {
        let name = |id: ReplicaId| format!("<{}>", id.0);
        assert_eq!(
            with_names("n1 and [n22, n3] in n, not in n_4, then5 or in5", name),
            "<1> and [<22>, <3>] in n, not in n_4, then5 or in5"
        );
        assert_eq!(
            sets_of_one_opened("{n1}, [n2], {n3, n4}, {}, {x}, [n5"),
            "n1, n2, {n3, n4}, {}, {x}, [n5"
        );
        assert_eq!(reworded("n1 (a) b", &[(" (a)", ""), ("b", "c")]), "n1 c");
    }

    #[test]
    fn advice_to_force_is_left_out_and_everything_else_is_said() {
        let missing = "only r1 serves; missing: {r1}. Start them";
        for advice in ["one replica with force", "this replica with force"] {
            assert_eq!(
                without_force(&format!("{missing}, or start {advice}")),
                missing
            );
        }
        for other in [
            missing,
            "stopped: nothing is forced",
            "wait, or start another",
        ] {
            assert_eq!(without_force(other), other);
        }
    }
}
