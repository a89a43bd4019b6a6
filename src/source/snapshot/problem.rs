//! Why the files of a commit are refused, file by file.

use std::fmt;

use reconciler::foreign;

/// All problems of a commit's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SnapshotProblems(pub(crate) Vec<SnapshotProblem>);

impl fmt::Display for SnapshotProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

/// One problem, with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SnapshotProblem {
    /// A configured path does not exist in the commit.
    MissingPath {
        /// The configured path.
        path: String,
    },
    /// A configured path exists and holds no manifest.
    EmptyPath {
        /// The configured path.
        path: String,
    },
    /// A configured path is a file without the ending of a manifest.
    NotAManifest {
        /// The configured path.
        path: String,
    },
    /// A symbolic link: the signature does not cover the file that the link points at.
    Symlink {
        /// The path from the repository's root.
        path: String,
    },
    /// A submodule: its content is not in this repository.
    Submodule {
        /// The path from the repository's root.
        path: String,
    },
    /// A pointer of Git LFS in place of the file.
    LfsPointer {
        /// The path from the repository's root.
        path: String,
    },
    /// A name that is not UTF-8.
    BadName {
        /// The path, as far as it can be printed.
        path: String,
    },
    /// A file over the limit.
    FileTooLarge {
        /// The path from the repository's root.
        path: String,
        /// The file's size in bytes.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// All files together are over the limit.
    TotalTooLarge {
        /// The limit in bytes.
        limit: usize,
        /// The file whose size exceeded the limit.
        path: String,
    },
    /// More manifests than the limit.
    TooManyFiles {
        /// The largest accepted number.
        limit: usize,
    },
    /// More tree entries than the limit.
    TooManyEntries {
        /// The largest accepted number.
        limit: usize,
    },
    /// Directories nested deeper than the limit.
    TooDeep {
        /// The directory that is not entered.
        path: String,
        /// The limit, in directories below each other.
        limit: usize,
    },
}

impl SnapshotProblem {
    /// The path of the file or directory; `.` if the problem concerns the whole commit.
    pub(crate) fn path(&self) -> &str {
        match self {
            Self::MissingPath { path }
            | Self::EmptyPath { path }
            | Self::NotAManifest { path }
            | Self::Symlink { path }
            | Self::Submodule { path }
            | Self::LfsPointer { path }
            | Self::BadName { path }
            | Self::FileTooLarge { path, .. }
            | Self::TotalTooLarge { path, .. }
            | Self::TooDeep { path, .. } => path,
            Self::TooManyFiles { .. } | Self::TooManyEntries { .. } => ".",
        }
    }
}

impl fmt::Display for SnapshotProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", foreign::escape(self.path()))?;
        match self {
            Self::MissingPath { .. } => f.write_str(
                "this configured path is not in the commit; put it back, or change the configuration first",
            ),
            Self::EmptyPath { .. } => f.write_str(
                "no *.yaml, *.yml or *.json file (in lower case) is here, and an empty path does not mean \"delete everything\"; \
                 keep at least one manifest, such as a Namespace",
            ),
            Self::NotAManifest { .. } => {
                f.write_str(
                "this configured path is a file that ends in none of .yaml, .yml and .json (in lower case); rename it, \
                 or configure another path",
            )
            }
            Self::Symlink { .. } => {
                f.write_str("symbolic links are not followed; commit the file itself, or move the link elsewhere")
            }
            Self::Submodule { .. } => f.write_str(
                "submodules are not fetched; commit the files themselves, or move the submodule elsewhere",
            ),
            Self::LfsPointer { .. } => {
                f.write_str("this is a Git LFS pointer, not a manifest; commit the file itself (`git lfs untrack`)")
            }
            Self::BadName { .. } => f.write_str("the name is not UTF-8; rename it"),
            Self::FileTooLarge { bytes, limit, .. } => {
                write!(f, "the file has {bytes} bytes, and a manifest may have {limit}; split it, or move it elsewhere")
            }
            Self::TotalTooLarge { limit, .. } => {
                write!(
                    f,
                    "with this file the manifests have more than {limit} bytes together; configure narrower paths"
                )
            }
            Self::TooManyFiles { limit } => write!(f, "more than {limit} manifests; configure narrower paths"),
            Self::TooManyEntries { limit } => {
                write!(f, "more than {limit} files and directories; configure narrower paths")
            }
            Self::TooDeep { limit, .. } => {
                write!(f, "directories are nested more than {limit} deep; configure paths further down")
            }
        }
    }
}
