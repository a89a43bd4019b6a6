//! `resourceVersion`, `resourceVersionMatch` and `sendInitialEvents`: which view answers a list
//! or begins a watch.
//!
//! Combinations are judged as kube-apiserver judges them (`ValidateListOptions` in
//! k8s.io/apimachinery, with the feature WatchList), so that a client receives "Invalid" here in
//! the same cases as there.

use super::{
    query::ListQuery,
    status::{ApiError, Cause},
};

/// The value of `resourceVersionMatch` for a view that is at least as new.
const NOT_OLDER_THAN: &str = "NotOlderThan";
/// The value of `resourceVersionMatch` for exactly this view.
const EXACT: &str = "Exact";

/// The view that answers a list or a get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The newest view, whose number must be at least this one.
    NotOlderThan(u64),
    /// The view with this number.
    Exactly(u64),
}

/// The first events of a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// All objects in the newest view, whose number must be at least `at_least`.
    WithEverything {
        /// 0 if any view is accepted.
        at_least: u64,
    },
    /// Changes after the newest view.
    Now,
    /// Changes since the view with this number.
    After(u64),
}

impl ListQuery {
    /// The view for a list.
    pub(super) fn for_list(&self) -> Result<Wanted, ApiError> {
        let version = self.resource_version.as_str();
        let mut causes = Vec::new();
        if let Some(kind) = self.match_kind() {
            if version.is_empty() {
                causes.push(forbidden(
                    "resourceVersionMatch is forbidden unless resourceVersion is provided",
                ));
            }
            if !matches!(kind, EXACT | NOT_OLDER_THAN) {
                causes.push(unsupported(kind, "\"Exact\", \"NotOlderThan\", \"\""));
            }
            if kind == EXACT && version == "0" {
                causes.push(forbidden(
                    "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
                ));
            }
        }
        if self.send_initial_events.is_some() {
            causes.push(Cause::forbidden(
                "sendInitialEvents",
                "sendInitialEvents is forbidden for list",
            ));
        }
        judged(causes)?;

        let number = self.version_number()?;
        Ok(match self.match_kind() {
            Some(EXACT) => Wanted::Exactly(number),
            _ => Wanted::NotOlderThan(number),
        })
    }

    /// The view for a get, which does not support `resourceVersionMatch`.
    pub(super) fn for_get(&self) -> Result<Wanted, ApiError> {
        self.version_number().map(Wanted::NotOlderThan)
    }

    /// The first events of a watch.
    pub(super) fn for_watch(&self) -> Result<Begin, ApiError> {
        let kind = self.match_kind();
        let mut causes = Vec::new();
        if self.send_initial_events.is_some() && kind != Some(NOT_OLDER_THAN) {
            let detail = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            causes.push(forbidden(detail));
        }
        if let Some(kind) = kind {
            if self.send_initial_events.is_none() {
                let detail = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                causes.push(forbidden(detail));
            }
            if kind != NOT_OLDER_THAN {
                causes.push(unsupported(kind, "\"NotOlderThan\""));
            }
        }
        judged(causes)?;

        let number = self.version_number()?;
        Ok(match self.send_initial_events {
            Some(true) => Begin::WithEverything { at_least: number },
            // Watches without a version began with all objects before there was a parameter for it.
            None if number == 0 => Begin::WithEverything { at_least: 0 },
            Some(false) if number == 0 => Begin::Now,
            Some(false) | None => Begin::After(number),
        })
    }

    fn match_kind(&self) -> Option<&str> {
        match self.resource_version_match.as_str() {
            "" => None,
            kind => Some(kind),
        }
    }

    /// The requested version. 0 means any version, as does an absent one, since the newest view is
    /// in memory.
    fn version_number(&self) -> Result<u64, ApiError> {
        match self.resource_version.as_str() {
            "" => Ok(0),
            version => version.parse().map_err(|_| {
                ApiError::bad_request(format!(
                    "resourceVersion: Invalid value: \"{version}\": expected a number that this API has given"
                ))
            }),
        }
    }
}

fn judged(causes: Vec<Cause>) -> Result<(), ApiError> {
    if causes.is_empty() {
        Ok(())
    } else {
        Err(ApiError::invalid_options(&causes))
    }
}

fn forbidden(detail: &str) -> Cause {
    Cause::forbidden("resourceVersionMatch", detail)
}

