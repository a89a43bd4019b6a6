//! A commit object, read from its bytes.
//!
//! Parsed here and not by libgit2, since judging needs the bytes that were signed: the object
//! without its signature header, byte for byte, as Git itself removes it.

use git2::{ObjectType, Oid, Repository};
use jiff::Timestamp;
use reconciler::{foreign::ForeignText, name::CommitId};
use thiserror::Error;

/// The trailer that allows a commit to delete more than the budget.
const ALLOW_DELETIONS: &str = "Windlass-Allow-Deletions";
/// The size limit of a subject: subjects are printed in lists and messages.
const SUBJECT_BYTES: usize = 160;

/// Why a commit could not be read. This is no judgement about the commit.
#[derive(Debug, Error)]
pub(crate) enum CommitError {
    /// The text is not an object id.
    #[error("{id:?} is not a full commit id; write all its digits, as git rev-parse prints them")]
    BadId {
        /// The text as it was entered.
        id: String,
    },
    /// The object database does not have the commit, or has bytes that do not hash to its id.
    #[error("read commit {} from the mirror", id.short())]
    Read { id: CommitId, source: git2::Error },
    /// The object with this id is not a commit.
    #[error("object {} is a {kind}, not a commit", id.short())]
    NotACommit {
        id: CommitId,
        /// The type of the object.
        kind: &'static str,
    },
    /// The object is a commit without a valid header.
    #[error("commit {} has a malformed header: {what}", id.short())]
    Malformed {
        id: CommitId,
        /// What is wrong with the header.
        what: &'static str,
    },
}

/// The properties of a commit that people and the rollout use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommitInfo {
    pub(crate) id: CommitId,
    /// The first line of the message, at most 160 bytes of it.
    pub(crate) subject: ForeignText,
    /// The time of the change, by the author.
    pub(crate) author_time: Timestamp,
    /// The time of the commit, by the committer.
    pub(crate) committer_time: Timestamp,
    /// Whether the last paragraph holds `Windlass-Allow-Deletions: yes`.
    pub(crate) allow_deletions: bool,
    /// The first parent; `None` for a root commit.
    pub(crate) first_parent: Option<CommitId>,
}

impl CommitInfo {
    /// Reads one commit.
    pub(crate) fn read(repo: &Repository, id: &CommitId) -> Result<Self, CommitError> {
        CommitObject::read(repo, id).map(|commit| commit.info())
    }
}

/// The commits before `head` on its first-parent line, newest first, at most `count`, without
/// `head`.
pub(crate) fn first_parent_ancestors(
    repo: &Repository,
    head: &CommitId,
    count: usize,
) -> Result<Vec<CommitInfo>, CommitError> {
    let mut ancestors = Vec::new();
    let mut next = CommitInfo::read(repo, head)?.first_parent;
    while let Some(id) = next
        && ancestors.len() < count
    {
        let info = CommitInfo::read(repo, &id)?;
        next = info.first_parent.clone();
        ancestors.push(info);
    }
    Ok(ancestors)
}

/// Whether the repository has an object of this id.
pub(crate) fn exists(repo: &Repository, id: &CommitId) -> bool {
    oid(id).is_ok_and(|oid| repo.odb().is_ok_and(|database| database.exists(oid)))
}

/// The id of a commit that libgit2 names.
pub(crate) fn id_of(oid: Oid) -> CommitId {
    let mut bytes = [0; 20];
    // libgit2 is built for SHA-1 alone, so that its ids have 20 bytes too.
    for (byte, read) in bytes.iter_mut().zip(oid.as_bytes()) {
        *byte = *read;
    }
    CommitId::from(bytes)
}

/// The id in libgit2's type.
pub(crate) fn oid(id: &CommitId) -> Result<Oid, CommitError> {
    match Oid::from_str(id.as_str()) {
        // libgit2 also accepts prefixes and capitals.
        Ok(oid) if oid.to_string() == id.as_str() => Ok(oid),
        _ => Err(CommitError::BadId {
            id: id.as_str().to_owned(),
        }),
    }
}

/// The parts of a commit, with its signature separated from the signed bytes.
#[derive(Debug)]
pub(crate) struct CommitObject {
    pub(crate) id: CommitId,
    /// The id of the commit's tree.
    pub(crate) tree: Oid,
    /// The ids of the parents, in order.
    pub(crate) parents: Vec<Oid>,
    /// The time of the change, by the author.
    pub(crate) author_time: Timestamp,
    /// The time of the commit, by the committer; the signer chose it.
    pub(crate) committer_time: Timestamp,
    /// The signature headers: name and value, in order. A valid commit has none or one.
    pub(crate) signatures: Vec<(String, Vec<u8>)>,
    /// The object without its signature headers.
    pub(crate) signed_bytes: Vec<u8>,
    message_start: usize,
}

