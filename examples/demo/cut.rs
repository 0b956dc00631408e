//! Cutting a process off by dropping its packets: what a dead machine or a broken cable looks like to the others.

use std::net::IpAddr;
use std::process::Command;

/// While this lives, all packets to and from an address are dropped.
pub struct Cut {
    address: IpAddr,
}

impl Cut {
    /// Drops packets of `address` with `iptables` (needs root).
    pub(super) fn of(address: IpAddr) -> Result<Self, String> {
        let cut = Self { address };
        cut.rules("-I")?;
        Ok(cut)
    }

    fn rules(&self, change: &str) -> Result<(), String> {
        for direction in ["-s", "-d"] {
            let address = self.address.to_string();
            let rule = ["-w", change, "INPUT", direction, &address, "-j", "DROP"];
            let output = Command::new("iptables").args(rule).output().map_err(|e| {
                format!("cannot run iptables ({e}); install it, or use --fault kill")
            })?;
            if !output.status.success() {
                return Err(format!(
                    "iptables refused: {}; run as root, or use --fault kill",
                    String::from_utf8_lossy(&output.stderr).trim()
                ));
            }
        }
        Ok(())
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        if let Err(why) = self.rules("-D") {
            eprintln!("the rules for {} may still be there: {why}", self.address);
        }
    }
}
