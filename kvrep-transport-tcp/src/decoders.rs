//! The decoder of greetings, for fuzzers and for the test that cuts and flips valid bytes. Not part of the API.

use crate::greeting::{Cause, Greeting, PeerHello, Refusal};
use kvrep_core::wire::{FrameKind, own_body};
use kvrep_core::{GroupId, Incarnation, ReplicaId, one_of_each};

/// The body of a handshake frame; says whether it is one.
#[must_use]
pub fn greeting(bytes: &[u8]) -> bool {
    let Some(greeting) = Greeting::from_body(bytes) else {
        return false;
    };
    assert_eq!(
        Greeting::from_body(&body(&greeting)),
        Some(greeting),
        "a greeting comes back"
    );
    true
}

/// Greetings that are accepted.
#[must_use]
pub fn valid_greetings() -> Vec<Vec<u8>> {
    greetings().iter().map(body).collect()
}

/// One of each greeting, for whoever tests a codec.
#[must_use]
pub fn greetings() -> Vec<Greeting> {
    let replica = ReplicaId(2);
    let hello = PeerHello {
        group: GroupId(7),
        from: ReplicaId(1),
        incarnation: Incarnation(3),
        config_hash: 0xc0de,
        to: replica,
        listens: Some("127.0.0.1:7001".into()),
    };
    let (listens, bytes) = ("127.0.0.1:7002".to_string(), 1 << 20);
    let refusals = one_of_each!(Refusal:
        OtherGroup { replica },
        OtherConfiguration { replica, yours: 1, theirs: 2 },
        WrongReplica { meant: ReplicaId(1), here: replica },
        NotListed { replica, you: ReplicaId(1) },
        OtherVersion { theirs: 9 },
        TooManyClients { clients_max: 4_096 },
        OtherDialect { replica },
        Superseded { replica, you: ReplicaId(1) },
    );
    let mut greetings = one_of_each!(Greeting:
        Peer(hello),
        Client { group: GroupId(7) },
        Welcome { replica, incarnation: Incarnation(4), request_bytes_max: bytes },
        Refused(refusals[0].clone()),
        Ping {},
        Pong {},
        Knows { replica, address: listens.clone() },
        Unreached { address: listens, cause: Cause::NobodyListens },
    );
    greetings.extend(refusals.into_iter().map(Greeting::Refused));
    greetings
}

fn body(greeting: &Greeting) -> Vec<u8> {
    let body = own_body(&greeting.to_frame(), FrameKind::Handshake);
    body.expect("a greeting's frame is a handshake").to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cut_and_no_flipped_bit_of_a_greeting_makes_its_decoder_panic() {
        for valid in valid_greetings() {
            assert!(greeting(&valid));
            for cut in 0..valid.len() {
                let _ = greeting(&valid[..cut]);
            }
            let mut bytes = valid;
            for bit in 0..bytes.len() * 8 {
                bytes[bit / 8] ^= 1 << (bit % 8);
                let _ = greeting(&bytes);
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }
}
