//! What is common to the arguments of the programs: addresses, as one word or as two.

pub use crate::common::address::address;
use std::net::SocketAddr;
use std::time::Duration;

/// Addresses among words: each is `HOST:PORT`, or a host and a port.
///
/// # Errors
/// Which word is none.
pub fn addresses(words: &[String]) -> Result<Vec<String>, String> {
    let (mut found, mut rest) = (Vec::new(), words);
    loop {
        match rest {
            [] => return Ok(found),
            [word, more @ ..] if word.contains(':') => {
                found.push(address(word)?);
                rest = more;
            }
            [host, port, more @ ..] => {
                found.push(address(&format!("{host}:{port}"))?);
                rest = more;
            }
            [word] => return address(word).map(|_| found),
        }
    }
}

/// An address at which others find this machine: not one that stands for all of its own.
///
/// # Errors
/// What is wrong with it.
pub fn advertised(text: &str) -> Result<String, String> {
    let found = address(text)?;
    match found.parse::<SocketAddr>() {
        Ok(place) if place.ip().is_unspecified() => Err(format!(
            "{text} stands for all addresses of this machine: say under which one the other server reaches it"
        )),
        Ok(_) | Err(_) => Ok(found),
    }
}

/// A number of seconds, as `5` or `0.5`.
///
/// # Errors
/// What is expected.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let expected =
        || "expected a number of seconds, more than 0 and at most a day (86400)".to_owned();
    let seconds: f64 = text.parse().map_err(|_| expected())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(time) if !time.is_zero() && time <= Duration::from_secs(86_400) => Ok(time),
        Ok(_) | Err(_) => Err(expected()),
    }
}

/// The two servers of a client: not one of them twice.
///
/// # Errors
/// What is wrong with them.
pub fn two_servers(words: &[String]) -> Result<[String; 2], String> {
    let all = addresses(words)?;
    let [primary, secondary] = <[String; 2]>::try_from(all).map_err(|all| {
        format!(
            "expected two servers, the primary and the secondary, and not {}",
            all.len()
        )
    })?;
    if primary == secondary {
        return Err(format!(
            "{primary} is given twice: name the primary and the secondary"
        ));
    }
    Ok([primary, secondary])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    /// R1.34, R1.30.
    #[test]
    fn an_address_is_one_word_or_two() {
        let both = Ok(vec!["10.0.0.1:5000".to_owned(), "h:5001".to_owned()]);
        for form in [
            "10.0.0.1:5000 h:5001",
            "10.0.0.1 5000 h 5001",
            "10.0.0.1 5000 h:5001",
        ] {
            assert_eq!(addresses(&words(form)), both, "{form}");
        }
        for wrong in [
            "h",
            "h:0",
            "h:x",
            ":5000",
            "h:70000",
            "h 70000",
            "::1:5000:",
        ] {
            assert!(addresses(&words(wrong)).is_err(), "{wrong}");
        }
        assert_eq!(address("[::1]:5000"), Ok("[::1]:5000".into()));
    }

    #[test]
    fn what_stands_for_all_addresses_is_nowhere_to_be_found_at() {
        for found in ["h:1", "10.0.0.1:5000", "[::1]:5000"] {
            assert_eq!(advertised(found), Ok(found.into()));
        }
        for wrong in ["0.0.0.0:1", "[::]:1", "h"] {
            assert!(advertised(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_client_needs_two_different_servers() {
        assert!(two_servers(&words("h:5000 h:5001")).is_ok());
        let twice = two_servers(&words("h:5000 h 5000")).expect_err("the same");
        assert!(twice.contains("given twice"), "{twice}");
        for wrong in ["h:5000", "h:5000 h:5001 h:5002"] {
            assert!(two_servers(&words(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_timeout_is_a_number_of_seconds() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["0", "-1", "abc", "1e9", "nan", ""] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
