//! The manifests of `windlass plan --local`: files or a revision of a local repository, which the
//! daemon compares with what runs.

use anyhow::{Context, Result};

use super::check::{FilesToCheck, files_of};
use crate::{
    cli::PlanArgs,
    http::plan::{LocalFile, LocalManifests},
};

/// Reads the manifests; `what` is a path or a revision, as for `windlass check`.
pub(crate) fn local_manifests(what: &str, args: &PlanArgs) -> Result<LocalManifests> {
    let FilesToCheck { files, .. } = files_of(what, &args.paths)?;
    let files = files
        .into_iter()
        .map(|(path, content)| {
            let content = String::from_utf8(content)
                .with_context(|| format!("{path} is not UTF-8: see `windlass check {what}`"))?;
            Ok(LocalFile { path, content })
        })
        .collect::<Result<_>>()?;
    Ok(LocalManifests {
        name: what.to_owned(),
        files,
    })
}
