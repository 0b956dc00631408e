//! TLS to mosquitto: its certificate is checked, ours is shown.

mod common;

use common::{Mosquitto, await_event, connected};
use kvrep_transport_mqtt::Tls;
use kvrep_transport_mqtt::ordered::{Deliveries, Event, OrderedTopic};
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs `openssl` in this directory; whether it is there.
fn openssl(directory: &Path, arguments: &str) -> bool {
    let run = Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match run {
        Ok(status) => {
            assert!(status.success(), "openssl {arguments}");
            true
        }
        Err(_) => false,
    }
}

/// An authority in this directory, and certificates that it signed for a server and a client.
fn certificates(directory: &Path) -> bool {
    let extensions = "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n";
    std::fs::write(directory.join("extensions"), extensions).unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    for authority in ["ca", "other"] {
        let made = openssl(
            directory,
            &format!(
                "req -x509 {key} -days 2 -subj /CN={authority} -keyout {authority}.key -out {authority}.pem"
            ),
        );
        if !made {
            return false;
        }
    }
    for name in ["server", "client"] {
        openssl(
            directory,
            &format!("req {key} -subj /CN={name} -keyout {name}.key -out {name}.csr"),
        );
        openssl(
            directory,
            &format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out {name}.pem"
            ),
        );
    }
    true
}

async fn round_trip(stream: OrderedTopic) {
    let (publisher, mut deliveries) = stream.subscribe("tls").open().unwrap();
    connected(&mut deliveries).await;
    publisher.publish("tls", "secret").unwrap();
    await_event(&mut deliveries, "the delivery", |event| {
        matches!(event, Event::Delivered { payload, .. } if payload == "secret").then_some(())
    })
    .await;
    deliveries.close().await;
}

/// Waits until it is told why there is no connection; there never is one.
async fn refused(stream: OrderedTopic) -> String {
    let (_publisher, mut deliveries): (_, Deliveries) = stream.open().unwrap();
    await_event(&mut deliveries, "a reason", |event| match event {
        Event::Disconnected { why, .. } => Some(why.to_string()),
        Event::Connected { .. } => panic!("connected"),
        _ => None,
    })
    .await
}

#[tokio::test]
async fn certificates_are_checked_on_both_sides() {
    let directory = tempfile::tempdir().unwrap();
    if !certificates(directory.path()) {
        eprintln!("NOT RUN: openssl, which makes the certificates, is not installed");
        return;
    }
    let path = |name: &str| directory.path().join(name).display().to_string();
    let read = |name: &str| std::fs::read(directory.path().join(name)).unwrap();
    let server = format!(
        "cafile {}\ncertfile {}\nkeyfile {}",
        path("ca.pem"),
        path("server.pem"),
        path("server.key")
    );
    let Some(broker) = Mosquitto::start(&server) else {
        return;
    };
    let authority = |name: &str| Tls::Authority { ca: read(name) };
    let stream = |tls| OrderedTopic::new(broker.config().tls(tls));
    round_trip(stream(authority("ca.pem"))).await;
    let why = refused(stream(authority("other.pem"))).await;
    assert!(
        why.contains("certificate") || why.contains("Certificate"),
        "{why}"
    );
    refused(OrderedTopic::new(broker.config())).await;

    let demanding = format!("{server}\nrequire_certificate true");
    let broker = Mosquitto::start(&demanding).expect("it was there before");
    let shown = Tls::ClientCertificate {
        ca: read("ca.pem"),
        certificate: read("client.pem"),
        key: read("client.key"),
    };
    round_trip(OrderedTopic::new(broker.config().tls(shown))).await;
    refused(OrderedTopic::new(broker.config().tls(authority("ca.pem")))).await;
}
