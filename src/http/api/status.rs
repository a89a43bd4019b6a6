//! Errors in Kubernetes' form: a `Status` object, whose message kubectl prints.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use reconciler::foreign;
use serde_json::json;

use super::Resource;
use crate::view::SourceStatus;

/// An error as an answer.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::http) struct ApiError {
    code: StatusCode,
    reason: &'static str,
    message: String,
    details: serde_json::Value,
}

/// One of the `causes` of an answer with the reason `Invalid`: a parameter that cannot be used.
#[derive(Debug)]
pub(super) struct Cause {
    field: &'static str,
    reason: &'static str,
    message: String,
}

impl Cause {
    /// The parameter must be absent.
    pub(super) fn forbidden(field: &'static str, detail: &str) -> Self {
        Self {
            field,
            reason: "FieldValueForbidden",
            message: format!("Forbidden: {detail}"),
        }
    }

    /// The parameter must have another value; `supported` lists the possible ones, in quotes.
    pub(super) fn not_supported(field: &'static str, value: &str, supported: &str) -> Self {
        let message = format!("Unsupported value: {value:?}: supported values: {supported}");
        Self {
            field,
            reason: "FieldValueNotSupported",
            message,
        }
    }
}

impl ApiError {
    /// The message that the user receives.
    #[cfg(test)]
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: json!({}),
        }
    }

    /// The object does not exist.
    pub(super) fn not_found(resource: &Resource, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", resource.qualified());
        let details = json!({ "name": name, "group": resource.group, "kind": resource.plural });
        Self {
            details,
            ..Self::new(StatusCode::NOT_FOUND, "NotFound", message)
        }
    }

    /// The path does not exist.
    pub(super) fn unknown_path(path: &str) -> Self {
        let message = match path.rsplit('/').next() {
            Some(verb) if is_verb(path) => {
                format!(
                    "Windlass does not serve {verb}; on the pod's host, use the container engine's own tools"
                )
            }
            _ if path.starts_with("/openapi") => {
                "Windlass is read-only: workloads come only from Git; check manifests with `windlass check`"
                    .to_owned()
            }
            _ => format!("Windlass does not serve {path}"),
        };
        Self::new(StatusCode::NOT_FOUND, "NotFound", message)
    }

    /// The request is malformed.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// The parameters of a list or a watch contradict each other, or one has an impossible value.
    pub(super) fn invalid_options(causes: &[Cause]) -> Self {
        let sentences: Vec<String> = causes
            .iter()
            .map(|one| format!("{}: {}", one.field, one.message))
            .collect();
        let sentence = match sentences.as_slice() {
            [one] => one.clone(),
            all => format!("[{}]", all.join(", ")),
        };
        let listed: Vec<_> = causes
            .iter()
            .map(|one| json!({ "reason": one.reason, "message": one.message, "field": one.field }))
            .collect();
        let details = json!({ "group": "meta.k8s.io", "kind": "ListOptions", "causes": listed });
        let message = format!("ListOptions.meta.k8s.io \"\" is invalid: {sentence}");
        Self {
            details,
            ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
        }
    }

    /// The requested view does not exist yet. Clients know this cause by its name and request the
    /// newest view instead.
    pub(super) fn too_large(version: u64, current: u64) -> Self {
        let message = format!("Too large resource version: {version}, current: {current}");
        let cause =
            json!({ "reason": "ResourceVersionTooLarge", "message": "Too large resource version" });
        let details = json!({ "causes": [cause], "retryAfterSeconds": 1 });
        Self {
            details,
            ..Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message)
        }
    }

    /// The requested view is not kept any more: the client must list again.
    pub(super) fn expired(version: u64) -> Self {
        Self::new(
            StatusCode::GONE,
            "Expired",
            format!("too old resource version: {version}"),
        )
    }

    /// The request has no valid token.
    pub(in crate::http) fn unauthorized() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "Unauthorized",
            "Unauthorized: the request needs the bearer token of this listener",
        )
    }

    /// A part behind this API failed.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    }
}

fn is_verb(path: &str) -> bool {
    ["/exec", "/attach", "/portforward", "/proxy"]
        .iter()
        .any(|verb| path.ends_with(verb))
}

/// The refusal of a request that would write; the message names the way to write. Verbs such as
/// exec do not write, but this API does not have them either.
pub(super) fn not_reading(path: &str, source: &SourceStatus) -> ApiError {
    if is_verb(path) {
        return ApiError::unknown_path(path);
    }
    let place = match (source.url.as_str(), source.branch.as_str()) {
        ("", _) => "the repository that this host follows".to_owned(),
        (url, "") => url.to_owned(),
        (url, branch) => format!("{url}, branch {branch}"),
    };
    let message = format!(
        "Windlass is read-only, because workloads come only from Git. Commit the change to {place}, and push \
         (to replace the pods of a workload without a change: `windlass restart KIND/NAME` on the host)"
    );
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": foreign::escape_but(&self.message, &['\n']),
            "reason": self.reason,
            "details": self.details,
            "code": self.code.as_u16(),
        });
        (self.code, Json(body)).into_response()
    }
}
