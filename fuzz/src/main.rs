//! One fuzz target for each decoder, chosen by the environment variable `TARGET`; see the script `run` beside this.
//!
//! An input must be answered without a panic, within 100 ms of processor time, and with at most 64 MiB allocated at
//! any moment. With `LIST` or `SEEDS=<directory>` set, the program prints the targets or writes the valid examples of
//! `TARGET`, and ends.
#![no_main]

use kvrep_core::decoders::{self, Decoder};
use libfuzzer_sys::fuzz_target;
use peak_alloc::PeakAlloc;
use rustix::time::{ClockId, clock_gettime};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;
static DECODER: OnceLock<Decoder> = OnceLock::new();

const TIME_MAX: Duration = Duration::from_millis(100);
const ALLOCATED_BYTES_MAX: usize = 64 << 20;

fuzz_target!(
    init: choose(),
    |input: &[u8]| {
        let decoder = DECODER.get().expect("chosen before the first input");
        MEMORY.reset_peak_usage();
        let before = MEMORY.current_usage();
        let began = processor_time();
        (decoder.decode)(input);
        let took = processor_time().saturating_sub(began);
        let allocated = MEMORY.peak_usage().saturating_sub(before);
        assert!(took < TIME_MAX, "{took:?} for {} bytes", input.len());
        assert!(allocated < ALLOCATED_BYTES_MAX, "{allocated} bytes allocated for {} bytes", input.len());
    }
);

fn choose() {
    let mut all = decoders::all();
    all.push(Decoder {
        name: "greeting",
        decode: kvrep_transport_tcp::decoders::greeting,
        valid: kvrep_transport_tcp::decoders::valid_greetings,
    });
    all.push(Decoder {
        name: "multicast-datagram",
        decode: kvrep_transport_multicast::decoders::datagram,
        valid: kvrep_transport_multicast::decoders::valid_datagrams,
    });
    all.push(Decoder {
        name: "multicast-pieces",
        decode: kvrep_transport_multicast::decoders::pieces_in_any_order,
        valid: kvrep_transport_multicast::decoders::valid_pieces,
    });
    if std::env::var_os("LIST").is_some() {
        for decoder in &all {
            println!("{}", decoder.name);
        }
        std::process::exit(0);
    }
    let wanted = std::env::var("TARGET").unwrap_or_default();
    let Some(decoder) = all.iter().find(|decoder| decoder.name == wanted) else {
        eprintln!("no target {wanted:?}; see `fuzz/run --list`");
        std::process::exit(2);
    };
    if let Some(directory) = std::env::var_os("SEEDS") {
        for (n, bytes) in (decoder.valid)().iter().enumerate() {
            let path = Path::new(&directory).join(format!("valid-{n}"));
            if let Err(error) = std::fs::write(&path, bytes) {
                eprintln!("cannot write {}: {error}", path.display());
                std::process::exit(2);
            }
        }
        std::process::exit(0);
    }
    DECODER.get_or_init(|| *decoder);
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}
