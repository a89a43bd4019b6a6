//! Windlass: the daemon and its command line.

mod cli;
mod command;
mod http;
mod metrics;
mod view;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::Cli;

#[tokio::main]
async fn main() -> ExitCode {
    // Every TLS client and server here uses ring; another test or thread cannot have been first.
    rustls::crypto::ring::default_provider().install_default().unwrap_or_default();
    let cli = Cli::parse();
    let mut out = anstream::stdout().lock();
    match cli::client(&cli, &mut out).await {
        Some(result) => cli::conclude(result).into(),
        None => cli::conclude(Err(cli::CliError::Answer("this build has no daemon in it".to_owned()))).into(),
    }
}
