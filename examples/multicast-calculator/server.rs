//! The server: sends its id, listens to those of others, answers if it is the lowest.
//!
//! One task each for the heartbeats, for what other servers say, for requests and for the periodic block; expressions are evaluated on threads of
//! their own. So nothing delays a heartbeat: not an expression (C4.7), not a console that is held, not a flood of requests.
//!
//! Invariants: an answer leaves from the socket of the clients' group, to the address that asked; what cannot be sent is tried again at the next tick, and
//! after some ticks the groups are joined anew (an interface that went away took the membership with it).

use super::cluster::{Cluster, Heard, OwnIdIs, Sent};
use super::console::Console;
use super::expression::{Division, INVALID_EXPRESSION, TEXT_BYTES_MAX, answer};
use super::requests::{Kept, Request};
use super::words::{self, Language};
use kvrep_core::detector::ticks::{TickConfig, TickConfigError};
use kvrep_core::protocol::lowest::Turn;
use kvrep_core::{ReplicaId, Time};
use kvrep_transport_multicast::{GroupSocket, MulticastConfig};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until};

/// How a server runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its id, from 1.
    pub me: ReplicaId,
    /// The highest id.
    pub servers_max: u32,
    /// Period and thresholds.
    pub ticks: TickConfig,
    /// Where servers talk.
    pub servers: MulticastConfig,
    /// Where clients ask.
    pub clients: MulticastConfig,
    /// How often the block is shown.
    pub block_every: Duration,
    /// The names of the states.
    pub language: Language,
    /// What `/` does.
    pub division: Division,
    /// What becomes of requests that another one is expected to answer.
    pub unanswered: Unanswered,
}

/// What becomes of requests that another server is expected to answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Unanswered {
    /// Nothing; the client asks again.
    #[default]
    Forgotten,
    /// They are kept for four periods, and answered if that server turns out to be gone. Duplicates are possible.
    Kept,
}

/// Serves until it is dropped.
///
/// # Errors
/// When the thresholds make no sense.
pub async fn serve(settings: Settings, console: Console) -> Result<(), TickConfigError> {
    let cluster = Cluster::new(settings.me, settings.servers_max, settings.ticks)?;
    let server = Arc::new(Server {
        kept: Mutex::new(Kept::new(settings.ticks.period * KEPT_FOR_PERIODS)),
        cluster: Mutex::new(cluster),
        origin: Instant::now(),
        evaluating: Arc::new(Semaphore::new(EVALUATED_AT_ONCE_MAX)),
        requests_shown: Mutex::new(Shown::new(REQUESTS_SHOWN_MAX)),
        invalid_shown: Mutex::new(Shown::new(INVALID_SHOWN_MAX)),
        console,
        settings,
    });
    server.cluster().start(server.now());
    let mut tasks = JoinSet::new();
    tasks.spawn(Arc::clone(&server).show_blocks());
    tasks.spawn(server.talk());
    while tasks.join_next().await.is_some() {}
    Ok(())
}

struct Server {
    settings: Settings,
    cluster: Mutex<Cluster>,
    kept: Mutex<Kept>,
    evaluating: Arc<Semaphore>,
    requests_shown: Mutex<Shown>,
    invalid_shown: Mutex<Shown>,
    origin: Instant,
    console: Console,
}

/// The sockets of both groups.
struct Sockets {
    servers: GroupSocket,
    clients: GroupSocket,
}

impl Server {
    fn now(&self) -> Time {
        Time::ZERO + self.origin.elapsed()
    }

