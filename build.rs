//! Records the compiler and the commit of a build, for `windlass --version` and
//! `windlass_build_info`.

use std::{env, path::Path, process::Command};

fn main() {
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let output = Command::new(rustc)
        .arg("--version")
        .output()
        .map(|output| output.stdout)
        .unwrap_or_default();
    let output = String::from_utf8_lossy(&output);
    // `rustc 1.88.0 (6b00bc388 2025-06-23)`
    let compiler = output.split_whitespace().nth(1).unwrap_or_default();
    // A build from an archive of the sources has no repository: the packager may name the commit.
    let commit = env::var("WINDLASS_COMMIT")
        .ok()
        .filter(|commit| !commit.is_empty())
        .or_else(|| git(&["rev-parse", "--verify", "HEAD"]))
        .unwrap_or_default();
    let package = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let version = match commit.get(..10).unwrap_or(&commit) {
        "" => package,
        short => format!("{package} (commit {short})"),
    };
    println!("cargo::rustc-env=WINDLASS_RUSTC={compiler}");
    println!("cargo::rustc-env=WINDLASS_COMMIT={commit}");
    println!("cargo::rustc-env=WINDLASS_VERSION={version}");
    println!("cargo::rerun-if-env-changed=WINDLASS_COMMIT");
    println!("cargo::rerun-if-changed=build.rs");
    // Git appends a line to the log of HEAD for every commit, checkout and reset.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"])
        && Path::new(&log).exists()
    {
        println!("cargo::rerun-if-changed={log}");
    }
}

/// What git prints in this package's own repository; `None` without git or without a repository.
/// A directory above an archive of the sources may be a repository of something else.
fn git(arguments: &[&str]) -> Option<String> {
    let directory = env::var("CARGO_MANIFEST_DIR").ok()?;
    if !Path::new(&directory).join(".git").exists() {
        return None;
    }
    let output = Command::new("git")
        .arg("-C")
        .arg(&directory)
        .args(arguments)
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned())
}
