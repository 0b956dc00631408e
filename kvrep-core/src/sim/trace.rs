//! What happened: a hash of all of it, the last lines of it, and on request every line.

use super::node_name;
use crate::id::ReplicaId;
use crate::protocol::passive;
use crate::time::Time;
use crate::wire::{self, Envelope};
use bytes::Bytes;
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;

/// One line. Kept unformatted: most are never read.
#[derive(Clone, Debug)]
pub(super) enum Line {
    Frame {
        from: usize,
        to: usize,
        fate: Fate,
        frame: Bytes,
    },
    Node {
        node: ReplicaId,
        text: Cow<'static, str>,
    },
    Client {
        client: u32,
        text: String,
    },
    World(Cow<'static, str>),
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Arrived,
    Lost,
    /// Nobody was there.
    Unheard,
    /// It waits for its addressee to wake up.
    Waits,
}

/// Shown every line.
pub(super) type Watcher = Box<dyn FnMut(&str)>;

/// Both the group's lines and its log's are shown to whoever looks on.
pub(super) fn shared(watcher: Option<Watcher>) -> (Option<Watcher>, Option<Watcher>) {
    let Some(watcher) = watcher else {
        return (None, None);
    };
    let watcher = Rc::new(RefCell::new(watcher));
    let again = Rc::clone(&watcher);
    let of_log = move |line: &str| again.borrow_mut()(&format!("log {line}"));
    let own = move |line: &str| watcher.borrow_mut()(&format!("    {line}"));
    (Some(Box::new(own)), Some(Box::new(of_log)))
}

/// Keeps the trace of one run.
pub(super) struct Trace {
    hash: u64,
    events: u64,
    members: usize,
    last: VecDeque<(Time, Line)>,
    lines_max: usize,
    every: Option<Watcher>,
}

impl Trace {
    pub(super) fn new(members: usize, lines_max: usize, every: Option<Watcher>) -> Self {
        Self {
            hash: 0,
            events: 0,
            members,
            last: VecDeque::with_capacity(lines_max + 1),
            lines_max,
            every,
        }
    }

    /// Counts an executed event into the hash.
    pub(super) fn event(&mut self, now: Time, kind: u64, what: [u64; 3]) {
        self.events += 1;
        for word in [now.as_nanos(), kind, what[0], what[1], what[2]] {
            self.hash = (self.hash ^ word)
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(29);
        }
    }

    pub(super) fn line(&mut self, now: Time, line: Line) {
        if let Some(every) = &mut self.every {
            every(&Shown(now, &line, self.members).to_string());
        }
        if self.last.len() == self.lines_max {
            self.last.pop_front();
        }
        self.last.push_back((now, line));
    }

    /// Whether somebody looks on: what only he would read need not be written otherwise.
    pub(super) fn is_watched(&self) -> bool {
        self.every.is_some()
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn events(&self) -> u64 {
        self.events
    }

    pub(super) fn tail(&self) -> Vec<String> {
        let show = |(at, line): &(Time, Line)| Shown(*at, line, self.members).to_string();
        self.last.iter().map(show).collect()
    }
}

struct Shown<'a>(Time, &'a Line, usize);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(at, line, members) = self;
        write!(f, "{:>12.6} ", at.as_nanos() as f64 / 1e9)?;
        let name = |node: usize| node_name(node, *members);
        match line {
            Line::Frame {
                from,
                to,
                fate,
                frame,
            } => {
                let (arrow, note) = match fate {
                    Fate::Arrived => ("→", ""),
                    Fate::Lost => ("⇥", " (lost)"),
                    Fate::Unheard => ("→", " (nobody there)"),
                    Fate::Waits => ("→", " (waits: paused)"),
                };
                write!(
                    f,
                    "{} {arrow} {} {}{note}",
                    name(*from),
                    name(*to),
                    describe(frame)
                )
            }
            Line::Node { node, text } => write!(f, "{node}: {text}"),
            Line::Client { client, text } => write!(f, "client {client}: {text}"),
            Line::World(text) => write!(f, "*** {text}"),
        }
    }
}

fn describe(frame: &Bytes) -> String {
    match wire::decode_datagram(frame, usize::MAX) {
        Ok((_, mut body)) => match Envelope::decode(&mut body) {
            Ok(envelope) => format!(
                "[{}→{}] {}",
                envelope.incarnation,
                envelope.to_incarnation,
                passive::describe(&body)
            ),
            Err(e) => e.to_string(),
        },
        Err(e) => e.to_string(),
    }
}
