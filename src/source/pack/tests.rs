#![expect(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::super::testing::{Work, run};
use super::*;

/// A pack and an index, written byte by byte.
struct Forged {
    directory: TempDir,
    pack: Vec<u8>,
    entries: Vec<(Oid, u64)>,
}

impl Forged {
    fn new(objects: u32) -> Self {
        let mut pack = b"PACK\0\0\0\x02".to_vec();
        pack.extend(objects.to_be_bytes());
        Self {
            directory: tempfile::tempdir().unwrap(),
            pack,
            entries: Vec::new(),
        }
    }

    /// Adds an entry under an id of this one digit, and returns its offset. The id is not the hash
    /// of the content, which is not read here.
    fn add(&mut self, digit: u8, kind: u8, size: u64, base: &[u8], content: &[u8]) -> u64 {
        let offset = self.pack.len() as u64;
        self.entries.push((id(digit), offset));
        let (mut byte, mut rest) = (kind << 4 | (size & 15) as u8, size >> 4);
        while rest > 0 {
            self.pack.push(byte | 0x80);
            (byte, rest) = ((rest & 0x7f) as u8, rest >> 7);
        }
        self.pack.push(byte);
        self.pack.extend(base);
        self.pack
            .extend(miniz_oxide::deflate::compress_to_vec_zlib(content, 6));
        offset
    }

    fn headers(&self) -> Result<Vec<ObjectHeader>, PackError> {
        let mut entries = self.entries.clone();
        entries.sort_unstable();
        let mut index = INDEX_START.to_vec();
        for first in 0..=255_u8 {
            let below = entries
                .iter()
                .filter(|(id, _)| id.as_bytes()[0] <= first)
                .count();
            index.extend(u32::try_from(below).unwrap().to_be_bytes());
        }
        index.extend(entries.iter().flat_map(|(id, _)| id.as_bytes().to_vec()));
        index.extend(entries.iter().flat_map(|_| [0; 4]));
        index.extend(
            entries
                .iter()
                .flat_map(|(_, offset)| u32::try_from(*offset).unwrap().to_be_bytes()),
        );
        index.extend([0; 40]);
        let path = |name: &str| self.directory.path().join(name);
        fs::write(path("p.idx"), index).unwrap();
        fs::write(path("p.pack"), [self.pack.as_slice(), &[0; 20]].concat()).unwrap();
        headers(&path("p.pack"), &path("p.idx"), 100).map(Iterator::collect)
    }

    fn malformed(&self) -> &'static str {
        match self.headers() {
            Err(PackError::Malformed(what)) => what,
            other => panic!("{other:?}"),
        }
    }
}

fn id(digit: u8) -> Oid {
    Oid::from_str(&format!("{digit:x}").repeat(40)).unwrap()
}

/// A delta whose header has these sizes, below 128.
fn delta(base: u8, result: u8) -> [u8; 2] {
    [base, result]
}

#[test]
fn the_headers_are_those_that_git_tells_with_deltas_of_both_sorts() {
    for by_offset in ["true", "false"] {
        let work = Work::new();
        for round in 0..20 {
            let lines: String = (0..2000)
                .map(|line| format!("line {line} of {}\n", round / (line % 7 + 1)))
                .collect();
            work.write("big.txt", lines);
            work.write(&format!("small/{round}.yaml"), format!("number: {round}"));
            work.commit(&format!("round {round}"), None);
        }
        work.git(&["tag", "-a", "-m", "a tag", "v1"]);
        let option = format!("repack.useDeltaBaseOffset={by_offset}");
        work.git(&["-c", &option, "repack", "-adfq", "--depth=10"]);
        let packs = work.path().join(".git/objects/pack");
        let find = |ending: &str| -> PathBuf {
            let mut found = fs::read_dir(&packs)
                .unwrap()
                .map(|entry| entry.unwrap().path());
            found
                .find(|path| path.extension().is_some_and(|found| found == ending))
                .unwrap()
        };
        let found: Vec<ObjectHeader> = headers(&find("pack"), &find("idx"), 1000)
            .unwrap()
            .collect();
        let repo = work.repo();
        let database = repo.odb().unwrap();
        let told = |id| database.read_header(id).unwrap();
        for header in &found {
            assert_eq!(
                (usize::try_from(header.bytes).unwrap(), header.kind),
                told(header.id)
            );
        }
        let deltas = found.iter().filter(|header| header.delta_bytes > 0).count();
        assert!(
            found.len() > 80 && deltas > 10,
            "{deltas} of {}",
            found.len()
        );
        let count = run(
            "sh",
            &[
                "-c",
                &format!(
                    "cd {} && git count-objects -v | grep in-pack",
                    packs.display()
                ),
            ],
        );
        assert_eq!(count, format!("in-pack: {}", found.len()));
        let few = headers(&find("pack"), &find("idx"), 10)
            .map(drop)
            .unwrap_err();
        assert!(matches!(few, PackError::TooMany { limit: 10, .. }), "{few}");
    }
}

