//! What may stand in the name of a topic.
//!
//! MQTT lets a broker close the connection over characters that it may refuse [MQTT 3.1.1, 1.5.3; MQTT 5, 1.5.4], and brokers do. Whoever published such a
//! name then connects again and publishes it again, for ever. So nothing is published where any broker may refuse: everything that makes a topic, or is
//! told of one, asks here. (The embedded broker cannot carry a name that begins with a character beyond ASCII, which others do: it drops what is published there, and disconnects nobody.)

/// Checks that messages may be published to this topic, at any broker.
///
/// ```
/// use kvrep_transport_mqtt::check_topic;
///
/// assert_eq!(check_topic("plant/7/answers"), Ok(()));
/// assert!(check_topic("plant/+").is_err()); // a pattern
/// assert!(check_topic("plant\n").is_err()); // some brokers disconnect whoever publishes there
/// ```
///
/// # Errors
/// A sentence that says what is wrong with it.
pub fn check_topic(topic: &str) -> Result<(), String> {
    if topic.is_empty() || topic.len() > TOPIC_BYTES_MAX {
        return Err(format!(
            "a topic has 1 to {TOPIC_BYTES_MAX} bytes, {:?} has {}",
            shortened(topic),
            topic.len()
        ));
    }
    if topic.contains(['+', '#']) || topic.starts_with('$') {
        return Err(format!(
            "{topic:?} is no name of a topic: it must not contain '+' and '#', nor begin with '$'"
        ));
    }
    check_text(topic)
}

/// Checks what names and patterns have in common.
pub(crate) fn check_text(name: &str) -> Result<(), String> {
    if name.contains(is_refused) {
        return Err(format!(
            "{name:?} is no name of a topic: brokers may refuse control characters, and code points that are no characters"
        ));
    }
    if name.bytes().filter(|byte| *byte == b'/').count() > SLASHES_MAX {
        return Err(format!(
            "{:?} is no name of a topic: some brokers take {SLASHES_MAX} slashes at most",
            shortened(name)
        ));
    }
    Ok(())
}

/// Control characters, and what Unicode says will never be a character.
pub(crate) fn is_refused(c: char) -> bool {
    let code = u32::from(c);
    c.is_control() || (0xfdd0..=0xfdef).contains(&code) || code & 0xfffe == 0xfffe
}

/// Enough of a long name to be recognised.
fn shortened(name: &str) -> &str {
    name.char_indices()
        .nth(SHOWN_CHARS)
        .map_or(name, |(end, _)| &name[..end])
}

/// Far below MQTT's own limit: brokers have theirs.
pub(crate) const TOPIC_BYTES_MAX: usize = 512;
/// Mosquitto disconnects whoever publishes to a topic with more (a protocol error).
const SLASHES_MAX: usize = 200;
const SHOWN_CHARS: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_broker_may_refuse_is_no_name_of_a_topic_and_all_else_is() {
        let sound = [
            "a",
            "/",
            " ",
            "é/x",
            "a$",
            "\u{a0}",
            "\u{feff}",
            "\u{fdcf}",
            "\u{fdf0}",
            "\u{10fffd}",
        ];
        for sound in sound {
            assert_eq!(check_topic(sound), Ok(()), "{sound:?}");
        }
        let wrong = ["", "a/#", "+/a", "$SYS/x", "$share/g/x"];
        let refused = [
            "\0",
            "\u{1}",
            "a\n",
            "\u{1f}",
            "\u{7f}",
            "\u{80}",
            "\u{9f}",
            "\u{fdd0}",
            "\u{fdef}",
            "\u{fffe}",
            "\u{ffff}",
            "\u{1fffe}",
            "\u{10ffff}",
        ];
        for wrong in wrong.into_iter().chain(refused) {
            assert!(check_topic(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn names_have_a_greatest_length_and_depth() {
        for (sound, wrong) in [
            ("x".repeat(TOPIC_BYTES_MAX), "x".repeat(TOPIC_BYTES_MAX + 1)),
            ("/".repeat(SLASHES_MAX), "/".repeat(SLASHES_MAX + 1)),
        ] {
            assert_eq!(check_topic(&sound), Ok(()));
            let why = check_topic(&wrong).expect_err("too much");
            assert!(why.len() < 200, "{why}");
        }
    }
}
