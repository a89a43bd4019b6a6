//! `windlass check`: reports all problems of manifests, from a directory or a revision, without a
//! daemon.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use git2::{ObjectType, Repository, TreeWalkMode, TreeWalkResult};

use reconciler::manifest::ReadAs;

use crate::{
    cli::{CheckArgs, check::CheckReport},
    commit_cache::{parse_and_check, passed_over},
    config::Config,
    daemon::check_settings,
    source::snapshot::{is_manifest, looks_like_manifest},
};

/// The largest part of a file that is read: a larger file is no manifest, and its size alone is a
/// problem that the reader reports.
const READ_BYTES: u64 = 8 * 1024 * 1024;

/// Reads the named files and checks them, with the permissions of a daemon without configuration.
pub(crate) fn check(args: &CheckArgs) -> Result<CheckReport> {
    let FilesToCheck {
        files,
        passed_over: not_read,
    } = files_of(&args.what, &args.paths)?;
    let borrowed: Vec<(&str, &[u8])> = files
        .iter()
        .map(|(path, content)| (path.as_str(), content.as_slice()))
        .collect();
    // The check is that of a new head, since these files would be pushed next.
    let (objects, found) = parse_and_check(
        &borrowed,
        &check_settings(&Config::default()),
        ReadAs::NewHead,
    );
    let problems = not_read
        .iter()
        .map(|path| passed_over(path))
        .chain(found)
        .collect();
    Ok(CheckReport {
        files: files.len(),
        objects: objects.originals.len(),
        problems,
    })
}

/// The manifests of a path, or of a revision of the repository in the current directory.
pub(super) fn files_of(what: &str, paths: &[String]) -> Result<FilesToCheck> {
    let path = Path::new(what);
    let found = if path.exists() {
        from_disk(path)?
    } else {
        from_revision(what, paths)?
    };
    if found.files.is_empty() {
        bail!("there is no manifest (*.yaml, *.yml, *.json, in lower case) in {what}");
    }
    Ok(found)
}

/// The files to check.
#[derive(Default)]
pub(super) struct FilesToCheck {
    /// Paths with their content.
    pub(super) files: Vec<(String, Vec<u8>)>,
    /// Paths that are no manifests only because of the case of their ending.
    passed_over: Vec<String>,
}

/// The files below a directory, or the one file; names that begin with a dot are skipped, as the
/// daemon does.
fn from_disk(path: &Path) -> Result<FilesToCheck> {
    let mut to_check = FilesToCheck::default();
    let mut pending: BTreeSet<PathBuf> = BTreeSet::from([path.to_owned()]);
    while let Some(next) = pending.pop_first() {
        let metadata =
            fs::symlink_metadata(&next).with_context(|| format!("read {}", next.display()))?;
        let named = next == path;
        let name = next
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        if name.starts_with('.') && !named {
            continue;
        }

        if metadata.is_dir() {
            for entry in fs::read_dir(&next).with_context(|| format!("list {}", next.display()))? {
                pending.insert(
                    entry
                        .with_context(|| format!("list {}", next.display()))?
                        .path(),
                );
            }
        } else if named || is_manifest(&name) {
            if metadata.is_symlink() && !named {
                bail!(
                    "{} is a symbolic link: the daemon refuses those",
                    next.display()
                );
            }
            if metadata.len() > READ_BYTES {
                bail!(
                    "{} has {} bytes: a manifest may have 4 MiB",
                    next.display(),
                    metadata.len()
                );
            }
            let content = fs::read(&next).with_context(|| format!("read {}", next.display()))?;
            to_check.files.push((next.display().to_string(), content));
        } else if looks_like_manifest(&name) {
            to_check.passed_over.push(next.display().to_string());
        }
    }
    Ok(to_check)
}

/// The manifests of a commit of the repository in the current directory.
fn from_revision(revision: &str, paths: &[String]) -> Result<FilesToCheck> {
    let repo = Repository::discover(".").with_context(|| {
        format!(
            "{revision} is no path here, and there is no repository to look for it as a revision"
        )
    })?;
    let commit = repo
        .revparse_single(revision)
        .and_then(|object| object.peel_to_commit())
        .with_context(|| {
            format!("{revision} is neither a path here nor a revision of this repository")
        })?;
    let tree = commit.tree().context("read the tree")?;

    let FilesToCheck {
        mut files,
        mut passed_over,
    } = FilesToCheck::default();
    let mut failed = None;
    tree.walk(TreeWalkMode::PreOrder, |directory, entry| {
        let Some(name) = entry.name().ok() else {
            return TreeWalkResult::Skip;
        };
        let path = format!("{directory}{name}");
        let wanted = paths.is_empty()
            || paths.iter().any(|wanted| {
                let wanted = wanted.trim_end_matches('/');
                path == wanted
                    || path.starts_with(&format!("{wanted}/"))
                    || wanted.starts_with(&format!("{path}/"))
            });
        if !wanted || name.starts_with('.') {
            return TreeWalkResult::Skip;
        }

        if entry.kind() == Some(ObjectType::Blob) && is_manifest(name) {
            match entry
                .to_object(&repo)
                .and_then(|object| object.peel_to_blob())
            {
                Ok(blob) => files.push((path, blob.content().to_vec())),
                Err(error) => {
                    failed = Some(error);
                    return TreeWalkResult::Abort;
                }
            }
        } else if entry.kind() == Some(ObjectType::Blob) && looks_like_manifest(name) {
            passed_over.push(path);
        }
        TreeWalkResult::Ok
    })
    .or_else(|error| if failed.is_some() { Ok(()) } else { Err(error) })
    .context("read the tree")?;

    // As the daemon does: an empty path is an error, and never a commit without objects.
    for wanted in paths {
        let wanted = wanted.trim_end_matches('/');
        let has_manifest = files
            .iter()
            .any(|(path, _)| path == wanted || path.starts_with(&format!("{wanted}/")));
        if !has_manifest {
            bail!(
                "there is no manifest (*.yaml, *.yml, *.json) in {wanted} of {revision}: the daemon refuses that"
            );
        }
    }
    match failed {
        Some(error) => Err(error).context("read a file of the commit"),
        None => Ok(FilesToCheck { files, passed_over }),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    fn report_of(files: &[(&str, &str)]) -> Result<String> {
        let directory = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(directory.path().join(name), content).unwrap();
        }
        let what = directory.path().display().to_string();
        let report = check(&CheckArgs {
            what: what.clone(),
            paths: Vec::new(),
            output: Default::default(),
        })?;
        let lines = report.problems.iter().map(|problem| format!("{problem}\n"));
        Ok(lines.collect::<String>().replace(&format!("{what}/"), ""))
    }

    #[test]
    fn files_are_judged_as_a_new_head_and_files_that_are_not_read_are_named() {
        let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: 'nginx:'}]}\n";
        let report = report_of(&[("pod.yaml", pod), ("DB.YAML", pod), ("README.MD", "")]).unwrap();
        insta::assert_snapshot!(report, @r#"
        DB.YAML: warning: not read, since its ending is not in lower case: rename it to end in .yaml, .yml or .json, or otherwise if it is no manifest
        pod.yaml:4:31: spec.containers[0].image: "nginx:" is no image: nothing follows the colon: write the tag, or leave the colon out for "latest"
        "#);
    }

    #[test]
    fn a_directory_without_files_that_are_read_is_an_error() {
        assert!(
            report_of(&[("DB.YAML", "")])
                .unwrap_err()
                .to_string()
                .contains("in lower case")
        );
    }
}
