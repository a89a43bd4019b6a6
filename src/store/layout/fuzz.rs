//! Keys and values of any bytes, in a store that every holder of a certificate may write to.

use std::fmt::Debug;

use proptest::prelude::*;
use serde::de::DeserializeOwned;

use super::*;
use crate::{
    fuzz::Fuzz,
    store::{contents::Contents, etcd::StoredValue},
};

const WORDS: [&str; 22] = [
    "cluster\n",
    "decided/epoch\n",
    "decided/serial\n",
    "decided/rollout\n",
    "decided/pods/",
    "nodes/n1/facts\n",
    "nodes/n1/alive\n",
    "nodes/n1/report\n",
    "nodes/n1/pods/",
    "subnets/10.244.3.0-24\n",
    "election/",
    "null",
    "true",
    "[]",
    "{}",
    "-1",
    "18446744073709551616",
    "1e999",
    "\"\"",
    ",",
    "2026-06-01T12:00:00Z",
    "-009999-01-01T00:00:00Z",
];

#[test]
fn any_key_and_value_are_read_as_they_would_be_written() {
    // A file of the corpus is a key, a line break, and a value.
    Fuzz::new("src/store/layout/corpus", &WORDS).run(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        let (key, value) = text.split_once('\n').unwrap_or((&text, ""));
        let value = value.as_bytes();
        let pair = || StoredValue {
            key: key.to_owned(),
            value: value.to_vec(),
            revision: 1,
        };
        let mut contents = Contents::default();
        contents.list(1, vec![pair()]);

        let taken = match KeyKind::of(key) {
            KeyKind::Identity => again::<StoreIdentity>(value)?,
            KeyKind::Decided => match Decided::read(key, value) {
                // A record under another record's key is ignored, and does not count as unreadable.
                Ok(None) => true,
                Ok(Some(decided)) => {
                    let Write::Put { key, value } = decided.write() else {
                        return Err(TestCaseError::fail("what was decided is deleted"));
                    };
                    let read = Decided::read(&key, &value);
                    prop_assert_eq!(read.ok().flatten(), Some(decided));
                    true
                }
                Err(_) => false,
            },
            KeyKind::Subnet(subnet) => {
                prop_assert_eq!(subnet_key(subnet), key);
                again::<NodeName>(value)?
            }
            KeyKind::Facts(_) => again::<FactsDoc>(value)?,
            KeyKind::Alive(_) => again::<AliveDoc>(value)?,
            KeyKind::Report(_) => again::<ReportDoc>(value)?,
            KeyKind::Away(_) => again::<AwayDoc>(value)?,
            KeyKind::Ask(_) => again::<AskDoc>(value)?,
            KeyKind::Pod(node, uid) => {
                prop_assert_eq!(pod_status_key(&node, &uid), key);
                again::<PodStatus>(value)?
            }
            KeyKind::Election | KeyKind::Unknown => true,
        };
        prop_assert_eq!(contents.unreadable.is_empty(), taken);
        for why in contents.unreadable.values() {
            prop_assert!(why.len() < 1024, "{} bytes", why.len());
        }
        Ok(taken)
    });
}

/// Whether a value is one of these documents; the document must be the same after writing and
/// reading it.
fn again<T>(value: &[u8]) -> Result<bool, TestCaseError>
where
    T: DeserializeOwned + Serialize + PartialEq + Debug,
{
    let Ok(document) = serde_json::from_slice::<T>(value) else {
        return Ok(false);
    };
    let written = text(&document);
    let read = serde_json::from_slice::<T>(&written);
    let read = read.map_err(|error| TestCaseError::fail(format!("{error}: {document:?}")))?;
    prop_assert_eq!(read, document);
    Ok(true)
}
