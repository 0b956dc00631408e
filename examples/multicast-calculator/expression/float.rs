//! Floats, with Python's rules where they are not the machine's: a division by zero and a power that overflows are errors, a quotient is rounded
//! down, a remainder has the sign of the divisor.

use super::Invalid;

pub(super) fn over(a: f64, b: f64) -> Result<f64, Invalid> {
    if b == 0.0 {
        return Err(Invalid::DividedByZero);
    }
    Ok(a / b)
}

pub(super) fn modulo(a: f64, b: f64) -> Result<f64, Invalid> {
    Ok(floor_divided(a, b)?.1)
}

pub(super) fn floor_over(a: f64, b: f64) -> Result<f64, Invalid> {
    let (quotient, _) = floor_divided(a, b)?;
    if quotient == 0.0 {
        return Ok(0_f64.copysign(a / b));
    }
    let below = quotient.floor();
    // The quotient is whole but for what rounding did to it.
    Ok(if quotient - below > 0.5 {
        below + 1.0
    } else {
        below
    })
}

fn floor_divided(a: f64, b: f64) -> Result<(f64, f64), Invalid> {
    if b == 0.0 {
        return Err(Invalid::DividedByZero);
    }
    let rest = a % b;
    let quotient = (a - rest) / b;
    if rest == 0.0 {
        return Ok((quotient, 0_f64.copysign(b)));
    }
    if (b < 0.0) != (rest < 0.0) {
        return Ok((quotient - 1.0, rest + b));
    }
    Ok((quotient, rest))
}

pub(super) fn power(base: f64, exponent: f64) -> Result<f64, Invalid> {
    if base == 0.0 && exponent < 0.0 && exponent.is_finite() {
        return Err(Invalid::DividedByZero);
    }
    let ordinary = base.is_finite() && exponent.is_finite();
    if ordinary && base < 0.0 && exponent.fract() != 0.0 {
        return Err(Invalid::Complex);
    }
    let value = base.powf(exponent);
    if ordinary && value.is_infinite() {
        return Err(Invalid::TooLarge);
    }
    Ok(value)
}

/// The shortest digits that give the same float again, of those the nearest to it, and of two that are as near the one that ends in an even digit; with
/// an exponent from 1e16 on and below 1e-4.
pub(super) fn shown(value: f64) -> String {
    if value.is_nan() {
        return "nan".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.into();
    }
    let scientific = shortest(value);
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        return plain(digits, exponent);
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
}

/// As `-1.25e2`.
fn shortest(value: f64) -> String {
    // As short as can be, but of two that are as near it is the larger one.
    let short = format!("{value:e}");
    let digits = short.bytes().take_while(|byte| *byte != b'e');
    let decimals = digits.filter(u8::is_ascii_digit).count().saturating_sub(1);
    let nearest = format!("{value:.decimals$e}");
    // Below a power of two floats are closer to each other: there the nearest of this length may be another float's.
    if nearest.parse() == Ok(value) {
        nearest
    } else {
        short
    }
}

/// `-1.25` and 2 as `-125.0`.
fn plain(digits: &str, exponent: i32) -> String {
    let sign = if digits.starts_with('-') { "-" } else { "" };
    let digits: String = digits.chars().filter(char::is_ascii_digit).collect();
    let Ok(whole) = usize::try_from(exponent + 1) else {
        let zeros = "0".repeat(usize::try_from(-exponent - 1).unwrap_or(0));
        return format!("{sign}0.{zeros}{digits}");
    };
    match digits.split_at_checked(whole) {
        Some(("", fraction)) => format!("{sign}0.{fraction}"),
        Some((whole, fraction)) if !fraction.is_empty() => format!("{sign}{whole}.{fraction}"),
        _ => format!("{sign}{digits:0<whole$}.0"),
    }
}
