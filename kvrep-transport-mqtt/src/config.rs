//! Settings of a connection to a broker. They are a process's own: replicas of one group may differ in them, but for the
//! broker and the topics.

use crate::names::{check_topic, is_refused};
use std::fmt;
use std::time::Duration;

/// Which broker, under which topics, and how much and how long.
///
/// ```
/// use kvrep_transport_mqtt::MqttConfig;
///
/// let config = MqttConfig::new("broker.example:1883")
///     .login("replica", "secret")
///     .prefix("plant/7/orders");
/// assert_eq!(config.validate(), Ok(()));
/// assert!(MqttConfig::new("broker.example").validate().unwrap_err().contains("HOST:PORT"));
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MqttConfig {
    /// Where the broker is: `HOST:PORT`.
    pub broker: String,
    /// The name under which the broker knows this process; no two at the same time. Without one, a name is made of the
    /// topics, the id and the life of the replica.
    pub client_id: Option<String>,
    /// What the names of the group's topics begin with. Without one, `kvrep/` and the group's id in hexadecimal digits.
    pub prefix: Option<String>,
    /// User name and password.
    pub login: Option<Login>,
    /// Speak TLS to the broker.
    #[cfg(feature = "tls")]
    pub tls: Option<Tls>,
    /// See [`MqttLimits`].
    pub limits: MqttLimits,
    /// See [`MqttTiming`].
    pub timing: MqttTiming,
}

/// User name and password. Its `Debug` does not show the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The user.
    pub user: String,
    /// The password.
    pub password: String,
}

/// How the broker proves who it is, and how this process does. All in PEM.
///
/// ```
/// use kvrep_transport_mqtt::{MqttConfig, Tls};
///
/// let config = MqttConfig::new("broker.example:8883").tls(Tls::SystemRoots);
/// assert_eq!(config.validate(), Ok(()));
/// ```
#[cfg(feature = "tls")]
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Tls {
    /// The broker's certificate is signed by an authority that this machine trusts.
    SystemRoots,
    /// The broker's certificate is signed by one of these authorities.
    Authority {
        /// Their certificates.
        ca: Vec<u8>,
    },
    /// The same, and this process shows a certificate of its own.
    ClientCertificate {
        /// The authorities' certificates.
        ca: Vec<u8>,
        /// This process's certificate, and those that signed it.
        certificate: Vec<u8>,
        /// Its private key.
        key: Vec<u8>,
    },
}

/// How much is held. Nothing is without a bound.
///
/// ```
/// use kvrep_transport_mqtt::{MqttConfig, MqttLimits};
///
/// let mut limits = MqttLimits::default();
/// limits.unacknowledged_max = 20; // what mosquitto grants by default
/// assert_eq!(MqttConfig::new("127.0.0.1:1883").limits(limits).validate(), Ok(()));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct MqttLimits {
    /// Largest payload of a publication, in both directions. A frame between replicas, with its header, has to fit.
    /// 4 MiB and 64 KiB by default.
    pub payload_bytes_max: usize,
    /// Largest body of a client's request. 1 MiB and 4 KiB by default.
    pub request_bytes_max: usize,
    /// Publications of ours that the broker has not acknowledged, at most; a broker that allows less is obeyed. 128 by
    /// default.
    pub unacknowledged_max: u16,
    /// Publications that wait until they may be sent. What does not fit is refused, and counted. 65,536 by default.
    pub queue_publications_max: usize,
    /// Bytes that wait until they may be sent. 32 MiB by default.
    pub queue_bytes_max: usize,
    /// Messages delivered and not acknowledged by us: how many the broker is asked to send at most, 100 at least. Not every broker keeps
    /// to it; what nobody has taken is bounded all the same, by not reading on. 1,000 by default.
    pub deliveries_max: u16,
    /// Bytes of deliveries that nobody has taken yet, and one message. While more wait, nothing is read from the broker.
    /// 32 MiB by default.
    pub delivery_bytes_max: usize,
    /// Frames for one receiver that wait together leave as one publication of at most so many bytes. 64 KiB by default.
    pub batch_bytes_max: usize,
}

