//! Numbers, operators and parentheses of a text.

use super::Invalid;
use num_bigint::BigInt;

/// A word of an expression.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Token {
    Integer(BigInt),
    Float(f64),
    Plus,
    Minus,
    Times,
    Over,
    FloorOver,
    Modulo,
    Power,
    Open,
    Close,
}

/// Every word with where it begins.
pub(super) fn tokens(text: &str) -> Result<Vec<(usize, Token)>, Invalid> {
    let text = text.trim_end_matches(['\r', '\n']);
    let bytes = text.as_bytes();
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(byte) = bytes.get(at) {
        let double = bytes.get(at + 1) == Some(byte);
        let (token, length) = match byte {
            b' ' | b'\t' | 0x0c => {
                at += 1;
                continue;
            }
            b'+' => (Token::Plus, 1),
            b'-' => (Token::Minus, 1),
            b'*' if double => (Token::Power, 2),
            b'*' => (Token::Times, 1),
            b'/' if double => (Token::FloorOver, 2),
            b'/' => (Token::Over, 1),
            b'%' => (Token::Modulo, 1),
            b'(' => (Token::Open, 1),
            b')' => (Token::Close, 1),
            b'0'..=b'9' | b'.' => number(bytes, at)?,
            _ => return Err(Invalid::Syntax { at }),
        };
        found.push((at, token));
        at += length;
    }
    Ok(found)
}

/// The number that begins here, and its length.
fn number(bytes: &[u8], start: usize) -> Result<(Token, usize), Invalid> {
    let wrong = |at| Invalid::Syntax { at };
    let after_whole = digits(bytes, start)?;
    let mut end = after_whole;
    if bytes.get(end) == Some(&b'.') {
        end = digits(bytes, end + 1)?;
        if end == start + 1 {
            return Err(wrong(start)); // A point alone.
        }
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let exponent = end + 1 + sign;
        end = digits(bytes, exponent)?;
        if end == exponent {
            return Err(wrong(end));
        }
    }
    // What follows a number is an operator, not a letter or another number.
    if let Some(b'a'..=b'z' | b'A'..=b'Z' | b'_' | b'.' | 0x80..) = bytes.get(end) {
        return Err(wrong(end));
    }
    let plain: Vec<u8> = bytes[start..end]
        .iter()
        .copied()
        .filter(|byte| *byte != b'_')
        .collect();
    let token = if end == after_whole {
        // In Python 2 a leading zero meant octal; Python 3 allows it for zero alone.
        if plain.len() > 1 && plain[0] == b'0' && plain.iter().any(|digit| *digit != b'0') {
            return Err(wrong(start));
        }
        BigInt::parse_bytes(&plain, 10).map(Token::Integer)
    } else {
        let text = std::str::from_utf8(&plain).ok();
        text.and_then(|text| text.parse().ok()).map(Token::Float)
    };
    Ok((token.ok_or(wrong(start))?, end - start))
}

/// Where the digits that begin here end; a `_` may stand between two.
fn digits(bytes: &[u8], start: usize) -> Result<usize, Invalid> {
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let mut at = start;
    while is_digit(at) || (at > start && bytes.get(at) == Some(&b'_')) {
        if bytes[at] == b'_' && !is_digit(at + 1) {
            return Err(Invalid::Syntax { at });
        }
        at += 1;
    }
    Ok(at)
}
