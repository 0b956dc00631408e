//! The members over their log: what it tells them, and what becomes of their processes.

use super::happening::Happening;
use super::log::News;
use super::world::World;
use crate::stream::StreamEvent;

impl World {
    /// The next thing happens in the log's group.
    pub(super) fn step_log(&mut self) {
        let Some(log) = &mut self.log else {
            return;
        };
        log.step();
        let hash = log.hash();
        self.count(11, hash);
        self.attend_log();
    }

    /// Whatever is new in the log's group reaches its members.
    pub(super) fn attend_log(&mut self) {
        while let Some(log) = &mut self.log {
            if let Some(failure) = log.failure() {
                self.fail(format!("the log: {}", failure.rule), failure.detail);
                return;
            }
            let news = log.news();
            if news.is_empty() {
                return;
            }
            for what in news {
                self.on_news(what);
            }
        }
    }

    fn on_news(&mut self, what: News) {
        match what {
            News::Started(n) => self.say(format!("n{n} has a node of the log again")),
            News::Ended(n) => self.kill(n),
            News::Stopped(n) => {
                self.nodes[n].paused = true;
                self.say(format!("n{n} stops"));
            }
            News::WentOn(n) => self.resume(n),
            News::Heard(n, event) => self.on_heard(n, event),
            News::Answer { reply_to, outcome } => {
                let after = self.broker.delay();
                let outcome = Box::new(outcome);
                self.schedule(after, Happening::Found { reply_to, outcome });
            }
        }
    }

    fn on_heard(&mut self, n: usize, event: StreamEvent) {
        match event {
            StreamEvent::Opened => self.begin(n),
            StreamEvent::Delivered { published, hash } => {
                self.drive(n, |active, now, wall, out| {
                    active.on_delivered(now, wall, published, hash, out);
                });
            }
            StreamEvent::Message(message) => self.drive(n, |active, now, wall, out| {
                active.on_message(now, wall, message, out);
            }),
            StreamEvent::Answered(number) => {
                self.drive(n, |active, _, _, out| active.on_answered(number, out));
            }
            StreamEvent::Reset => {
                self.gaps += 1;
                self.say(format!("n{n} has missed something"));
                self.drive(n, |active, now, wall, out| {
                    active.on_stream_reset(now, wall, out);
                });
            }
            StreamEvent::ConfiguredOtherwise(_)
            | StreamEvent::Superseded
            | StreamEvent::Trouble(_) => self.fail("the stream is well", format!("{event:?}")),
        }
    }
}
