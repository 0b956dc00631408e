//! [`Number`]: an integer or a float, and what Python does with two of them.

use super::{DIGITS_SHOWN_MAX, Invalid, float, integer};
use num_bigint::BigInt;

/// A value.
#[derive(Clone, PartialEq, Debug)]
pub enum Number {
    /// An integer.
    Integer(BigInt),
    /// A float; infinite where Python's would be.
    Float(f64),
}

/// What `/` does with two integers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Division {
    /// Python 3: a float.
    #[default]
    True,
    /// Python 2: the integer below.
    Integer,
}

impl Number {
    /// As Python prints it.
    ///
    /// # Errors
    /// [`Invalid::TooLarge`] for an integer of more than [`DIGITS_SHOWN_MAX`] digits.
    pub fn shown(&self) -> Result<String, Invalid> {
        match self {
            Self::Integer(value) => {
                let shown = value.to_string();
                let digits = shown.trim_start_matches('-').len();
                if digits > DIGITS_SHOWN_MAX {
                    return Err(Invalid::TooLarge);
                }
                Ok(shown)
            }
            Self::Float(value) => Ok(float::shown(*value)),
        }
    }

    pub(super) fn plus(self, other: Self) -> Result<Self, Invalid> {
        either(self, other, integer::plus, |a, b| Ok(a + b))
    }

    pub(super) fn minus(self, other: Self) -> Result<Self, Invalid> {
        either(self, other, integer::minus, |a, b| Ok(a - b))
    }

    pub(super) fn times(self, other: Self) -> Result<Self, Invalid> {
        either(self, other, integer::times, |a, b| Ok(a * b))
    }

    pub(super) fn over(self, other: Self, division: Division) -> Result<Self, Invalid> {
        match (self, other, division) {
            (Self::Integer(a), Self::Integer(b), Division::True) => {
                integer::ratio(&a, &b).map(Self::Float)
            }
            (a, b, Division::True | Division::Integer) => {
                either(a, b, integer::floor_over, float::over)
            }
        }
    }

    pub(super) fn floor_over(self, other: Self) -> Result<Self, Invalid> {
        either(self, other, integer::floor_over, float::floor_over)
    }

    pub(super) fn modulo(self, other: Self) -> Result<Self, Invalid> {
        either(self, other, integer::modulo, float::modulo)
    }

    pub(super) fn power(self, exponent: Self) -> Result<Self, Invalid> {
        match (&self, &exponent) {
            (Self::Integer(base), Self::Integer(exponent)) if !integer::is_negative(exponent) => {
                integer::power(base, exponent).map(Self::Integer)
            }
            // An integer to a negative power is a float.
            (Self::Integer(_) | Self::Float(_), Self::Integer(_) | Self::Float(_)) => {
                float::power(self.float()?, exponent.float()?).map(Self::Float)
            }
        }
    }

    pub(super) fn negated(self) -> Self {
        match self {
            Self::Integer(value) => Self::Integer(-value),
            Self::Float(value) => Self::Float(-value),
        }
    }

    /// Rounded to the nearest, ties to even.
    fn float(&self) -> Result<f64, Invalid> {
        match self {
            Self::Integer(value) => integer::ratio(value, &BigInt::from(1)),
            Self::Float(value) => Ok(*value),
        }
    }
}

/// Two integers stay integers; a float makes floats of both.
fn either(
    a: Number,
    b: Number,
    integers: impl FnOnce(&BigInt, &BigInt) -> Result<BigInt, Invalid>,
    floats: impl FnOnce(f64, f64) -> Result<f64, Invalid>,
) -> Result<Number, Invalid> {
    match (&a, &b) {
        (Number::Integer(a), Number::Integer(b)) => integers(a, b).map(Number::Integer),
        (Number::Integer(_) | Number::Float(_), Number::Integer(_) | Number::Float(_)) => {
            floats(a.float()?, b.float()?).map(Number::Float)
        }
    }
}
