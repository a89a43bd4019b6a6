//! The commands that work on the host itself and need no daemon: `run`, `check`, `doctor`,
//! `uninstall`.

mod check;
mod uninstall;

use std::path::PathBuf;

use anyhow::Result;

pub(crate) use check::check;
pub(crate) use uninstall::uninstall;

use crate::{
    cli::{DoctorArgs, doctor::DoctorFacts},
    config::Config,
    daemon::DEFAULT_LISTEN,
    follow::read_signers,
};

/// The facts about this host that `doctor` checks.
pub(crate) fn doctor_facts(args: &DoctorArgs, socket_dir: PathBuf) -> DoctorFacts {
    let read = args.config.as_ref().map(|file| Config::read(file));
    let summary = read.as_ref().map(|read| match read {
        Ok(config) => {
            let checked = config
                .check()
                .map(|()| format!("follows {} of {}", config.source.branch, config.source.url));
            checked.map_err(|error| format!("{error:#}"))
        }
        Err(error) => Err(format!("{error:#}")),
    });
    let config = read.and_then(Result::ok).unwrap_or_default();
    let file = args
        .allowed_signers
        .clone()
        .or(config.trust.allowed_signers.clone());
    let signers = file.map(|file| {
        read_signers(Some(&file))
            .map(|signers| signers.len())
            .map_err(|error| format!("{error:#}"))
    });
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
    DoctorFacts {
        docker: args
            .docker
            .clone()
            .or(config.docker.socket.clone())
            .unwrap_or_else(|| PathBuf::from("/var/run/docker.sock")),
        data_dir,
        socket_dir,
        peer_dir,
        listen: listen.into_iter().flatten().collect(),
        config: summary,
        signers,
    }
}
