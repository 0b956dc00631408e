//! The client of the bare exchange: what a write costs at least. Its servers are in `serve`.

use super::{Clock, Load, VALUE_BYTES};
use crate::sample::{Latencies, Sample};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// One client and no runtime: nothing is between it and the system.
pub(super) fn measure(load: &Load) -> Result<Sample, String> {
    if load.clients != 1 {
        return Err("the bare exchange has one client".into());
    }
    let address = load.at.first().ok_or("where is the other side? (--at)")?;
    let failed = |e: std::io::Error| format!("the bare exchange at {address}: {e}");
    let mut stream = TcpStream::connect(address).map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    let patience = Some(Duration::from_secs(5));
    stream.set_read_timeout(patience).map_err(failed)?;
    let measure = Duration::from_millis(load.measure_ms);
    let from = Instant::now() + Duration::from_millis(load.warm_up_ms);
    let latencies = Latencies::default();
    let mut clock = Clock::new(from, measure, &latencies);
    let mut message = [0; VALUE_BYTES];
    while clock.runs() {
        stream.write_all(&message).map_err(failed)?;
        stream.read_exact(&mut message).map_err(failed)?;
    }
    drop(clock);
    Ok(latencies.sample(measure))
}
