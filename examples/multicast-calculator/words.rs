//! What this system says: to other servers in datagrams, to people on consoles.
//!
//! The sentences are those of the existing servers. Only the names of the states have a language: by default they are Portuguese. In
//! English there are three of them, as there: one whose confirmation is awaited is still `Active`.

use kvrep_core::ReplicaId;
use kvrep_core::detector::Verdict;
use std::fmt::Display;
use std::net::SocketAddrV4;

/// In which language the states are named.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Language {
    /// `Ativo`, `Aguardando Confirmação`, `Irresponsivo`, `Desconectado`.
    #[default]
    Pt,
    /// `Active`, `Unresponsive`, `Disconnected`.
    En,
}

impl Language {
    /// The name of a state.
    #[must_use]
    pub fn state(self, verdict: Verdict) -> &'static str {
        match (self, verdict) {
            (Self::Pt, Verdict::Active) => "Ativo",
            (Self::Pt, Verdict::Unconfirmed) => "Aguardando Confirmação",
            (Self::Pt, Verdict::Unresponsive) => "Irresponsivo",
            (Self::Pt, Verdict::Disconnected) => "Desconectado",
            (Self::En, Verdict::Active | Verdict::Unconfirmed) => "Active",
            (Self::En, Verdict::Unresponsive) => "Unresponsive",
            (Self::En, Verdict::Disconnected) => "Disconnected",
        }
    }

    /// That a server's state has changed.
    #[must_use]
    pub fn update(self, server: ReplicaId, verdict: Verdict) -> String {
        format!("Update: Server {} is {}", server.0, self.state(verdict))
    }

    /// The periodic block: every server with its state.
    #[must_use]
    pub fn block(self, states: &[(ReplicaId, Verdict)]) -> String {
        let line = |(server, verdict): &(ReplicaId, Verdict)| {
            format!("\n   Server {} is {}", server.0, self.state(*verdict))
        };
        std::iter::once(RULE.to_owned())
            .chain(states.iter().map(line))
            .collect()
    }
}

/// What a server says when it starts.
#[must_use]
pub fn started(me: ReplicaId, servers: SocketAddrV4, clients: SocketAddrV4) -> [String; 3] {
    let place = |group: SocketAddrV4| {
        format!(
            "in the Multicast Group {}, Port {}",
            group.ip(),
            group.port()
        )
    };
    let (me, servers, clients) = (me.0, place(servers), place(clients));
    [
        format!("Server {me} STARTED COMMUNICATING state {servers}"),
        format!("Server {me} STARTED LISTENING to state confirmations {servers}"),
        format!("Server {me} STARTED LISTENING to client requests {clients}"),
    ]
}

/// That another server is to answer.
#[must_use]
pub fn expecting(server: ReplicaId) -> String {
    format!(
        "Client message received, expecting server {} will answer",
        server.0
    )
}

/// That this server answers.
#[must_use]
pub fn evaluating(expression: &str) -> String {
    format!(
        "Client message received, evaluating expression {}",
        printable(expression)
    )
}

/// The answer that is sent.
#[must_use]
pub fn sending(result: &str) -> String {
    format!("Sending result: {result}")
}

/// That a server's datagram says nothing.
#[must_use]
pub fn received_invalid(data: &[u8], from: impl Display) -> String {
    let shown = &data[..data.len().min(DATA_BYTES_SHOWN)];
    let text = String::from_utf8_lossy(shown);
    format!(
        "Received invalid data {} from server {from}",
        printable(&text)
    )
}

/// A sign of life: the id in decimal digits.
#[must_use]
pub fn heartbeat(me: ReplicaId) -> String {
    me.0.to_string()
}

/// Whose sign of life this is; `None` for anything else. Blanks around the digits are tolerated.
#[must_use]
pub fn whose_heartbeat(datagram: &[u8]) -> Option<ReplicaId> {
    let text = std::str::from_utf8(datagram).ok()?.trim_ascii();
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let id = if digits { text.parse().ok() } else { None };
    id.map(ReplicaId)
}

/// Without what a terminal would take for a command.
#[must_use]
pub fn printable(text: &str) -> String {
    let escaped = |letter: char| {
        if letter.is_control() {
            letter.escape_default().collect()
        } else {
            String::from(letter)
        }
    };
    text.chars().map(escaped).collect()
}

/// What the client says before it reads.
pub const TYPE_THE_EXPRESSION: &str = "\nType the arithmetic expression: ";

/// What the client says before it sends (as existing clients spell it).
#[must_use]
pub fn requesting(expression: &str) -> String {
    format!(
        "Requesting evaluation of expresion: {}",
        printable(expression)
    )
}

/// What the client says of an answer.
#[must_use]
pub fn answered(answer: &str, from: impl Display) -> String {
    format!("Answer: {}, received from {from}", printable(answer))
}

const RULE: &str = "------------------------------------------";

/// Of a datagram that says nothing, so much is shown.
const DATA_BYTES_SHOWN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn section_2_a_heartbeat_is_a_decimal_id_and_nothing_else() {
        assert_eq!(heartbeat(ReplicaId(1)), "1");
        assert_eq!(whose_heartbeat(b"1"), Some(ReplicaId(1)));
        assert_eq!(whose_heartbeat(b"0"), Some(ReplicaId(0)));
        assert_eq!(whose_heartbeat(b" 12\n"), Some(ReplicaId(12)));
        for wrong in [
            b"".as_slice(),
            b"x",
            b"-1",
            b"+1",
            b"1.0",
            b"1 2",
            b"99999999999",
            b"\xff",
        ] {
            assert_eq!(whose_heartbeat(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a4_1_a4_2_each_state_has_its_name_in_both_languages() {
        use Verdict::{Active, Disconnected, Unconfirmed, Unresponsive};
        let names = |language: Language| {
            [Active, Unconfirmed, Unresponsive, Disconnected].map(|verdict| language.state(verdict))
        };
        let pt = [
            "Ativo",
            "Aguardando Confirmação",
            "Irresponsivo",
            "Desconectado",
        ];
        assert_eq!(names(Language::default()), pt);
        assert_eq!(
            names(Language::En),
            ["Active", "Active", "Unresponsive", "Disconnected"]
        );
    }

    #[test]
    fn r4_5_the_block_has_a_line_for_each_server() {
        let states = [
            (ReplicaId(1), Verdict::Active),
            (ReplicaId(2), Verdict::Disconnected),
        ];
        assert_eq!(
            Language::En.block(&states),
            "------------------------------------------\n   Server 1 is Active\n   Server 2 is Disconnected"
        );
    }

    #[test]
    fn what_others_send_cannot_command_a_terminal() {
        let line = received_invalid(b"\x1b[2Jhi\n", "10.0.0.1:5008");
        assert_eq!(
            line,
            "Received invalid data \\u{1b}[2Jhi\\n from server 10.0.0.1:5008"
        );
        assert!(received_invalid(&[b'x'; 5_000], "a").len() < 200);
    }
}