impl CommitObject {
    /// Reads a commit whose bytes hash to its id (libgit2 checks that at every read from disk).
    pub(crate) fn read(repo: &Repository, id: &CommitId) -> Result<Self, CommitError> {
        let oid = oid(id)?;
        let read = |source| CommitError::Read {
            id: id.clone(),
            source,
        };

        let database = repo.odb().map_err(read)?;
        let object = database.read(oid).map_err(read)?;
        if object.kind() != ObjectType::Commit {
            return Err(CommitError::NotACommit {
                id: id.clone(),
                kind: object.kind().str(),
            });
        }
        Self::parse(id, object.data()).map_err(|what| CommitError::Malformed {
            id: id.clone(),
            what,
        })
    }

    fn parse(id: &CommitId, bytes: &[u8]) -> Result<Self, &'static str> {
        let mut headers = ParsedHeaders::default();
        let mut signatures: Vec<(String, Vec<u8>)> = Vec::new();
        let mut signed_bytes = Vec::with_capacity(bytes.len());
        let mut in_signature = false;
        let mut at = None;
        let mut rest = bytes;

        loop {
            let end = rest
                .iter()
                .position(|byte| *byte == b'\n')
                .ok_or("it does not end")?;
            let (line, tail) = rest.split_at(end + 1);
            rest = tail;

            // An empty line ends the headers.
            if end == 0 {
                signed_bytes.push(b'\n');
                break;
            }
            // A line that begins with a space continues the header before it.
            if let Some(continuation) = line.strip_prefix(b" ") {
                if at != Some(Header::Other) {
                    return Err("a continued line where none may be");
                }
                match signatures.last_mut() {
                    Some((_, value)) if in_signature => value.extend_from_slice(continuation),
                    _ => signed_bytes.extend_from_slice(line),
                }
                continue;
            }

            in_signature = line.starts_with(b"gpgsig");
            let (name, value) = split_header(&line[..end])?;
            let before = at.replace(Header::of(name));
            if in_signature {
                let mut value = value.to_vec();
                value.push(b'\n');
                signatures.push((String::from_utf8_lossy(name).into_owned(), value));
                continue;
            }

            signed_bytes.extend_from_slice(line);
            headers.add(name, value)?;
            if before > at {
                return Err("headers in another order than Git's");
            }
        }

        let message_start = signed_bytes.len();
        signed_bytes.extend_from_slice(rest);
        Ok(Self {
            id: id.clone(),
            tree: headers.tree.ok_or("no tree")?,
            parents: headers.parents,
            author_time: headers.author_time.ok_or("no author")?,
            committer_time: headers.committer_time.ok_or("no committer")?,
            signatures,
            signed_bytes,
            message_start,
        })
    }

    /// The first line of the message, safe to print on a terminal.
    pub(crate) fn subject(&self) -> ForeignText {
        let message = self.message();
        let line = message.trim_start().lines().next().unwrap_or_default();
        ForeignText::bounded(line, SUBJECT_BYTES)
    }

    /// The properties that people and the rollout use.
    pub(crate) fn info(&self) -> CommitInfo {
        CommitInfo {
            id: self.id.clone(),
            subject: self.subject(),
            author_time: self.author_time,
            committer_time: self.committer_time,
            allow_deletions: allows_deletions(&self.message()),
            first_parent: self.parents.first().copied().map(id_of),
        }
    }

    fn message(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(
            self.signed_bytes
                .get(self.message_start..)
                .unwrap_or_default(),
        )
    }
}

/// The headers of a commit, in the order in which Git writes them. Git and libgit2 stop reading
/// parents at the first header of another kind, so a later parent header would be a parent only in
/// this parser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Header {
    Tree,
    Parent,
    Author,
    Committer,
    Other,
}

impl Header {
    fn of(name: &[u8]) -> Self {
        match name {
            b"tree" => Self::Tree,
            b"parent" => Self::Parent,
            b"author" => Self::Author,
            b"committer" => Self::Committer,
            _ => Self::Other,
        }
    }
}

/// The values of the headers that are read.
#[derive(Default)]
struct ParsedHeaders {
    tree: Option<Oid>,
    parents: Vec<Oid>,
    author_time: Option<Timestamp>,
    committer_time: Option<Timestamp>,
}

impl ParsedHeaders {
    fn add(&mut self, name: &[u8], value: &[u8]) -> Result<(), &'static str> {
        match name {
            b"tree" if self.tree.is_none() => self.tree = Some(parse_oid(value)?),
            b"parent" => self.parents.push(parse_oid(value)?),
            b"author" if self.author_time.is_none() => {
                self.author_time = Some(parse_time(value)?);
            }
            b"committer" if self.committer_time.is_none() => {
                self.committer_time = Some(parse_time(value)?);
            }
            b"tree" | b"author" | b"committer" => {
                return Err("a header that must be alone comes twice");
            }
            _ => {}
        }
        Ok(())
    }
}

fn split_header(line: &[u8]) -> Result<(&[u8], &[u8]), &'static str> {
    let space = line
        .iter()
        .position(|byte| *byte == b' ')
        .ok_or("a line without a value")?;
    Ok((&line[..space], &line[space + 1..]))
}

