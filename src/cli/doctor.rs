//! `windlass doctor`: checks that a host has what the daemon needs. It needs no daemon: it reads
//! files, asks the engine, and makes trials in network namespaces of its own.

mod certificate;
mod engine;
mod exposure;
mod host;
mod sandbox;

use std::{io::Write, net::SocketAddr, path::PathBuf};

use netfilter::Exposure;
use runtime::LogBounds;
use serde::Serialize;

use super::{
    args::Format,
    exit::{CliError, Exit},
    paint,
};
use crate::source::sandbox::UserIds;

/// What is checked, and the results of checks that are made before.
#[derive(Debug)]
pub(crate) struct DoctorFacts {
    /// Socket of the container engine.
    pub docker: PathBuf,
    /// The bounds of a container's log.
    pub logs: LogBounds,
    /// The data directory; it may not exist yet.
    pub data_dir: PathBuf,
    /// Directory of the daemon's sockets.
    pub socket_dir: PathBuf,
    /// Directory of this host's certificate in the cluster; it may not exist.
    pub peer_dir: PathBuf,
    /// Addresses at which the daemon listens.
    pub listen: Vec<SocketAddr>,
    /// A summary of the configuration file, or its problems; `None` if there is no file.
    pub config: Option<anyhow::Result<String>>,
    /// The user of fetches, or the problem of the configured one; `None` if the host has no such
    /// user.
    pub fetch_user: anyhow::Result<Option<UserIds>>,
    /// The number of allowed signers, or the problem of their file; `None` if verification is off or
    /// no file is configured.
    pub signers: Option<anyhow::Result<usize>>,
    /// What is open to other machines by the configuration and the data directory.
    pub exposure: anyhow::Result<Exposure>,
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// What was checked, such as `engine`.
    pub subject: &'static str,
    /// Whether the check has passed.
    pub verdict: DoctorVerdict,
    /// What was observed.
    pub found: String,
    /// The advised change; empty if none is needed.
    pub advice: String,
}

/// Whether a check has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DoctorVerdict {
    /// The check has passed.
    Ok,
    /// The daemon works, with a disadvantage.
    Warn,
    /// The daemon cannot work.
    Fail,
}

impl Finding {
    fn ok(subject: &'static str, found: impl Into<String>) -> Self {
        Self {
            subject,
            verdict: DoctorVerdict::Ok,
            found: found.into(),
            advice: String::new(),
        }
    }

    fn warn(subject: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            subject,
            verdict: DoctorVerdict::Warn,
            found: found.into(),
            advice: advice.into(),
        }
    }

    fn fail(subject: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            subject,
            verdict: DoctorVerdict::Fail,
            found: found.into(),
            advice: advice.into(),
        }
    }
}

/// Makes all checks, and prints a line for each. The exit code is 1 if a check fails.
pub(crate) async fn run(
    facts: &DoctorFacts,
    format: Format,
    out: &mut dyn Write,
) -> Result<Exit, CliError> {
    let findings = examine(facts).await;
    match format {
        Format::Json => super::status::json(&findings, out)?,
        Format::Text => print(&findings, out)?,
    }
    let worst = findings.iter().map(|finding| finding.verdict).max();
    Ok(if worst == Some(DoctorVerdict::Fail) {
        Exit::Failed
    } else {
        Exit::Done
    })
}

async fn examine(facts: &DoctorFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(facts.config.as_ref().map(config));
    findings.extend(engine::examine(&facts.docker, facts.logs).await);
    findings.push(host::nft().await);
    findings.push(host::links().await);
    findings.push(host::forwarding());
    findings.push(exposure::examine(&facts.exposure).await);
    findings.extend(host::ports(facts));
    findings.push(sandbox::user(&facts.fetch_user));
    findings.push(sandbox::landlock());
    findings.push(signers(facts.signers.as_ref()));
    findings.extend(certificate::examine(
        &facts.peer_dir,
        jiff::Timestamp::now(),
    ));
    findings.push(host::space(&facts.data_dir));
    findings.push(host::time().await);
    findings
}

fn config(config: &anyhow::Result<String>) -> Finding {
    match config {
        Ok(found) => Finding::ok("configuration", found),
        Err(error) => Finding::fail(
            "configuration",
            format!("{error:#}"),
            "correct the file; docs/configuration.md lists the settings",
        ),
    }
}

fn signers(signers: Option<&anyhow::Result<usize>>) -> Finding {
    let advice = "configure a file in OpenSSH's allowed_signers format with --allowed-signers";
    match signers {
        None => Finding::warn(
            "allowed signers",
            "not configured: no commit can be verified",
            advice,
        ),
        Some(Err(error)) => Finding::fail(
            "allowed signers",
            format!("{error:#}"),
            "correct the file; see ssh-keygen(1), ALLOWED SIGNERS",
        ),
        Some(Ok(0)) => Finding::fail(
            "allowed signers",
            "the file has no signer: no commit can be trusted",
            advice,
        ),
        Some(Ok(count)) => Finding::ok("allowed signers", format!("{count} signers")),
    }
}

fn print(findings: &[Finding], out: &mut dyn Write) -> std::io::Result<()> {
    for finding in findings {
        let word = match finding.verdict {
            DoctorVerdict::Ok => paint::good("ok  "),
            DoctorVerdict::Warn => paint::soso("warn"),
            DoctorVerdict::Fail => paint::bad("fail"),
        };
        writeln!(out, "{word}  {:<16} {}", finding.subject, finding.found)?;
        if !finding.advice.is_empty() {
            writeln!(out, "                       -> {}", finding.advice)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test")]
    use super::*;

    #[tokio::test]
    async fn a_host_without_an_engine_fails_with_advice() {
        rustls::crypto::ring::default_provider()
            .install_default()
            .unwrap_or_default();
        let directory = tempfile::tempdir().unwrap();
        let facts = DoctorFacts {
            docker: directory.path().join("docker.sock"),
            logs: LogBounds::default(),
            data_dir: directory.path().join("not/there/yet"),
            socket_dir: directory.path().to_owned(),
            peer_dir: directory.path().join("peer"),
            listen: vec![([127, 0, 0, 1], 0).into()],
            config: Some(Ok("read".into())),
            fetch_user: Ok(None),
            signers: Some(Err(anyhow::anyhow!("line 3: no such key type"))),
            exposure: Ok(Exposure::Unset),
        };
        let mut text = Vec::new();
        let exit = run(&facts, Format::Text, &mut text).await.unwrap();
        let text = anstream::adapter::strip_str(&String::from_utf8(text).unwrap()).to_string();
        assert_eq!(exit, Exit::Failed);
        for line in [
            "fail  engine",
            "fail  allowed signers  line 3: no such key type",
            "ok    configuration    read",
            "disk",
            "clock",
            "nft",
            "exposure",
            "ports",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_found() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let directory = tempfile::tempdir().unwrap();
        let facts = DoctorFacts {
            docker: "/none".into(),
            logs: LogBounds::default(),
            data_dir: directory.path().to_owned(),
            socket_dir: directory.path().to_owned(),
            peer_dir: directory.path().join("peer"),
            listen: vec![taken.local_addr().unwrap()],
            config: None,
            fetch_user: Ok(None),
            signers: None,
            exposure: Ok(Exposure::Unset),
        };
        let findings = host::ports(&facts);
        assert_eq!(findings[0].verdict, DoctorVerdict::Fail);
        assert!(
            findings[0]
                .found
                .contains(&taken.local_addr().unwrap().to_string())
        );
    }
}
