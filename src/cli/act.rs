//! Commands that the daemon executes, sent over `admin.sock`.

use std::io::Write;

use super::{
    args::Format,
    client::Client,
    exit::{CliError, Exit},
    status::json,
};
use crate::{command::Command, http::admin::CommandAnswer};

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
