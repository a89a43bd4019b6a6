//! Windlass: the daemon and its command line.

mod apply;
mod cli;
mod command;
mod commit_cache;
mod config;
mod connections;
mod control_loop;
mod crash;
mod cycle;
mod daemon;
mod data_dir;
mod descriptors;
mod dns;
mod exposure;
mod follow;
#[cfg(test)]
#[path = "../tests/support/fuzz.rs"]
mod fuzz;
mod host_info;
mod http;
#[cfg(test)]
#[path = "../tests/support/ids.rs"]
mod ids;
mod lanes;
mod last_outputs;
mod local;
mod log;
mod metrics;
mod peer;
mod readdress;
mod refused;
mod source;
mod state_file;
mod store;
mod trust;
mod uptime;
mod view;
mod watchdog;

use std::{io::Write, process::ExitCode};

use clap::Parser;

use crate::{
    cli::{Cli, CliCommand, CliError, Exit, PlanArgs, output::Output},
    readdress::Ended,
};

/// The worker threads of the daemon, which mostly waits.
const WORKERS: usize = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let CliCommand::FetchChild = cli.command {
        return source::child::child_main();
    }
    // Every TLS client and server here uses ring; no other code has installed a provider before.
    rustls::crypto::ring::default_provider()
        .install_default()
        .unwrap_or_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return cli::conclude(Err(CliError::Output(error))).into(),
    };
    let mut stdout = std::io::stdout().lock();
    let mut out = Output::stdout(&mut stdout);
    let result = runtime.block_on(command(&cli, &mut out));
    let result = out.flush().map_err(CliError::Output).and(result);
    // Tasks that still run in the background are not needed any more.
    runtime.shutdown_background();
    cli::conclude(result).into()
}

async fn command(cli: &Cli, out: &mut Output<'_>) -> Result<Exit, CliError> {
    let failed = |error: anyhow::Error| CliError::Answer(format!("{error:#}"));
    match &cli.command {
        CliCommand::Run(args) => {
            log::start(args.log_format.unwrap_or_default());
            let config = cli::configuration::checked(args, cli.socket_dir.clone())
                .map_err(|error| CliError::Configuration(format!("{error:#}")))?;
            match daemon::run(config).await.map_err(failed)? {
                Ended::Stopped => Ok(Exit::Done),
                Ended::Moved => Err(failed(
                    anyhow::Error::from(readdress::start_anew()).context("restart the daemon"),
                )),
            }
        }
        CliCommand::Check(args) => {
            let report = local::check(args).map_err(failed)?;
            cli::check::report(&report, args.output, out)
        }
        CliCommand::Plan(
            args @ PlanArgs {
                local: Some(what), ..
            },
        ) => {
            let manifests = local::local_manifests(what, args).map_err(failed)?;
            cli::plan_local(cli, args, &manifests, out).await
        }
        CliCommand::Doctor(args) => {
            let facts = local::doctor_facts(args, cli.sockets());
            cli::doctor::run(&facts, args.output, out).await
        }
        CliCommand::Cluster(args) if args.adopt_store().is_none() => {
            cli::cluster::run(args, cli.socket_dir.clone(), out)
                .await
                .map_err(failed)
        }
        CliCommand::Uninstall(args) => local::uninstall(args, cli.sockets(), out)
            .await
            .map_err(failed),
        CliCommand::FetchChild => Ok(source::child::child_main()).map(|_| Exit::Done),
        _ => cli::client(cli, out).await,
    }
}
