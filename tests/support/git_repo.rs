//! A Git repository to deploy from, with the keys that sign its commits, made by git and
//! ssh-keygen.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::{MAY_DELETE, Outcome, run};

/// The branch that commits go to.
pub(crate) const BRANCH: &str = "main";

/// A key that signs commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signer {
    /// The principal, an e-mail address.
    pub(crate) principal: String,
    /// The private key's file; the public one lies beside it, with `.pub`.
    pub(crate) key: PathBuf,
}

impl Signer {
    /// The public key, as one line `ssh-ed25519 AAAA...`, without a comment.
    pub(crate) fn public_key(&self) -> String {
        let line = fs::read_to_string(self.key.with_extension("pub")).unwrap();
        line.split_whitespace()
            .take(2)
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// A bare repository, a work tree which pushes to it, and an `allowed_signers` file that trusts one
/// key.
#[derive(Debug)]
pub(crate) struct GitRepo {
    dir: TempDir,
    /// The trusted signer of the commits.
    pub(crate) signer: Signer,
}

impl GitRepo {
    /// A repository without a commit, and a new ed25519 key which `allowed_signers` trusts for
    /// commits.
    pub(crate) fn new() -> GitRepo {
        let dir = tempfile::Builder::new()
            .prefix("wlt-git-")
            .tempdir()
            .unwrap();
        // The daemon may read the repository as another user.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let signer = make_key(dir.path(), "deployer@example.com", "ed25519");
        let repo = GitRepo { dir, signer };
        run(git(repo.dir.path()).args(["init", "-q", "--bare", "-b", BRANCH, "repo.git"])).ok();
        run(git(repo.dir.path()).args(["init", "-q", "-b", BRANCH, "work"])).ok();
        repo.git(&["remote", "add", "origin", repo.path().to_str().unwrap()])
            .ok();
        for (name, value) in [
            ("gpg.format", "ssh"),
            ("user.name", "Deployer"),
            ("user.email", "deployer@example.com"),
        ] {
            repo.git(&["config", name, value]).ok();
        }
        repo.set_allowed_signers("");
        repo.trust(&repo.signer);
        repo
    }

    /// The bare repository.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("repo.git")
    }

    /// The bare repository as a URL.
    pub(crate) fn url(&self) -> String {
        format!("file://{}", self.path().display())
    }

    /// The work tree, where a test changes files before it calls [`GitRepo::git`].
    pub(crate) fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    /// The file with the trusted signers and their keys.
    pub(crate) fn allowed_signers(&self) -> PathBuf {
        self.dir.path().join("allowed_signers")
    }

    /// Replaces the contents of `allowed_signers`.
    pub(crate) fn set_allowed_signers(&self, contents: &str) {
        fs::write(self.allowed_signers(), contents).unwrap();
    }

    /// Adds a signer's key to `allowed_signers`.
    pub(crate) fn trust(&self, signer: &Signer) {
        let mut file = OpenOptions::new()
            .append(true)
            .open(self.allowed_signers())
            .unwrap();
        writeln!(
            file,
            "{} namespaces=\"git\" {}",
            signer.principal,
            signer.public_key()
        )
        .unwrap();
    }

    /// Makes a key that is not trusted yet, of a kind that `ssh-keygen -t` accepts: ed25519, ecdsa,
    /// rsa.
    pub(crate) fn new_signer(&self, principal: &str, kind: &str) -> Signer {
        make_key(self.dir.path(), principal, kind)
    }

    /// Writes files, commits them signed by the trusted key and pushes; returns the commit id.
    #[track_caller]
    pub(crate) fn commit_signed(&self, files: &[(&str, &str)], message: &str) -> String {
        self.commit_signed_by(&self.signer, files, message)
    }

    /// Replaces all files of the repository by these, in a signed commit that may delete workloads;
    /// returns the commit's id.
    #[track_caller]
    pub(crate) fn replace_signed(&self, files: &[(&str, &str)], subject: &str) -> String {
        self.git(&["rm", "-rq", "--ignore-unmatch", "."]).ok();
        self.commit_signed(files, &format!("{subject}{MAY_DELETE}"))
    }

    /// Like [`GitRepo::commit_signed`], signed by another key.
    #[track_caller]
    pub(crate) fn commit_signed_by(
        &self,
        signer: &Signer,
        files: &[(&str, &str)],
        message: &str,
    ) -> String {
        self.write(files);
        self.commit(Some(signer), message);
        self.push()
    }

    /// Like [`GitRepo::commit_signed`], without a signature.
    #[track_caller]
    pub(crate) fn commit_unsigned(&self, files: &[(&str, &str)], message: &str) -> String {
        self.write(files);
        self.commit(None, message);
        self.push()
    }

    /// Removes files or directories, commits that signed by the trusted key and pushes.
    #[track_caller]
    pub(crate) fn commit_removing(&self, paths: &[&str], message: &str) -> String {
        for path in paths {
            self.git(&["rm", "-rq", path]).ok();
        }
        self.commit(Some(&self.signer), message);
        self.push()
    }

    /// Rewrites history: replaces the head by another signed commit on its parent, and
    /// force-pushes.
    #[track_caller]
    pub(crate) fn rewrite_head(&self, files: &[(&str, &str)], message: &str) -> String {
        self.git(&["reset", "-q", "--hard", "HEAD~1"]).ok();
        self.write(files);
        self.commit(Some(&self.signer), message);
        self.push()
    }

    /// Writes files into the work tree.
    pub(crate) fn write(&self, files: &[(&str, &str)]) {
        for (path, contents) in files {
            let path = self.work().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, contents).unwrap();
        }
    }

