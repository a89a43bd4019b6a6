//! The command line. Commands that read use `windlass.sock`, by the routes that kubectl uses too;
//! commands that act use `admin.sock`.

mod act;
mod args;
pub(crate) mod check;
mod client;
pub(crate) mod cluster;
pub(crate) mod configuration;
pub(crate) mod doctor;
mod exit;
mod get;
mod history;
mod join_token;
mod logs;
pub(crate) mod output;
mod paint;
mod plan;
mod printed;
mod status;
mod sync;
mod table;
mod trust;
mod wrap;
mod yaml;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

pub(crate) use self::{
    args::{
        CheckArgs, DoctorArgs, GetArgs, LogFormat, LogsArgs, NodeArgs, NodeCommand, OutputArgs,
        PlanArgs, RestartArgs, ResumeArgs, RetryArgs, RollbackArgs, RunArgs, StatusArgs, SyncArgs,
        TrustArgs, TrustCommand, UninstallArgs, VerifyMode,
    },
    exit::{CliError, Exit},
};
use self::{client::Client, output::Output};
use crate::http::plan::LocalManifests;

/// The default directory of the daemon's sockets.
pub(crate) const SOCKET_DIR: &str = "/run/windlass";

/// `windlass`
#[derive(Debug, Parser)]
#[command(name = "windlass", version = env!("WINDLASS_VERSION"), about, long_about = None, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// Directory of the daemon's sockets [default: /run/windlass]
    #[arg(long, global = true, env = "WINDLASS_SOCKET_DIR", value_name = "DIR")]
    pub socket_dir: Option<PathBuf>,
    #[command(subcommand)]
    pub command: CliCommand,
}

const EXIT_CODES: &str = "Exit codes:
  0  success
  1  failure
  2  invalid arguments
  3  the commit was refused, held or rolled back
  4  the timeout has expired
  5  the daemon cannot be reached
  6  the configuration of `run` cannot be right";

#[derive(Debug, Subcommand)]
pub(crate) enum CliCommand {
    /// Run the daemon
    Run(Box<RunArgs>),
    /// Check manifests and print all problems, without a daemon: for CI and pre-commit
    Check(CheckArgs),
    /// Show what this host changes now, or what another commit would change, with the reasons
    Plan(PlanArgs),
    /// Show what is wrong with the newest commit, what runs, and the progress of its rollout
    Status(StatusArgs),
    /// Show the latest commits with their outcome
    History(OutputArgs),
    /// Show why the commits of the pods of this host are trusted
    Trust(TrustArgs),
    /// Show objects, in kubectl's columns
    Get(GetArgs),
    /// Print a container's log
    Logs(LogsArgs),
    /// Fetch from the repository now
    Sync(SyncArgs),
    /// Roll back to an earlier commit, until `resume` or until the branch moves
    Rollback(RollbackArgs),
    /// Deploy no new commit until `resume`; running pods are still healed
    Suspend(OutputArgs),
    /// Deploy new commits again, and end a manual rollback
    Resume(ResumeArgs),
    /// Clear the failure of a commit, and try it again
    Retry(RetryArgs),
    /// Replace the pods of a workload, by the strategy in its manifest
    Restart(RestartArgs),
    /// Create a cluster, join one, or renew the certificate of a host
    Cluster(cluster::ClusterArgs),
    /// Remove lost nodes from the cluster
    Node(NodeArgs),
    /// Check that this host has what the daemon needs, with advice for what is missing
    Doctor(DoctorArgs),
    /// Remove everything that Windlass made on this host
    Uninstall(UninstallArgs),
    /// Fetch for the daemon, in a child process
    #[command(hide = true)]
    FetchChild,
}

impl Cli {
    /// The directory of the daemon's sockets.
    pub(crate) fn sockets(&self) -> PathBuf {
        self.socket_dir
            .clone()
            .unwrap_or_else(|| PathBuf::from(SOCKET_DIR))
    }
}

/// Executes a command that the daemon answers: all commands but those that use only this host's
/// files.
pub(crate) async fn client(cli: &Cli, out: &mut Output<'_>) -> Result<Exit, CliError> {
    let sockets = cli.sockets();
    if let Some((command, format)) = act::to_send(&cli.command)? {
        let client = Client::new(sockets.join("admin.sock"))?;
        return act::print(act::send(&client, command).await, format, out);
    }

    let client = Client::new(sockets.join("windlass.sock"))?;
    match &cli.command {
        CliCommand::Plan(args) => plan::run(&client, args, out).await,
        CliCommand::Status(args) => status::run(&client, *args, out).await,
        CliCommand::History(args) => history::run(&client, args.output, out).await,
        CliCommand::Trust(TrustArgs {
            command: TrustCommand::Audit { output },
        }) => trust::audit(&client, *output, out).await,
        CliCommand::Get(args) => get::run(&client, args, out).await,
        CliCommand::Logs(args) => logs::run(&client, args, out).await,
        CliCommand::Sync(args) => sync::run(&sockets, args, out).await,
        _ => Err(CliError::Usage("the daemon has no such command".to_owned())),
    }
}

/// Asks the daemon what manifests that are not pushed yet would change.
pub(crate) async fn plan_local(
    cli: &Cli,
    args: &PlanArgs,
    manifests: &LocalManifests,
    out: &mut Output<'_>,
) -> Result<Exit, CliError> {
    let client = Client::new(cli.sockets().join("windlass.sock"))?;
    plan::run_local(&client, args, manifests, out).await
}

/// Prints the error of a command, and returns the exit code. A closed pipe, as in
/// `windlass get pods | head`, is not an error.
pub(crate) fn conclude(result: Result<Exit, CliError>) -> Exit {
    match result {
        Ok(exit) => exit,
        Err(CliError::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            Exit::Done
        }
        Err(error) => {
            // The daemon's messages were escaped when they were read; problems of a configuration
            // file have several lines.
            output::complain(&format!("{} {error}", paint::bad("error:")));
            error.exit()
        }
    }
}
