//! What `windlass check` prints.

use std::io::Write;

use reconciler::manifest::{Problem, Severity};
use serde::Serialize;

use super::{
    args::Format,
    exit::{CliError, Exit},
    paint,
};

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CheckReport {
    /// Files that were read.
    pub files: usize,
    /// Objects in them.
    pub objects: usize,
    /// Everything that is wrong, in the order of files and lines.
    pub problems: Vec<Problem>,
}

/// Prints the problems, one a line, and says with which code to end: 1 if a commit with this
/// content would be refused.
pub(crate) fn report(
    report: &CheckReport,
    format: Format,
    out: &mut dyn Write,
) -> Result<Exit, CliError> {
    let errors = report
        .problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
        .count();
    match format {
        Format::Json => super::status::json(report, out)?,
        Format::Text => {
            for problem in &report.problems {
                writeln!(out, "{problem}")?;
            }
            let warnings = report.problems.len() - errors;
            let read = format!("{} objects in {} files", report.objects, report.files);
            let found = match (errors, warnings) {
                (0, 0) => paint::good("nothing wrong"),
                (0, warnings) => paint::soso(&format!("{warnings} to look at, nothing wrong")),
                (errors, 0) => paint::bad(&format!("{errors} wrong")),
                (errors, warnings) => paint::bad(&format!("{errors} wrong, {warnings} to look at")),
            };
            writeln!(out, "{read}: {found}")?;
        }
    }
    Ok(if errors == 0 {
        Exit::Done
    } else {
        Exit::Failed
    })
}
