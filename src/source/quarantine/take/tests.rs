#![expect(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use rustix::fs::{FileType, mknodat};
use tempfile::TempDir;

use super::*;

const NAME: &str = "pack-0123456789abcdef0123456789abcdef01234567";

/// The directory of a child that has downloaded one pack, a place for the copy, and a file of
/// another user.
struct Left {
    directory: TempDir,
}

impl Left {
    fn new() -> Self {
        let left = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        fs::create_dir_all(left.packs()).unwrap();
        fs::create_dir(left.copies()).unwrap();
        left.write("pack", b"the pack");
        left.write("idx", b"the index");
        fs::write(left.secret(), "secret").unwrap();
        left
    }

    fn packs(&self) -> std::path::PathBuf {
        self.quarantine().join("incoming.git/objects/pack")
    }

    fn quarantine(&self) -> std::path::PathBuf {
        self.directory.path().join("quarantine")
    }

    fn copies(&self) -> std::path::PathBuf {
        self.directory.path().join("copies")
    }

    fn secret(&self) -> std::path::PathBuf {
        self.directory.path().join("secret")
    }

    fn file(&self, ending: &str) -> std::path::PathBuf {
        self.packs().join(format!("{NAME}.{ending}"))
    }

    fn write(&self, ending: &str, content: &[u8]) {
        fs::write(self.file(ending), content).unwrap();
    }

    fn take(&self) -> Result<(), InspectError> {
        copy_pack(&self.quarantine(), "incoming.git", &self.copies(), 100)
    }
}

#[test]
fn a_pack_and_its_index_are_copied_for_root_alone() {
    let left = Left::new();
    // The child's own configuration, refs and loose objects stay where they are.
    fs::write(left.quarantine().join("incoming.git/config"), "[include]").unwrap();
    fs::create_dir(left.quarantine().join("incoming.git/objects/12")).unwrap();
    left.take().unwrap();
    for (ending, content) in [("pack", "the pack"), ("idx", "the index")] {
        let copy = left.copies().join(format!("{NAME}.{ending}"));
        assert_eq!(fs::read_to_string(&copy).unwrap(), content);
        assert_eq!(
            fs::metadata(&copy).unwrap().permissions().mode() & 0o777,
            0o400
        );
    }
    assert_eq!(fs::read_dir(left.copies()).unwrap().count(), 2);
}

/// A change that a child under a stranger's control may make, with a word of the error.
type Leftover = (&'static str, &'static str, fn(&Left));

#[test]
fn whatever_else_a_child_leaves_is_not_taken() {
    let attacks: &[Leftover] = &[
        ("a link as pack", "symbolic links", |left| {
            fs::remove_file(left.file("pack")).unwrap();
            symlink(left.secret(), left.file("pack")).unwrap();
        }),
        (
            "another name of a file",
            "no regular file of its own",
            |left| {
                fs::remove_file(left.file("idx")).unwrap();
                fs::hard_link(left.secret(), left.file("idx")).unwrap();
            },
        ),
        ("a FIFO as index", "no regular file", |left| {
            fs::remove_file(left.file("idx")).unwrap();
            mknodat(
                CWD,
                left.file("idx"),
                FileType::Fifo,
                Mode::from_raw_mode(0o600),
                0,
            )
            .unwrap();
        }),
        ("a directory as pack", "no regular file", |left| {
            fs::remove_file(left.file("pack")).unwrap();
            fs::create_dir(left.file("pack")).unwrap();
        }),
        ("a linked directory", "Not a directory", |left| {
            let elsewhere = left.directory.path().join("elsewhere");
            fs::rename(left.packs(), &elsewhere).unwrap();
            symlink(&elsewhere, left.packs()).unwrap();
        }),
        ("a linked repository", "Not a directory", |left| {
            let repository = left.quarantine().join("incoming.git");
            let elsewhere = left.directory.path().join("elsewhere.git");
            fs::rename(&repository, &elsewhere).unwrap();
            symlink(&elsewhere, &repository).unwrap();
        }),
        ("too much", "has over 100 bytes", |left| {
            left.write("pack", &[0; 101]);
        }),
        ("a second pack", "other files", |left| {
            left.write("keep", b"");
        }),
        ("no index", "other files", |left| {
            fs::remove_file(left.file("idx")).unwrap();
        }),
        ("other names", "other files", |left| {
            for ending in ["pack", "idx"] {
                let other = left.packs().join(format!("pack-..%2f.{ending}"));
                fs::rename(left.file(ending), other).unwrap();
            }
        }),
        ("nothing", "No such file", |left| {
            fs::remove_dir_all(left.quarantine()).unwrap();
        }),
    ];
    for (name, word, attack) in attacks {
        let left = Left::new();
        attack(&left);
        let error = left.take().unwrap_err();
        let text = format!("{error:?} {error}");
        assert!(text.contains(word), "{name}: {text}");
        let index = left.copies().join(format!("{NAME}.idx"));
        assert!(!index.exists(), "{name}: an index makes a pack readable");
    }
}