#[test]
fn a_size_is_known_without_reading_the_content() {
    let mut forged = Forged::new(3);
    // No content inflates to that size; only the header has it.
    let base = forged.add(1, 1, 1 << 40, &[], b"");
    let back = u8::try_from(forged.pack.len() as u64 - base).unwrap();
    forged.add(2, 6, 2, &[back], &delta(100, 90));
    forged.add(3, 7, 2, id(2).as_bytes(), &delta(90, 80));
    let found: Vec<(u64, u64, ObjectType)> = forged
        .headers()
        .unwrap()
        .iter()
        .map(|one| (one.bytes, one.delta_bytes, one.kind))
        .collect();
    let commit = ObjectType::Commit;
    assert_eq!(
        found,
        [(1 << 40, 0, commit), (90, 2, commit), (80, 2, commit)]
    );
}

#[test]
fn a_base_that_the_index_does_not_name_is_found_out() {
    let mut forged = Forged::new(1);
    let base = forged.add(1, 1, 1 << 40, &[], b"");
    forged.entries.clear();
    let back = u8::try_from(forged.pack.len() as u64 - base).unwrap();
    forged.add(2, 6, 2, &[back], &delta(100, 90));
    assert_eq!(
        forged.malformed(),
        "a delta of an object that is not in the pack"
    );

    let mut forged = Forged::new(1);
    forged.add(1, 7, 2, id(9).as_bytes(), &delta(1, 1));
    assert_eq!(
        forged.malformed(),
        "a delta of an object that is not in the pack"
    );

    let mut forged = Forged::new(2);
    forged.add(1, 3, 0, &[], b"");
    assert_eq!(
        forged.malformed(),
        "it holds another number of objects than its index"
    );
}

#[test]
fn what_git_does_not_make_is_malformed() {
    let mut circle = Forged::new(2);
    circle.add(1, 7, 2, id(2).as_bytes(), &delta(1, 1));
    circle.add(2, 7, 2, id(1).as_bytes(), &delta(1, 1));
    assert_eq!(circle.malformed(), "a chain of more deltas than Git makes");

    let mut unknown = Forged::new(1);
    unknown.add(1, 5, 2, &[], b"");
    assert_eq!(
        unknown.malformed(),
        "an entry of a type that does not exist"
    );

    let mut endless = Forged::new(1);
    endless.pack.extend([0xff; 30]);
    endless.entries.push((id(1), 12));
    assert_eq!(endless.malformed(), "an entry has an impossible size");

    let mut short = Forged::new(1);
    short.add(1, 7, 2, id(1).as_bytes(), b"");
    assert_eq!(short.malformed(), "a delta does not begin with two sizes");

    let mut outside = Forged::new(1);
    outside.entries.push((id(1), 1_000_000));
    assert_eq!(outside.malformed(), "an entry ends early");

    let mut twice = Forged::new(2);
    twice.add(1, 3, 0, &[], b"");
    let place = twice.entries[0].1;
    twice.entries.push((id(2), place));
    assert_eq!(twice.malformed(), "its index names one entry twice");
}
