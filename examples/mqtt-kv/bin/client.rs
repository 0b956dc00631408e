//! A client of system 0. See `examples/mqtt-kv/README.md`.

use clap::{Parser, Subcommand};
use kvrep_examples::common::operator::asked_to_end;
use kvrep_examples::common::prompt::{OnPipe, Prompt, Typed};
use kvrep_examples::common::runtime;
use kvrep_examples::mqtt_kv::client::{
    Ask, Awaited, Client, Failed, Patience, Told, asks_to_leave,
};
use kvrep_examples::mqtt_kv::connection::{BrokerArgs, NO_BROKER};
use kvrep_examples::mqtt_kv::topics::Topics;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;
use tokio::runtime::Builder;

/// Um cliente dos servidores de chave e valor: insere, consulta, ou pergunta o que fazer.
#[derive(Parser)]
#[command(
    name = "mqtt-kv-client",
    version,
    after_help = "Exemplos:\n  mqtt-kv-client insere cor azul\n  mqtt-kv-client consulta cor\n  mqtt-kv-client insere 'minha cor' 'azul claro'\n      com espaços, no shell\n  mqtt-kv-client\n      interativo; com espaços entre aspas: insere \"minha cor\" \"azul claro\"\n  printf \
                  'insere cor azul\\nconsulta cor\\n' | mqtt-kv-client --broker 10.0.0.1:1883\n\nNo modo interativo, o que está entre aspas é lido como em JSON (\\\" e \\n); um valor sem aspas é o resto da linha.\n\nTópicos: escreve em inf1406-reqs; lê resp/NÚMERO/+, com um número sorteado a cada início.\n\nO valor sai na saída padrão, o resto na saída de \
                  erros. Código de saída: 0; 1 se a chave não existe; 2 para opções erradas; 3 se o servidor respondeu com um erro; 4 sem \
                  resposta (não se sabe se o pedido foi executado); 5 se o broker não pode ser alcançado ou recusa usuário e senha; 6 se o valor não pôde ser escrito; 130 se um pedido foi interrompido. De vários pedidos conta o maior código."
)]
struct Args {
    #[command(flatten)]
    broker: BrokerArgs,
    /// Por quantos ms se espera pela resposta.
    #[arg(long, global = true, value_name = "MS", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    espera: u64,
    /// Depois de quantos ms sem resposta uma consulta é publicada de novo, com o mesmo idpedido.
    #[arg(long, global = true, value_name = "MS", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    reenvio: u64,
    /// Não espera pela resposta de uma inserção, só pelo broker: para servidores que não respondem a inserções.
    #[arg(long, global = true)]
    sem_resposta: bool,
    #[command(subcommand)]
    pedido: Option<Request>,
}

