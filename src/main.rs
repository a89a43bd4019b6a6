//! Windlass: the daemon and its command line.

#![allow(dead_code, reason = "the modules are wired up by the daemon")]

mod apply;
mod command;
mod config;
mod control_loop;
mod crash;
mod cycle;
mod daemon;
mod dns;
mod follow;
mod http;
mod lanes;
mod library;
mod metrics;
mod source;
mod state_file;
mod store;
mod trust;
mod view;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("fetch-child") => return source::child::child_main(),
        Some("run") => {}
        _ => return ExitCode::from(2),
    }
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let path = args.next().unwrap_or_default();
    let run = || {
        let config = config::Config::read(std::path::Path::new(&path))?;
        let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        tokio.block_on(daemon::run(config))
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("windlass: {error:#}");
            ExitCode::FAILURE
        }
    }
}
