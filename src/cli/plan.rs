//! `windlass plan`

use std::io::{self, Write};

use reconciler::difference::{DifferenceKind, FieldDifference, ObjectDifference};

use super::{
    args::{Format, PlanArgs},
    client::{Client, query},
    exit::{CliError, Exit},
    paint,
};
use crate::http::plan::{LocalManifests, PlanReport, PlanStanding, PodsPlan};

const PATH: &str = "/windlass/v1/plan";

/// Prints what a commit changes: where it stands, its objects, the pods of the cluster, and the
/// steps of this host.
pub(super) async fn run(
    client: &Client,
    args: &PlanArgs,
    out: &mut dyn Write,
) -> Result<Exit, CliError> {
    let path = format!("{PATH}{}", query(&[("revision", args.revision.clone())]));
    let plan: PlanReport = client.get(&path).await?;
    show(&plan, args, args.revision.is_none(), out)
}

/// Prints what manifests that are not pushed yet would change.
pub(super) async fn run_local(
    client: &Client,
    args: &PlanArgs,
    manifests: &LocalManifests,
    out: &mut dyn Write,
) -> Result<Exit, CliError> {
    let plan: PlanReport = client.post(PATH, manifests).await?;
    show(&plan, args, false, out)
}

fn show(
    plan: &PlanReport,
    args: &PlanArgs,
    is_about_now: bool,
    out: &mut dyn Write,
) -> Result<Exit, CliError> {
    match args.output {
        Format::Json => super::status::json(plan, out)?,
        Format::Text => print(plan, is_about_now, out)?,
    }
    let is_kept_back = plan.standings.iter().any(|standing| standing.keeps_back);
    Ok(if !is_about_now && is_kept_back {
        Exit::Refused
    } else {
        Exit::Done
    })
}

fn print(plan: &PlanReport, is_about_now: bool, out: &mut dyn Write) -> io::Result<()> {
    let commit = match &plan.commit {
        Some(commit) => commit.short(),
        None if plan.subject.is_empty() => "no commit",
        None => "local",
    };
    let has_rounds = plan
        .pods
        .as_ref()
        .is_some_and(|pods| !pods.rounds.is_empty());
    let is_kept_back = plan.standings.iter().any(|standing| standing.keeps_back);
    if plan.objects.is_empty() && !has_rounds && plan.lanes.is_empty() && !is_kept_back {
        return writeln!(out, "{commit}: nothing to do here");
    }

    let heading = format!("{} {}", paint::strong(commit), plan.subject);
    writeln!(out, "{}", heading.trim_end())?;
    if let Some(before) = &plan.compared_with {
        writeln!(out, "compared with {}", before.short())?;
    }
    for standing in &plan.standings {
        print_standing(standing, out)?;
    }
    for object in &plan.objects {
        print_object(object, out)?;
    }
    if let Some(pods) = &plan.pods {
        print_pods(pods, is_kept_back, out)?;
    }
    if is_about_now {
        print_lanes(plan, out)?;
    }
    Ok(())
}

fn print_standing(standing: &PlanStanding, out: &mut dyn Write) -> io::Result<()> {
    let paint = if standing.keeps_back {
        paint::bad
    } else {
        paint::soso
    };
    let state = paint(&standing.state);
    match standing.reason.as_str() {
        "" => writeln!(out, "{state}")?,
        reason => writeln!(out, "{state}: {reason}")?,
    }
    for problem in &standing.problems {
        writeln!(out, "  {problem}")?;
    }
    Ok(())
}

/// An object in the shape of a diff: `-` for what goes, `+` for what comes.
fn print_object(object: &ObjectDifference, out: &mut dyn Write) -> io::Result<()> {
    let name = match object.namespace.as_str() {
        "" => format!("{}/{}", object.kind, object.name),
        namespace => format!("{}/{namespace}/{}", object.kind, object.name),
    };
    let place = object.position.as_ref().map_or_else(String::new, |place| {
        paint::faint(&format!("  {}:{}", place.file, place.line))
    });
    let heading = paint::strong(&name);
    match object.difference {
        DifferenceKind::Deleted => writeln!(
            out,
            "\n{}{place}",
            paint::bad(&format!("- {name}: deleted"))
        )?,
        DifferenceKind::Unreadable => writeln!(
            out,
            "\n{heading}{place}: not found; it is deleted, or in a document with errors"
        )?,
        DifferenceKind::Changed => writeln!(out, "\n{heading}{place}")?,
        DifferenceKind::Added => {
            writeln!(out, "\n{}{place}", paint::good(&format!("+ {name}: new")))?
        }
    }
    for field in &object.fields {
        print_field(field, out)?;
    }
    match object.more_fields {
        0 => Ok(()),
        more => writeln!(out, "  and {more} more fields"),
    }
}

fn print_field(field: &FieldDifference, out: &mut dyn Write) -> io::Result<()> {
    // The lines of a text follow its name.
    if let Some(line) = field.line {
        writeln!(out, "  {}, from line {line}:", field.field)?;
        for old in &field.old {
            writeln!(out, "  {}", paint::bad(&format!("- {old}")))?;
        }
        for new in &field.new {
            writeln!(out, "  {}", paint::good(&format!("+ {new}")))?;
        }
        return Ok(());
    }
    for old in &field.old {
        writeln!(
            out,
            "  {}",
            paint::bad(&format!("- {}: {old}", field.field))
        )?;
    }
    for new in &field.new {
        writeln!(
            out,
            "  {}",
            paint::good(&format!("+ {}: {new}", field.field))
        )?;
    }
    Ok(())
}

fn print_pods(pods: &PodsPlan, is_kept_back: bool, out: &mut dyn Write) -> io::Result<()> {
    if pods.rounds.is_empty() {
        writeln!(out, "\nno pod is started or stopped")?;
    } else {
        let condition = if is_kept_back {
            "if it is rolled out, every image can be pulled and every new pod becomes ready"
        } else {
            "if every image can be pulled and every new pod becomes ready"
        };
        writeln!(out, "\n{} {condition}:", paint::strong("pods,"))?;
    }
    for pace in &pods.paces {
        writeln!(out, "  {pace}")?;
    }
    for (number, steps) in pods.rounds.iter().enumerate() {
        for step in steps {
            writeln!(out, "  {}. {step}", number + 1)?;
        }
    }
    if !pods.rounds.is_empty() {
        writeln!(out, "  {}", pods.end)?;
    }
    for note in &pods.notes {
        writeln!(out, "  {note}")?;
    }
    Ok(())
}

fn print_lanes(plan: &PlanReport, out: &mut dyn Write) -> io::Result<()> {
    if plan.lanes.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nthis host now: {} to change", plan.lanes.len())?;
    for lane in &plan.lanes {
        writeln!(out, "\n{}  {}", paint::strong(&lane.subject), lane.why)?;
        for step in &lane.steps {
            writeln!(out, "  - {step}")?;
        }
    }
    Ok(())
}