fn unsupported(kind: &str, supported: &str) -> Cause {
    Cause::not_supported("resourceVersionMatch", kind, supported)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test")]
mod tests {
    use axum::{extract::Query, http::Uri};

    use super::*;

    fn query(text: &str) -> ListQuery {
        let uri: Uri = format!("http://x/api/v1/pods?{text}").parse().unwrap();
        Query::<ListQuery>::try_from_uri(&uri).unwrap().0
    }

    #[test]
    fn lists_are_answered_from_the_view_that_was_asked_for() {
        let cases = [
            ("", Wanted::NotOlderThan(0)),
            ("resourceVersion=", Wanted::NotOlderThan(0)),
            ("resourceVersion=0", Wanted::NotOlderThan(0)),
            ("resourceVersion=12", Wanted::NotOlderThan(12)),
            (
                "resourceVersion=0&resourceVersionMatch=NotOlderThan",
                Wanted::NotOlderThan(0),
            ),
            (
                "resourceVersion=12&resourceVersionMatch=NotOlderThan",
                Wanted::NotOlderThan(12),
            ),
            (
                "resourceVersion=12&resourceVersionMatch=Exact",
                Wanted::Exactly(12),
            ),
        ];
        for (text, wanted) in cases {
            assert_eq!(query(text).for_list(), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn watches_begin_where_they_want() {
        let all = |at_least| Begin::WithEverything { at_least };
        let cases = [
            ("", all(0)),
            ("resourceVersion=0", all(0)),
            ("allowWatchBookmarks=true", all(0)),
            ("resourceVersion=12", Begin::After(12)),
            (
                "sendInitialEvents=true&resourceVersionMatch=NotOlderThan",
                all(0),
            ),
            (
                "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=0",
                all(0),
            ),
            (
                "sendInitialEvents=1&resourceVersionMatch=NotOlderThan&resourceVersion=12",
                all(12),
            ),
            (
                "sendInitialEvents=false&resourceVersionMatch=NotOlderThan",
                Begin::Now,
            ),
            (
                "sendInitialEvents=false&resourceVersionMatch=NotOlderThan&resourceVersion=12",
                Begin::After(12),
            ),
        ];
        for (text, begin) in cases {
            assert_eq!(query(text).for_watch(), Ok(begin), "{text}");
        }
    }

    #[test]
    fn combinations_that_kubernetes_refuses_are_refused_in_its_words() {
        let forbidden = "resourceVersionMatch: Forbidden: ";
        let lists = [
            (
                "resourceVersionMatch=Exact",
                format!("{forbidden}resourceVersionMatch is forbidden unless resourceVersion is provided"),
            ),
            (
                "resourceVersionMatch=exact&resourceVersion=1",
                "resourceVersionMatch: Unsupported value: \"exact\": supported values: \"Exact\", \"NotOlderThan\", \"\""
                    .to_owned(),
            ),
            (
                "resourceVersionMatch=Exact&resourceVersion=0",
                format!("{forbidden}resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""),
            ),
            (
                "sendInitialEvents=false",
                "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list".to_owned(),
            ),
        ];
        for (text, message) in lists {
            let message = format!("ListOptions.meta.k8s.io \"\" is invalid: {message}");
            assert_eq!(
                query(text).for_list().unwrap_err().message(),
                message,
                "{text}"
            );
        }
        let requires = format!(
            "{forbidden}sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        );
        let unless = format!(
            "{forbidden}resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
        );
        let only = "resourceVersionMatch: Unsupported value: \"Exact\": supported values: \"NotOlderThan\""
            .to_owned();
        let watches = [
            ("sendInitialEvents=true", requires.clone()),
            ("sendInitialEvents=false", requires.clone()),
            (
                "resourceVersionMatch=NotOlderThan&resourceVersion=5",
                unless,
            ),
            (
                "sendInitialEvents=true&resourceVersionMatch=Exact",
                format!("[{requires}, {only}]"),
            ),
        ];
        for (text, message) in watches {
            let message = format!("ListOptions.meta.k8s.io \"\" is invalid: {message}");
            assert_eq!(
                query(text).for_watch().unwrap_err().message(),
                message,
                "{text}"
            );
        }
    }

    #[test]
    fn a_version_that_is_no_number_is_refused() {
        for version in ["abc", "-1", "1.5", "99999999999999999999999"] {
            let query = query(&format!("resourceVersion={version}"));
            for answer in [
                query.for_list().err(),
                query.for_get().err(),
                query.for_watch().err(),
            ] {
                let message = answer.unwrap();
                assert!(
                    message
                        .message()
                        .contains(&format!("Invalid value: \"{version}\"")),
                    "{message:?}"
                );
            }
        }
    }
}
