//! The grounds on which the pods of this host run, for `windlass trust audit`.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use parking_lot::Mutex;
use reconciler::name::CommitId;
use tokio::sync::watch;

use crate::{
    follow::{Judge, read_signers},
    http::{
        AuditError, Auditor,
        report::{PodTrust, TrustReport},
    },
    source::{allowed_signers::AllowedSigners, verify::Grounds},
    trust::{TrustStore, TrustedCommit},
    view::View,
};

/// Answers `trust audit` from the trusted set, and from the present signers file.
#[derive(Clone)]
pub(super) struct TrustAuditor {
    judge: Judge,
    trust: Arc<Mutex<TrustStore>>,
    views: watch::Receiver<Arc<View>>,
    history: usize,
}

impl TrustAuditor {
    pub(super) fn new(
        judge: Judge,
        trust: Arc<Mutex<TrustStore>>,
        views: watch::Receiver<Arc<View>>,
        history: usize,
    ) -> Self {
        Self {
            judge,
            trust,
            views,
            history,
        }
    }

    fn audit(&self) -> Result<TrustReport, AuditError> {
        let view = self.views.borrow().clone();
        let signers =
            read_signers(self.judge.allowed_signers.as_deref()).map_err(AuditError::Signers)?;

        // Many pods run from one commit; each commit is judged once.
        let mut commits: BTreeMap<&CommitId, PodTrust> = BTreeMap::new();
        let mut pods = Vec::new();
        for (uid, commit) in &view.origins {
            let grounds = commits
                .entry(commit)
                .or_insert_with(|| self.grounds_of(&signers, commit))
                .clone();
            let pod = view
                .state
                .pods
                .get(uid)
                .map_or_else(|| uid.to_string(), |record| record.key.to_string());
            pods.push(PodTrust { pod, ..grounds });
        }
        pods.sort_by(|one, other| one.pod.cmp(&other.pod));

        Ok(TrustReport {
            node: view.node.to_string(),
            mode: self.judge.mode.as_str().to_owned(),
            pods,
        })
    }

    /// The grounds of one commit; the caller fills in the pod.
    fn grounds_of(&self, signers: &AllowedSigners, id: &CommitId) -> PodTrust {
        let known = self.trust.lock().trusted().get(id).cloned();
        let mut row = PodTrust {
            pod: String::new(),
            commit: id.clone(),
            grounds: "none".to_owned(),
            signer: None,
            judged: known.as_ref().and_then(|known| known.judged),
            note: String::new(),
        };
        match self.judge.eligible(&self.trust, self.history, id) {
            Err(error) => row.note = format!("it could not be judged: {error:#}"),
            Ok(Err(why)) => row.note = format!("kept up in place, nothing new of it starts: {why}"),
            Ok(Ok(commit)) => match commit.grounds() {
                Grounds::Anchor => row.grounds = "anchor".to_owned(),
                Grounds::ModeOff => row.grounds = "mode off".to_owned(),
                Grounds::Signature(signer) => {
                    row.grounds = "signature".to_owned();
                    row.signer = Some(signer.clone());
                    row.note = signers.doubt(signer, Timestamp::now()).unwrap_or_default();
                }
            },
        }
        let was_unchecked = |known: &TrustedCommit| *known.commit.grounds() == Grounds::ModeOff;
        if row.grounds == "none" && known.as_ref().is_some_and(was_unchecked) {
            row.note
                .push_str("; it was accepted while verification was off");
        }
        row
    }
}

impl Auditor for TrustAuditor {
    fn audit(&self) -> BoxFuture<'_, Result<TrustReport, AuditError>> {
        let auditor = self.clone();
        async move {
            let audited = tokio::task::spawn_blocking(move || auditor.audit()).await;
            audited.unwrap_or_else(|error| Err(AuditError::Ended(error)))
        }
        .boxed()
    }
}
