//! Windlass: the daemon and its command line.

mod cli;
mod command;
mod http;
mod metrics;
mod view;

use std::{io::Write, process::ExitCode};

use clap::Parser;

use crate::cli::{Cli, CliError, Command, Exit, doctor::DoctorFacts};

#[tokio::main]
async fn main() -> ExitCode {
    // Every TLS client and server here uses ring; another test or thread cannot have been first.
    rustls::crypto::ring::default_provider().install_default().unwrap_or_default();
    let cli = Cli::parse();
    let mut out = anstream::stdout().lock();
    match cli::client(&cli, &mut out).await {
        Some(result) => cli::conclude(result).into(),
        None => cli::conclude(local(&cli, &mut out).await).into(),
    }
}

/// The commands that are not a client's.
async fn local(cli: &Cli, out: &mut dyn Write) -> Result<Exit, CliError> {
    match &cli.command {
        Command::Doctor(args) => {
            let facts = DoctorFacts {
                docker: args.docker.clone().unwrap_or_else(|| "/var/run/docker.sock".into()),
                data_dir: args.data_dir.clone().unwrap_or_else(|| "/var/lib/windlass".into()),
                socket_dir: cli.sockets(),
                listen: vec![([127, 0, 0, 1], 9464).into()],
                config: None,
                signers: None,
            };
            cli::doctor::run(&facts, args.output, out).await
        }
        _ => Err(CliError::Answer("this build has no daemon in it".to_owned())),
    }
}
