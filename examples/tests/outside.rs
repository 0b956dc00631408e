//! A crate outside the workspace, which knows of kvrep only what it is told, builds and passes its tests.

use std::path::Path;
use std::process::Command;

#[test]
fn a_crate_outside_the_workspace_replicates_its_own_state_machine() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("outside/Cargo.toml");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("outside");
    let cargo = Command::new(env!("CARGO"))
        .arg("test")
        .arg("--manifest-path")
        .arg(manifest)
        .arg("--target-dir")
        .arg(target)
        .output()
        .unwrap();
    let said = [cargo.stdout, cargo.stderr].map(|s| String::from_utf8_lossy(&s).into_owned());
    assert!(cargo.status.success(), "{}\n{}", said[0], said[1]);
    assert!(
        said[0].contains("the_stock_survives_the_loss_of_its_primary ... ok"),
        "{}",
        said[0]
    );
}
