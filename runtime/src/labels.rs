//! A container's labels: its pod, its role and its attempt, readable again after any crash or
//! upgrade.

use std::collections::HashMap;

use reconciler::{
    name::{CommitId, Installation, ObjectKey, PodUid, TemplateHash},
    plan::{PodIdentity, Role},
};

/// The schema version of the labels that this program writes; newer ones are not read.
const SCHEMA_VERSION: u32 = 1;

const SCHEMA: &str = "io.windlass.schema";
const INSTANCE: &str = "io.windlass.instance";
const POD_UID: &str = "io.windlass.pod.uid";
const POD_NAMESPACE: &str = "io.windlass.pod.namespace";
const POD_NAME: &str = "io.windlass.pod.name";
const OWNER: &str = "io.windlass.owner";
const COMMIT: &str = "io.windlass.commit";
const TEMPLATE: &str = "io.windlass.template";
const ROLE: &str = "io.windlass.role";
const CONTAINER: &str = "io.windlass.container";
const ATTEMPT: &str = "io.windlass.attempt";
const MESSAGE: &str = "io.windlass.message";
/// The value of the label [`MESSAGE`] for `FallbackToLogsOnError`.
const FILE_OR_LOGS: &str = "file-or-logs";

/// The content of one container's labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Labels {
    pub(crate) identity: PodIdentity,
    pub(crate) role: Role,
    /// The container's name in the pod; empty for the sandbox.
    pub(crate) name: String,
    pub(crate) attempt: u32,
    /// Whether the container has `terminationMessagePolicy: FallbackToLogsOnError`.
    pub(crate) message_from_logs: bool,
}

/// Why labels could not be read. A container with such labels is left alone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LabelsError {
    /// The container belongs to another installation, or to none.
    #[error("it does not carry this installation's labels")]
    Foreign,
    /// The labels were written by a later version of Windlass.
    #[error(
        "its labels have schema {0}, which is newer than this program's {SCHEMA_VERSION}: upgrade windlass here"
    )]
    Newer(u32),
    /// The labels are of this installation, and damaged.
    #[error("its label {0} is missing or wrong")]
    Malformed(&'static str),
}

impl Labels {
    /// The labels as the engine stores them.
    pub(crate) fn write(&self, installation: &Installation) -> HashMap<String, String> {
        let identity = &self.identity;
        let message_source = if self.message_from_logs {
            FILE_OR_LOGS
        } else {
            "file"
        };
        [
            (SCHEMA, SCHEMA_VERSION.to_string()),
            (INSTANCE, installation.to_string()),
            (POD_UID, identity.uid.to_string()),
            (POD_NAMESPACE, identity.pod.namespace.clone()),
            (POD_NAME, identity.pod.name.clone()),
            (OWNER, identity.owner.to_string()),
            (COMMIT, identity.commit.to_string()),
            (TEMPLATE, identity.template.to_string()),
            (ROLE, role_word(self.role).to_owned()),
            (CONTAINER, self.name.clone()),
            (ATTEMPT, self.attempt.to_string()),
            (MESSAGE, message_source.to_owned()),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
    }

    /// Parses labels; labels of others are ignored.
    pub(crate) fn read(
        labels: &HashMap<String, String>,
        installation: &Installation,
    ) -> Result<Self, LabelsError> {
        // Checked first: of other containers nothing is read, not even whether it is right.
        if labels.get(INSTANCE).map(String::as_str) != Some(installation.as_str()) {
            return Err(LabelsError::Foreign);
        }

        let get = |key: &'static str| labels.get(key).ok_or(LabelsError::Malformed(key));
        let schema = get(SCHEMA)?
            .parse()
            .map_err(|_| LabelsError::Malformed(SCHEMA))?;
        if schema > SCHEMA_VERSION {
            return Err(LabelsError::Newer(schema));
        }

        Ok(Self {
            identity: PodIdentity {
                uid: PodUid::new(get(POD_UID)?),
                pod: ObjectKey::new(get(POD_NAMESPACE)?, get(POD_NAME)?),
                owner: get(OWNER)?
                    .parse()
                    .map_err(|_| LabelsError::Malformed(OWNER))?,
                commit: CommitId::recorded(get(COMMIT)?),
                template: TemplateHash::new(get(TEMPLATE)?),
            },
            role: role_of(get(ROLE)?).ok_or(LabelsError::Malformed(ROLE))?,
            name: get(CONTAINER)?.clone(),
            attempt: get(ATTEMPT)?
                .parse()
                .map_err(|_| LabelsError::Malformed(ATTEMPT))?,
            message_from_logs: labels.get(MESSAGE).is_some_and(|word| word == FILE_OR_LOGS),
        })
    }

    /// Whether both are the same container of the same pod, whatever commit it was resolved in.
    pub(crate) fn is_same_container(&self, other: &Self) -> bool {
        self.identity.uid == other.identity.uid
            && self.role == other.role
            && self.name == other.name
            && self.attempt == other.attempt
    }

    /// The container's name on the engine:
    /// `windlass_<container>_<pod>_<namespace>_<uid>_<attempt>`.
    pub(crate) fn container_name(&self) -> String {
        let PodIdentity { uid, pod, .. } = &self.identity;
        let container = if self.role == Role::Sandbox {
            "POD"
        } else {
            &self.name
        };
        let uid = uid.as_str().get(..8).unwrap_or(uid.as_str());
        format!(
            "windlass_{container}_{}_{}_{uid}_{}",
            pod.name, pod.namespace, self.attempt
        )
    }
}

/// The engine's filter for all containers of an installation.
pub(crate) fn installation_filter(installation: &Installation) -> HashMap<String, Vec<String>> {
    HashMap::from([(
        "label".to_owned(),
        vec![format!("{INSTANCE}={installation}")],
    )])
}

/// The engine's filter for the containers of one pod.
pub(crate) fn pod_filter(
    installation: &Installation,
    pod: &PodUid,
) -> HashMap<String, Vec<String>> {
    HashMap::from([(
        "label".to_owned(),
        vec![
            format!("{INSTANCE}={installation}"),
            format!("{POD_UID}={pod}"),
        ],
    )])
}

fn role_word(role: Role) -> &'static str {
    match role {
        Role::Sandbox => "sandbox",
        Role::Init => "init",
        Role::Main => "main",
    }
}

