//! Arguments of the commands.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};
use reconciler::name::{ObjectKey, WorkloadKey, WorkloadKind};
use thiserror::Error;

use crate::http::api::Resource;

/// Why an argument cannot be used; the operand is as the person wrote it.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum ArgumentError {
    #[error("`{0}` is no workload: expected KIND/NAME, as in deploy/web")]
    Workload(String),
    /// The kind of an object that has no pods.
    #[error("a {0} owns no pods: a restart is for what does")]
    NoPods(&'static str),
    #[error("`{0}` is no time: expected a number and s, m or h")]
    Duration(String),
}

/// `-o` of most commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Only `-o`.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct OutputArgs {
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// `windlass run`: what is given here wins over the configuration file.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct RunArgs {
    /// Configuration file (TOML); not needed where --repo and --allowed-signers say enough
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Repository to follow: https://, ssh:// or file:// URL, or a path
    #[arg(long, value_name = "URL")]
    pub repo: Option<String>,
    /// Branch to follow [default: main]
    #[arg(long, value_name = "NAME")]
    pub branch: Option<String>,
    /// Directory of manifests in the repository; may be given several times [default: all of it]
    #[arg(long = "path", value_name = "DIR")]
    pub paths: Vec<String>,
    /// Who may sign commits, in OpenSSH's allowed_signers format
    #[arg(long, value_name = "FILE")]
    pub allowed_signers: Option<PathBuf>,
    /// Which commits must be signed [default: mainline]
    #[arg(long, value_enum, value_name = "MODE")]
    pub verify: Option<VerifyMode>,
    /// Time between two questions to the repository, in seconds [default: 15]
    #[arg(long, value_name = "SECONDS")]
    pub poll_seconds: Option<u64>,
    /// Directory for all that must outlive the daemon [default: /var/lib/windlass]
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
    /// File with the webhooks' shared secret; without it there are no webhooks
    #[arg(long, value_name = "FILE")]
    pub webhook_secret: Option<PathBuf>,
    /// Address for kubectl over TLS; needs the three files below
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
    /// How to write the log [default: text]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// Which commits must be signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum VerifyMode {
    /// Every commit on the first-parent line; a trusted merge vouches for what it merges.
    #[default]
    Mainline,
    /// Every commit.
    All,
    /// The newest commit only.
    Head,
    /// None: whoever can push can run anything.
    Off,
}

/// How to write the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// `windlass node`
#[derive(Clone, Debug, Args)]
pub(crate) struct NodeArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: NodeCommand,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Take a node that does not come back out of the cluster: its pods are made anew elsewhere
    Rm {
        /// Its name, as `windlass get nodes` shows it
        #[arg(value_name = "NODE")]
        node: String,
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

/// `windlass trust`
#[derive(Clone, Debug, Args)]
pub(crate) struct TrustArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: TrustCommand,
}

