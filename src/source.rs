//! Where manifests come from: a Git repository, of which only verified commits are believed.
//!
//! ```text
//! fetch ─► verify ─► snapshot
//!   │         │          │
//!   │         │          └ the manifests of one verified commit, as bytes, with hashes checked
//!   │         └ trusted, untrusted (every offender named), or could not check
//!   └ in a killable child: a bare mirror with history of one branch
//! ```
//!
//! Everything here blocks; asynchronous callers go through `spawn_blocking`, or [`child`] for fetching.

pub(crate) mod allowed_signers;
pub(crate) mod child;
pub(crate) mod commit;
pub(crate) mod eligible;
pub(crate) mod fetch;
pub(crate) mod mirror;
pub(crate) mod snapshot;
pub(crate) mod ssh_signature;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod verify;
pub(crate) mod watch;

#[cfg(test)]
mod tests;