/// How long is waited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct MqttTiming {
    /// For a connection, up to the broker's answer; and for the answer to our subscriptions. 3 s by default.
    pub connect_within: Duration,
    /// Whole seconds, 1 at least: a sign of life is sent when nothing else was for so long, and a broker that is silent for one and
    /// a half times as long after that holds this process for dead. 5 s by default.
    pub keep_alive: Duration,
    /// After the first failed attempt to connect. 20 ms by default.
    pub backoff_min: Duration,
    /// After many failed attempts. 2 s by default.
    pub backoff_max: Duration,
    /// Whole seconds for which the broker keeps the session of a connection that broke, where sessions are kept
    /// ([`ordered`](crate::ordered)). 60 s by default.
    pub session_kept: Duration,
    /// For the last words at a planned end to reach the broker. 1 s by default.
    pub farewell_within: Duration,
}

impl MqttConfig {
    /// The broker at this address (`HOST:PORT`; 1883 is the usual port, 8883 with TLS).
    pub fn new(broker: impl Into<String>) -> Self {
        Self {
            broker: broker.into(),
            client_id: None,
            prefix: None,
            login: None,
            #[cfg(feature = "tls")]
            tls: None,
            limits: MqttLimits::default(),
            timing: MqttTiming::default(),
        }
    }

    /// Sets the name under which the broker knows this process.
    #[must_use]
    pub fn client_id(mut self, id: impl Into<String>) -> Self {
        self.client_id = Some(id.into());
        self
    }

    /// Sets what the names of the group's topics begin with; the same for all members and clients.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = Some(prefix.into());
        self
    }

    /// Sets user name and password.
    #[must_use]
    pub fn login(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.login = Some(Login {
            user: user.into(),
            password: password.into(),
        });
        self
    }

    /// Speaks TLS to the broker.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Sets the limits.
    #[must_use]
    pub fn limits(mut self, limits: MqttLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the waits.
    #[must_use]
    pub fn timing(mut self, timing: MqttTiming) -> Self {
        self.timing = timing;
        self
    }

    /// Checks that the values make sense.
    ///
    /// # Errors
    /// A sentence that says what to change.
    pub fn validate(&self) -> Result<(), String> {
        let (l, t) = (&self.limits, &self.timing);
        self.host_and_port()?;
        if let Some(prefix) = &self.prefix {
            check_topic(prefix)?;
            // And with what is behind it in the group's topics.
            check_topic(&format!("{prefix}/to/0/r"))?;
            if prefix.ends_with('/') {
                return Err(format!("leave the last slash of the prefix {prefix:?} out"));
            }
        }
        if let Some(id) = self.client_id.as_ref().filter(|id| !sound_client_id(id)) {
            return Err(format!(
                "the client id {id:?} must be 1 to 128 bytes without control characters, spaces, '/', '+' and '#'"
            ));
        }
        if !(1024..=PAYLOAD_BYTES_MAX).contains(&l.payload_bytes_max)
            || !(1024..=l.payload_bytes_max).contains(&l.request_bytes_max)
        {
            return Err(
                "payload_bytes_max must be 1 KiB to 128 MiB, request_bytes_max 1 KiB to payload_bytes_max"
                    .into(),
            );
        }
        if l.deliveries_max < DELIVERIES_MIN {
            return Err(format!(
                "deliveries_max must be {DELIVERIES_MIN} at least: some brokers send so many whatever they are asked"
            ));
        }
        let counts = [
            usize::from(l.unacknowledged_max),
            l.queue_publications_max,
            l.queue_bytes_max,
            l.delivery_bytes_max,
            l.batch_bytes_max,
        ];
        if counts.contains(&0) {
            return Err("limits must not be zero".into());
        }
        let seconds = [t.keep_alive, t.session_kept];
        let whole =
            |wait: &Duration| wait.subsec_nanos() == 0 && (1..=65_535).contains(&wait.as_secs());
        if !seconds.iter().all(whole) {
            return Err("keep_alive and session_kept must be whole seconds, 1 to 65,535".into());
        }
        if t.connect_within < Duration::from_millis(1)
            || t.backoff_min < Duration::from_millis(1)
            || t.backoff_max < t.backoff_min
        {
            return Err("waits must be at least 1 ms, and backoff_max at least backoff_min".into());
        }
        Ok(())
    }

    pub(crate) fn host_and_port(&self) -> Result<(String, u16), String> {
        let parts = self.broker.rsplit_once(':');
        let parts = parts.map(|(host, port)| (host, port.parse()));
        match parts {
            // An address of IPv6 is written in brackets.
            Some((host, Ok(port @ 1_u16..)))
                if !host.is_empty() && (!host.contains(':') || host.starts_with('[')) =>
            {
                Ok((host.to_owned(), port))
            }
            Some(_) | None => Err(format!(
                "the broker's address is {:?}: write it as HOST:PORT, such as 127.0.0.1:1883",
                self.broker
            )),
        }
    }
}

