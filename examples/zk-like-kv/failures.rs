//! Why something could not be done, in the language of the requirements: for clients and operators, who are told in no other.
//!
//! Libraries and the system say what is wrong as values; the sentences are made here. What a kind of error has no sentence for is told in the
//! system's own words: better so than not at all.

use crate::common::conversation::Ended;
use std::io::{self, ErrorKind};

/// A connection or a file that could not be used.
#[must_use]
pub fn of_io(error: &io::Error) -> String {
    let known = match error.kind() {
        ErrorKind::ConnectionRefused => "conexão recusada, ninguém escuta nesse endereço",
        ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe
        | ErrorKind::NotConnected
        | ErrorKind::UnexpectedEof => "o outro lado fechou a conexão",
        ErrorKind::TimedOut => "sem resposta a tempo",
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::NetworkDown => {
            "não há caminho até esse endereço"
        }
        ErrorKind::AddrInUse => "a porta já está em uso por outro processo",
        ErrorKind::AddrNotAvailable => "este computador não tem esse endereço",
        ErrorKind::PermissionDenied => "sem permissão",
        ErrorKind::NotFound => "não existe",
        ErrorKind::NotADirectory => "não é um diretório",
        ErrorKind::IsADirectory => "é um diretório",
        ErrorKind::ReadOnlyFilesystem => "o disco só permite leitura",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "o disco está cheio",
        ErrorKind::InvalidData => "o conteúdo não é texto em UTF-8",
        // The standard library's own, which may grow.
        _ => return format!("erro do sistema ({error})"),
    };
    known.into()
}

/// A name or address that stands for nothing.
#[must_use]
pub fn of_address(typed: &str, error: &io::Error) -> String {
    match error.kind() {
        // What the resolver says has no kind of its own.
        ErrorKind::InvalidInput | ErrorKind::Other => {
            format!("{typed}: não é um endereço; escreva IP e porta")
        }
        ErrorKind::TimedOut | ErrorKind::PermissionDenied => {
            format!("{typed}: {}; escreva IP e porta", of_io(error))
        }
        _ => format!("{typed}: nome ou endereço desconhecido; escreva IP e porta"),
    }
}

/// A conversation that ended before it should have.
#[must_use]
pub fn of_talk(ended: &Ended) -> String {
    match ended {
        Ended::Idle(within) => format!("sem resposta em {within:?}"),
        Ended::Slow(within) => format!("a mensagem não chegou inteira em {within:?}"),
        Ended::Cut => "a conexão terminou no meio de uma mensagem".into(),
        Ended::Unread(within) => {
            format!("o outro lado não leu em {within:?} o que lhe foi enviado")
        }
        // In our words already: those of the framing.
        Ended::Malformed(why) | Ended::Unsendable(why) => why.clone(),
        Ended::Broken(error) => of_io(error),
    }
}

/// A text that is no message.
#[must_use]
pub fn of_json(json: &[u8], error: &serde_json::Error) -> String {
    if let Err(error) = std::str::from_utf8(json) {
        let at = error.valid_up_to() + 1;
        return format!("uma Mensagem é um texto em UTF-8, e o byte {at} não é");
    }
    let at = error.column();
    if error.is_eof() {
        return "não é uma Mensagem: o objeto JSON não está inteiro".into();
    }
    if error.is_data() {
        return format!(
            "não é uma Mensagem: um campo é de outro tipo, ou vem duas vezes (até a coluna {at})"
        );
    }
    if error.to_string().contains("surrogate") || error.to_string().contains("hex escape") {
        return format!(
            "um \\uD800 a \\uDFFF só é um caractere em par: sozinho (coluna {at}) não pode ser gravado sem alteração"
        );
    }
    format!("não é uma Mensagem: não é um objeto JSON (coluna {at})")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_goes_wrong_is_told_in_the_language_of_the_system() {
        let io = |kind| Ended::Broken(io::Error::from(kind));
        for ended in [
            Ended::Idle(Duration::from_secs(1)),
            Ended::Slow(Duration::from_secs(1)),
            Ended::Cut,
            Ended::Unread(Duration::from_secs(1)),
            io(ErrorKind::ConnectionRefused),
            io(ErrorKind::ConnectionReset),
            io(ErrorKind::TimedOut),
            io(ErrorKind::HostUnreachable),
            io(ErrorKind::AddrInUse),
            io(ErrorKind::AddrNotAvailable),
        ] {
            let (told, theirs) = (of_talk(&ended), ended.to_string());
            assert!(!told.is_empty() && told != theirs, "{told}");
            for word in ["connection", "answer", "message", "address", "error"] {
                assert!(!told.contains(word), "{word:?} in {told}");
            }
        }
        let unforeseen = of_io(&io::Error::other("flux"));
        assert!(unforeseen.contains("flux"), "{unforeseen}");
    }
}
