//! Arguments of the commands.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use reconciler::name::{ObjectKey, WorkloadKey};
use thiserror::Error;

use crate::http::api::{ApiKind, Resource};

/// Why an argument cannot be used; the operand is as the person wrote it.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum ArgumentError {
    #[error("`{0}` is not a workload: expected KIND/NAME, such as deploy/web")]
    Workload(String),
    /// The kind of an object that has no pods.
    #[error("a {0} owns no pods: restart the workload whose pods are to be replaced")]
    NoPods(ApiKind),
    #[error("`{0}` is not a duration: expected a number and s, m or h")]
    Duration(String),
}

/// `-o` of most commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Text for people
    #[default]
    Text,
    /// JSON for programs
    Json,
}

/// Arguments of commands that have only `-o`.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct OutputArgs {
    /// Format of the output
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// `windlass run`: flags override the configuration file.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct RunArgs {
    /// Configuration file (TOML); not needed if --repo and --allowed-signers are enough
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Repository to follow: https://, ssh:// or file:// URL, or a path
    #[arg(long, value_name = "URL")]
    pub repo: Option<String>,
    /// Branch to follow [default: main]
    #[arg(long, value_name = "NAME")]
    pub branch: Option<String>,
    /// Directory of manifests in the repository; may be repeated [default: the whole repository]
    #[arg(long = "path", value_name = "DIR")]
    pub paths: Vec<String>,
    /// File with the keys that may sign commits, in OpenSSH's allowed_signers format
    #[arg(long, value_name = "FILE")]
    pub allowed_signers: Option<PathBuf>,
    /// Commits that must be signed [default: mainline]
    #[arg(long, value_enum, value_name = "MODE")]
    pub verify: Option<VerifyMode>,
    /// Interval of fetches from the repository, in seconds [default: 15]
    #[arg(long, value_name = "SECONDS")]
    pub poll_seconds: Option<u64>,
    /// Directory of the daemon's state [default: /var/lib/windlass]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Name of this host in the cluster [default: its host name]
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Socket of the container engine [default: /var/run/docker.sock]
    #[arg(long, value_name = "PATH")]
    pub docker: Option<PathBuf>,
    /// Address for /metrics, /healthz and /readyz [default: 127.0.0.1:9464]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// Address for /webhook/github and /webhook/generic [default: the address of --listen]
    #[arg(long, value_name = "ADDRESS")]
    pub webhook_listen: Option<SocketAddr>,
    /// File with the shared secret of webhooks; without it webhooks are not served
    #[arg(long, value_name = "FILE")]
    pub webhook_secret: Option<PathBuf>,
    /// Address for kubectl over TLS; requires the three files below
    #[arg(long, value_name = "ADDRESS", requires_all = ["kubectl_token", "kubectl_certificate", "kubectl_key"])]
    pub kubectl_listen: Option<SocketAddr>,
    /// File with the bearer token that kubectl must send
    #[arg(long, value_name = "FILE")]
    pub kubectl_token: Option<PathBuf>,
    /// File with the certificate chain of the kubectl listener (PEM)
    #[arg(long, value_name = "FILE")]
    pub kubectl_certificate: Option<PathBuf>,
    /// File with the certificate's key (PEM)
    #[arg(long, value_name = "FILE")]
    pub kubectl_key: Option<PathBuf>,
    /// Format of the log [default: text]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// The commits that must be signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum VerifyMode {
    /// Every commit on the first-parent line; a trusted merge also covers the commits it merges
    #[default]
    Mainline,
    /// Every commit
    All,
    /// Only the newest commit
    Head,
    /// No commit: every user who can push can run anything
    Off,
}

/// The format of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Text for people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

