//! Commit objects of any bytes: the signed part is what Git takes for it, and no byte gets lost.

#![expect(clippy::unwrap_used, reason = "a test")]

use git2::Odb;
use proptest::prelude::*;
use reconciler::foreign::is_unprintable;

use super::*;
use crate::fuzz::Fuzz;
use crate::ids::commit_id;

const WORDS: [&str; 16] = [
    "tree ",
    "parent ",
    "author ",
    "committer ",
    "gpgsig ",
    "gpgsig-sha256 ",
    "gpgsig",
    "mergetag object ",
    "encoding ",
    "\n",
    "\n\n",
    "\n ",
    "> 1700000000 +0000\n",
    "> -9223372036854775808 +0000\n",
    "\n\nWindlass-Allow-Deletions: yes\n",
    "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
];

#[test]
fn any_commit_is_cut_as_git_cuts_it() {
    Fuzz::new("src/source/commit/corpus", &WORDS).run(|bytes| {
        let id = commit_id("a");
        let Ok(commit) = CommitObject::parse(&id, bytes) else {
            return Ok(false);
        };
        let subject = commit.subject();
        prop_assert!(subject.as_str().len() <= SUBJECT_BYTES);
        prop_assert!(!subject.as_str().contains(is_unprintable));

        // A commit with several signatures is refused.
        if let [(name, signature)] = commit.signatures.as_slice()
            && name == "gpgsig"
        {
            let (signed, made) = as_git_cuts_it(bytes);
            prop_assert_eq!(
                commit.signed_bytes.escape_ascii().to_string(),
                signed.escape_ascii().to_string()
            );
            prop_assert_eq!(
                signature.escape_ascii().to_string(),
                made.escape_ascii().to_string()
            );
        }

        // The signed bytes hold the same fields as the whole object, and are the object without its
        // signature.
        let unsigned = CommitObject::parse(&id, &commit.signed_bytes);
        let unsigned =
            unsigned.map_err(|why| TestCaseError::fail(format!("signed bytes: {why}")))?;
        prop_assert_eq!(&unsigned.signed_bytes, &commit.signed_bytes);
        prop_assert!(unsigned.signatures.is_empty());
        prop_assert_eq!(unsigned.info(), commit.info());
        prop_assert_eq!(unsigned.tree, commit.tree);
        prop_assert_eq!(&unsigned.parents, &commit.parents);
        if commit.signatures.is_empty() {
            prop_assert_eq!(commit.signed_bytes.as_slice(), bytes);
        }
        agrees_with_libgit2(&commit, bytes)?;
        Ok(true)
    });
}

/// libgit2 lists the history, so it must read the same tree and the same parents.
fn agrees_with_libgit2(commit: &CommitObject, bytes: &[u8]) -> Result<(), TestCaseError> {
    let database = Odb::new().unwrap();
    database.add_new_mempack_backend(1).unwrap();
    let repo = Repository::from_odb(database).unwrap();
    let id = repo
        .odb()
        .unwrap()
        .write(ObjectType::Commit, bytes)
        .unwrap();
    if let Ok(read) = repo.find_commit(id) {
        prop_assert_eq!(read.tree_id(), commit.tree);
        prop_assert_eq!(&read.parent_ids().collect::<Vec<_>>(), &commit.parents);
    }
    Ok(())
}

/// The signed bytes and the signature, as `parse_buffer_signed_by_header` in commit.c of Git 2.47
/// splits them.
fn as_git_cuts_it(object: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut signed, mut signature) = (Vec::new(), Vec::new());
    let (mut within, mut within_another) = (false, false);
    let mut rest = object;
    while !rest.is_empty() {
        let newline = rest.iter().position(|byte| *byte == b'\n');
        let (line, tail) = rest.split_at(newline.map_or(rest.len(), |at| at + 1));
        let begins = line.strip_prefix(b"gpgsig ");
        let piece = if within && line.starts_with(b" ") {
            line.get(1..)
        } else {
            begins
        };
        if piece.is_some() {
            within_another = within_another && begins.is_none();
        } else if line.starts_with(b"gpgsig") {
            within_another = true;
        } else if !line.starts_with(b" ") {
            within_another = false;
        }
        if let Some(piece) = piece {
            signature.extend_from_slice(piece);
        } else if line == b"\n" {
            signed.extend_from_slice(rest);
            break;
        } else if !within_another {
            signed.extend_from_slice(line);
        }
        within = piece.is_some();
        rest = tail;
    }
    (signed, signature)
}