fn parse_oid(value: &[u8]) -> Result<Oid, &'static str> {
    let text = std::str::from_utf8(value).map_err(|_| "an object id that is not text")?;
    match Oid::from_str(text) {
        Ok(oid) if oid.to_string() == text => Ok(oid),
        _ => Err("an object id of the wrong form"),
    }
}

/// The time in `Name <address> 1700000000 +0100`.
fn parse_time(value: &[u8]) -> Result<Timestamp, &'static str> {
    let after_address = value
        .iter()
        .rposition(|byte| *byte == b'>')
        .ok_or("a person without an address")?
        + 1;
    let text =
        std::str::from_utf8(&value[after_address..]).map_err(|_| "a time that is not text")?;
    let seconds = text
        .split_ascii_whitespace()
        .next()
        .ok_or("a person without a time")?;
    seconds
        .parse()
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .ok_or("a time out of range")
}

/// Whether the trailers allow deletions. Trailers are the lines of the last paragraph, as in Git; a
/// message that is only a subject has none.
fn allows_deletions(message: &str) -> bool {
    let message = message.trim_end();
    let Some((_, last)) = message.rsplit_once("\n\n") else {
        return false;
    };
    last.lines()
        .filter_map(|line| line.split_once(':'))
        .any(|(key, value)| {
            key.trim().eq_ignore_ascii_case(ALLOW_DELETIONS)
                && value.trim().eq_ignore_ascii_case("yes")
        })
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;
    use crate::ids::commit_id;

    const PLAIN: &str = "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n\
        parent 1111111111111111111111111111111111111111\n\
        author Dev <dev@example.com> 1700000000 +0100\n\
        committer Dev <dev@example.com> 1700000001 +0100\n";

    fn parse(text: &str) -> Result<CommitObject, &'static str> {
        CommitObject::parse(&commit_id("a"), text.as_bytes())
    }

    #[test]
    fn the_signature_is_cut_out_and_the_rest_is_kept_byte_for_byte() {
        let signed = format!(
            "{PLAIN}gpgsig -----BEGIN\n abc\n \n -----END\nmergetag object\n gpgsig x\n\nsubject\n"
        );
        let commit = parse(&signed).unwrap();
        assert_eq!(
            commit.signatures,
            [(
                "gpgsig".to_owned(),
                b"-----BEGIN\nabc\n\n-----END\n".to_vec()
            )]
        );
        let expected = format!("{PLAIN}mergetag object\n gpgsig x\n\nsubject\n");
        assert_eq!(commit.signed_bytes, expected.as_bytes());
        assert_eq!(commit.committer_time.as_second(), 1_700_000_001);
        assert_eq!(commit.subject().as_str(), "subject");
        assert_eq!(commit.info().first_parent, Some(commit_id("1")));
    }

    #[test]
    fn every_signature_header_is_counted_and_a_message_holds_none() {
        let commit = parse(&format!("{PLAIN}gpgsig a\ngpgsig-sha256 b\n\ngpgsig c\n")).unwrap();
        assert_eq!(commit.signatures.len(), 2);
    }

    #[test]
    fn malformed_headers_are_refused() {
        for (text, why) in [
            (
                "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904",
                "it does not end",
            ),
            ("tree 4b82\n\n", "an object id of the wrong form"),
            ("\nno header", "no tree"),
        ] {
            assert_eq!(parse(text).err(), Some(why));
        }
        let person = "Dev <dev@example.com> 1700000000 +0100";
        let parent = format!("parent {}\n", "1".repeat(40));
        let tree = "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n";
        // Neither Git nor libgit2 reads a parent there, so they list another history.
        for headers in [
            format!("{PLAIN}{parent}"),
            format!("{parent}{tree}author {person}\ncommitter {person}\n"),
            format!("{tree}encoding x\n{parent}author {person}\ncommitter {person}\n"),
            format!("{tree}gpgsig x\n{parent}author {person}\ncommitter {person}\n"),
            format!("{tree}committer {person}\nauthor {person}\n"),
        ] {
            let why = parse(&format!("{headers}\nsubject\n")).err();
            assert_eq!(
                why,
                Some("headers in another order than Git's"),
                "{headers}"
            );
        }
        let continued = parse(&format!(
            "{tree} {tree}author {person}\ncommitter {person}\n\nx"
        ))
        .err();
        assert_eq!(continued, Some("a continued line where none may be"));
        let twice = parse(&format!("{PLAIN}tree {}\n\nx", "1".repeat(40))).err();
        assert_eq!(twice, Some("a header that must be alone comes twice"));
    }

    #[test]
    fn the_trailer_counts_only_in_the_last_paragraph() {
        assert!(allows_deletions(
            "drop it all\n\nwindlass-allow-deletions: YES\nSigned-off-by: x\n"
        ));
        assert!(!allows_deletions("Windlass-Allow-Deletions: yes"));
        assert!(!allows_deletions(
            "subject\n\nWindlass-Allow-Deletions: yes\n\nmore text\n"
        ));
        assert!(!allows_deletions(
            "subject\n\nWindlass-Allow-Deletions: no\n"
        ));
    }
}
