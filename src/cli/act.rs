//! Orders to the daemon.

use std::io::Write;

use super::{
    client::Client,
    exit::{CliError, Exit},
};
use crate::{command::Command, http::admin::CommandAnswer};

/// Sends an order and gives what the daemon says.
pub(super) async fn send(client: &Client, command: Command) -> Result<String, CliError> {
    let answer: CommandAnswer = client.post("/windlass/v1/command", &command).await?;
    Ok(answer.message)
}

/// Prints what the daemon says.
pub(super) fn print(answer: Result<String, CliError>, out: &mut dyn Write) -> Result<Exit, CliError> {
    writeln!(out, "{}", answer?)?;
    Ok(Exit::Done)
}
