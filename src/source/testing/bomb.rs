//! A repository of a few hundred kilobytes with a commit that inflates to any size, stored once as
//! a commit of its own and once as the base of a small commit.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use reconciler::name::CommitId;
use tempfile::TempDir;

use super::run;

/// A directory with the bare repository `bomb.git`.
pub(crate) struct Bomb {
    directory: TempDir,
    /// The head of the branch `large`: a commit with a message of `large_bytes` bytes.
    pub(crate) large: CommitId,
    /// The inflated size of that commit.
    pub(crate) large_bytes: u64,
    /// The head of the branch `small`: a child of the large commit, about 200 bytes, stored as a
    /// delta of it.
    pub(crate) small: CommitId,
}

impl Bomb {
    pub(crate) fn new(bytes: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let repository = directory.path().join("bomb.git");
        let git = |arguments: &str| {
            let line = format!("cd {} && {arguments}", repository.display());
            run("sh", &["-c", &line])
        };
        run(
            "git",
            &[
                "init",
                "-q",
                "--bare",
                "-b",
                "main",
                repository.to_str().unwrap(),
            ],
        );
        let tree = git("git hash-object -t tree -w --stdin < /dev/null");
        let person = "Dev <dev@example.com> 1700000000 +0000";
        let head = format!("tree {tree}\nauthor {person}\ncommitter {person}\n\n");
        fs::write(repository.join("head"), &head).unwrap();
        let large = git(&format!(
            "(cat head; head -c {bytes} /dev/zero | tr '\\0' m) > body && git hash-object -t commit -w body && rm body"
        ));
        let size = head.len() as u64 + bytes;
        // One pack with the large commit, followed by a delta that copies the tree's line from that
        // commit.
        let packed = git(&format!(
            "echo {large} | git pack-objects -q objects/pack/pack"
        ));
        let pack = repository.join(format!("objects/pack/pack-{packed}.pack"));
        let rest = format!("parent {large}\nauthor {person}\ncommitter {person}\n\nsmall\n");
        let mut delta = number(size);
        delta.extend(number(46 + rest.len() as u64));
        delta.extend([0b1001_0000, 46]);
        for piece in rest.as_bytes().chunks(127) {
            delta.push(u8::try_from(piece.len()).unwrap());
            delta.extend(piece);
        }
        let mut bytes = fs::read(&pack).unwrap();
        bytes.truncate(bytes.len() - 20);
        let back = bytes.len() as u64 - 12;
        bytes[8..12].copy_from_slice(&2_u32.to_be_bytes());
        let length = delta.len();
        bytes.extend([
            0x80 | 6 << 4 | u8::try_from(length & 15).unwrap(),
            u8::try_from(length >> 4).unwrap(),
        ]);
        bytes.extend(distance(back));
        bytes.extend(miniz_oxide::deflate::compress_to_vec_zlib(&delta, 6));
        let trailer = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &bytes);
        bytes.extend(trailer.as_ref());
        for ending in ["pack", "idx", "rev"] {
            let _ = fs::remove_file(pack.with_extension(ending));
        }
        index(&repository, &bytes);
        git(&format!("rm -rf objects/{}", &large[..2]));
        fs::write(repository.join("rest"), format!("{}\n{rest}", &head[..45])).unwrap();
        let small = git("git hash-object -t commit rest");
        git(&format!(
            "git update-ref refs/heads/large {large} && git update-ref refs/heads/small {small}"
        ));
        Self {
            directory,
            large: CommitId::parse(&large).unwrap(),
            large_bytes: size,
            small: CommitId::parse(&small).unwrap(),
        }
    }

    /// The directory that holds the repository.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The repository.
    pub(crate) fn repository(&self) -> PathBuf {
        self.path().join("bomb.git")
    }
}

fn index(repository: &Path, pack: &[u8]) {
    let mut git = Command::new("git")
        .args(["-C", repository.to_str().unwrap(), "index-pack", "--stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    git.stdin.take().unwrap().write_all(pack).unwrap();
    assert!(git.wait().unwrap().success());
}

/// A number with seven bits in a byte, the lowest bits first.
fn number(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 0x7f {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// The distance to a delta's base, as gitformat-pack(5) encodes it.
fn distance(mut back: u64) -> Vec<u8> {
    let mut bytes = vec![(back & 0x7f) as u8];
    while back > 0x7f {
        back = (back >> 7) - 1;
        bytes.push((back & 0x7f) as u8 | 0x80);
    }
    bytes.reverse();
    bytes
}
