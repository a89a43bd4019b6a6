//! The API over loopback, for a plain client and for kubectl.

#![expect(clippy::unwrap_used, reason = "test code")]

pub(in crate::http) mod kubectl;
mod watch;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use reconciler::{
    foreign,
    name::{ContainerId, ImageId, NodeName, ObjectKey},
    object::{Taint, TaintEffect},
    state::Phase,
    status::ContainerPhase,
};
use reqwest::StatusCode;
use serde_json::Value;

use crate::{
    http::{
        fixture::{self, Fixture, HIDDEN, fixture},
        reading,
    },
    ids::commit_id,
};

/// Serves a fixture on a port of its own.
async fn serve(fixture: &Fixture) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = reading(&fixture.daemon);
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

fn client() -> reqwest::Client {
    fixture::crypto();
    reqwest::Client::builder()
        .timeout(Duration::from_secs(10))
        .build()
        .unwrap()
}

async fn get(address: SocketAddr, path: &str) -> (StatusCode, Value) {
    let response = client()
        .get(format!("http://{address}{path}"))
        .send()
        .await
        .unwrap();
    let status = response.status();
    (
        status,
        serde_json::from_str(&response.text().await.unwrap()).unwrap(),
    )
}

fn names(list: &Value) -> Vec<&str> {
    list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["metadata"]["name"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn selectors_choose_among_the_pods() {
    let fixture = fixture();
    let address = serve(&fixture).await;
    let cases = [
        ("", 4),
        ("?labelSelector=app%3Dweb", 3),
        ("?labelSelector=app%3Dweb,pod-template-hash%3Dbbbbbbbbbb", 2),
        ("?fieldSelector=status.phase%3DPending", 1),
        (
            "?fieldSelector=spec.nodeName%3Dhost-a,metadata.name%3Dbatch",
            1,
        ),
        ("?fieldSelector=spec.nodeName%3Dhost-b", 0),
    ];
    for (query, expected) in cases {
        let (status, list) = get(address, &format!("/api/v1/namespaces/default/pods{query}")).await;
        assert_eq!(
            (status, names(&list).len()),
            (StatusCode::OK, expected),
            "{query}"
        );
    }
    let (status, answer) = get(address, "/api/v1/pods?fieldSelector=spec.replicas%3D1").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(
        answer["message"],
        "field label not supported: spec.replicas"
    );
    let (_, list) = get(address, "/api/v1/namespaces/elsewhere/pods").await;
    assert!(names(&list).is_empty());
}

#[tokio::test]
async fn a_pod_is_its_owners_template_in_its_own_commit() {
    let fixture = fixture();
    let address = serve(&fixture).await;
    let (_, old) = get(
        address,
        "/api/v1/namespaces/default/pods/web-aaaaaaaaaa-a1111",
    )
    .await;
    assert_eq!(old["spec"]["containers"][0]["image"], "httpd:2.4.61");
    assert_eq!(
        old["metadata"]["annotations"]["windlass.dev/stopping"],
        "its template has changed"
    );
    assert!(old["metadata"]["deletionTimestamp"].is_string());
    let (_, new) = get(
        address,
        "/api/v1/namespaces/default/pods/web-bbbbbbbbbb-b2222",
    )
    .await;
    assert_eq!(new["spec"]["containers"][0]["image"], "httpd:2.4.62");
    assert_eq!(new["spec"]["nodeName"], "host-a");
    assert_eq!(
        new["metadata"]["ownerReferences"][0]["name"],
        "web-bbbbbbbbbb"
    );
    let (_, set) = get(
        address,
        "/apis/apps/v1/namespaces/default/replicasets/web-bbbbbbbbbb",
    )
    .await;
    assert_eq!(
        set["metadata"]["uid"],
        new["metadata"]["ownerReferences"][0]["uid"]
    );
    assert_eq!(set["spec"]["replicas"], 2);
    let (_, deployment) = get(address, "/apis/apps/v1/namespaces/default/deployments/web").await;
    assert_eq!(
        deployment["metadata"]["uid"],
        set["metadata"]["ownerReferences"][0]["uid"]
    );
    assert_eq!(deployment["status"]["readyReplicas"], 1);
    assert_eq!(
        deployment["metadata"]["annotations"]["windlass.dev/position"],
        "deploy/web.yaml:1"
    );
}

#[tokio::test]
async fn objects_are_what_kubernetes_own_types_read() {
    use k8s_openapi::api::{apps::v1 as apps, core::v1 as core, discovery::v1 as discovery};
    fn reads<T: serde::de::DeserializeOwned>(list: &Value) {
        let items = list["items"].as_array().unwrap();
        assert!(!items.is_empty());
        for item in items {
            serde_json::from_value::<T>(item.clone()).unwrap();
        }
    }
    let fixture = fixture();
    let address = serve(&fixture).await;
    let list = async |path: &str| get(address, path).await.1;
    reads::<core::Pod>(&list("/api/v1/pods").await);
    reads::<core::Service>(&list("/api/v1/services").await);
    reads::<core::Endpoints>(&list("/api/v1/endpoints").await);
    reads::<core::ConfigMap>(&list("/api/v1/configmaps").await);
    reads::<core::Secret>(&list("/api/v1/secrets").await);
    reads::<core::Namespace>(&list("/api/v1/namespaces").await);
    reads::<core::Node>(&list("/api/v1/nodes").await);
    reads::<core::Event>(&list("/api/v1/events").await);
    reads::<apps::Deployment>(&list("/apis/apps/v1/deployments").await);
    reads::<apps::ReplicaSet>(&list("/apis/apps/v1/replicasets").await);
    reads::<discovery::EndpointSlice>(&list("/apis/discovery.k8s.io/v1/endpointslices").await);
}

/// Addresses and conditions (ready, serving, terminating) of the Service `web` in its
/// EndpointSlices, and its addresses in its Endpoints.
async fn endpoints(address: SocketAddr) -> (Vec<(String, [bool; 3])>, Vec<String>) {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/web-windlass";
    let (_, slice) = get(address, slices).await;
    let endpoints = slice["endpoints"]
        .as_array()
        .unwrap()
        .iter()
        .map(|endpoint| {
            let is = |name: &str| endpoint["conditions"][name].as_bool().unwrap();
            (
                text(&endpoint["addresses"][0]),
                ["ready", "serving", "terminating"].map(is),
            )
        });
    let (_, older) = get(address, "/api/v1/namespaces/default/endpoints/web").await;
    let addresses = older["subsets"][0]["addresses"]
        .as_array()
        .into_iter()
        .flatten();
    (
        endpoints.collect(),
        addresses.map(|one| text(&one["ip"])).collect(),
    )
}

#[tokio::test]
async fn endpoint_slices_say_what_stops_and_still_serves_and_what_a_service_keeps() {
    let fixture = fixture();
    let address = serve(&fixture).await;
    let (slice, older) = endpoints(address).await;
    let of = |ip: &str| {
        slice
            .iter()
            .find(|(one, _)| one == ip)
            .map(|(_, conditions)| *conditions)
    };
    assert_eq!(of("10.244.0.1"), Some([false, true, true]), "{slice:?}");
    assert_eq!(of("10.244.0.2"), Some([true, true, false]), "{slice:?}");
    assert_eq!(older, ["10.244.0.2"]);

    // In the commit the Service selects no pod: the Service keeps the pods that it had in the
    // commit before.
    let mut view = fixture::view();
    let new = Arc::get_mut(view.commits.get_mut(&commit_id(fixture::NEW)).unwrap()).unwrap();
    let web = ObjectKey::new("default", "web");
    let selector = &mut new.objects.services.get_mut(&web).unwrap().selector;
    selector.insert("app".to_owned(), "elsewhere".to_owned());
    fixture.publish.send_replace(Arc::new(view.clone()));
    assert_eq!(endpoints(address).await.1, ["10.244.0.2"]);
    Arc::make_mut(&mut view.state).rollout.phase = Phase::Healthy;
    fixture.publish.send_replace(Arc::new(view));
    assert_eq!(endpoints(address).await, (Vec::new(), Vec::new()));
}

#[tokio::test]
async fn a_secrets_value_never_leaves() {
    let fixture = fixture();
    let address = serve(&fixture).await;
    for path in [
        "/api/v1/secrets",
        "/api/v1/namespaces/default/secrets/db",
        "/api/v1/secrets?watch=true&timeoutSeconds=0",
    ] {
        let response = client()
            .get(format!("http://{address}{path}"))
            .send()
            .await
            .unwrap();
        let text = response.text().await.unwrap();
        assert!(text.contains("password"), "{text}");
        assert!(!text.contains(HIDDEN), "{text}");
    }
}

/// A view in which each text that another host may have written acts on a terminal.
fn hostile() -> crate::view::View {
    let odd = || "x\u{1b}[2J\u{202e}\n".to_owned();
    let mut view = fixture::unescaped();
    for status in Arc::make_mut(&mut view.pods).values_mut() {
        status.reason = Some(odd());
        status.init_containers = status.containers.clone();
        for container in &mut status.containers {
            (container.name, container.image) = (odd(), odd());
            container.image_id = Some(ImageId::new(odd()));
            container.container_id = Some(ContainerId::new(odd()));
            if let Some(last) = container.last.clone() {
                container.state = ContainerPhase::Terminated(last);
            }
        }
    }
    for node in view.nodes.values_mut() {
        let system = &mut node.facts.system;
        (system.kernel, system.engine) = (odd(), odd());
        (system.architecture, system.version) = (odd(), odd());
        node.facts.taints = vec![Taint {
            key: odd(),
            value: odd(),
            effect: TaintEffect::NoExecute,
        }];
    }
    for event in &mut view.events {
        event.reason = odd();
    }
    view
}

fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(items) => items.iter().flat_map(texts).collect(),
        Value::Object(fields) => {
            let keys = fields.keys().map(String::as_str);
            keys.chain(fields.values().flat_map(texts)).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Vec::new(),
    }
}

#[tokio::test]
async fn no_text_of_another_host_is_served_unescaped() {
    let fixture = fixture();
    fixture.publish.send_replace(Arc::new(hostile()));
    let address = serve(&fixture).await;
    for resource in super::RESOURCES {
        let (_, list) = get(address, &resource.path(None, None)).await;
        for text in texts(&list) {
            assert!(
                !text.contains(foreign::is_unprintable),
                "{text:?} in {list}"
            );
        }
    }
}

#[tokio::test]
async fn writing_names_the_repository() {
    let fixture = fixture();
    let address = serve(&fixture).await;
    for method in [
        reqwest::Method::DELETE,
        reqwest::Method::PATCH,
        reqwest::Method::POST,
        reqwest::Method::PUT,
    ] {
        let url = format!("http://{address}/api/v1/namespaces/default/pods/batch");
        let response = client()
            .request(method, url)
            .body("{}")
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        let answer: Value = response.json().await.unwrap();
        assert_eq!(answer["kind"], "Status");
        let message = answer["message"].as_str().unwrap();
        assert!(
            message.contains("https://git.example.com/site.git, branch main"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let fixture = fixture();
    let address = serve(&fixture).await;
    let (status, answer) = get(
        address,
        "/apis/apps/v1/namespaces/default/deployments/nothing",
    )
    .await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(answer["message"], "deployments.apps \"nothing\" not found");
    let (status, answer) = get(address, "/apis/batch/v1/jobs").await;
    assert_eq!(
        (status, &answer["reason"]),
        (StatusCode::NOT_FOUND, &Value::from("NotFound"))
    );
}

#[tokio::test]
async fn logs_pass_their_options_on() {
    let fixture = fixture();
    let address = serve(&fixture).await;
    let base = format!("http://{address}/api/v1/namespaces/default/pods");
    let url = format!(
        "{base}/web-bbbbbbbbbb-c3333/log?tailLines=5&previous=true&timestamps=1&sinceSeconds=60"
    );
    let text = client()
        .get(url)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert_eq!(
        text,
        "hello from httpd of 00000000-0000-4000-8000-000000000003\nsecond line\n"
    );
    let (target, options) = fixture.asked.lock().pop().unwrap();
    assert_eq!(target.restarts, 2);
    assert_eq!(
        (options.tail, options.previous, options.timestamps),
        (Some(5), true, true)
    );
    assert!(options.since.is_some());
    let limited = client()
        .get(format!("{base}/web-bbbbbbbbbb-b2222/log?limitBytes=7"))
        .send()
        .await
        .unwrap();
    assert_eq!(limited.text().await.unwrap(), "hello f");
    let cases = [
        (
            "batch/log",
            "a container name must be specified for pod batch, choose one of: [httpd prepare]",
        ),
        (
            "batch/log?container=httpd",
            "container \"httpd\" in pod \"batch\" is waiting to start: PodInitializing",
        ),
        (
            "batch/log?container=x",
            "container x is not valid for pod batch",
        ),
        (
            "web-bbbbbbbbbb-b2222/log?previous=true",
            "previous terminated container \"httpd\" in pod \"web-bbbbbbbbbb-b2222\" not found",
        ),
        (
            "web-bbbbbbbbbb-b2222/log?follow=maybe",
            "Failed to deserialize query string: follow: expected true or false, not `maybe`",
        ),
    ];
    for (path, message) in cases {
        let (status, answer) =
            get(address, &format!("/api/v1/namespaces/default/pods/{path}")).await;
        assert_eq!(
            (status, answer["message"].as_str()),
            (StatusCode::BAD_REQUEST, Some(message)),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_log_of_a_pod_on_another_host_is_asked_for_there() {
    let fixture = fixture();
    let mut elsewhere = fixture::view();
    elsewhere.node = NodeName::new("host-b");
    fixture.publish.send_replace(Arc::new(elsewhere));
    let address = serve(&fixture).await;
    let url = format!("http://{address}/api/v1/namespaces/default/pods/batch/log?tailLines=1");
    let text = client()
        .get(url)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert_eq!(text, "hello from batch on host-a\n");
}
