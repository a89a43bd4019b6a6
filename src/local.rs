//! The commands that work on the host itself and need no daemon: `run`, `check`, `doctor`,
//! `uninstall`.

mod check;
mod uninstall;

use std::path::PathBuf;

use anyhow::Result;

pub(crate) use check::check;
pub(crate) use uninstall::uninstall;

use crate::{
    cli::{DoctorArgs, RunArgs, VerifyMode, doctor::DoctorFacts},
    config::Config,
    daemon::DEFAULT_LISTEN,
    follow::read_signers,
    source::verify::Mode,
};

/// The configuration of `run`: the file, with the flags laid over it.
pub(crate) fn configuration(args: &RunArgs, socket_dir: Option<PathBuf>) -> Result<Config> {
    let mut config = match &args.config {
        Some(file) => Config::read(file)?,
        None => Config::default(),
    };
    let RunArgs {
        config: _,
        repo,
        branch,
        paths,
        allowed_signers,
        verify,
        poll_seconds,
        data_dir,
        node,
        docker,
        listen,
        webhook_listen,
        webhook_secret,
        kubectl_listen,
        kubectl_token,
        kubectl_certificate,
        kubectl_key,
        log_format: _,
    } = args.clone();
    lay(&mut config.source.url, repo);
    lay(&mut config.source.branch, branch);
    lay(
        &mut config.source.poll,
        poll_seconds.map(std::time::Duration::from_secs),
    );
    lay(&mut config.trust.mode, verify.map(mode));
    if !paths.is_empty() {
        config.source.paths = paths;
    }
    lay_over(&mut config.trust.allowed_signers, allowed_signers);
    lay_over(&mut config.data_dir, data_dir);
    lay_over(&mut config.socket_dir, socket_dir);
    lay_over(&mut config.node.name, node);
    lay_over(&mut config.docker.socket, docker);
    lay_over(&mut config.listen.metrics, listen);
    lay_over(&mut config.listen.webhook, webhook_listen);
    lay_over(&mut config.webhook.secret_file, webhook_secret);
    lay_over(&mut config.listen.api, kubectl_listen);
    lay_over(&mut config.listen.api_token_file, kubectl_token);
    lay_over(&mut config.listen.api_certificate, kubectl_certificate);
    lay_over(&mut config.listen.api_key, kubectl_key);
    Ok(config)
}

fn lay<T>(field: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *field = given;
    }
}

fn lay_over<T>(field: &mut Option<T>, given: Option<T>) {
    if given.is_some() {
        *field = given;
    }
}

fn mode(mode: VerifyMode) -> Mode {
    match mode {
        VerifyMode::Mainline => Mode::Mainline,
        VerifyMode::All => Mode::All,
        VerifyMode::Head => Mode::Head,
        VerifyMode::Off => Mode::Off,
    }
}

/// What `doctor` looks at.
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
