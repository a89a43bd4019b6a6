//! Says which compiler and which commit a build is of, for `windlass_build_info`.

use std::{env, process::Command};

fn main() {
    let compiler = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let version = Command::new(compiler)
        .arg("--version")
        .output()
        .map(|output| output.stdout)
        .unwrap_or_default();
    let version = String::from_utf8_lossy(&version);
    // `rustc 1.88.0 (6b00bc388 2025-06-23)`
    let version = version.split_whitespace().nth(1).unwrap_or_default();
    let commit = env::var("WINDLASS_COMMIT").unwrap_or_default();
    println!("cargo::rustc-env=WINDLASS_RUSTC={version}");
    println!("cargo::rustc-env=WINDLASS_COMMIT={commit}");
    println!("cargo::rerun-if-env-changed=WINDLASS_COMMIT");
    println!("cargo::rerun-if-changed=build.rs");
}
