//! Orders to the daemon.

use std::io::Write;

use super::{
    args::Format,
    client::Client,
    exit::{CliError, Exit},
    status::json,
};
use crate::{command::Command, http::admin::CommandAnswer};

/// Sends an order and gives what the daemon says.
pub(super) async fn send(client: &Client, command: Command) -> Result<CommandAnswer, CliError> {
    client.post("/windlass/v1/command", &command).await
}

/// Prints what the daemon says.
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
