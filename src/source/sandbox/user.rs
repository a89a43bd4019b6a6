//! The user that the child process becomes.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::{Gid, Uid, geteuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::SandboxError;

/// The users of this host, as passwd(5) describes them.
const USERS: &str = "/etc/passwd";
/// The groups of this host, as group(5) describes them.
const GROUPS: &str = "/etc/group";
/// More groups than any user of a host has; the kernel allows 65,536.
const MAX_GROUPS: usize = 1024;

/// A user and a group by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UserIds {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl UserIds {
    /// The user of this name, with its own group; `None` if the host has no such user.
    pub(crate) fn named(name: &str) -> io::Result<Option<Self>> {
        let users = fs::read_to_string(USERS)?;
        Ok(users.lines().find_map(|line| user_of_line(line, name)))
    }

    /// The owner of a repository on this host and the directory's group. An error if somebody else
    /// could put another repository, with another owner, in its place.
    pub(crate) fn owner_of_repository(path: &Path) -> Result<Self, OwnerError> {
        let owner = owner_of(path)?;
        for part in parts(path)? {
            let metadata = metadata(&part)?;
            let (uid, mode) = (metadata.uid(), metadata.mode());
            let others_may_replace =
                !metadata.is_symlink() && mode & 0o022 != 0 && mode & STICKY == 0;
            if uid != 0 && uid != owner.uid || owner.is_root() && others_may_replace {
                return Err(OwnerError::Replaceable {
                    path: path.to_owned(),
                    owner: owner.uid,
                    part,
                });
            }
        }
        Ok(owner)
    }

    pub(crate) fn is_root(self) -> bool {
        self.uid == 0
    }
}

/// Why no user is chosen to read a repository.
#[derive(Debug, Error)]
pub(crate) enum OwnerError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    /// A directory or link on the way belongs to another user.
    #[error(
        "{} is read as its owner, user {owner}, but other users can replace {}: give all of it to one user",
        path.display(),
        part.display()
    )]
    Replaceable {
        path: PathBuf,
        owner: u32,
        part: PathBuf,
    },
}

/// The bit of a directory's mode by which only owners may replace entries.
const STICKY: u32 = 0o1000;

fn owner_of(path: &Path) -> Result<UserIds, OwnerError> {
    let followed = fs::metadata(path).map_err(|source| OwnerError::Io {
        path: path.to_owned(),
        source,
    })?;
    Ok(UserIds {
        uid: followed.uid(),
        gid: followed.gid(),
    })
}

fn metadata(path: &Path) -> Result<fs::Metadata, OwnerError> {
    fs::symlink_metadata(path).map_err(|source| OwnerError::Io {
        path: path.to_owned(),
        source,
    })
}

/// The directories and links that lead to a repository, as written and as they really are, and its
/// `.git`.
fn parts(path: &Path) -> Result<BTreeSet<PathBuf>, OwnerError> {
    let real = fs::canonicalize(path).map_err(|source| OwnerError::Io {
        path: path.to_owned(),
        source,
    })?;
    let inner = real.join(".git");
    let mut parts: BTreeSet<PathBuf> = path
        .ancestors()
        .chain(real.ancestors())
        .map(Path::to_owned)
        .collect();
    if fs::symlink_metadata(&inner).is_ok() {
        parts.insert(inner);
    }
    Ok(parts)
}

/// The groups of a user beside its own, by group(5); none for a user without a name.
fn other_groups(uid: u32) -> Vec<Gid> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let users = read(USERS);
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    });
    let Some(name) = name else {
        return Vec::new();
    };
    let groups = read(GROUPS);
    let has_user = |line: &str| {
        line.rsplit(':')
            .next()?
            .split(',')
            .find(|member| *member == name)
            .map(drop)
    };
    let groups = groups.lines().filter_map(|line| {
        has_user(line)?;
        line.split(':').nth(2)?.parse().ok().map(Gid::from_raw)
    });
    groups.take(MAX_GROUPS).collect()
}

/// `name:password:uid:gid:...`
fn user_of_line(line: &str, name: &str) -> Option<UserIds> {
    let mut fields = line.split(':');
    if fields.next() != Some(name) {
        return None;
    }
    Some(UserIds {
        uid: fields.nth(1)?.parse().ok()?,
        gid: fields.next()?.parse().ok()?,
    })
}

/// Becomes the user, and drops every capability in a way that no program or file can undo.
pub(super) fn drop_privileges(user: Option<UserIds>) -> Result<(), SandboxError> {
    let uid = user.map_or(geteuid().as_raw(), |user| user.uid);
    let failed = |source: rustix::io::Errno| SandboxError::User {
        uid,
        source: source.into(),
    };
    set_no_new_privs(true).map_err(failed)?;
    // capabilities(7): the bounding set can be reduced only while CAP_SETPCAP is effective.
    if geteuid().is_root() {
        reduce_bounding_set().map_err(failed)?;
        if let Some(user) = user {
            let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
            let mut groups = other_groups(user.uid);
            groups.push(gid);
            set_thread_groups(&groups).map_err(failed)?;
            set_thread_res_gid(gid, gid, gid).map_err(failed)?;
            set_thread_res_uid(uid, uid, uid).map_err(failed)?;
        }
    }
    clear_ambient_capability_set().map_err(failed)?;
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none).map_err(failed)
}

fn reduce_bounding_set() -> rustix::io::Result<()> {
    for number in 0..u64::BITS {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)) {
            // The kernel has no capability of this number.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            // In a container without CAP_SETPCAP: `no_new_privs` has the same effect here.
            Err(rustix::io::Errno::PERM) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test")]
    use super::*;

    #[test]
    fn a_user_is_found_by_its_whole_name() {
        let line = "windlass-fetch:x:998:997::/nonexistent:/usr/sbin/nologin";
        let ids = user_of_line(line, "windlass-fetch").unwrap();
        assert_eq!((ids.uid, ids.gid), (998, 997));
        for (line, name) in [
            (line, "windlass"),
            ("", ""),
            ("a:x", "a"),
            ("a:x:-1:0", "a"),
            ("a:x:4294967296:0", "a"),
        ] {
            assert_eq!(user_of_line(line, name), None, "{line}");
        }
        assert!(UserIds::named("root").unwrap().unwrap().is_root());
        assert_eq!(UserIds::named("no-such-user").unwrap(), None);
    }
}
