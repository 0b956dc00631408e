//! A server of system 0. See `examples/mqtt-kv/README.md`.

use clap::Parser;
use kvrep_core::protocol::active::Create;
use kvrep_examples::common::logging::{log_to_stderr, time_of_day};
use kvrep_examples::common::runtime;
use kvrep_examples::mqtt_kv::connection::BrokerArgs;
use kvrep_examples::mqtt_kv::dialect::Insertions;
use kvrep_examples::mqtt_kv::dialect::answer::Form;
use kvrep_examples::mqtt_kv::server::{Settings, serve};
use kvrep_examples::mqtt_kv::topics::Topics;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::runtime::Builder;

/// Um servidor de pares (chave, valor), replicado por um broker MQTT.
///
/// Todos os servidores do grupo têm o mesmo N, --periodo, --timeout e --confirmacoes; quem tem outros não entra.
#[derive(Parser)]
#[command(
    name = "mqtt-kv-server",
    version,
    after_help = "Exemplos:\n  mqtt-kv-server 0 3\n      o servidor 0 de três, na primeira vez\n  mqtt-kv-server 0 3 --novo\n      de novo, \
                  depois de uma falha: recebe o estado do substituto\n  mqtt-kv-server 1 3 --confirmacoes 2\n      só responde o que dois \
                  servidores têm\n\nTópicos: lê inf1406-reqs, inf1406-monitor e inf1406-rec-ID; escreve em inf1406-reqs, inf1406-monitor, no inf1406-rec-ID dos outros e no topico-resp de cada pedido.\n\nTermina com Ctrl-C. Código de saída: 0; 1 se algo está errado; 2 para opções erradas; 5 se o \
                  broker recusa usuário e senha, ou se não pode ser alcançado e --once foi dado; 7 se outro processo \
                  já tem este número, ou foi iniciado depois com ele."
)]
struct Args {
    /// O número deste servidor, de 0 a N-1.
    #[arg(value_name = "ID")]
    id: u32,
    /// Quantos servidores há: 1 a 64.
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    n: u32,
    /// Entra no lugar de um servidor que falhou: nunca começa uma história vazia.
    #[arg(long)]
    novo: bool,
    #[command(flatten)]
    broker: BrokerArgs,
    /// De quantos em quantos ms dá sinal de vida.
    #[arg(long, value_name = "MS", default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    periodo: u64,
    /// Depois de quantos ms de silêncio um servidor é dado como morto; o mesmo valor que o monitor tem.
    #[arg(long, value_name = "MS", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(10..=3_600_000))]
    timeout: u64,
    /// Quantos servidores têm de ter o que uma resposta diz: 1, ou mais do que a metade.
    #[arg(long, value_name = "K", default_value_t = 1)]
    confirmacoes: usize,
    /// Responde só com o valor, sem o objeto JSON.
    #[arg(long)]
    resposta_crua: bool,
    /// Não responde a inserções.
    #[arg(long)]
    sem_resposta_insercao: bool,
    /// Arquivo em que escreve a tabela (JSON, em ordem das chaves) ao terminar e quando recebe SIGUSR1.
    #[arg(long, value_name = "ARQUIVO")]
    despejo: Option<PathBuf>,
    /// Diretório em que guarda estados que deixaram de valer.
    #[arg(long, value_name = "DIR")]
    guardar: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    log_to_stderr("error");
    let id = args.id;
    let settings = settings(args).and_then(|settings| settings.group().map(|_| settings));
    let settings = match settings {
        Ok(settings) => settings,
        Err(why) => {
            eprintln!("mqtt-kv-server: {why}");
            return ExitCode::from(2);
        }
    };
    // Whoever closed the other end does not want to read it.
    let tell = |what: &str| {
        drop(writeln!(
            std::io::stdout(),
            "{} servidor {id}: {what}",
            time_of_day()
        ));
    };
    match runtime::run(&mut Builder::new_current_thread(), serve(settings, tell)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(why)) => {
            eprintln!("mqtt-kv-server: {why}");
            why.exit_code()
        }
        Err(why) => {
            eprintln!("mqtt-kv-server: {why}");
            ExitCode::FAILURE
        }
    }
}

fn settings(args: Args) -> Result<Settings, String> {
    Ok(Settings {
        config: args.broker.config()?,
        attempts: args.broker.attempts(),
        topics: Topics::default(),
        id: args.id,
        servers: args.n,
        create: if args.novo {
            Create::Never
        } else {
            Create::Allowed
        },
        heartbeat_every: Duration::from_millis(args.periodo),
        timeout: Duration::from_millis(args.timeout),
        confirmations: args.confirmacoes,
        form: if args.resposta_crua {
            Form::Raw
        } else {
            Form::Object
        },
        insertions: if args.sem_resposta_insercao {
            Insertions::Unanswered
        } else {
            Insertions::Answered
        },
        dump: args.despejo,
        set_aside: args.guardar,
    })
}