fn role_of(word: &str) -> Option<Role> {
    [Role::Sandbox, Role::Init, Role::Main]
        .into_iter()
        .find(|role| role_word(*role) == word)
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test")]

    use super::*;

    pub(super) fn here() -> Installation {
        Installation::new("here")
    }

    pub(super) fn there() -> Installation {
        Installation::new("there")
    }

    fn labels() -> Labels {
        Labels {
            identity: PodIdentity {
                uid: PodUid::new("0b5e8f4c-6c1e-4f7e-9a53-1f6a3d1f0001"),
                pod: ObjectKey::new("shop", "web-1"),
                owner: "Deployment/shop/web".parse().unwrap(),
                commit: CommitId::parse("0123456789abcdef0123456789abcdef01234567").unwrap(),
                template: TemplateHash::new("1-9f86d081884c7d65"),
            },
            role: Role::Main,
            name: "app".to_owned(),
            attempt: 3,
            message_from_logs: true,
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for role in [Role::Sandbox, Role::Init, Role::Main] {
            let labels = Labels {
                role,
                message_from_logs: role == Role::Init,
                ..labels()
            };
            assert_eq!(Labels::read(&labels.write(&here()), &here()), Ok(labels));
        }
    }

    #[test]
    fn another_installations_container_is_foreign() {
        assert_eq!(
            Labels::read(&labels().write(&there()), &here()),
            Err(LabelsError::Foreign)
        );
        assert_eq!(
            Labels::read(&HashMap::new(), &here()),
            Err(LabelsError::Foreign)
        );
    }

    #[test]
    fn a_newer_schema_and_a_damaged_label_are_told_apart() {
        let mut newer = labels().write(&here());
        newer.insert(SCHEMA.to_owned(), "2".to_owned());
        assert_eq!(Labels::read(&newer, &here()), Err(LabelsError::Newer(2)));
        let mut damaged = labels().write(&here());
        damaged.remove(OWNER);
        assert_eq!(
            Labels::read(&damaged, &here()),
            Err(LabelsError::Malformed(OWNER))
        );
    }

    #[test]
    fn the_name_says_container_pod_namespace_and_attempt() {
        assert_eq!(
            labels().container_name(),
            "windlass_app_web-1_shop_0b5e8f4c_3"
        );
        let sandbox = Labels {
            role: Role::Sandbox,
            name: String::new(),
            attempt: 0,
            ..labels()
        };
        assert_eq!(
            sandbox.container_name(),
            "windlass_POD_web-1_shop_0b5e8f4c_0"
        );
    }
}
