//! `windlass trust`: the grounds on which the pods of this host run.

use std::io::Write;

use jiff::Timestamp;

use super::{
    args::Format,
    client::Client,
    exit::{CliError, Exit},
    table,
};
use crate::http::{
    api::age,
    report::{PodTrust, TrustReport},
};

/// Prints the commit of each pod of this host, and why that commit is trusted.
pub(super) async fn audit(
    client: &Client,
    format: Format,
    out: &mut dyn Write,
) -> Result<Exit, CliError> {
    let report: TrustReport = client.get("/windlass/v1/trust").await?;
    match format {
        Format::Json => super::status::json(&report, out)?,
        Format::Text if report.pods.is_empty() => writeln!(out, "no pod runs on {}", report.node)?,
        Format::Text => print(&report, out)?,
    }
    Ok(Exit::Done)
}

fn print(report: &TrustReport, out: &mut dyn Write) -> std::io::Result<()> {
    let now = Timestamp::now();
    let lines: Vec<Vec<String>> = report.pods.iter().map(|pod| line(pod, now)).collect();
    table::print(
        &["POD", "COMMIT", "GROUNDS", "SIGNER", "JUDGED", "NOTE"],
        &lines,
        out,
    )
}

fn line(pod: &PodTrust, now: Timestamp) -> Vec<String> {
    let signer = pod
        .signer
        .as_ref()
        .map_or_else(|| "-".to_owned(), ToString::to_string);
    vec![
        pod.pod.clone(),
        pod.commit.short().to_owned(),
        pod.grounds.clone(),
        signer,
        age::since(pod.judged, now),
        pod.note.clone(),
    ]
}
