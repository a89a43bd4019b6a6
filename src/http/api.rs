//! A read-only Kubernetes API over the daemon's view: enough for an unmodified kubectl to read
//! from.
//!
//! A path becomes a [`Target`], a target becomes objects, objects become a list, a table, one
//! object or a watch.

mod accept;
pub(crate) mod age;
mod discovery;
mod field_selector;
mod logs;
mod object;
mod objects;
mod options;
mod query;
mod resource;
mod selector;
mod status;
mod table;
mod target;
mod watch;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
pub(in crate::http) mod tests;

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::{HeaderMap, Method, Uri, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use serde::Serialize;

pub(in crate::http) use self::status::ApiError;
use self::{
    accept::Form, object::ApiObject, objects::Scope, options::Wanted, query::ListQuery,
    target::Target,
};
pub(crate) use self::{
    logs::{LogError, LogOptions, LogSource, LogStream, LogTarget, RemotePod},
    resource::{ApiKind, RESOURCES, Resource},
    table::{Cell, ColumnDefinition, KubernetesTable, TableRow},
};
use super::{
    HttpContext,
    outputs::{self, with_others},
    views::Numbered,
};
use crate::view::View;

/// The handler of every path that no other route has.
pub(crate) fn router(daemon: &Arc<HttpContext>) -> Router {
    Router::new().fallback(answer).with_state(daemon.clone())
}

async fn answer(
    State(daemon): State<Arc<HttpContext>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    query: Result<Query<ListQuery>, axum::extract::rejection::QueryRejection>,
) -> Response {
    if method != Method::GET && method != Method::HEAD {
        return status::not_reading(uri.path(), &daemon.views.current().view.source)
            .into_response();
    }
    let query = match query {
        Ok(Query(query)) => query,
        Err(rejection) => return ApiError::bad_request(rejection.body_text()).into_response(),
    };
    route(daemon, uri.path(), &headers, query)
        .await
        .unwrap_or_else(IntoResponse::into_response)
}

async fn route(
    daemon: Arc<HttpContext>,
    path: &str,
    headers: &HeaderMap,
    query: ListQuery,
) -> Result<Response, ApiError> {
    let form = accept::form(headers);
    match Target::parse(path)? {
        Target::Version => Ok(Json(discovery::version()).into_response()),
        Target::Versions => Ok(Json(discovery::versions()).into_response()),
        Target::Groups => Ok(Json(discovery::groups()).into_response()),
        Target::Group(group) => Ok(Json(discovery::group(group)).into_response()),
        Target::Resources(group) => Ok(Json(discovery::resources(group)).into_response()),
        Target::List {
            resource,
            namespace,
        } if query.watch => {
            watch::start(daemon, resource, namespace.map(str::to_owned), form, &query)
        }
        Target::List {
            resource,
            namespace,
        } => list(&daemon, resource, namespace, form, &query).await,
        Target::Object {
            resource,
            namespace,
            name,
        } => object(&daemon, resource, namespace, name, form, &query).await,
        Target::Log { namespace, name } => {
            logs::answer(&daemon, (namespace, name), &query, logs::LogReader::Reader).await
        }
    }
}

/// The log of a pod of this host, for another host of the cluster: with the parameters of the log
/// route, and the pod in `namespace` and `name`.
pub(crate) async fn log_for_peer(daemon: &HttpContext, uri: &Uri) -> Response {
    #[derive(serde::Deserialize)]
    struct Which {
        namespace: String,
        name: String,
    }
    let parsed = Query::<Which>::try_from_uri(uri)
        .and_then(|Query(which)| Ok((which, Query::<ListQuery>::try_from_uri(uri)?.0)));
    let (Which { namespace, name }, query) = match parsed {
        Ok(parsed) => parsed,
        Err(rejection) => return ApiError::bad_request(rejection.body_text()).into_response(),
    };
    let answered = logs::answer(daemon, (&namespace, &name), &query, logs::LogReader::Host).await;
    answered.unwrap_or_else(IntoResponse::into_response)
}

/// The requested view, if it exists.
fn current_view(daemon: &HttpContext, wanted: Wanted) -> Result<Numbered, ApiError> {
    let current = daemon.views.current();
    match wanted {
        Wanted::NotOlderThan(number) if number <= current.number => Ok(current),
        Wanted::Exactly(number) if number <= current.number => daemon
            .views
            .get(number)
            .ok_or_else(|| ApiError::expired(number)),
        Wanted::NotOlderThan(number) | Wanted::Exactly(number) => {
            Err(ApiError::too_large(number, current.number))
        }
    }
}

/// The number of pods with each STATUS, as tables of pods show it.
pub(crate) fn pod_counts(view: &View) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for pod in objects::pods(view) {
        if let Some(status) = table::pod_status(&pod) {
            *counts.entry(status).or_default() += 1;
        }
    }
    counts
}

async fn list(
    daemon: &HttpContext,
    resource: &'static Resource,
    namespace: Option<&str>,
    form: Form,
    query: &ListQuery,
) -> Result<Response, ApiError> {
    let filter = query.filter(resource)?;
    let mut current = current_view(daemon, query.for_list()?)?;
    if resource.kind == ApiKind::Event {
        let since = current.view.at - objects::event::LIFE;
        let outputs = outputs::query::of_events(&current.view, since);
        current = with_others(daemon, current, &outputs).await;
    }
    let scope = Scope {
        namespace,
        name: filter.name(),
    };
    let mut items: Vec<ApiObject> = objects::all(&current, resource.kind, scope)
        .into_values()
        .collect();
    items.retain(|item| filter.matches(item));
    let version = current.number.to_string();
    match form {
        Form::Table => json(&table::render(
            resource.kind,
            &items,
            &version,
            query.include(),
        )),
        Form::Object => json(&ObjectList {
            kind: format!("{}List", resource.kind),
            api_version: resource.api_version(),
            metadata: ListMeta {
                resource_version: Some(version),
                ..ListMeta::default()
            },
            items,
        }),
    }
}

/// A list of objects of one kind, such as a `PodList`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ObjectList {
    kind: String,
    api_version: &'static str,
    metadata: ListMeta,
    items: Vec<ApiObject>,
}

/// An answer in JSON. Unlike axum's `Json`, it serializes Kubernetes' types with the serializer
/// that a watch uses: each further serializer would add their whole code to the binary.
fn json(body: &impl Serialize) -> Result<Response, ApiError> {
    let body = serde_json::to_vec(body)
        .map_err(|error| ApiError::internal(format!("cannot write the answer as JSON: {error}")))?;
    Ok(([(CONTENT_TYPE, "application/json")], body).into_response())
}

async fn object(
    daemon: &HttpContext,
    resource: &'static Resource,
    namespace: Option<&str>,
    name: &str,
    form: Form,
    query: &ListQuery,
) -> Result<Response, ApiError> {
    let mut current = current_view(daemon, query.for_get()?)?;
    if resource.kind == ApiKind::Pod {
        let outputs = outputs::query::of_pod(&current.view, namespace, name);
        current = with_others(daemon, current, &outputs).await;
    }
    let scope = Scope {
        namespace,
        name: Some(name),
    };
    let object = objects::all(&current, resource.kind, scope)
        .into_values()
        .next()
        .ok_or_else(|| ApiError::not_found(resource, name))?;
    match form {
        Form::Table => {
            let version = current.number.to_string();
            json(&table::render(
                resource.kind,
                [&object],
                &version,
                query.include(),
            ))
        }
        Form::Object => json(&object),
    }
}
