//! Writes to etcd: transactions within etcd's size limits, each under its condition.

use std::collections::BTreeSet;

use etcd_client::{Compare, CompareOp, Txn, TxnOp, TxnOpResponse, TxnResponse};

use super::{
    Created, Etcd, Fence, StoredValue, Write, WriteError, failure::CallFailure, link::CALL_TIMEOUT,
};

/// etcd takes 128 operations and 1.5 MB a transaction by default.
const OPERATIONS: usize = 100;
const BYTES: usize = 1_000_000;

impl Etcd {
    /// Writes as the leader. The writes are split into transactions; each transaction compares the
    /// election key and is applied as a whole or not at all. Returns the revision of the last
    /// transaction (0 if there was nothing to write).
    pub(crate) async fn write_fenced(
        &self,
        fence: &Fence,
        writes: Vec<Write>,
    ) -> Result<i64, WriteError> {
        let mut revision = 0;
        for part in split(writes) {
            if !fence.holds() {
                return Err(WriteError::Fenced);
            }
            let leads =
                Compare::create_revision(fence.key.as_str(), CompareOp::Equal, fence.revision);
            let answer = self
                .transact(Txn::new().when([leads]).and_then(self.operations(part)))
                .await?;
            if !answer.succeeded() {
                self.inner
                    .hints
                    .election_gone
                    .send_replace(fence.key.clone());
                return Err(WriteError::Fenced);
            }
            revision = revision_of(&answer)?;
        }
        Ok(revision)
    }

    /// Writes a node's own keys, which needs no leadership. Returns the revision of the last
    /// transaction.
    pub(crate) async fn write(&self, writes: Vec<Write>) -> Result<i64, WriteError> {
        let mut revision = 0;
        for part in split(writes) {
            revision = revision_of(
                &self
                    .transact(Txn::new().and_then(self.operations(part)))
                    .await?,
            )?;
        }
        Ok(revision)
    }

    /// Makes a key unless it exists.
    pub(crate) async fn create(&self, key: &str, value: Vec<u8>) -> Result<Created, WriteError> {
        let full = self.full(key);
        let absent = Compare::create_revision(full.as_str(), CompareOp::Equal, 0);
        let txn = Txn::new()
            .when([absent])
            .and_then([TxnOp::put(full.as_str(), value, None)])
            .or_else([TxnOp::get(full.as_str(), None)]);

        let answer = self.transact(txn).await?;
        if answer.succeeded() {
            return Ok(Created::Made(revision_of(&answer)?));
        }

        let existing = answer
            .op_responses()
            .into_iter()
            .find_map(|response| match response {
                TxnOpResponse::Get(mut got) => got.take_kvs().into_iter().next(),
                _ => None,
            });
        let existing = existing.ok_or_else(|| {
            WriteError::Unknown(format!(
                "etcd answered that {full} exists, without its value"
            ))
        })?;
        let revision = existing.mod_revision();
        let (_, value) = existing.into_key_value();
        Ok(Created::Exists(StoredValue {
            key: key.to_owned(),
            value,
            revision,
        }))
    }

    async fn transact(&self, txn: Txn) -> Result<TxnResponse, WriteError> {
        let link = &self.inner.link;
        // Without a connection the write has certainly not been sent.
        let connection = link
            .connection()
            .await
            .map_err(|failure| WriteError::Refused(failure.to_string()))?;
        let mut client = connection.client.clone();
        link.call(&connection, CALL_TIMEOUT, Box::pin(client.txn(txn)))
            .await
            .map_err(|failure| match failure {
                CallFailure::Refused(why) => WriteError::Refused(why),
                other => WriteError::Unknown(other.to_string()),
            })
    }

    fn operations(&self, part: Vec<Write>) -> Vec<TxnOp> {
        let operation = |write| match write {
            Write::Put { key, value } => TxnOp::put(self.full(&key), value, None),
            Write::Delete { key } => TxnOp::delete(self.full(&key), None),
        };
        part.into_iter().map(operation).collect()
    }

    fn full(&self, key: &str) -> String {
        format!("{}{key}", self.inner.prefix)
    }
}

fn revision_of(answer: &TxnResponse) -> Result<i64, WriteError> {
    let header = answer.header().map(etcd_client::ResponseHeader::revision);
    header.ok_or_else(|| WriteError::Unknown("etcd answered without a revision".to_owned()))
}

/// Splits writes in order, such that no transaction has the same key twice: etcd refuses that.
fn split(writes: Vec<Write>) -> Vec<Vec<Write>> {
    let mut parts: Vec<Vec<Write>> = Vec::new();
    let (mut keys, mut bytes) = (BTreeSet::new(), 0);
    for write in writes {
        let (key, size) = match &write {
            Write::Put { key, value } => (key.clone(), key.len() + value.len()),
            Write::Delete { key } => (key.clone(), key.len()),
        };
        let fits = keys.len() < OPERATIONS && bytes + size <= BYTES && !keys.contains(&key);
        if let Some(part) = parts.last_mut()
            && fits
        {
            part.push(write);
        } else {
            parts.push(vec![write]);
            keys.clear();
            bytes = 0;
        }
        keys.insert(key);
        bytes += size;
    }
    parts
}
