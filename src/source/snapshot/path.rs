//! A configured path inside the repository.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Why a configured text is no path inside the repository.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum SourcePathError {
    #[error("{0:?} is no path inside a repository; write it from the root, as in apps/web")]
    NotFromRoot(String),
    #[error("the path {0:?} must not contain \"..\"")]
    ContainsParent(String),
}

/// A file or directory, from the repository's root; the root itself is written `.`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SourcePath(Vec<String>);

impl SourcePath {
    /// The whole repository: the default.
    pub(crate) fn root() -> Self {
        Self(Vec::new())
    }

    /// The names of the path, from the root down; empty for the root.
    pub(super) fn names(&self) -> &[String] {
        &self.0
    }
}

impl FromStr for SourcePath {
    type Err = SourcePathError;

    fn from_str(text: &str) -> Result<Self, SourcePathError> {
        if text.is_empty() || text.starts_with('/') {
            return Err(SourcePathError::NotFromRoot(text.to_owned()));
        }

        let names: Vec<String> = text
            .split('/')
            .filter(|name| !matches!(*name, "" | "."))
            .map(str::to_owned)
            .collect();
        if names.iter().any(|name| name == "..") {
            return Err(SourcePathError::ContainsParent(text.to_owned()));
        }
        Ok(Self(names))
    }
}

impl fmt::Display for SourcePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            f.write_str(".")
        } else {
            f.write_str(&self.0.join("/"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_normalised_and_stay_inside() {
        let parse = |text: &str| text.parse::<SourcePath>().map(|path| path.to_string());
        assert_eq!(parse("./apps//web/"), Ok("apps/web".to_owned()));
        assert_eq!(parse("."), Ok(".".to_owned()));
        assert!(parse("/etc").is_err() && parse("").is_err() && parse("apps/../..").is_err());
    }
}
