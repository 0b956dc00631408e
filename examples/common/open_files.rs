//! How many files and connections this process may have open.

/// Raises the limit of open files, which counts connections too, towards `wanted`, as far as the system allows without
/// privileges; many systems begin with 1,024. Returns what it is now, where there is such a limit.
#[cfg(unix)]
pub fn raise_open_files(wanted: u64) -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let now = limit.current?;
    let reachable = limit.maximum.map_or(wanted, |most| most.min(wanted));
    if reachable <= now {
        return Some(now);
    }
    let raised = Rlimit {
        current: Some(reachable),
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => Some(reachable),
        Err(_) => Some(now),
    }
}

/// Nothing is limited that this could raise.
#[cfg(not(unix))]
pub fn raise_open_files(_: u64) -> Option<u64> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_never_lowered() {
        let before = raise_open_files(0);
        assert!(raise_open_files(2_000) >= before);
        assert_eq!(raise_open_files(0), raise_open_files(1));
    }
}
