//! The user that the child process becomes.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::process::{Gid, Uid, geteuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};
use serde::{Deserialize, Serialize};

use super::SandboxError;

/// The users of this host, as passwd(5) describes them.
const USERS: &str = "/etc/passwd";

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

    /// The owner and the group of a directory or file.
    pub(crate) fn owner_of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self {
            uid: metadata.uid(),
            gid: metadata.gid(),
        })
    }

    pub(crate) fn is_root(self) -> bool {
        self.uid == 0
    }
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
            set_thread_groups(&[gid]).map_err(failed)?;
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