    fn cluster(&self) -> MutexGuard<'_, Cluster> {
        locked(&self.cluster)
    }

    /// Joins the groups, and again whenever they are lost.
    async fn talk(self: Arc<Self>) {
        let mut trouble = Trouble::default();
        let mut started = false;
        loop {
            let opened = self.open();
            match opened {
                Ok(sockets) => {
                    if !started {
                        let (s, c) = (self.settings.servers.group, self.settings.clients.group);
                        for line in words::started(self.settings.me, s, c) {
                            self.console.say(line);
                        }
                        started = true;
                    }
                    let sockets = Arc::new(sockets);
                    let mut listeners = JoinSet::new();
                    listeners.spawn(Arc::clone(&self).listen_to_servers(Arc::clone(&sockets)));
                    listeners.spawn(Arc::clone(&self).listen_to_clients(Arc::clone(&sockets)));
                    self.beat(&sockets, &mut trouble).await;
                }
                Err(error) => {
                    self.tell_trouble(&mut trouble, "join the multicast groups", &error);
                    self.wait_for_tick().await;
                    self.tick(Sent::No, None);
                }
            }
        }
    }

    fn open(&self) -> io::Result<Sockets> {
        Ok(Sockets {
            servers: GroupSocket::open(&self.settings.servers)?,
            clients: GroupSocket::open(&self.settings.clients)?,
        })
    }

    /// Sends signs of life, until so many could not be sent that the groups should be joined anew.
    async fn beat(self: &Arc<Self>, sockets: &Arc<Sockets>, trouble: &mut Trouble) {
        let heartbeat = words::heartbeat(self.settings.me);
        let group = self.settings.servers.group;
        let mut failed = 0;
        loop {
            self.wait_for_tick().await;
            // Others stand back for a server that they hear: it says nothing before it answers.
            if !self.cluster().speaks(self.now()) {
                self.tick(Sent::No, Some(sockets));
                continue;
            }
            let own = sockets.servers.own();
            let sent = match own.send_to(heartbeat.as_bytes(), group).await {
                Ok(_) => {
                    if trouble.end() {
                        self.console.trouble("the multicast group is reached again");
                    }
                    failed = 0;
                    Sent::Yes
                }
                Err(error) => {
                    self.tell_trouble(trouble, "send to the multicast group", &error);
                    failed += 1;
                    Sent::No
                }
            };
            self.tick(sent, Some(sockets));
            if failed == FAILED_TICKS_MAX {
                return;
            }
        }
    }

    async fn wait_for_tick(&self) {
        let next = self.cluster().next_tick(self.now());
        sleep_until(self.origin + (next - Time::ZERO)).await;
    }

    fn tick(self: &Arc<Self>, sent: Sent, sockets: Option<&Arc<Sockets>>) {
        let now = self.now();
        let (own_id, turn) = {
            let mut cluster = self.cluster();
            (cluster.tick(now, sent), cluster.turn(now))
        };
        self.tell_updates();
        if own_id == OwnIdIs::SharedWithAnother {
            self.console.trouble(format!(
                "another server seems to have the id {}, too: more confirmations with it are heard than are sent; both answer. Start one with another id",
                self.settings.me.0
            ));
        }
        for (what, shown) in [
            ("client messages", &self.requests_shown),
            ("datagrams that say nothing", &self.invalid_shown),
        ] {
            let hidden = locked(shown).take_hidden();
            if hidden > 0 {
                self.console
                    .trouble(format!("{hidden} more {what} came than are shown"));
            }
        }
        if let (Turn::Mine, Some(sockets)) = (turn, sockets) {
            for request in self.kept().take(now) {
                self.answer(sockets, request);
            }
        }
    }

    /// Whether the lines of the request that is looked at now are printed.
    fn shows_request(&self) -> bool {
        locked(&self.requests_shown).may(self.now(), self.settings.ticks.period)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        locked(&self.kept)
    }

    fn tell_updates(&self) {
        let mut cluster = self.cluster();
        // Told under the lock, so that no line overtakes another.
        for (server, verdict) in cluster.updates(self.now()) {
            self.console
                .say(self.settings.language.update(server, verdict));
        }
    }

    fn tell_trouble(&self, trouble: &mut Trouble, what: &str, error: &io::Error) {
        if trouble.is_news(error) {
            self.console
                .trouble(format!("cannot {what}: {}; trying again", explained(error)));
        }
    }

    async fn listen_to_servers(self: Arc<Self>, sockets: Arc<Sockets>) {
        loop {
            let mut buffer = [0; TEXT_BYTES_MAX + 1];
            let (datagram, from) = receive(sockets.servers.group(), &mut buffer).await;
            let now = self.now();
            let heard = self.cluster().heard(now, datagram);
            match heard {
                Heard::Alive => self.tell_updates(),
                Heard::Late => {}
                Heard::Invalid => {
                    if locked(&self.invalid_shown).may(now, self.settings.ticks.period) {
                        self.console.say(words::received_invalid(datagram, from));
                    }
                }
            }
        }
    }

    async fn listen_to_clients(self: Arc<Self>, sockets: Arc<Sockets>) {
        loop {
            let mut buffer = [0; TEXT_BYTES_MAX + 1];
            let (datagram, from) = receive(sockets.clients.group(), &mut buffer).await;
            let now = self.now();
            // What is no text is no expression either, and is answered so.
            let expression = String::from_utf8_lossy(datagram).into_owned();
            let request = Request { expression, from };
            let turn = self.cluster().turn(now);
            match turn {
                Turn::Mine => self.answer(&sockets, request),
                Turn::Theirs(lowest) => {
                    if self.shows_request() {
                        self.console.say(words::expecting(lowest));
                    }
                    if self.settings.unanswered == Unanswered::Kept {
                        self.kept().keep(now, request);
                    }
                }
                Turn::Listening => {}
            }
        }
    }

    /// Evaluates on another thread and sends the result. Beyond what is evaluated at once a request is dropped: its client asks again.
    fn answer(self: &Arc<Self>, sockets: &Arc<Sockets>, request: Request) {
        let Ok(place) = Arc::clone(&self.evaluating).try_acquire_owned() else {
            return;
        };
        let shows = self.shows_request();
        if shows {
            self.console.say(words::evaluating(&request.expression));
        }
        let (server, sockets) = (Arc::clone(self), Arc::clone(sockets));
        tokio::spawn(async move {
            let division = server.settings.division;
            let Request { expression, from } = request;
            let evaluated = tokio::task::spawn_blocking(move || answer(&expression, division));
            let result = evaluated
                .await
                .unwrap_or_else(|_| INVALID_EXPRESSION.to_owned());
            drop(place);
            if shows {
                server.console.say(words::sending(&result));
            }
            if let Err(error) = sockets
                .clients
                .group()
                .send_to(result.as_bytes(), from)
                .await
            {
                let error = explained(&error);
                server
                    .console
                    .trouble(format!("cannot send the result to {from}: {error}"));
            }
        });
    }

    async fn show_blocks(self: Arc<Self>) {
        let every = self.settings.block_every;
        // From the start on, whatever a block takes: the tenth comes after ten times the period.
        let mut times = interval_at(self.origin + every, every);
        times.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            times.tick().await;
            let block = self.cluster().block(self.now(), self.settings.language);
            self.console.say(block);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The next datagram; what does not fit is cut off.
async fn receive<'a>(socket: &UdpSocket, buffer: &'a mut [u8]) -> (&'a [u8], SocketAddr) {
    loop {
        match socket.recv_from(buffer).await {
            Ok((bytes, from)) => return (&buffer[..bytes], from),
            // Nothing that a receiver could mend; it must not spin meanwhile.
            Err(_) => sleep(RECEIVED_AGAIN_AFTER).await,
        }
    }
}

