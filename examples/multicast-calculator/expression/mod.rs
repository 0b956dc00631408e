//! Arithmetic as Python 3 does it: [`evaluate`] takes a text and gives a [`Number`] that prints itself as Python would.
//!
//! `+ - * / // % **`, signs, parentheses, blanks, integers of any size, floats. Nothing else exists, so nothing that a client sends can do
//! anything but cost a little time, and of that there is a bound: a text has at most [`TEXT_BYTES_MAX`] bytes, an integer on the way at most
//! [`INTEGER_BITS_MAX`] bits (what would be larger is refused before it is computed), and one that is shown at most
//! [`DIGITS_SHOWN_MAX`] digits.
//!
//! ```
//! use kvrep_examples::multicast_calculator::expression::{Division, evaluate};
//!
//! let shown = |text| evaluate(text, Division::True).and_then(|number| number.shown());
//! assert_eq!(shown("3+5-4/3*4").unwrap(), "2.666666666666667");
//! assert_eq!(shown("-2**2").unwrap(), "-4");
//! assert_eq!(shown("-7//2").unwrap(), "-4");
//! assert!(shown("1/0").is_err());
//! ```
//!
//! Caveats: an integer of more than [`INTEGER_BITS_MAX`] bits is refused also where Python would go on to make it small again. Complex
//! numbers are an error, also those that Python makes by itself (`(-8)**0.5`); so are `0x10`, names, calls and comparisons.

mod float;
mod integer;
mod number;
mod parser;
mod token;

pub use number::{Division, Number};

/// The longest text that is evaluated: what existing servers read of a datagram.
pub const TEXT_BYTES_MAX: usize = 512;

/// The largest integer that is computed.
pub const INTEGER_BITS_MAX: u64 = 1 << 16;

/// The longest integer that is shown; Python refuses longer ones, too.
pub const DIGITS_SHOWN_MAX: usize = 4_300;

/// Why there is no number. On the wire all of them are [`INVALID_EXPRESSION`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Invalid {
    /// It was not looked at.
    #[error("the text is longer than {TEXT_BYTES_MAX} bytes")]
    TooLong,
    /// It is no expression.
    #[error("at byte {at} something else is expected")]
    Syntax {
        /// Where, from 0.
        at: usize,
    },
    /// Parentheses are too deep.
    #[error("more than {PARENTHESES_MAX} parentheses within each other")]
    TooDeep,
    /// Something by zero, or zero to a negative power.
    #[error("division by zero")]
    DividedByZero,
    /// A float or an integer grew too large.
    #[error("a number is too large")]
    TooLarge,
    /// The result would be complex.
    #[error("a negative number to a fractional power is complex")]
    Complex,
}

/// The answer to what has no result.
pub const INVALID_EXPRESSION: &str = "Invalid Expression!";

/// The value of an expression.
///
/// # Errors
/// When it has none, or one that is too large.
pub fn evaluate(text: &str, division: Division) -> Result<Number, Invalid> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Invalid::TooLong);
    }
    parser::Parser::new(text, division)?.whole()
}

/// What a client is told: the result, or [`INVALID_EXPRESSION`].
#[must_use]
pub fn answer(text: &str, division: Division) -> String {
    evaluate(text, division)
        .and_then(|number| number.shown())
        .unwrap_or_else(|_| INVALID_EXPRESSION.to_owned())
}

/// As many as Python takes.
const PARENTHESES_MAX: usize = 200;

#[cfg(test)]
mod tests;
