//! `windlass history`

use std::io::Write;

use jiff::Timestamp;
use reconciler::state::HistoryEntry;

use super::{
    args::Format,
    client::Client,
    exit::{CliError, Exit},
    paint, printed,
    table::Widths,
    wrap,
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

/// The columns, of which the last has the rest of the line.
const HEADING: [&str; 6] = ["COMMIT", "STATE", "AGE", "TOOK", "SIGNER", "SUBJECT"];
/// The indentation of what has no room in its column, and of reasons.
const INDENT: usize = 4;
/// The most characters of a signer, so that the columns fit; `-o json` has the whole.
const SIGNER: usize = 30;

/// Prints a line for each commit. Below are the subject, if it has no room in that line, and the
/// reason.
fn print(history: &HistoryReport, out: &mut dyn Write) -> std::io::Result<()> {
    let now = Timestamp::now();
    let heading: Vec<String> = HEADING.map(str::to_owned).to_vec();
    let mut lines: Vec<Vec<String>> = history
        .entries
        .iter()
        .map(|entry| line(entry, now))
        .collect();
    let mut widths = Widths::default();
    widths.fit(&heading);
    lines.iter().for_each(|line| widths.fit(line));

    let room = wrap::COLUMNS.saturating_sub(widths.before_last());
    widths.line(&heading, out)?;
    for (line, entry) in lines.iter_mut().zip(&history.entries) {
        let subject = line
            .pop_if(|subject| subject.chars().count() > room)
            .unwrap_or_default();
        widths.line(line, out)?;
        for text in [subject, entry.reason.to_string()] {
            if !text.is_empty() {
                wrap::indented(out, INDENT, &text, paint::faint)?;
            }
        }
        let outputs = history.last_outputs.iter();
        let of_commit = outputs.filter(|output| output.commit == entry.commit);
        printed::outputs(out, INDENT, of_commit, now)?;
    }
    Ok(())
}

fn line(entry: &HistoryEntry, now: Timestamp) -> Vec<String> {
    let took = entry
        .ended
        .map(|ended| age::human(ended.as_second() - entry.began.as_second()));
    let signer = if entry.signer.is_empty() {
        "-".to_owned()
    } else {
        shortened(&entry.signer)
    };
    vec![
        entry.commit.short().to_owned(),
        entry.state.as_str().to_owned(),
        age::since(Some(entry.began), now),
        took.unwrap_or_else(|| "-".to_owned()),
        signer,
        entry.subject.clone(),
    ]
}

/// A signer of limited length, with a mark where its end is missing.
fn shortened(signer: &str) -> String {
    if signer.chars().count() <= SIGNER {
        return signer.to_owned();
    }
    let kept = signer.chars().take(SIGNER - 1);
    kept.chain(['…']).collect()
}
