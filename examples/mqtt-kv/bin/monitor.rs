//! The monitor of system 0. See `examples/mqtt-kv/README.md`.

use clap::Parser;
use kvrep_examples::common::logging::time_of_day;
use kvrep_examples::common::runtime;
use kvrep_examples::mqtt_kv::connection::BrokerArgs;
use kvrep_examples::mqtt_kv::monitor::{CountFrom, Settings, run};
use kvrep_examples::mqtt_kv::topics::Topics;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;
use tokio::runtime::Builder;

/// O monitor: ouve os sinais de vida dos servidores e publica falhaserv quando um deles se cala.
#[derive(Parser)]
#[command(
    name = "mqtt-kv-monitor",
    version,
    after_help = "Exemplos:\n  mqtt-kv-monitor 3\n  mqtt-kv-monitor 3 --broker 10.0.0.1:1883 --timeout 2000\n  mqtt-kv-monitor 3 --relancar \
                  'mqtt-kv-server {id} 3 --novo >>servidor-{id}.log 2>&1'\n\nUm --relancar cujo comando termina com um erro é dito.\n\nTópicos: lê inf1406-monitor; escreve em inf1406-reqs e inf1406-monitor.\n\nTermina com Ctrl-C. Código de saída: 0; 1 se algo está errado; 2 para \
                  opções erradas; 5 se o broker recusa usuário e senha, ou se não pode ser alcançado e --once foi dado."
)]
struct Args {
    /// Quantos servidores há, 1 a 64; seus números são 0 a N-1.
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    servidores: u32,
    #[command(flatten)]
    broker: BrokerArgs,
    /// Depois de quantos ms de silêncio um servidor é dado como morto; o mesmo valor que os servidores têm.
    #[arg(long, value_name = "MS", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(10..=3_600_000))]
    timeout: u64,
    /// Depois de quantos ms um servidor que nunca deu sinal de vida é dado como morto, enquanto ninguém serve: servidores levam mais do que quatro vezes --timeout
    /// para começar. Depois que um serve, vale --timeout. [padrão: dez vezes --timeout]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(10..=3_600_000))]
    carencia: Option<u64>,
    /// Desde quando se espera por um servidor que nunca deu sinal de vida; com primeiro-sinal, ele nunca é dado como morto antes do primeiro.
    #[arg(long, value_enum, default_value_t)]
    contar_de: CountFrom,
    /// Comando (do shell) que relança um servidor morto, se outro vive que lhe dê o estado; {id} é o seu número, que está também em IDSERV. O que ele inicia continua
    /// quando o monitor termina.
    #[arg(long, value_name = "COMANDO")]
    relancar: Option<String>,
}

/// Servers need a little more than four and a half times their timeout to begin.
const GRACE_FACTOR: u32 = 10;

fn main() -> ExitCode {
    let args = Args::parse();
    let config = match args.broker.config() {
        Ok(config) => config,
        Err(why) => {
            eprintln!("mqtt-kv-monitor: {why}");
            return ExitCode::from(2);
        }
    };
    let settings = Settings {
        config,
        attempts: args.broker.attempts(),
        topics: Topics::default(),
        servers: args.servidores,
        timeout: Duration::from_millis(args.timeout),
        grace: args.carencia.map_or_else(
            || GRACE_FACTOR * Duration::from_millis(args.timeout),
            Duration::from_millis,
        ),
        count_from: args.contar_de,
        relaunch: args.relancar,
    };
    // Whoever closed the other end does not want to read it.
    let tell = |what: &str| {
        drop(writeln!(
            std::io::stdout(),
            "{} monitor: {what}",
            time_of_day()
        ));
    };
    match runtime::run(&mut Builder::new_current_thread(), run(settings, tell)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(why)) => {
            eprintln!("mqtt-kv-monitor: {why}");
            why.exit_code()
        }
        Err(why) => {
            eprintln!("mqtt-kv-monitor: {why}");
            ExitCode::FAILURE
        }
    }
}
