//! From our settings to those of the MQTT library.

use super::gathering::Gathering;
use super::outbox::Kept;
use super::{Session, Spec};
use crate::config::MqttConfig;
use rumqttc::{
    AckMode, AsyncClient, Broker, ConnectProperties, EventLoop, LastWill, MqttOptions, QoS,
};

/// A client and its event loop, not connected yet.
pub(super) fn client(config: &MqttConfig, spec: &Spec) -> Result<(AsyncClient, EventLoop), String> {
    let (host, port) = config.host_and_port()?;
    let (limits, timing) = (&config.limits, &config.timing);
    let mut options = MqttOptions::new(spec.client_id.as_str(), Broker::tcp(host, port));
    let packet_bytes_max = limits.payload_bytes_max + PACKET_OVERHEAD_BYTES;
    let mut properties = ConnectProperties::new();
    properties.receive_maximum = Some(limits.deliveries_max);
    properties.max_packet_size = u32::try_from(packet_bytes_max).ok();
    properties.session_expiry_interval = match spec.session {
        Session::Fresh => None,
        Session::Kept => u32::try_from(timing.session_kept.as_secs()).ok(),
    };
    options.set_connect_properties(properties);
    let mut network = options.network_options();
    network.set_tcp_nodelay(true);
    options
        .set_network_options(network)
        .set_keep_alive(u16::try_from(timing.keep_alive.as_secs()).unwrap_or(u16::MAX))
        .set_connect_timeout(timing.connect_within)
        // Some brokers forget a session that began so when its connection ends. One that an earlier process left is noticed.
        .set_clean_start(spec.session == Session::Fresh)
        .set_ack_mode(AckMode::Manual)
        .set_outgoing_inflight_upper_limit(limits.unacknowledged_max)
        .set_max_request_batch(REQUESTS_AT_ONCE)
        .set_request_channel_capacity(
            usize::from(limits.unacknowledged_max).max(usize::from(limits.deliveries_max)) + 16,
        );
    options.set_socket_connector(|host, network| async move {
        let socket = rumqttc::default_socket_connect(host, network).await?;
        Ok(Gathering::new(socket))
    });
    if let Some(login) = &config.login {
        options.set_credentials(login.user.as_str(), login.password.clone());
    }
    if let Some(will) = &spec.will {
        options.set_last_will(LastWill::new(
            &*will.topic,
            will.payload.clone().into_bytes(),
            QoS::AtLeastOnce,
            will.kept == Kept::Retained,
            None,
        ));
    }
    #[cfg(feature = "tls")]
    if let Some(tls) = &config.tls {
        options.set_transport(transport(tls)?);
    }
    AsyncClient::builder(options)
        .try_build()
        .map_err(|error| format!("the settings of the connection to the broker: {error}"))
}

#[cfg(feature = "tls")]
fn transport(tls: &crate::Tls) -> Result<rumqttc::Transport, String> {
    use crate::Tls;
    use rumqttc::Transport;
    Ok(match tls {
        Tls::SystemRoots => Transport::try_tls_with_default_config()
            .map_err(|error| format!("this machine's trusted certificates: {error}"))?,
        Tls::Authority { ca } => Transport::tls(ca.clone(), None, None),
        Tls::ClientCertificate {
            ca,
            certificate,
            key,
        } => Transport::tls(ca.clone(), Some((certificate.clone(), key.clone())), None),
    })
}

/// Requests that the library takes before it looks at the network again.
const REQUESTS_AT_ONCE: usize = 64;
/// Around a payload: header, topic, properties of others.
const PACKET_OVERHEAD_BYTES: usize = 4_096;
