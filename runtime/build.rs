//! Builds the sandbox's program as a static binary, so that the daemon can carry it inside itself
//! and needs no registry to start a pod. Cargo cannot set `crt-static` for one binary of a package;
//! hence rustc directly.

use std::{env, path::PathBuf, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=pause/pause.rs");
    println!("cargo::rerun-if-changed=build.rs");
    let variable = |name: &str| {
        env::var(name).unwrap_or_else(|error| panic!("cargo did not set {name}: {error}"))
    };
    let output = PathBuf::from(variable("OUT_DIR")).join("pause");
    let mut rustc = Command::new(variable("RUSTC"));
    rustc
        .args([
            "--edition",
            "2024",
            "--crate-name",
            "pause",
            "--crate-type",
            "bin",
            "-C",
            "target-feature=+crt-static",
        ])
        .args([
            "-C",
            "panic=abort",
            "-C",
            "opt-level=s",
            "-C",
            "strip=symbols",
            "-C",
            "relocation-model=static",
        ])
        .args(["--target", &variable("TARGET"), "pause/pause.rs", "-o"])
        .arg(&output);
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        rustc.arg("-C").arg(format!("linker={linker}"));
    }
    let status = rustc
        .status()
        .unwrap_or_else(|error| panic!("cannot start {rustc:?}: {error}"));
    assert!(
        status.success(),
        "cannot build the static sandbox program (is the static libc installed?): {rustc:?}"
    );
}
