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

/// The shortest digits that give the same float again; with an exponent from 1e16 on and below 1e-4.
pub(super) fn shown(value: f64) -> String {
    if value.is_nan() {
        return "nan".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.into();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = format!("{value}");
        return if plain.contains('.') {
            plain
        } else {
            plain + ".0"
        };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
}
