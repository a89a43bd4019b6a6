//! The source of manifests: a Git repository, of which only verified commits are trusted.
//!
//! ```text
//! fetch ─► inspect ─► verify ─► snapshot
//!   │         │          │          │
//!   │         │          │          └ the manifests of one verified commit, as bytes, with hashes checked
//!   │         │          └ trusted: into the mirror; untrusted (every offender named), or could not check: deleted
//!   │         └ type and size of every object, before any content
//!   └ in a killable child in a sandbox: one pack in quarantine
//! ```
//!
//! Everything here blocks, but for [`download`], which fetches in a [`child`].

pub(crate) mod allowed_signers;
pub(crate) mod child;
pub(crate) mod commit;
pub(crate) mod download;
pub(crate) mod eligible;
pub(crate) mod fetch;
pub(crate) mod mirror;
mod pack;
pub(crate) mod quarantine;
pub(crate) mod sandbox;
pub(crate) mod snapshot;
pub(crate) mod ssh_signature;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod verify;
pub(crate) mod watch;

#[cfg(test)]
mod tests;
