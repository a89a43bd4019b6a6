//! Whether a client requests objects, or a table with the server's columns.

use axum::http::{HeaderMap, header::ACCEPT};

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Objects, or a list of them.
    Object,
    /// A `meta.k8s.io/v1` Table, with cells that the server has formatted.
    Table,
}

/// The first form in `Accept` that this API supports; objects if there is none.
pub(super) fn form(headers: &HeaderMap) -> Form {
    let values = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let wanted = values.flat_map(|value| value.split(',')).find_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next()?;
        if !matches!(media, "application/json" | "application/*" | "*/*") {
            return None;
        }
        let parameters: Vec<&str> = parts.collect();
        if !parameters
            .iter()
            .any(|parameter| parameter.starts_with("as="))
        {
            return Some(Form::Object);
        }
        let has = |text: &str| parameters.contains(&text);
        (has("as=Table") && has("v=v1") && has("g=meta.k8s.io")).then_some(Form::Table)
    });
    wanted.unwrap_or(Form::Object)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test")]
    use super::*;

    fn of(accept: &str) -> Form {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        form(&headers)
    }

    #[test]
    fn kubectl_gets_a_table_and_a_plain_client_objects() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(of(kubectl), Form::Table);
        assert_eq!(of("application/json"), Form::Object);
        assert_eq!(of("*/*"), Form::Object);
        assert_eq!(form(&HeaderMap::new()), Form::Object);
    }

    #[test]
    fn a_form_we_do_not_have_is_passed_over() {
        let aggregated =
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
        assert_eq!(of(aggregated), Form::Object);
        assert_eq!(
            of("application/json;as=Table;v=v1beta1;g=meta.k8s.io"),
            Form::Object
        );
    }
}
