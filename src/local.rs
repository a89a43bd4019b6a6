//! The commands that work on the host itself and need no daemon: `run`, `check`, `doctor`,
//! `uninstall`.

mod check;
mod plan;
mod uninstall;

use std::path::PathBuf;

use anyhow::Result;

pub(crate) use check::check;
pub(crate) use plan::local_manifests;
pub(crate) use uninstall::uninstall;

use crate::{
    cli::{DoctorArgs, doctor::DoctorFacts},
    config::Config,
    daemon::DEFAULT_LISTEN,
    exposure,
    follow::read_signers,
};

/// The facts about this host that `doctor` checks.
pub(crate) fn doctor_facts(args: &DoctorArgs, socket_dir: PathBuf) -> DoctorFacts {
    let (config, summary) = match args.config.as_deref().map(Config::read) {
        None => (Config::default(), None),
        Some(Ok(config)) => {
            let summary = summary(&config);
            (config, Some(summary))
        }
        Some(Err(error)) => (Config::default(), Some(Err(error))),
    };

    let file = args
        .allowed_signers
        .clone()
        .or(config.trust.allowed_signers.clone());
    let signers = file.map(|file| Ok(read_signers(Some(&file))?.len()));

    let listen = [
        Some(config.listen.metrics.unwrap_or(DEFAULT_LISTEN)),
        config.listen.webhook,
        config.listen.api,
        config.peer.listen,
    ];
    let data_dir = args.data_dir.clone().unwrap_or_else(|| config.data_dir());
    let peer_dir = config
        .peer
        .directory
        .clone()
        .unwrap_or_else(|| data_dir.join("peer"));

    let exposure = exposure::find(&data_dir, config.network.expose.as_ref());

    DoctorFacts {
        docker: args
            .docker
            .clone()
            .or(config.docker.socket.clone())
            .unwrap_or_else(|| PathBuf::from("/var/run/docker.sock")),
        logs: config.docker.logs.into(),
        data_dir,
        socket_dir,
        peer_dir,
        listen: listen.into_iter().flatten().collect(),
        config: summary,
        fetch_user: config.source.fetch_user(),
        signers,
        exposure: exposure.map_err(Into::into),
    }
}

/// Which repository a host with this configuration follows, if the settings can be right.
fn summary(config: &Config) -> Result<String> {
    config.check()?;
    Ok(format!(
        "follows {} of {}",
        config.source.branch, config.source.url
    ))
}
