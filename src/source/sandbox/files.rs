//! Landlock: the files and the TCP ports that the process may use.

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, LandlockStatus, NetPort, PathBeneath, PathFd,
    RestrictionStatus, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError,
    Scope,
};

use super::{NetworkAccess, Sandbox};

/// The newest version whose rights this module names. On an older kernel the rights that it lacks
/// are left out.
const VERSION: ABI = ABI::V6;

/// Restricts files and ports of this thread. A path that does not exist, or that this user cannot
/// reach, is left out: it cannot be opened anyway.
pub(super) fn restrict(sandbox: &Sandbox) -> Result<RestrictionStatus, RulesetError> {
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(VERSION))?
        .handle_access(AccessNet::from_all(VERSION))?
        .scope(Scope::from_all(VERSION))?
        .create()?;

    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    for path in &sandbox.reads {
        rules = allow(rules, path, read)?;
    }
    // Devices are named only so that a library which opens them finds what it expects.
    rules = allow(rules, Path::new("/dev/urandom"), AccessFs::ReadFile.into())?;
    let null = AccessFs::ReadFile | AccessFs::WriteFile;
    rules = allow(rules, Path::new("/dev/null"), null)?;

    let changes = AccessFs::MakeDir
        | AccessFs::MakeReg
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::Refer;
    rules = allow(rules, &sandbox.writes, read | changes)?;

    if let NetworkAccess::Remote { ports, .. } = &sandbox.network {
        for port in ports {
            rules = rules.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
        }
    }
    rules.restrict_self()
}

fn allow(
    rules: RulesetCreated,
    path: &Path,
    access: landlock::BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    let Ok(opened) = PathFd::new(path) else {
        return Ok(rules);
    };
    // The kernel refuses a right that only directories have in a rule about a file.
    let access = if path.is_dir() {
        access
    } else {
        access & AccessFs::from_file(VERSION)
    };
    rules.add_rule(PathBeneath::new(opened, access))
}

/// The version of landlock that the running kernel enforces; `None` if it enforces none.
pub(crate) fn landlock_version() -> Option<u32> {
    // The thread restricts only itself, and ends.
    let probe = std::thread::spawn(|| {
        let rules = Ruleset::default().handle_access(AccessFs::MakeFifo).ok()?;
        rules.create().ok()?.restrict_self().ok()
    });
    match probe.join().ok()??.landlock {
        LandlockStatus::Available {
            effective_abi,
            kernel_abi,
        } => Some(kernel_abi.map_or(effective_abi as u32, |version| version.unsigned_abs())),
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => None,
    }
}
