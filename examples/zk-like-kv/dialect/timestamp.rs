//! A timestamp, however a client writes it: as a number, as a fraction or as a text.
//!
//! Caveat: what is no number at all counts as 0, "never seen", which at worst shows a client something older than it could have asked
//! for.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A timestamp however it is written; what is no number counts as none.
pub(in crate::zk_like_kv) fn lenient_timestamp<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<u64>, D::Error> {
    let value = Option::<Value>::deserialize(from)?;
    Ok(value.as_ref().and_then(timestamp_of))
}

/// A fraction is rounded up: a client that has seen 2.5 must not be shown 2.
pub(super) fn timestamp_of(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64().or_else(|| number.as_f64().map(rounded_up)),
        Value::String(text) => {
            let whole = text.trim().parse();
            whole
                .ok()
                .or_else(|| text.trim().parse().ok().map(rounded_up))
        }
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast saturates, and what is no number becomes 0"
)]
fn rounded_up(seconds: f64) -> u64 {
    seconds.ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn timestamps_that_are_no_numbers_count_as_never_seen_and_large_ones_saturate() {
        for (value, expected) in [
            (json!(-3), Some(0)),
            (json!("x"), None),
            (json!([1]), None),
            (json!(1e300), Some(u64::MAX)),
            (json!("1e3"), Some(1_000)),
            (json!(u64::MAX), Some(u64::MAX)),
        ] {
            assert_eq!(timestamp_of(&value), expected, "{value}");
        }
    }
}
