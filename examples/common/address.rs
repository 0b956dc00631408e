//! Addresses as people write them.

use std::net::{SocketAddr, ToSocketAddrs as _};

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

/// Where that is, now. Asks the system, which may take its time.
///
/// # Errors
/// `what` does not resolve: what to do.
pub fn resolved(what: &str, address: &str) -> Result<Vec<SocketAddr>, String> {
    let found = address.to_socket_addrs().map_err(|e| {
        format!("{what} {address}: {e}; write it as HOST:PORT, such as 127.0.0.1:5000, with a host that this machine knows")
    })?;
    Ok(found.collect())
}
