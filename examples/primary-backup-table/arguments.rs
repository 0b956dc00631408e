//! What is common to the arguments of the programs: addresses, as one word or as two.

pub use crate::common::address::address;
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
}
