//! `windlass plan`

use std::io::Write;

use super::{
    args::{Format, PlanArgs},
    client::{Client, query},
    exit::{CliError, Exit},
    paint,
};
use crate::http::report::PlanReport;

/// Prints the steps of a plan, with the reason of each lane.
pub(super) async fn run(
    client: &Client,
    args: &PlanArgs,
    out: &mut dyn Write,
) -> Result<Exit, CliError> {
    let path = format!(
        "/windlass/v1/plan{}",
        query(&[("revision", args.revision.clone())])
    );
    let plan: PlanReport = client.get(&path).await?;
    match args.output {
        Format::Json => super::status::json(&plan, out)?,
        Format::Text => print(&plan, out)?,
    }
    Ok(Exit::Done)
}

fn print(plan: &PlanReport, out: &mut dyn Write) -> std::io::Result<()> {
    let commit = plan
        .commit
        .as_ref()
        .map_or("no commit", |commit| commit.short());
    if plan.lanes.is_empty() {
        return writeln!(out, "{commit}: nothing to do here");
    }
    writeln!(out, "{commit}: {} to change here", plan.lanes.len())?;
    for lane in &plan.lanes {
        writeln!(out, "\n{}  {}", paint::strong(&lane.subject), lane.why)?;
        for step in &lane.steps {
            writeln!(out, "  - {step}")?;
        }
    }
    Ok(())
}