#[derive(Subcommand)]
enum Request {
    /// Insere um par; se a chave já existe, o valor é trocado.
    Insere {
        /// A chave.
        chave: String,
        /// O novo valor.
        valor: String,
    },
    /// Consulta o valor de uma chave.
    Consulta {
        /// A chave.
        chave: String,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    // The connection goes on while a line is waited for.
    match runtime::run(Builder::new_multi_thread().worker_threads(1), client(args)).flatten() {
        Ok(code) => ExitCode::from(code),
        Err(why) => {
            eprintln!("mqtt-kv-client: {why}");
            ExitCode::from(2)
        }
    }
}

async fn client(args: Args) -> Result<u8, String> {
    let asked = asked_to_end().map_err(|error| error.to_string())?;
    let patience = Patience {
        answer: Duration::from_millis(args.espera),
        again: Duration::from_millis(args.reenvio),
        insertion: if args.sem_resposta {
            Awaited::Broker
        } else {
            Awaited::Answer
        },
    };
    let (config, attempts) = (args.broker.config()?, args.broker.attempts());
    let mut client = Client::open(&config, Topics::default(), patience, attempts)
        .map_err(|error| error.to_string())?;
    let end = if args.pedido.is_some() {
        INTERRUPTED
    } else {
        0
    };
    let talk = async {
        match args.pedido {
            Some(Request::Insere { chave, valor }) => {
                Ok(ask(&mut client, &Ask::Insert(chave, valor)).await)
            }
            Some(Request::Consulta { chave }) => Ok(ask(&mut client, &Ask::Query(chave)).await),
            None => interactive(&mut client).await,
        }
    };
    let code = tokio::select! {
        code = talk => code?,
        () = asked => end,
    };
    client.close().await;
    Ok(code)
}

/// Asks for requests until there are no more; at a terminal mistakes are no failure.
async fn interactive(client: &mut Client) -> Result<u8, String> {
    let prompt = Prompt::new("mqtt-kv> ", OnPipe::Silent, LINE_BYTES_MAX);
    let mut prompt = prompt.map_err(|error| error.to_string())?;
    let at_terminal = prompt.is_at_terminal();
    let mut worst = 0;
    loop {
        let typed = tokio::task::spawn_blocking(move || {
            let typed = prompt.ask();
            (prompt, typed)
        });
        let typed = typed.await.map_err(|error| error.to_string())?;
        prompt = typed.0;
        let line = match typed.1.map_err(|error| error.to_string())? {
            Typed::End => break,
            Typed::Unfit(why) => {
                eprintln!("{why}");
                worst = worst.max(2);
                continue;
            }
            Typed::Line(line) if line.trim().is_empty() => continue,
            Typed::Line(line) if asks_to_leave(&line) => break,
            Typed::Line(line) => line,
        };
        worst = match Ask::of_line(&line) {
            Ok(request) => worst.max(ask(client, &request).await),
            Err(why) => {
                eprintln!("{why}");
                worst.max(2)
            }
        };
    }
    Ok(if at_terminal { 0 } else { worst })
}

/// Asks, prints, and returns the exit code.
async fn ask(client: &mut Client, request: &Ask) -> u8 {
    let told = client.ask(request, |why| eprintln!("{why}")).await;
    let by =
        |server: Option<u32>| server.map_or_else(String::new, |id| format!(" (servidor {id})"));
    // Whoever closed the other end does not want to read it.
    let say = |what: &str| match writeln!(std::io::stdout(), "{what}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            eprintln!("o valor não pôde ser escrito: {error}");
            UNWRITTEN
        }
        Ok(()) | Err(_) => 0,
    };
    match (told, request) {
        (Ok(Told::Value(value, server)), Ask::Query(_)) => {
            let code = say(&value);
            if code == 0 {
                eprintln!("ok{}", by(server));
            }
            code
        }
        (Ok(Told::Value(_, server) | Told::Missing(server)), Ask::Insert(..)) => {
            eprintln!("ok{}", by(server));
            0
        }
        (Ok(Told::Missing(server)), Ask::Query(_)) => {
            eprintln!("nao existe{}", by(server));
            1
        }
        (Ok(Told::Published), _) if client.awaits_broker_only() => {
            eprintln!("publicado");
            0
        }
        (Ok(Told::Published), _) => {
            eprintln!(
                "publicado, e nenhum servidor respondeu: não se sabe se a inserção foi executada (talvez os servidores ainda comecem, ou não respondam a inserções)"
            );
            4
        }
        (Ok(Told::Wrong(why)), _) => {
            eprintln!("erro: {why}");
            3
        }
        (Err(failed), _) => {
            eprintln!("{failed}");
            match failed {
                Failed::Silent(_) => 4,
                Failed::NoBroker(_) => NO_BROKER,
                Failed::Refused(_) => 3,
            }
        }
    }
}

/// A request was interrupted before its answer, as shells say it of Ctrl-C.
const INTERRUPTED: u8 = 130;

/// The value could not be written down.
const UNWRITTEN: u8 = 6;

const LINE_BYTES_MAX: usize = 1 << 20;
