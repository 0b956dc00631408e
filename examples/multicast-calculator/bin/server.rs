//! A server of system 4. See `examples/multicast-calculator/README.md`.

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use kvrep_core::ReplicaId;
use kvrep_core::detector::ticks::TickConfig;
use kvrep_examples::common::operator::asked_to_end;
use kvrep_examples::common::runtime;
use kvrep_examples::multicast_calculator::console::Console;
use kvrep_examples::multicast_calculator::expression::Division;
use kvrep_examples::multicast_calculator::server::{Settings, Unanswered, serve};
use kvrep_examples::multicast_calculator::words::Language;
use kvrep_transport_multicast::MulticastConfig;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::ExitCode;
use std::time::Duration;
use tokio::runtime::Builder;

/// A server of the fault-tolerant calculator: of those that live, the one with the smallest id answers.
#[derive(Parser)]
#[command(
    name = "calc-server",
    version,
    after_help = "Examples:\n  calc-server 1\n      and on other machines, or in other consoles, 2, 3, 4, 5\n  \
                  calc-server 2 --interface 192.168.0.7 --lang en\n      over the network of this address\n  \
                  calc-server 1 --interface 127.0.0.1\n      without a network\n  \
                  calc-server 3 --period 500 --confirmed 6 --eligible 3\n      twice as fast, and gone after four periods\n\n\
                  Multicast must be routable: ip route add 224.0.0.0/4 dev eth0, or --interface.\n\
                  Standard output has the console's lines, standard error what has to be seen to. Ctrl-C ends it.\n\
                  Exit code: 0 when it was ended, 1 when it cannot run, 2 for wrong options."
)]
struct Args {
    /// This server's number, from 1 to the maximum; no two servers have the same.
    id: u32,
    /// The highest number of a server (MAX_NUMBER_OF_SERVERS).
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    max: u32,
    /// The language of the states' names.
    #[arg(long, value_enum, default_value_t)]
    lang: Language,
    /// Time between two confirmations.
    #[arg(long, value_name = "MS", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(10..=3_600_000))]
    period: u64,
    /// What a server's counter is set to when it is heard (ACTIVE). One is taken off each period.
    #[arg(long, value_name = "COUNT", default_value_t = 4)]
    confirmed: u32,
    /// The least counter of a server that is expected to answer (NOT_CONFIRMED).
    #[arg(long, value_name = "COUNT", default_value_t = 2)]
    eligible: u32,
    /// The least counter of a server that is unresponsive; below it is disconnected.
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    unresponsive: u32,
    /// Time between two displays of all states.
    #[arg(long, value_name = "MS", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(100..=86_400_000))]
    status_every: u64,
    /// The address of the interface over which to talk; without it the system's routes decide.
    #[arg(long, value_name = "ADDRESS")]
    interface: Option<Ipv4Addr>,
    /// The servers' group.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "224.1.1.2:5008")]
    group: SocketAddrV4,
    /// The group of clients and servers.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "224.1.1.1:5007")]
    client_group: SocketAddrV4,
    /// Divide integers as Python 2 does: 7/2 is 3.
    #[arg(long)]
    py2: bool,
    /// Keep the requests of the last four periods that another server is to answer, and answer them should it be gone. A client may then get two
    /// answers; calc-client shows one.
    #[arg(long)]
    keep_unanswered: bool,
}

fn main() -> ExitCode {
    let settings = match settings(&Args::parse()) {
        Ok(settings) => settings,
        Err(why) => Args::command()
            .error(ErrorKind::ValueValidation, why)
            .exit(),
    };
    let console = Console::new();
    let ended = runtime::run(
        Builder::new_multi_thread().worker_threads(2),
        run(settings, console.clone()),
    );
    console.flush();
    match ended.flatten() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("calc-server: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn run(settings: Settings, console: Console) -> Result<(), String> {
    let asked = asked_to_end().map_err(|error| error.to_string())?;
    tokio::select! {
        served = serve(settings, console) => served.map_err(|error| error.to_string()),
        () = asked => Ok(()),
    }
}

fn settings(args: &Args) -> Result<Settings, String> {
    if args.id == 0 || args.id > args.max {
        return Err(format!(
            "the id {} is not from 1 to {} (the maximum is changed with --max, at all servers)",
            args.id, args.max
        ));
    }
    let falling = args.confirmed > args.eligible
        && args.eligible >= args.unresponsive
        && args.unresponsive >= 1;
    if !falling {
        return Err(
            "the counters must fall: --confirmed above --eligible, --eligible not below --unresponsive, --unresponsive at least 1"
                .into(),
        );
    }
    let group = |address: SocketAddrV4| {
        let config = MulticastConfig::new(address);
        let config = match args.interface {
            Some(interface) => config.interface(interface),
            None => config,
        };
        config.validate().map(|()| config)
    };
    if args.group == args.client_group {
        return Err("the servers' group and the clients' must not be the same".into());
    }
    Ok(Settings {
        me: ReplicaId(args.id),
        servers_max: args.max,
        ticks: TickConfig {
            period: Duration::from_millis(args.period),
            counter_on_heard: args.confirmed,
            active_from: args.eligible + 1,
            unconfirmed_from: args.eligible,
            unresponsive_from: args.unresponsive,
        },
        servers: group(args.group)?,
        clients: group(args.client_group)?,
        block_every: Duration::from_millis(args.status_every),
        language: args.lang,
        division: if args.py2 {
            Division::Integer
        } else {
            Division::True
        },
        unanswered: if args.keep_unanswered {
            Unanswered::Kept
        } else {
            Unanswered::Forgotten
        },
    })
}
