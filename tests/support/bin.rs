//! The binaries under test. A test crate beside theirs does not build them by itself: this is where that is done.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// The path of a freshly built binary of this workspace, in the profile that the test runs in.
///
/// With `DEVCLUSTER_BIN_DIR` set, the binaries there are taken as they are.
pub fn bin(name: &str) -> PathBuf {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    let path = DIR.get_or_init(binaries).join(name);
    assert!(path.exists(), "there is no {}", path.display());
    path
}

/// Where things are unpacked that the tests need and the machine may lack.
pub fn build_dir() -> PathBuf {
    std::fs::create_dir_all(Path::new(ROOT).join(".build")).expect("cannot make .build");
    std::fs::canonicalize(Path::new(ROOT).join(".build")).expect("cannot resolve .build")
}

fn binaries() -> PathBuf {
    if let Some(dir) = std::env::var_os("DEVCLUSTER_BIN_DIR") {
        return dir.into();
    }
    // <target>/<profile>/deps/<test>-<hash>
    let test = std::env::current_exe().expect("the test has no path");
    let dir = test
        .ancestors()
        .nth(2)
        .expect("the test is not in a target directory");
    // nextest's setup script has built what is there.
    if std::env::var_os("DEVCLUSTER_BUILT").is_some_and(|built| Path::new(&built) == dir) {
        return dir.to_owned();
    }
    let target = dir.parent().expect("the profile has no target directory");
    let profile = match dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // What cargo passes to this test about its package. A build script that reads it would run again, and everything
    // that depends on it would be built again, here and by the next cargo at a prompt.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&*name);
        }
    }
    let status = command
        .args([
            "build",
            "--workspace",
            "--bins",
            "--quiet",
            "--profile",
            profile,
        ])
        .arg("--target-dir")
        .arg(target)
        .current_dir(ROOT)
        .status()
        .expect("cannot run cargo");
    assert!(status.success(), "cargo build --workspace --bins failed");
    dir.to_owned()
}
