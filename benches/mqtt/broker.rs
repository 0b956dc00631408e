//! The broker, in a process of its own.

use super::Which;
use kvrep_transport_mqtt::EmbeddedBroker;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

pub(crate) struct Broker {
    pub(crate) address: String,
    child: Child,
    _directory: Option<tempfile::TempDir>,
}

/// What the program does when it is started as a broker: it says where it listens, and ends with its standard input.
pub(crate) fn serve() -> ExitCode {
    match EmbeddedBroker::start("127.0.0.1:0") {
        Ok(broker) => {
            println!("{}", broker.address());
            drop(std::io::stdin().lock().read_until(0, &mut Vec::new()));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("mqtt: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Broker {
    pub(crate) fn start(which: Which) -> Result<Self, String> {
        match which {
            Which::Embedded => Self::embedded(),
            Which::Mosquitto => Self::mosquitto(),
        }
    }

    fn embedded() -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|e| e.to_string())?;
        let mut child = Command::new(program)
            .arg("broker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| e.to_string())?;
        let said = child.stdout.take().ok_or("no standard output")?;
        let mut address = String::new();
        BufReader::new(said)
            .read_line(&mut address)
            .map_err(|e| e.to_string())?;
        Ok(Self {
            address: address.trim().to_owned(),
            child,
            _directory: None,
        })
    }

    fn mosquitto() -> Result<Self, String> {
        let directory = tempfile::tempdir().map_err(|e| e.to_string())?;
        let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|probe| probe.local_addr());
        let address = free.map_err(|e| e.to_string())?;
        let port = address.port();
        // Unlimited queues, many in flight: with the default limits it drops when it is saturated.
        let config = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nlog_type none\nset_tcp_nodelay true\nmax_queued_messages 0\nmax_inflight_messages 1000\n"
        );
        let file = directory.path().join("conf");
        std::fs::write(&file, config).map_err(|e| e.to_string())?;
        let start = |program: &str| {
            Command::new(program)
                .arg("-c")
                .arg(&file)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
        };
        let child = start("mosquitto").or_else(|_| start("/usr/sbin/mosquitto"));
        let child = child.map_err(|error| format!("mosquitto is not installed? {error}"))?;
        let broker = Self {
            address: address.to_string(),
            child,
            _directory: Some(directory),
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(address).is_err() {
            if Instant::now() > deadline {
                return Err("mosquitto does not listen".into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(broker)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
