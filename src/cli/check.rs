//! The output of `windlass check`.

use std::io::Write;

use reconciler::manifest::{Problem, Severity};
use serde::Serialize;

use super::{
    args::Format,
    exit::{CliError, Exit},
    paint,
};

/// The result of a check.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CheckReport {
    /// The number of files that were read.
    pub files: usize,
    /// The number of objects in these files.
    pub objects: usize,
    /// All problems, in the order of files and lines.
    pub problems: Vec<Problem>,
}

/// Prints the problems, one a line. The exit code is 1 if a commit with this content would be
/// refused.
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
                (0, 0) => paint::good("no problems"),
                (0, warnings) => paint::soso(&format!("no errors, warnings: {warnings}")),
                (errors, 0) => paint::bad(&format!("errors: {errors}")),
                (errors, warnings) => {
                    paint::bad(&format!("errors: {errors}, warnings: {warnings}"))
                }
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
