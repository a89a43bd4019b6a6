//! The commit that a request for a plan names: by its id, or by the first digits of the id.

use git2::{ErrorCode, Repository};
use reconciler::{foreign::ForeignText, name::CommitId};

use crate::{http::PlanError, source::commit::id_of};

/// As in git, fewer digits are no abbreviation of an id.
const FEWEST_DIGITS: usize = 4;
/// The most bytes of a request that its refusal quotes.
const QUOTED_BYTES: usize = 80;

/// The commit that a request names. Expressions of git (`main~3`, `:/text`) are refused: each user
/// who may read can send a request, and some expressions walk through the whole history.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PlanRevision {
    /// `HEAD`: the newest commit of the branch.
    Newest,
    Id(CommitId),
    /// The first digits of an id, in lower case.
    Prefix(String),
}

impl PlanRevision {
    pub(super) fn parse(text: &str) -> Result<Self, PlanError> {
        if text == "HEAD" {
            return Ok(Self::Newest);
        }
        let digits = text.to_ascii_lowercase();
        if let Ok(id) = CommitId::parse(&digits) {
            return Ok(Self::Id(id));
        }
        let longest = CommitId::from([0; 20]).as_str().len();
        let has_length = (FEWEST_DIGITS..longest).contains(&digits.len());
        if has_length && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            Ok(Self::Prefix(digits))
        } else {
            Err(PlanError::NoId(ForeignText::bounded(text, QUOTED_BYTES)))
        }
    }
}

/// The only commit whose id begins with these digits.
pub(super) fn with_prefix(
    repo: &Repository,
    prefix: &str,
    url: &str,
) -> Result<CommitId, PlanError> {
    match repo.find_commit_by_prefix(prefix) {
        Ok(commit) => Ok(id_of(commit.id())),
        Err(error) if error.code() == ErrorCode::Ambiguous => {
            Err(PlanError::Ambiguous(prefix.to_owned()))
        }
        Err(error) if error.code() == ErrorCode::NotFound => Err(PlanError::NoCommit {
            revision: prefix.to_owned(),
            url: url.to_owned(),
        }),
        Err(error) => Err(PlanError::Unreadable(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ids_and_their_first_digits_name_a_commit() {
        let id = "0123456789abcdef0123456789abcdef01234567";
        let parsed = |text: &str| PlanRevision::parse(text).expect("a revision");
        assert_eq!(parsed("HEAD"), PlanRevision::Newest);
        let full = CommitId::parse(id).expect("an id");
        assert_eq!(parsed(id), PlanRevision::Id(full.clone()));
        assert_eq!(parsed(&id.to_ascii_uppercase()), PlanRevision::Id(full));
        assert_eq!(parsed("0123"), PlanRevision::Prefix("0123".to_owned()));
        assert_eq!(parsed("012ABC"), PlanRevision::Prefix("012abc".to_owned()));

        let longer = format!("{id}0");
        for expression in [
            "",
            "012",
            "main",
            "HEAD~1",
            "HEAD^",
            "@",
            "0123~1",
            "0123^{tree}",
            ":/fix",
            "main@{1}",
            "v1.0-2-g01234567",
            "refs/heads/main",
            "0123:a.yaml",
            "0123..4567",
            " 0123",
            "0123\n",
            &longer,
        ] {
            let refused = PlanRevision::parse(expression);
            assert!(matches!(refused, Err(PlanError::NoId(_))), "{expression:?}");
        }
        let long = PlanRevision::parse(&"x".repeat(10_000)).expect_err("no id");
        assert!(long.to_string().len() < 300, "{long}");
    }

    #[test]
    fn digits_of_several_objects_are_ambiguous() {
        let directory = tempfile::tempdir().expect("a directory");
        let repo = Repository::init_bare(directory.path()).expect("a repository");
        let signature = git2::Signature::now("a", "a@example.com").expect("a signature");
        let tree = repo.treebuilder(None).and_then(|tree| tree.write());
        let tree = repo.find_tree(tree.expect("a tree")).expect("a tree");
        // Of 65536 beginnings, two among 5000 commits are equal (the birthday paradox).
        let mut by_prefix = std::collections::BTreeMap::new();
        let mut twice = None;
        for number in 0..5_000 {
            let message = number.to_string();
            let id = repo
                .commit(None, &signature, &signature, &message, &tree, &[])
                .expect("a commit");
            let prefix = id.to_string()[..4].to_owned();
            if by_prefix.insert(prefix.clone(), id).is_some() {
                twice = Some((prefix, id));
                break;
            }
        }
        let (prefix, id) = twice.expect("two commits with the same four digits");
        let found = with_prefix(&repo, &prefix, "url");
        assert!(matches!(found, Err(PlanError::Ambiguous(_))), "{found:?}");
        let found = with_prefix(&repo, &id.to_string()[..20], "url");
        assert_eq!(found.expect("the commit"), id_of(id));
        let found = with_prefix(&repo, "0123456789abcdef0123", "url");
        assert!(
            matches!(found, Err(PlanError::NoCommit { .. })),
            "{found:?}"
        );
        // The tree is an object of the repository, and no commit.
        let found = with_prefix(&repo, &tree.id().to_string()[..20], "url");
        assert!(
            matches!(found, Err(PlanError::NoCommit { .. })),
            "{found:?}"
        );
    }
}
