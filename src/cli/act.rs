//! Commands that the daemon executes, sent over `admin.sock`.

use std::io::Write;

use reconciler::name::{CommitPrefix, NodeName};

use super::{
    CliCommand, NodeArgs, NodeCommand,
    args::Format,
    client::Client,
    exit::{CliError, Exit},
    status::json,
};
use crate::{command::Command, http::admin::CommandAnswer};

/// The command that is sent to the daemon, with the format of the output; `None` if this is a
/// command of another kind.
pub(super) fn to_send(command: &CliCommand) -> Result<Option<(Command, Format)>, CliError> {
    let prefix = |commit: &Option<String>| commit.clone().map(CommitPrefix::new);
    let command = match command {
        CliCommand::Rollback(args) => {
            let commit = prefix(&args.commit);
            let command = match args.local {
                true => Command::RollbackLocal { commit },
                false => Command::Rollback { commit },
            };
            (command, args.output)
        }
        CliCommand::Suspend(args) => (Command::Suspend, args.output),
        CliCommand::Resume(args) if args.local => (Command::ResumeLocal, args.output),
        CliCommand::Resume(args) => (Command::Resume, args.output),
        CliCommand::Retry(args) => {
            let commit = prefix(&args.commit);
            (Command::Retry { commit }, args.output)
        }
        CliCommand::Restart(args) => {
            let workload = args.workload();
            let workload = workload.map_err(|error| CliError::Usage(error.to_string()))?;
            (Command::Restart { workload }, args.output)
        }
        CliCommand::Node(NodeArgs {
            command: NodeCommand::Rm { node, output },
        }) => {
            let node = NodeName::new(node.clone());
            (Command::RemoveNode { node }, *output)
        }
        CliCommand::Cluster(args) => match args.adopt_store() {
            Some(output) => (Command::AdoptStore, output),
            None => return Ok(None),
        },
        _ => return Ok(None),
    };
    Ok(Some(command))
}

/// Sends a command, and returns the daemon's answer.
pub(super) async fn send(client: &Client, command: Command) -> Result<CommandAnswer, CliError> {
    client.post("/windlass/v1/command", &command).await
}

/// Prints the daemon's answer.
pub(super) fn print(
    answer: Result<CommandAnswer, CliError>,
    format: Format,
    out: &mut dyn Write,
) -> Result<Exit, CliError> {
    let answer = answer?;
    match format {
        Format::Json => json(&answer, out)?,
        Format::Text => writeln!(out, "{}", answer.message)?,
    }
    Ok(Exit::Done)
}