/// `windlass node`
#[derive(Clone, Debug, Args)]
pub(crate) struct NodeArgs {
    #[command(subcommand)]
    pub command: NodeCommand,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Remove a node that will not return: its pods are created again on other nodes
    Rm {
        /// Name of the node, as in `windlass get nodes`
        #[arg(value_name = "NODE")]
        node: String,
        /// Format of the output
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

/// `windlass trust`
#[derive(Clone, Debug, Args)]
pub(crate) struct TrustArgs {
    #[command(subcommand)]
    pub command: TrustCommand,
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum TrustCommand {
    /// List the pods of this host with their commit, its signer, and whether the signer's key is still
    /// valid
    Audit {
        /// Format of the output
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

/// `windlass check`
#[derive(Clone, Debug, Args)]
pub(crate) struct CheckArgs {
    /// Directory or file, or a revision of the repository in the current directory
    #[arg(default_value = ".", value_name = "PATH|REV")]
    pub what: String,
    /// With a revision: directory of manifests in the repository; may be repeated
    #[arg(long = "path", value_name = "DIR")]
    pub paths: Vec<String>,
    /// Format of the output
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// `windlass plan`
#[derive(Clone, Debug, Args)]
pub(crate) struct PlanArgs {
    /// Id of a commit of the followed repository, or its first digits; without it, the newest commit
    /// of the branch and what this host does now
    #[arg(value_name = "COMMIT")]
    pub revision: Option<String>,
    /// Manifests that are not pushed yet: a directory or file, or a revision of the repository in the
    /// current directory
    #[arg(long, value_name = "PATH|REV", conflicts_with = "revision")]
    pub local: Option<String>,
    /// With a local revision: directory of manifests in the repository; may be repeated
    #[arg(long = "path", value_name = "DIR", requires = "local")]
    pub paths: Vec<String>,
    /// Format of the output
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// `-o` of `get`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum GetFormat {
    /// A table with all columns
    Wide,
    /// The objects as JSON
    Json,
    /// The objects as YAML
    Yaml,
    /// Only kind and name
    Name,
}

/// `windlass get`
#[derive(Clone, Debug, Args)]
pub(crate) struct GetArgs {
    /// Kinds, separated by commas (`pods`, `deploy,svc`, `all`), or KIND/NAME
    #[arg(value_name = "KIND")]
    pub kind: String,
    /// Name of one object
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Namespace of the object
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
    /// Objects of all namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub all_namespaces: bool,
    /// Only objects with these labels
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// Only objects with these fields
    #[arg(long)]
    pub field_selector: Option<String>,
    /// Format of the output [default: a table]
    #[arg(short, long, value_enum)]
    pub output: Option<GetFormat>,
    /// Continue with the changes of the objects
    #[arg(short, long)]
    pub watch: bool,
}

/// `windlass logs`
#[derive(Clone, Debug, Args)]
pub(crate) struct LogsArgs {
    /// Name of a pod, or an object that has pods: `deploy/web`
    #[arg(value_name = "POD | KIND/NAME")]
    pub subject: String,
    /// Name of the container
    #[arg(short, long)]
    pub container: Option<String>,
    /// Namespace of the object
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
    /// Continue with lines that are written from now on
    #[arg(short, long)]
    pub follow: bool,
    /// Only this number of last lines
    #[arg(long, value_name = "LINES")]
    pub tail: Option<u64>,
    /// The log of the container's attempt before the last restart
    #[arg(short, long, conflicts_with = "follow")]
    pub previous: bool,
    /// Begin each line with its time
    #[arg(long)]
    pub timestamps: bool,
    /// Only lines of this number of last seconds
    #[arg(long, value_name = "SECONDS")]
    pub since_seconds: Option<u64>,
    /// Print every byte unchanged; otherwise, on a terminal, unprintable characters except line breaks
    /// and tabs are escaped
    #[arg(long)]
    pub raw: bool,
}

/// `windlass status`
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct StatusArgs {
    /// Exit with 0 only if the newest commit runs and nothing is wrong, with 3 if it is refused, held
    /// or has failed, and with 1 otherwise
    #[arg(long)]
    pub exit_code: bool,
    /// Format of the output
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// `windlass sync`
#[derive(Clone, Debug, Args)]
pub(crate) struct SyncArgs {
    /// Wait until the newest commit is healthy, or has failed
    #[arg(short, long)]
    pub wait: bool,
    /// Time limit of waiting: `90s`, `15m`
    #[arg(long, default_value = "15m", value_parser = duration, requires = "wait")]
    pub timeout: Duration,
    /// Format of the output
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// `windlass rollback`
#[derive(Clone, Debug, Args)]
pub(crate) struct RollbackArgs {
    /// Commit to roll back to [default: the healthy commit before the current one]
    #[arg(value_name = "COMMIT")]
    pub commit: Option<String>,
    /// Only on this host, also while the cluster's store cannot be reached, until `resume --local`
    #[arg(long)]
    pub local: bool,
    /// Format of the output
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// `windlass resume`
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct ResumeArgs {
    /// End the `rollback --local` of this host
    #[arg(long)]
    pub local: bool,
    /// Format of the output
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// `windlass retry`
#[derive(Clone, Debug, Args)]
pub(crate) struct RetryArgs {
    /// Commit that failed [default: all commits that failed]
    #[arg(value_name = "COMMIT")]
    pub commit: Option<String>,
    /// Format of the output
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// `windlass restart`
#[derive(Clone, Debug, Args)]
pub(crate) struct RestartArgs {
    /// Owner of the pods: `deploy/web`
    #[arg(value_name = "KIND/NAME")]
    pub workload: String,
    /// Namespace of the object
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
    /// Format of the output
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

impl RestartArgs {
    /// The workload that is restarted.
    pub(crate) fn workload(&self) -> Result<WorkloadKey, ArgumentError> {
        let wrong = || ArgumentError::Workload(self.workload.clone());
        let (kind, name) = self.workload.split_once('/').ok_or_else(wrong)?;
        if name.is_empty() {
            return Err(wrong());
        }
        let resource = Resource::of_word(kind).ok_or_else(wrong)?;
        let kind = resource
            .kind
            .workload()
            .ok_or(ArgumentError::NoPods(resource.kind))?;
        Ok(WorkloadKey {
            kind,
            object: ObjectKey::new(self.namespace.clone(), name),
        })
    }
}

/// `windlass doctor`
#[derive(Clone, Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Configuration file of the daemon
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// File with the keys that may sign commits
    #[arg(long, value_name = "FILE")]
    pub allowed_signers: Option<PathBuf>,
    /// Directory of the daemon's state [default: /var/lib/windlass]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Socket of the container engine [default: /var/run/docker.sock]
    #[arg(long, value_name = "PATH")]
    pub docker: Option<PathBuf>,
    /// Format of the output
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// `windlass uninstall`
#[derive(Clone, Debug, Args)]
pub(crate) struct UninstallArgs {
    /// Remove it; without this flag, print what would be removed
    #[arg(long)]
    pub yes: bool,
    /// Configuration file of the daemon
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory of the daemon's state [default: /var/lib/windlass]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Socket of the container engine [default: /var/run/docker.sock]
    #[arg(long, value_name = "PATH")]
    pub docker: Option<PathBuf>,
    /// Keep the daemon's files, including the volumes of pods
    #[arg(long)]
    pub keep_data: bool,
}

/// Parses `90`, `90s`, `15m` or `2h`.
pub(super) fn duration(text: &str) -> Result<Duration, ArgumentError> {
    let wrong = || ArgumentError::Duration(text.to_owned());
    let digits = text.trim_end_matches(['s', 'm', 'h']);
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let factor = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(wrong()),
    };
    number
        .checked_mul(factor)
        .map(Duration::from_secs)
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("15m"), Ok(Duration::from_secs(900)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        for wrong in ["", "m", "5d", "1ms", "-1s", "99999999999999999999h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_restart_names_what_owns_pods() {
        let named = |text: &str| {
            RestartArgs {
                workload: text.into(),
                namespace: "default".into(),
                output: Format::Text,
            }
            .workload()
        };
        assert_eq!(
            named("deploy/web").map(|key| key.to_string()),
            Ok("Deployment/default/web".to_owned())
        );
        assert_eq!(
            named("ds/agent").map(|key| key.to_string()),
            Ok("DaemonSet/default/agent".to_owned())
        );
        assert_eq!(
            named("svc/web"),
            Err(ArgumentError::NoPods(ApiKind::Service))
        );
        for wrong in ["web", "deploy/", "job/x"] {
            assert!(named(wrong).is_err(), "{wrong}");
        }
    }
}
