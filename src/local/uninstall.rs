//! `windlass uninstall`: removes everything that Windlass made on this host, and nothing else.

use std::{io::Write, os::unix::net::UnixStream, path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};
use runtime::{Runtime, RuntimeConfig};

use crate::{
    cli::{Exit, UninstallArgs},
    config::Config,
    data_dir::DataDir,
    store::LocalStore,
};

/// The limit of the removal of the data directory, for which a person waits.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Removes everything, or lists what would be removed.
pub(crate) async fn uninstall(
    args: &UninstallArgs,
    socket_dir: PathBuf,
    out: &mut dyn Write,
) -> Result<Exit> {
    let config = match &args.config {
        Some(file) => Config::read(file)?,
        None => Config::default(),
    };
    let data = args.data_dir.clone().unwrap_or_else(|| config.data_dir());
    let admin = socket_dir.join("admin.sock");
    if UnixStream::connect(&admin).is_ok() {
        bail!(
            "the daemon is running ({} answers): stop it first, or it makes everything again",
            admin.display()
        );
    }
    if !LocalStore::is_in(&data) {
        bail!(
            "{} holds no installation of Windlass: name its data directory with --data-dir",
            data.display()
        );
    }

    // No daemon may start meanwhile: it would make everything again.
    let _ours = DataDir::take(&data)?;
    let Some(installation) = LocalStore::instance(&data)? else {
        bail!("{} does not say which installation it is", data.display());
    };
    if !args.yes {
        writeln!(
            out,
            "would remove: all containers of installation {installation}, the pods' volumes, the nftables table"
        )?;
        writeln!(
            out,
            "ip windlass, pod links, the device windlass0, our routes and accept rules, and {}",
            data.display()
        )?;
        writeln!(out, "nothing was removed: say --yes to do it")?;
        return Ok(Exit::Done);
    }

    let mut runtime = RuntimeConfig::new(installation, &data);
    if let Some(socket) = args.docker.clone().or(config.docker.socket) {
        runtime.socket = socket;
    }
    let containers = Runtime::open(runtime).await?.uninstall().await?;
    writeln!(out, "removed {containers} containers")?;

    let removed = netfilter::uninstall(&netfilter::record_path(&data)).await;
    for line in &removed.done {
        writeln!(out, "removed {line}")?;
    }
    for socket in ["windlass.sock", "admin.sock"] {
        // A daemon that was killed leaves the sockets; one that ended has removed them.
        let _ = std::fs::remove_file(socket_dir.join(socket));
    }
    if !removed.failed.is_empty() {
        for error in &removed.failed {
            writeln!(out, "left: {:#}", anyhow::Error::msg(error.to_string()))?;
        }
        return Ok(Exit::Failed);
    }

    // Last, and only if nothing failed: the files name what is still to be removed.
    if !args.keep_data {
        runtime::remove_tree(&data, PATIENCE)
            .with_context(|| format!("remove {}", data.display()))?;
        writeln!(out, "removed {}", data.display())?;
    }
    Ok(Exit::Done)
}
