//! Watches over loopback: their initial events, their changes, and the bookmark that marks the end
//! of the initial events.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{body::Body, extract::Query};
use futures_util::StreamExt;
use reconciler::name::PodUid;
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{
    super::{accept::Form, query::ListQuery, resource::Resource, watch},
    client, get, serve,
};
use crate::http::fixture::{self, fixture, running};

/// The parameters that client-go 0.35 sends by default instead of a list and a watch.
const WATCH_LIST: &str =
    "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
/// The annotation of the bookmark after the initial events.
const END: &str = "k8s.io/initial-events-end";

/// Reads events from a watch.
struct WatchReader {
    stream: futures_util::stream::BoxStream<'static, reqwest::Result<axum::body::Bytes>>,
    left: Vec<u8>,
}

impl WatchReader {
    async fn start(address: SocketAddr, path: &str) -> Self {
        Self::accepting(address, path, "application/json").await
    }

    async fn accepting(address: SocketAddr, path: &str, accept: &str) -> Self {
        let request = client()
            .get(format!("http://{address}{path}"))
            .header("accept", accept);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        Self {
            stream: response.bytes_stream().boxed(),
            left: Vec::new(),
        }
    }

    async fn event(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.left.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.left.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            self.left.extend(self.stream.next().await?.unwrap());
        }
    }

    /// The next event's type and the name of its object.
    async fn next(&mut self) -> Option<(String, String)> {
        let event = self.event().await?;
        let name = event["object"]["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        Some((event["type"].as_str().unwrap().to_owned(), name))
    }

    /// The types of the events up to the first bookmark, and the bookmark.
    async fn up_to_bookmark(&mut self) -> (Vec<String>, Value) {
        let mut types = Vec::new();
        loop {
            let event = self.event().await.unwrap();
            let kind = event["type"].as_str().unwrap().to_owned();
            if kind == "BOOKMARK" {
                return (types, event["object"].clone());
            }
            types.push(kind);
        }
    }
}

#[tokio::test]
async fn a_watch_reports_what_has_changed_since_the_list() {
    let fixture = fixture();
    let address = serve(&fixture).await;
    let (_, list) = get(address, "/api/v1/pods").await;
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();
    let path = format!("/api/v1/pods?watch=true&resourceVersion={version}");
    let mut events = WatchReader::start(address, &path).await;

    let mut view = fixture::view();
    let crashed = PodUid::new("00000000-0000-4000-8000-000000000003");
    Arc::make_mut(&mut view.pods).insert(crashed, running(3));
    let stopped = PodUid::new("00000000-0000-4000-8000-000000000001");
    Arc::make_mut(&mut view.state).pods.remove(&stopped);
    // The times of other pods differ by the seconds between two fixtures; only objects without them
    // can be compared.
    let before = fixture.publish.borrow().clone();
    for (uid, status) in Arc::make_mut(&mut view.pods) {
        if uid.as_str() != "00000000-0000-4000-8000-000000000003" {
            *status = before.pods[uid].clone();
        }
    }
    for (uid, record) in &mut Arc::make_mut(&mut view.state).pods {
        *record = before.state.pods[uid].clone();
    }
    fixture.publish.send(Arc::new(view)).unwrap();
    let of = |kind: &str, name: &str| Some((kind.to_owned(), name.to_owned()));
    assert_eq!(events.next().await, of("MODIFIED", "web-bbbbbbbbbb-c3333"));
    assert_eq!(events.next().await, of("DELETED", "web-aaaaaaaaaa-a1111"));

    // A watch that starts at the old list reports the same change, although it did not exist at
    // that time.
    let mut late = WatchReader::start(address, &path).await;
    assert_eq!(late.next().await, of("MODIFIED", "web-bbbbbbbbbb-c3333"));
    assert_eq!(late.next().await, of("DELETED", "web-aaaaaaaaaa-a1111"));
    let (status, answer) = get(address, "/api/v1/pods?watch=true&resourceVersion=7").await;
    assert_eq!(
        (status, &answer["reason"]),
        (StatusCode::GONE, &Value::from("Expired"))
    );
}

