//! Paths and queries of any bytes: the result is an answer, or a `Status` that kubectl can show.

#![expect(clippy::unwrap_used, reason = "a test")]

use axum::body::to_bytes;
use proptest::prelude::*;
use serde_json::Value;

use super::{selector::LabelSelector, *};
use crate::{fuzz::Fuzz, http::fixture::fixture};

const WORDS: [&str; 32] = [
    "/api/v1/",
    "/apis/apps/v1/",
    "namespaces/default/",
    "pods",
    "/log",
    "?",
    "&",
    "labelSelector=",
    "fieldSelector=",
    "metadata.name%3D",
    "watch=true",
    "follow=1",
    "previous=true",
    "resourceVersion=18446744073709551615",
    "resourceVersionMatch=Exact",
    "resourceVersionMatch=NotOlderThan",
    "sendInitialEvents=true",
    "timeoutSeconds=0",
    "timeoutSeconds=18446744073709551615",
    "tailLines=18446744073709551615",
    "sinceSeconds=18446744073709551615",
    "sinceTime=9999-12-31T23:59:59Z",
    "sinceTime=-009999-01-01T00:00:00Z",
    "limitBytes=0",
    "includeObject=Object",
    "%20in%20(",
    ")",
    ",",
    "!",
    "!%3D",
    "%00",
    "%ff",
];

#[test]
fn any_path_and_query_have_an_answer_or_a_status() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let fixture = fixture();
    Fuzz::new("src/http/api/corpus", &WORDS).run(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        selectors_split(&text)?;
        let Ok(uri) = text.parse::<Uri>() else {
            return Ok(false);
        };
        let answered = runtime.block_on(async {
            let query = Query::<ListQuery>::try_from_uri(&uri);
            let watched = query.as_ref().is_ok_and(|query| query.watch);
            let state = State(fixture.daemon.clone());
            let response = answer(state, Method::GET, uri.clone(), HeaderMap::new(), query).await;
            let status = response.status();
            // A watch does not end.
            let body = match watched && status.is_success() {
                true => Default::default(),
                false => to_bytes(response.into_body(), 1 << 20).await.unwrap(),
            };
            (status, body)
        });
        fixture.asked.lock().clear();
        let (status, body) = answered;
        prop_assert_ne!(status.as_u16(), 500);
        if status.is_success() {
            return Ok(true);
        }
        let failure: Value = serde_json::from_slice(&body).unwrap_or_default();
        prop_assert_eq!(&failure["kind"], "Status", "{}", status);
        prop_assert_eq!(&failure["code"], status.as_u16());
        let message = failure["message"].as_str().unwrap_or_default();
        prop_assert!(!message.is_empty() && message.len() < 4 * text.len() + 1000);
        Ok(false)
    });
}

/// A selector selects the objects that all of its terms select.
fn selectors_split(text: &str) -> Result<(), TestCaseError> {
    let labels = [("app", "web"), ("x", ""), ("v1", "namespaces")];
    let labels = labels
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
    let Ok(selector) = LabelSelector::parse(text) else {
        return Ok(());
    };
    if text.contains(['(', ')']) {
        return Ok(());
    }
    let terms = text
        .split(',')
        .map(|term| LabelSelector::parse(term).unwrap());
    let all = terms.fold(true, |all, term| all & term.matches(Some(&labels)));
    prop_assert_eq!(selector.matches(Some(&labels)), all);
    Ok(())
}