fn sound_client_id(id: &str) -> bool {
    let sound = |c: char| !is_refused(c) && !matches!(c, ' ' | '/' | '+' | '#');
    !id.is_empty() && id.len() <= 128 && id.chars().all(sound)
}

impl Default for MqttLimits {
    fn default() -> Self {
        let group = kvrep_core::Limits::default();
        Self {
            payload_bytes_max: group.frame_bytes_max + (64 << 10),
            request_bytes_max: group.command_bytes_max + 4_096,
            unacknowledged_max: 128,
            queue_publications_max: 65_536,
            queue_bytes_max: 32 << 20,
            deliveries_max: 1_000,
            delivery_bytes_max: 32 << 20,
            batch_bytes_max: 64 << 10,
        }
    }
}

impl MqttLimits {
    /// Limits that fit those of the group.
    #[must_use]
    pub fn for_group(limits: &kvrep_core::Limits) -> Self {
        Self {
            payload_bytes_max: limits.frame_bytes_max + (64 << 10),
            request_bytes_max: limits.command_bytes_max + 4_096,
            queue_bytes_max: (4 * limits.inflight_bytes_max).max(2 * limits.frame_bytes_max),
            ..Self::default()
        }
    }
}

impl Default for MqttTiming {
    fn default() -> Self {
        Self {
            connect_within: Duration::from_secs(3),
            keep_alive: Duration::from_secs(5),
            backoff_min: Duration::from_millis(20),
            backoff_max: Duration::from_secs(2),
            session_kept: Duration::from_secs(60),
            farewell_within: Duration::from_secs(1),
        }
    }
}

impl fmt::Debug for MqttConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("MqttConfig");
        shown
            .field("broker", &self.broker)
            .field("client_id", &self.client_id)
            .field("prefix", &self.prefix)
            .field("login", &self.login);
        #[cfg(feature = "tls")]
        shown.field("tls", &self.tls);
        shown
            .field("limits", &self.limits)
            .field("timing", &self.timing)
            .finish()
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Login({:?})", self.user)
    }
}

#[cfg(feature = "tls")]
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SystemRoots => "SystemRoots",
            Self::Authority { .. } => "Authority",
            Self::ClientCertificate { .. } => "ClientCertificate",
        })
    }
}

/// MQTT's own limit of a packet is 256 MiB.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 128 << 20;
/// What rumqttd has in flight to one receiver.
const DELIVERIES_MIN: u16 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_and_passwords_not_shown() {
        let config = |broker: &str| MqttConfig::new(broker);
        for sound in ["localhost:1883", "[::1]:1883", "10.0.0.1:8883"] {
            assert_eq!(config(sound).validate(), Ok(()), "{sound}");
        }
        for wrong in ["", "localhost", ":1883", "host:0", "host:99999", "::1:1883"] {
            let said = config(wrong).validate().unwrap_err();
            assert!(said.contains("HOST:PORT"), "{wrong}: {said}");
        }
        let shown = format!("{:?}", config("b:1").login("ann", "hunter2"));
        assert!(shown.contains("ann") && !shown.contains("hunter2"));
    }

    #[test]
    fn names_that_a_broker_would_take_for_patterns_are_refused() {
        for wrong in ["", "a/#", "a/+/b", "$SYS/x", "x/", "a\n", "\u{fdd0}"] {
            assert!(
                MqttConfig::new("b:1").prefix(wrong).validate().is_err(),
                "{wrong}"
            );
        }
        for wrong in ["", "a b", "a/b", "#"] {
            assert!(
                MqttConfig::new("b:1").client_id(wrong).validate().is_err(),
                "{wrong}"
            );
        }
    }
}