#[tokio::test]
async fn a_watch_without_a_version_begins_with_everything_and_ends_in_time() {
    let fixture = fixture();
    let address = serve(&fixture).await;
    let mut events = WatchReader::start(
        address,
        "/apis/apps/v1/deployments?watch=1&timeoutSeconds=1",
    )
    .await;
    assert_eq!(
        events.next().await,
        Some(("ADDED".to_owned(), "web".to_owned()))
    );
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark_of_the_kind() {
    let fixture = fixture();
    let address = serve(&fixture).await;
    let (_, list) = get(address, "/api/v1/pods").await;
    let mut events = WatchReader::start(address, &format!("/api/v1/pods?{WATCH_LIST}")).await;
    let (types, bookmark) = events.up_to_bookmark().await;
    assert_eq!(types, ["ADDED"; 4]);
    assert_eq!(
        (&bookmark["kind"], &bookmark["apiVersion"]),
        (&json!("Pod"), &json!("v1"))
    );
    assert_eq!(bookmark["metadata"]["annotations"][END], "true");
    assert_eq!(
        bookmark["metadata"]["resourceVersion"],
        list["metadata"]["resourceVersion"]
    );

    // Later changes are reported as by any watch.
    let mut view = fixture::view();
    Arc::make_mut(&mut view.state)
        .pods
        .remove(&PodUid::new("00000000-0000-4000-8000-000000000001"));
    fixture.publish.send(Arc::new(view)).unwrap();
    let deleted = async {
        while events.next().await.unwrap()
            != ("DELETED".to_owned(), "web-aaaaaaaaaa-a1111".to_owned())
        {}
    };
    tokio::time::timeout(Duration::from_secs(5), deleted)
        .await
        .unwrap();
}

#[tokio::test]
async fn every_kind_ends_its_initial_events_also_where_there_is_nothing() {
    let fixture = fixture();
    let address = serve(&fixture).await;
    for resource in super::super::RESOURCES {
        for selector in ["", "&fieldSelector=metadata.name%3Dnothing"] {
            let path = format!("{}?{WATCH_LIST}{selector}", resource.path(None, None));
            let (types, bookmark) = WatchReader::start(address, &path)
                .await
                .up_to_bookmark()
                .await;
            assert_eq!(bookmark["kind"], resource.kind.as_str());
            assert_eq!(bookmark["apiVersion"], resource.api_version());
            assert_eq!(bookmark["metadata"]["annotations"][END], "true", "{path}");
            assert!(selector.is_empty() || types.is_empty(), "{path}: {types:?}");
        }
    }
}

#[tokio::test]
async fn a_bookmark_in_a_table_has_a_row_that_carries_it() {
    let fixture = fixture();
    let address = serve(&fixture).await;
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    for resource in super::super::RESOURCES {
        let path = format!("{}?{WATCH_LIST}", resource.path(None, None));
        let (_, table) = WatchReader::accepting(address, &path, accept)
            .await
            .up_to_bookmark()
            .await;
        assert_eq!(table["kind"], "Table", "{path}");
        assert!(table["metadata"]["resourceVersion"].is_string());
        assert_eq!(
            table["rows"][0]["object"]["metadata"]["annotations"][END], "true",
            "{path}"
        );
    }
}

#[tokio::test]
async fn only_clients_that_accept_bookmarks_receive_them() {
    let fixture = fixture();
    let address = serve(&fixture).await;
    let cases = [
        // A watch without a version has always begun with all objects; kube-apiserver marks the end
        // of them there, too.
        ("allowWatchBookmarks=true", 4, vec![Some("true"), None]),
        ("", 4, vec![]),
        (
            "sendInitialEvents=true&resourceVersionMatch=NotOlderThan",
            4,
            vec![],
        ),
        (
            "sendInitialEvents=false&resourceVersionMatch=NotOlderThan",
            0,
            vec![],
        ),
        (
            "sendInitialEvents=false&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true",
            0,
            vec![None],
        ),
    ];
    for (query, objects, bookmarks) in cases {
        let path = format!("/api/v1/pods?watch=true&timeoutSeconds=1&{query}");
        let mut events = WatchReader::start(address, &path).await;
        let (mut added, mut marked) = (0, Vec::new());
        while let Some(event) = events.event().await {
            match event["type"].as_str().unwrap() {
                "ADDED" => added += 1,
                "BOOKMARK" => marked.push(event["object"].clone()),
                other => panic!("{query}: {other}"),
            }
        }
        assert_eq!(added, objects, "{query}");
        let ends: Vec<_> = marked
            .iter()
            .map(|mark| mark["metadata"]["annotations"][END].as_str())
            .collect();
        assert_eq!(ends, bookmarks, "{query}");
        // With the version of the last bookmark a client continues without a list.
        if let Some(version) = marked
            .last()
            .map(|mark| mark["metadata"]["resourceVersion"].as_str().unwrap())
        {
            let path =
                format!("/api/v1/pods?watch=true&timeoutSeconds=0&resourceVersion={version}");
            assert_eq!(WatchReader::start(address, &path).await.next().await, None);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_what_never_changes_is_bookmarked_once_a_minute() {
    let fixture = fixture();
    let uri = "http://x/?watch=true&allowWatchBookmarks=true&timeoutSeconds=150"
        .parse()
        .unwrap();
    let Query(query) = Query::<ListQuery>::try_from_uri(&uri).unwrap();
    let nodes = Resource::of_word("nodes").unwrap();
    let response = watch::start(fixture.daemon.clone(), nodes, None, Form::Object, &query).unwrap();
    let began = tokio::time::Instant::now();
    let mut chunks = Body::new(response.into_body()).into_data_stream();
    let mut bookmarks = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let text = String::from_utf8(chunk.unwrap().to_vec()).unwrap();
        let found = text.lines().filter(|line| line.contains("BOOKMARK"));
        bookmarks.extend(found.map(|_| began.elapsed().as_secs()));
    }
    assert_eq!(bookmarks, [0, 60, 120, 150]);
}

#[tokio::test]
async fn versions_that_cannot_be_served_are_refused_as_kubernetes_does() {
    let fixture = fixture();
    let address = serve(&fixture).await;
    let (_, list) = get(address, "/api/v1/pods").await;
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();
    let newer = (version.parse::<u64>().unwrap() + 1_000_000).to_string();
    let cases = [
        (
            "watch=true&sendInitialEvents=true".to_owned(),
            422,
            "Invalid",
        ),
        (
            "watch=true&resourceVersionMatch=NotOlderThan".to_owned(),
            422,
            "Invalid",
        ),
        ("resourceVersionMatch=Exact".to_owned(), 422, "Invalid"),
        (
            "resourceVersionMatch=Sometimes&resourceVersion=1".to_owned(),
            422,
            "Invalid",
        ),
        ("sendInitialEvents=true".to_owned(), 422, "Invalid"),
        ("sendInitialEvents=maybe".to_owned(), 400, "BadRequest"),
        ("resourceVersion=x".to_owned(), 400, "BadRequest"),
        ("watch=true&resourceVersion=x".to_owned(), 400, "BadRequest"),
        ("watch=true&resourceVersion=7".to_owned(), 410, "Expired"),
        (
            format!("watch=true&resourceVersion={newer}"),
            410,
            "Expired",
        ),
        (
            "resourceVersionMatch=Exact&resourceVersion=7".to_owned(),
            410,
            "Expired",
        ),
        (format!("resourceVersion={newer}"), 504, "Timeout"),
        (
            format!("{WATCH_LIST}&resourceVersion={newer}"),
            504,
            "Timeout",
        ),
    ];
    for (query, code, reason) in cases {
        let (status, answer) = get(address, &format!("/api/v1/pods?{query}")).await;
        assert_eq!(
            (status.as_u16(), answer["reason"].as_str()),
            (code, Some(reason)),
            "{query}: {answer}"
        );
        assert_eq!(answer["kind"], "Status");
    }
    let (_, answer) = get(address, "/api/v1/pods?watch=true&sendInitialEvents=true").await;
    assert_eq!(answer["details"]["kind"], "ListOptions");
    assert_eq!(
        answer["details"]["causes"][0]["field"],
        "resourceVersionMatch"
    );
    let (_, answer) = get(address, &format!("/api/v1/pods?resourceVersion={newer}")).await;
    assert_eq!(
        answer["details"]["causes"][0]["reason"],
        "ResourceVersionTooLarge"
    );
}

#[tokio::test]
async fn lists_come_from_the_view_that_is_asked_for() {
    let fixture = fixture();
    let address = serve(&fixture).await;
    let (_, before) = get(address, "/api/v1/pods").await;
    let version = before["metadata"]["resourceVersion"].as_str().unwrap();
    let mut view = fixture::view();
    Arc::make_mut(&mut view.state)
        .pods
        .remove(&PodUid::new("00000000-0000-4000-8000-000000000001"));
    fixture.publish.send(Arc::new(view)).unwrap();
    let cases = [
        (String::new(), 3),
        ("?resourceVersion=0".to_owned(), 3),
        (format!("?resourceVersion={version}"), 3),
        (
            format!("?resourceVersion={version}&resourceVersionMatch=NotOlderThan"),
            3,
        ),
        (
            format!("?resourceVersion={version}&resourceVersionMatch=Exact"),
            4,
        ),
    ];
    for (query, pods) in cases {
        let (status, list) = get(address, &format!("/api/v1/pods{query}")).await;
        assert_eq!(
            (status, super::names(&list).len()),
            (StatusCode::OK, pods),
            "{query}"
        );
    }
}
