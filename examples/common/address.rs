//! Addresses as people write them.

use std::net::SocketAddr;

/// An address of the form `HOST:PORT`.
///
/// # Errors
/// What is wrong with it.
pub fn address(text: &str) -> Result<String, String> {
    let expected = || format!("{text}: expected HOST:PORT, as 127.0.0.1:5000");
    let (host, port) = text.rsplit_once(':').ok_or_else(expected)?;
    match port.parse::<u16>() {
        Ok(port) if port > 0 && !host.is_empty() => {}
        Ok(_) | Err(_) => return Err(expected()),
    }
    if host.contains(':') && text.parse::<SocketAddr>().is_err() {
        return Err(expected());
    }
    Ok(text.to_owned())
}