    /// Commits the whole work tree, signed or not, without pushing; returns the commit id.
    #[track_caller]
    pub(crate) fn commit(&self, signer: Option<&Signer>, message: &str) -> String {
        self.git(&["add", "-A"]).ok();
        let key = signer.map(|signer| format!("user.signingkey={}", signer.key.display()));
        let mut args = Vec::new();
        if let Some(key) = &key {
            args.extend(["-c", key]);
        }
        args.extend(["commit", "-q", "--allow-empty", "-m", message]);
        args.push(if key.is_some() { "-S" } else { "--no-gpg-sign" });
        self.git(&args).ok();
        self.head()
    }

    /// Pushes the work tree's branch over the repository's branch, whatever that is; returns the
    /// commit id.
    #[track_caller]
    pub(crate) fn push(&self) -> String {
        self.git(&["push", "-q", "--force", "origin", BRANCH]).ok();
        self.head()
    }

    /// The commit id of the work tree's head.
    #[track_caller]
    pub(crate) fn head(&self) -> String {
        self.git(&["rev-parse", "HEAD"]).ok()
    }

    /// Runs git in the work tree, untouched by the user's and the system's configuration.
    pub(crate) fn git(&self, args: &[&str]) -> Outcome {
        run(git(&self.work()).args(args))
    }
}

fn make_key(dir: &Path, principal: &str, kind: &str) -> Signer {
    // The number of files only makes the name of the key unique.
    let files = fs::read_dir(dir).unwrap().count();
    let key = dir.join(format!("key-{files}"));
    run(Command::new("ssh-keygen")
        .args(["-q", "-t", kind, "-N", "", "-C", principal, "-f"])
        .arg(&key))
    .ok();
    Signer {
        principal: principal.to_owned(),
        key,
    }
}

fn git(dir: &Path) -> Command {
    let mut command = Command::new("git");
    command
        .arg("-C")
        .arg(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1");
    // Git sets GIT_* when the tests run from a hook of another repository, and a key of an SSH
    // agent must not sign.
    for variable in [
        "GIT_DIR",
        "GIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "SSH_AUTH_SOCK",
    ] {
        command.env_remove(variable);
    }
    command
}
