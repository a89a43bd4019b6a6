//! `windlass history`

use std::io::Write;

use jiff::Timestamp;
use reconciler::state::HistoryEntry;

use super::{
    args::Format,
    client::Client,
    exit::{CliError, Exit},
    table,
};
use crate::http::{api::age, report::HistoryReport};

/// Prints the latest commits with their outcome.
pub(super) async fn run(
    client: &Client,
    format: Format,
    out: &mut dyn Write,
) -> Result<Exit, CliError> {
    let history: HistoryReport = client.get("/windlass/v1/history").await?;
    match format {
        Format::Json => super::status::json(&history, out)?,
        Format::Text if history.entries.is_empty() => {
            writeln!(out, "no commit has been fetched yet")?
        }
        Format::Text => print(&history, out)?,
    }
    Ok(Exit::Done)
}

fn print(history: &HistoryReport, out: &mut dyn Write) -> std::io::Result<()> {
    let now = Timestamp::now();
    let lines: Vec<Vec<String>> = history
        .entries
        .iter()
        .map(|entry| line(entry, now))
        .collect();
    table::print(
        &[
            "COMMIT", "STATE", "AGE", "TOOK", "SIGNER", "SUBJECT", "REASON",
        ],
        &lines,
        out,
    )
}

fn line(entry: &HistoryEntry, now: Timestamp) -> Vec<String> {
    let took = entry
        .ended
        .map(|ended| age::human(ended.as_second() - entry.began.as_second()));
    let signer = if entry.signer.is_empty() {
        "-"
    } else {
        &entry.signer
    };
    vec![
        entry.commit.short().to_owned(),
        entry.state.as_str().to_owned(),
        age::since(Some(entry.began), now),
        took.unwrap_or_else(|| "-".to_owned()),
        signer.to_owned(),
        entry.subject.clone(),
        entry.reason.to_string(),
    ]
}