/// What to do.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum TrustCommand {
    /// List the pods of this host by the grounds they run on: which commit, who signed it, whether
    /// that key still counts
    Audit {
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

/// `windlass check`
#[derive(Clone, Debug, Args)]
pub(crate) struct CheckArgs {
    /// A directory or file, or a revision of the repository in the current directory
    #[arg(default_value = ".", value_name = "PATH|REV")]
    pub what: String,
    /// Directory of manifests in the repository, with a revision; may be given several times
    #[arg(long = "path", value_name = "DIR")]
    pub paths: Vec<String>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// `windlass plan`
#[derive(Clone, Debug, Args)]
pub(crate) struct PlanArgs {
    /// A revision of the followed repository; without it, what is being done now
    #[arg(value_name = "REV")]
    pub revision: Option<String>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// `-o` of `get`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum GetFormat {
    /// More columns.
    Wide,
    /// The objects.
    Json,
    /// The objects.
    Yaml,
    /// Kind and name only.
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
    /// Namespace
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
    /// All namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub all_namespaces: bool,
    /// Only objects with these labels
    #[arg(short = 'l', long)]
    pub selector: Option<String>,
    /// Only objects with these fields
    #[arg(long)]
    pub field_selector: Option<String>,
    /// How to print; a table without it
    #[arg(short, long, value_enum)]
    pub output: Option<GetFormat>,
    /// Go on with what changes
    #[arg(short, long)]
    pub watch: bool,
}

/// `windlass logs`
#[derive(Clone, Debug, Args)]
pub(crate) struct LogsArgs {
    /// The pod
    #[arg(value_name = "POD")]
    pub pod: String,
    /// Which of its containers
    #[arg(short, long)]
    pub container: Option<String>,
    /// Namespace
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
    /// Go on with what is written from now on
    #[arg(short, long)]
    pub follow: bool,
    /// Only so many of the last lines
    #[arg(long, value_name = "LINES")]
    pub tail: Option<u64>,
    /// The log of the container before the last restart
    #[arg(short, long, conflicts_with = "follow")]
    pub previous: bool,
    /// Put the time before each line
    #[arg(long)]
    pub timestamps: bool,
    /// Only what was written in the last so many seconds
    #[arg(long, value_name = "SECONDS")]
    pub since_seconds: Option<u64>,
    /// Print every byte as it is, on a terminal too, where otherwise all but line breaks and tabs
    /// is escaped
    #[arg(long)]
    pub raw: bool,
}

/// `windlass sync`
#[derive(Clone, Debug, Args)]
pub(crate) struct SyncArgs {
    /// Wait until the newest commit is healthy, or is known not to become so
    #[arg(short, long)]
    pub wait: bool,
    /// Wait for so long at most: `90s`, `15m`
    #[arg(long, default_value = "15m", value_parser = duration, requires = "wait")]
    pub timeout: Duration,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// `windlass rollback`
#[derive(Clone, Debug, Args)]
pub(crate) struct RollbackArgs {
    /// The commit to go back to; without it, the healthy one before the current
    #[arg(value_name = "COMMIT")]
    pub commit: Option<String>,
    /// Only on this host, also while the cluster's store does not answer; `resume --local` ends it
    #[arg(long)]
    pub local: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// `windlass resume`
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct ResumeArgs {
    /// End what `rollback --local` began on this host
    #[arg(long)]
    pub local: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// `windlass retry`
#[derive(Clone, Debug, Args)]
pub(crate) struct RetryArgs {
    /// The commit that failed; without it, all of them
    #[arg(value_name = "COMMIT")]
    pub commit: Option<String>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// `windlass restart`
#[derive(Clone, Debug, Args)]
pub(crate) struct RestartArgs {
    /// What owns the pods: `deploy/web`
    #[arg(value_name = "KIND/NAME")]
    pub workload: String,
    /// Namespace
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

impl RestartArgs {
    /// The workload that is meant.
    pub(crate) fn workload(&self) -> Result<WorkloadKey, ArgumentError> {
        let wrong = || ArgumentError::Workload(self.workload.clone());
        let (kind, name) = self.workload.split_once('/').ok_or_else(wrong)?;
        if name.is_empty() {
            return Err(wrong());
        }
        let resource = Resource::of_word(kind).ok_or_else(wrong)?;
        let kind =
            WorkloadKind::parse(resource.kind).ok_or(ArgumentError::NoPods(resource.kind))?;
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
    /// Who may sign commits
    #[arg(long, value_name = "FILE")]
    pub allowed_signers: Option<PathBuf>,
    /// Directory for all that must outlive the daemon [default: /var/lib/windlass]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Socket of the container engine [default: /var/run/docker.sock]
    #[arg(long, value_name = "PATH")]
    pub docker: Option<PathBuf>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// `windlass uninstall`
#[derive(Clone, Debug, Args)]
pub(crate) struct UninstallArgs {
    /// Do it; without this, only say what would be removed
    #[arg(long)]
    pub yes: bool,
    /// Configuration file of the daemon
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory that the daemon keeps its files in [default: /var/lib/windlass]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Socket of the container engine [default: /var/run/docker.sock]
    #[arg(long, value_name = "PATH")]
    pub docker: Option<PathBuf>,
    /// Leave the daemon's files, with the volumes of pods among them
    #[arg(long)]
    pub keep_data: bool,
}

/// `90`, `90s`, `15m`, `2h`
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
        assert_eq!(named("svc/web"), Err(ArgumentError::NoPods("Service")));
        for wrong in ["web", "deploy/", "job/x"] {
            assert!(named(wrong).is_err(), "{wrong}");
        }
    }
}
