//! The configuration of a command: the file, overridden by the command's flags.

use std::path::PathBuf;

use anyhow::Result;

use super::{RunArgs, VerifyMode};
use crate::{config::Config, source::verify::Mode};

/// Reads the configuration of the daemon, and checks it for settings that cannot be right.
pub(crate) fn checked(args: &RunArgs, socket_dir: Option<PathBuf>) -> Result<Config> {
    let config = configuration(args, socket_dir)?;
    config.check()?;
    Ok(config)
}

/// Reads the configuration file, if one is named, and overrides it by the flags.
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