/// Why datagrams cannot be sent or groups not be joined, with what to do about it.
#[must_use]
pub fn explained(error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => NO_ROUTE,
        io::ErrorKind::AddrInUse => "; another program uses the group's port without sharing it",
        io::ErrorKind::AddrNotAvailable => "; no interface has the address of --interface",
        // What a system without a route says to a program that joins.
        _ if error.raw_os_error() == Some(NO_SUCH_DEVICE) => NO_ROUTE,
        _ => "",
    };
    format!("{error}{advice}")
}

/// What was said of a failure that lasts.
#[derive(Debug, Default)]
struct Trouble {
    said: Option<String>,
}

impl Trouble {
    /// Whether this was not said last.
    fn is_news(&mut self, error: &io::Error) -> bool {
        let error = error.to_string();
        let news = self.said.as_ref() != Some(&error);
        self.said = Some(error);
        news
    }

    /// Whether there was any.
    fn end(&mut self) -> bool {
        self.said.take().is_some()
    }
}

/// How many datagrams of a kind were shown in this period: whoever floods a group shall not fill the screen.
#[derive(Debug)]
struct Shown {
    since: Time,
    shown: u32,
    most: u32,
    hidden: u64,
}

impl Shown {
    fn new(most: u32) -> Self {
        Self {
            since: Time::ZERO,
            shown: 0,
            most,
            hidden: 0,
        }
    }

