//! R0.41: the test scripts of system 0. See `examples/mqtt-kv/README.md`.

use clap::Parser;
use kvrep_examples::common::operator::asked_to_end;
use kvrep_examples::common::story::{Language, Printed, Story};
use kvrep_examples::mqtt_kv::brokers::Broker;
use kvrep_examples::mqtt_kv::play::{self, Scale};
use std::process::ExitCode;

/// Joga operação normal e falhas com processos de verdade, mostra o que vê passo a passo e confere tudo.
///
/// O código de saída só é 0 se tudo confere.
#[derive(Parser)]
#[command(
    name = "mqtt-kv-teste",
    version,
    after_help = "Exemplos:\n  cargo build --release -p kvrep-examples --bins && target/release/mqtt-kv-teste\n  target/release/mqtt-kv-teste \
                  --com mosquitto --pequeno"
)]
struct Args {
    /// Com que broker; sem isto, com todos os que estão instalados.
    #[arg(long, value_enum, value_name = "BROKER")]
    com: Option<Broker>,
    /// Com menos servidores e pares.
    #[arg(long)]
    pequeno: bool,
    /// Imprime um relatório JSON no fim em vez dos passos.
    #[arg(long)]
    json: bool,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let args = Args::parse();
    let printed = if args.json {
        Printed::Json
    } else {
        Printed::Text
    };
    let scale = if args.pequeno {
        Scale::small()
    } else {
        Scale::full()
    };
    let brokers = args
        .com
        .map_or_else(Broker::installed, |broker| vec![broker]);
    if args.com.is_none() && !brokers.contains(&Broker::Mosquitto) {
        eprintln!("mosquitto não está instalado: esta parte não é jogada");
    }
    let mut holds = true;
    for broker in brokers {
        let mut story = Story::begin(
            format!("Servidores de chave e valor por MQTT ({broker:?})"),
            printed,
        )
        .language(Language::Portuguese);
        let told = match asked_to_end() {
            Ok(asked) => tokio::select! {
                told = play::all(&mut story, broker, scale) => told.map_err(|error| error.to_string()),
                () = asked => Err("foi pedido que terminasse".into()),
            },
            Err(error) => Err(error.to_string()),
        };
        let broken_off = told.is_err();
        holds &= story.end(told);
        if broken_off {
            break;
        }
    }
    if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
