//! A broker for system 0. See `examples/mqtt-kv/README.md`.

use clap::Parser;
use kvrep_examples::common::operator::asked_to_end;
use kvrep_examples::common::runtime;
use kvrep_transport_mqtt::EmbeddedBroker;
use std::io::Write as _;
use std::process::ExitCode;
use tokio::runtime::Builder;

/// Um broker MQTT (3.1.1 e 5) para quem não tem outro. Guarda tudo na memória.
///
/// Nomes de tópicos não começam aqui com um caractere fora do ASCII: quem publica em um deles é desconectado.
#[derive(Parser)]
#[command(
    name = "mqtt-kv-broker",
    version,
    after_help = "Exemplos:\n  mqtt-kv-broker\n  mqtt-kv-broker --listen 0.0.0.0:1883\n\nTermina com Ctrl-C. Código de \
                  saída: 0; 1 se não pode escutar, ou se terminou por um erro dele; 2 para opções erradas."
)]
struct Args {
    /// Onde escuta; com a porta 0, em uma porta livre, que é impressa.
    #[arg(long, value_name = "HOST:PORTA", default_value = "127.0.0.1:1883", value_parser = address)]
    listen: String,
}

/// Whether this can be an address; whether it can be listened on, the system says.
fn address(given: &str) -> Result<String, String> {
    let port = given.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    let port = port.and_then(|(_, port)| port.parse::<u16>().ok());
    port.map(|_| given.to_owned())
        .ok_or_else(|| "escreva HOST:PORTA, como 127.0.0.1:1883".into())
}

fn main() -> ExitCode {
    let args = Args::parse();
    match runtime::run(&mut Builder::new_current_thread(), serve(args)).flatten() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("mqtt-kv-broker: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: Args) -> Result<(), String> {
    let asked = asked_to_end().map_err(|error| error.to_string())?;
    let broker = EmbeddedBroker::start(&args.listen)
        .map_err(|error| format!("não é possível escutar em {}: {error}", args.listen))?;
    // Whoever closed the other end does not want to read it.
    drop(writeln!(
        std::io::stdout(),
        "broker escutando em {}",
        broker.address()
    ));
    tokio::select! {
        () = asked => Ok(()),
        ended = broker.ended() => ended.map_err(|why| format!(
            "o broker terminou por um erro dele ({why}): as conexões se fecharam, e o que ele guardava se perdeu; inicie-o de novo"
        )),
    }
}