    fn may(&mut self, now: Time, period: Duration) -> bool {
        if now - self.since >= period {
            (self.since, self.shown) = (now, 0);
        }
        let may = self.shown < self.most;
        self.shown += u32::from(may);
        self.hidden += u64::from(!may);
        may
    }

    /// How many were not shown since the last call.
    fn take_hidden(&mut self) -> u64 {
        std::mem::take(&mut self.hidden)
    }
}

const NO_ROUTE: &str = "; there is no route to the multicast groups: add one, for example `ip route add 224.0.0.0/4 dev eth0`, or select an interface by its address with --interface";
/// ENODEV.
const NO_SUCH_DEVICE: i32 = 19;
/// Expressions that are evaluated at the same time; of more the client is not answered, and asks again.
const EVALUATED_AT_ONCE_MAX: usize = 64;
/// Ticks without a sign of life that could be sent, after which the groups are joined anew.
const FAILED_TICKS_MAX: u32 = 5;
/// See [`Unanswered::Kept`].
const KEPT_FOR_PERIODS: u32 = 4;
/// Lines a period about datagrams that say nothing.
const INVALID_SHOWN_MAX: u32 = 5;
/// Requests of a period whose lines are printed.
const REQUESTS_SHOWN_MAX: u32 = 50;
const RECEIVED_AGAIN_AFTER: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c4_6_a_missing_route_is_explained_and_said_once() {
        let unreachable = io::Error::from_raw_os_error(101);
        assert!(explained(&unreachable).contains("ip route add 224.0.0.0/4"));
        assert!(explained(&io::Error::from_raw_os_error(NO_SUCH_DEVICE)).contains("--interface"));
        let mut trouble = Trouble::default();
        assert!(trouble.is_news(&unreachable));
        assert!(!trouble.is_news(&unreachable));
        assert!(trouble.end());
        assert!(!trouble.end());
        assert!(trouble.is_news(&unreachable));
    }

    #[test]
    fn r4_19_of_a_flood_of_requests_some_are_shown_and_the_others_counted() {
        let (mut shown, second) = (Shown::new(REQUESTS_SHOWN_MAX), Duration::from_secs(1));
        let mut flood = |from: u32| {
            let times = (0..1_000).map(|n| Time::ZERO + second * from + second * n / 1_000);
            times.filter(|now| shown.may(*now, second)).count()
        };
        assert_eq!([flood(3), flood(4)], [50, 50]);
        assert_eq!(shown.take_hidden(), 2 * 950);
        assert_eq!(shown.take_hidden(), 0);
    }

    #[tokio::test]
    async fn r4_10_c4_6_the_ip_ttl_is_2_and_loopback_is_on_at_both_sockets_of_both_groups() {
        for group in ["224.1.1.2:5008", "224.1.1.1:5007"] {
            let config = MulticastConfig::new(group.parse().unwrap());
            let sockets = GroupSocket::open(&config.interface([127, 0, 0, 1].into())).unwrap();
            for socket in [sockets.group(), sockets.own()] {
                assert_eq!(socket.multicast_ttl_v4().unwrap(), 2, "{group}");
                assert!(socket.multicast_loop_v4().unwrap(), "{group}");
            }
        }
    }
}
