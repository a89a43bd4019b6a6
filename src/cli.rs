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
mod logs;
pub(crate) mod output;
mod paint;
mod plan;
mod status;
mod sync;
mod table;
mod trust;
mod yaml;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

pub(crate) use self::{
    args::{
        CheckArgs, DoctorArgs, GetArgs, LogFormat, LogsArgs, NodeArgs, NodeCommand, OutputArgs,
        PlanArgs, RestartArgs, ResumeArgs, RetryArgs, RollbackArgs, RunArgs, SyncArgs, TrustArgs,
        TrustCommand, UninstallArgs, VerifyMode,
    },
    exit::{CliError, Exit},
};
use self::{client::Client, output::Output};
use crate::command;

/// The default directory of the daemon's sockets.
pub(crate) const SOCKET_DIR: &str = "/run/windlass";

/// `windlass`
#[derive(Debug, Parser)]
#[command(name = "windlass", version, about, long_about = None, after_help = EXIT_CODES)]
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
  5  the daemon cannot be reached";

#[derive(Debug, Subcommand)]
pub(crate) enum CliCommand {
    /// Run the daemon
    Run(Box<RunArgs>),
    /// Check manifests and print all problems, without a daemon: for CI and pre-commit
    Check(CheckArgs),
    /// Show what this host changes now, or what another commit would change, with the reasons
    Plan(PlanArgs),
    /// Show the commit that runs, the progress of its rollout, and what blocks it
    Status(OutputArgs),
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

/// Executes a command that the daemon answers. `None` for the other commands: `run`, `check`,
/// `doctor`, `uninstall`, those of `cluster` that use this host's files, and the fetching child.
pub(crate) async fn client(cli: &Cli, out: &mut Output<'_>) -> Option<Result<Exit, CliError>> {
    let sockets = cli.sockets();
    let reading = || Client::new(sockets.join("windlass.sock"));
    let acting =
        |command| async { act::send(&Client::new(sockets.join("admin.sock"))?, command).await };
    Some(match &cli.command {
        CliCommand::Run(_)
        | CliCommand::Check(_)
        | CliCommand::Doctor(_)
        | CliCommand::Uninstall(_)
        | CliCommand::FetchChild => {
            return None;
        }
        CliCommand::Plan(args) => {
            with(reading(), async |client| {
                plan::run(&client, args, out).await
            })
            .await
        }
        CliCommand::Status(args) => {
            with(reading(), async |client| {
                status::run(&client, args.output, out).await
            })
            .await
        }
        CliCommand::History(args) => {
            with(reading(), async |client| {
                history::run(&client, args.output, out).await
            })
            .await
        }
        CliCommand::Trust(TrustArgs {
            command: TrustCommand::Audit { output },
        }) => {
            with(reading(), async |client| {
                trust::audit(&client, *output, out).await
            })
            .await
        }
        CliCommand::Get(args) => {
            with(reading(), async |client| get::run(&client, args, out).await).await
        }
        CliCommand::Logs(args) => {
            with(reading(), async |client| {
                logs::run(&client, args, out).await
            })
            .await
        }
        CliCommand::Sync(args) => sync::run(&sockets, args, out).await,
        CliCommand::Rollback(args) => {
            let commit = args.commit.clone().map(reconciler::name::CommitPrefix::new);
            let command = match args.local {
                true => command::Command::RollbackLocal { commit },
                false => command::Command::Rollback { commit },
            };
            act::print(acting(command).await, args.output, out)
        }
        CliCommand::Suspend(args) => {
            act::print(acting(command::Command::Suspend).await, args.output, out)
        }
        CliCommand::Resume(args) => {
            let command = if args.local {
                command::Command::ResumeLocal
            } else {
                command::Command::Resume
            };
            act::print(acting(command).await, args.output, out)
        }
        CliCommand::Retry(args) => {
            let commit = args.commit.clone().map(reconciler::name::CommitPrefix::new);
            act::print(
                acting(command::Command::Retry { commit }).await,
                args.output,
                out,
            )
        }
        CliCommand::Node(NodeArgs {
            command: NodeCommand::Rm { node, output },
        }) => {
            let node = reconciler::name::NodeName::new(node.clone());
            act::print(
                acting(command::Command::RemoveNode { node }).await,
                *output,
                out,
            )
        }
        CliCommand::Cluster(args) => match args.adopt_store() {
            Some(output) => act::print(acting(command::Command::AdoptStore).await, output, out),
            // The other commands of `cluster` use only this host's files.
            None => return None,
        },
        CliCommand::Restart(args) => match args.workload() {
            Ok(workload) => act::print(
                acting(command::Command::Restart { workload }).await,
                args.output,
                out,
            ),
            Err(error) => Err(CliError::Usage(error.to_string())),
        },
    })
}

async fn with<T>(
    client: Result<Client, CliError>,
    work: impl AsyncFnOnce(Client) -> Result<T, CliError>,
) -> Result<T, CliError> {
    work(client?).await
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
