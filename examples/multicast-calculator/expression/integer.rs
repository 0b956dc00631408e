//! Integers of any size up to a bound, with Python's signs: a quotient is rounded down, a remainder has the sign of the divisor.

use super::{INTEGER_BITS_MAX, Invalid};
use num_bigint::{BigInt, BigUint, Sign};

pub(super) fn is_negative(value: &BigInt) -> bool {
    value.sign() == Sign::Minus
}

fn is_zero(value: &BigInt) -> bool {
    value.sign() == Sign::NoSign
}

pub(super) fn plus(a: &BigInt, b: &BigInt) -> Result<BigInt, Invalid> {
    bounded(a + b)
}

pub(super) fn minus(a: &BigInt, b: &BigInt) -> Result<BigInt, Invalid> {
    bounded(a - b)
}

pub(super) fn times(a: &BigInt, b: &BigInt) -> Result<BigInt, Invalid> {
    bounded(a * b)
}

pub(super) fn floor_over(a: &BigInt, b: &BigInt) -> Result<BigInt, Invalid> {
    Ok(floor_divided(a, b)?.0)
}

pub(super) fn modulo(a: &BigInt, b: &BigInt) -> Result<BigInt, Invalid> {
    Ok(floor_divided(a, b)?.1)
}

fn floor_divided(a: &BigInt, b: &BigInt) -> Result<(BigInt, BigInt), Invalid> {
    if is_zero(b) {
        return Err(Invalid::DividedByZero);
    }
    let (quotient, rest) = (a / b, a % b);
    if !is_zero(&rest) && is_negative(&rest) != is_negative(b) {
        return Ok((quotient - 1, rest + b));
    }
    Ok((quotient, rest))
}

/// `exponent` is not negative.
pub(super) fn power(base: &BigInt, exponent: &BigInt) -> Result<BigInt, Invalid> {
    if is_zero(exponent) {
        return Ok(BigInt::from(1));
    }
    if base.bits() <= 1 {
        // 0, 1 and -1 have every power, however large.
        let odd = exponent.bit(0);
        return Ok(if is_negative(base) && !odd {
            BigInt::from(1)
        } else {
            base.clone()
        });
    }
    let exponent = u32::try_from(exponent).map_err(|_| Invalid::TooLarge)?;
    // The power has at least this many bits; it is refused before it is computed, and is at most twice as long.
    let bits_min = (base.bits() - 1).saturating_mul(u64::from(exponent));
    if bits_min >= INTEGER_BITS_MAX {
        return Err(Invalid::TooLarge);
    }
    bounded(base.pow(exponent))
}

/// The quotient as a float, rounded once: to the nearest, ties to even, however large the two are.
pub(super) fn ratio(a: &BigInt, b: &BigInt) -> Result<f64, Invalid> {
    if is_zero(b) {
        return Err(Invalid::DividedByZero);
    }
    if is_zero(a) {
        return Ok(0.0_f64.copysign(if is_negative(b) { -1.0 } else { 1.0 }));
    }
    let (numerator, denominator) = (a.magnitude(), b.magnitude());
    let length = |value: &BigUint| i64::try_from(value.bits()).unwrap_or(i64::MAX);
    // The quotient lies between 2^(magnitude - 1) and 2^(magnitude + 1).
    let magnitude = length(numerator) - length(denominator);
    if magnitude > EXPONENT_MAX {
        return Err(Invalid::TooLarge);
    }
    let value = if magnitude < EXPONENT_MIN - MANTISSA_BITS - 1 {
        0.0
    } else {
        rounded(numerator, denominator, magnitude)
    };
    if value.is_infinite() {
        return Err(Invalid::TooLarge);
    }
    let negative = is_negative(a) != is_negative(b);
    Ok(if negative { -value } else { value })
}

fn rounded(numerator: &BigUint, denominator: &BigUint, magnitude: i64) -> f64 {
    // The quotient is computed in units of 2^unit, two bits finer than a float of its size, but nowhere finer than that of the
    // smallest floats, which have fewer bits.
    let unit = magnitude.max(EXPONENT_MIN) - MANTISSA_BITS - 2;
    let (quotient, rest) = if unit >= 0 {
        let divisor = denominator << unit.unsigned_abs();
        (numerator / &divisor, numerator % &divisor)
    } else {
        let dividend = numerator << unit.unsigned_abs();
        (&dividend / denominator, &dividend % denominator)
    };
    let quotient = u64::try_from(quotient).unwrap_or(u64::MAX); // At most 56 bits.
    let sticky = u64::from(rest.bits() > 0);
    // Bits beyond those of a float of this size, at least two; of the smallest floats, those below the smallest one.
    let length = i64::from(u64::BITS - quotient.leading_zeros());
    let extra = (length - MANTISSA_BITS).max(EXPONENT_MIN - MANTISSA_BITS - unit);
    let kept = quotient >> extra;
    let dropped = ((quotient & ((1 << extra) - 1)) << 1) | sticky;
    let half = 1_u64 << extra;
    let up = dropped > half || (dropped == half && kept & 1 == 1);
    scaled(kept + u64::from(up), unit + extra)
}

/// `value × 2^exponent`, exact where it can be; infinite where it is too large. In two steps, for 2^exponent alone may be no float.
fn scaled(value: u64, exponent: i64) -> f64 {
    let exponent = i32::try_from(exponent).unwrap_or(i32::MAX);
    let first = exponent / 2;
    value as f64 * 2_f64.powi(first) * 2_f64.powi(exponent - first)
}

fn bounded(value: BigInt) -> Result<BigInt, Invalid> {
    if value.bits() > INTEGER_BITS_MAX {
        return Err(Invalid::TooLarge);
    }
    Ok(value)
}

const MANTISSA_BITS: i64 = 53;
/// 2^1024 is too large for a float.
const EXPONENT_MAX: i64 = 1024;
/// The smallest float that has all its bits is 2^-1022; as the mantissa is counted here, below 1, its exponent is -1021.
const EXPONENT_MIN: i64 = -1021;
