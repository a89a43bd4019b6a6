//! The checks of the kernel's network, of ports, disk and clock.

use std::{fs, io, net::TcpListener, path::Path, time::Duration};

use reconciler::foreign::ForeignText;
use thiserror::Error;
use tokio::{process::Command, time::timeout};

use super::{DoctorFacts, Finding};
use crate::cli::client::answers;

/// With less free space, in bytes, images may not fit.
const LITTLE_SPACE: u64 = 5 << 30;
/// With less free space, in bytes, the daemon's state cannot be written.
const NO_SPACE: u64 = 256 << 20;
/// The time limit of a command. All of them normally end at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a program of the host did not do its work.
#[derive(Debug, Error)]
enum ProgramError {
    #[error("{0} did not end within {seconds} s", seconds = PATIENCE.as_secs())]
    Hangs(String),
    #[error("{0} is not installed")]
    NotInstalled(String),
    #[error("{program}: {error}")]
    NotRun { program: String, error: io::Error },
    /// The first line of the program's own message.
    #[error("{0}")]
    Failed(ForeignText),
}

/// Checks that nft is installed, and that the kernel accepts a table with a map and NAT.
pub(super) async fn nft() -> Finding {
    let version = match run("nft", &["--version"]).await {
        Ok(version) => version.trim().to_owned(),
        Err(error) => {
            return Finding::fail("nft", error.to_string(), "install the package nftables");
        }
    };
    let table = "table ip trial { map m { type ipv4_addr : ipv4_addr; }; \
                 chain c { type nat hook prerouting priority dstnat; dnat to ip daddr map @m; }; }";
    match run("unshare", &["--net", "nft", table]).await {
        Ok(_) => Finding::ok("nft", version),
        Err(error) => Finding::fail(
            "nft",
            format!("{version}, but the kernel refuses a NAT table ({error})"),
            "run this as root; if it fails as root, load the modules nf_tables, nft_nat and nft_chain_nat",
        ),
    }
}

/// Checks that links of the kinds that pods need can be created.
pub(super) async fn links() -> Finding {
    for kind in ["veth", "bridge"] {
        if let Err(error) = run(
            "unshare",
            &["--net", "ip", "link", "add", "trial0", "type", kind],
        )
        .await
        {
            let advice = format!(
                "run this as root; if it fails as root, load the module {kind}, and install iproute2"
            );
            return Finding::fail(
                "links",
                format!("cannot create a {kind} link ({error})"),
                advice,
            );
        }
    }
    Finding::ok("links", "veth and bridge links can be created")
}

/// Checks whether the kernel forwards IPv4 packets.
pub(super) fn forwarding() -> Finding {
    match fs::read_to_string("/proc/sys/net/ipv4/ip_forward")
        .as_deref()
        .map(str::trim)
    {
        Ok("1") => Finding::ok("forwarding", "on"),
        Ok(_) => Finding::warn(
            "forwarding",
            "off: the daemon enables it",
            "to enable it also after a reboot, set net.ipv4.ip_forward=1 in /etc/sysctl.d",
        ),
        Err(error) => Finding::fail(
            "forwarding",
            format!("cannot read /proc/sys/net/ipv4/ip_forward ({error})"),
            "mount /proc",
        ),
    }
}

/// Checks that the daemon's ports are free, or used by a running daemon.
pub(super) fn ports(facts: &DoctorFacts) -> Vec<Finding> {
    if answers(&facts.socket_dir.join("windlass.sock")) {
        return vec![Finding::ok("ports", "used by the running daemon")];
    }
    let check = |address: &std::net::SocketAddr| match TcpListener::bind(address) {
        Ok(_) => Finding::ok("ports", format!("{address} is free")),
        Err(error) => {
            let advice =
                "stop the process that listens there (`ss -tlnp`), or configure another address";
            Finding::fail(
                "ports",
                format!("{address} cannot be used ({error})"),
                advice,
            )
        }
    };
    facts.listen.iter().map(check).collect()
}

/// Checks the free space of the disk with the data directory.
pub(super) fn space(data_dir: &Path) -> Finding {
    let existing = data_dir
        .ancestors()
        .find(|path| path.exists())
        .unwrap_or(Path::new("/"));
    match rustix::fs::statvfs(existing) {
        Ok(disk) => {
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            let found = format!("{} MiB free at {}", free >> 20, existing.display());
            match free {
                ..NO_SPACE => Finding::fail(
                    "disk",
                    found,
                    "free some space: the daemon's state cannot be written safely",
                ),
                NO_SPACE..LITTLE_SPACE => {
                    Finding::warn("disk", found, "free some space: images may not fit")
                }
                _ => Finding::ok("disk", found),
            }
        }
        Err(error) => Finding::fail(
            "disk",
            format!(
                "cannot read the free space at {} ({error})",
                existing.display()
            ),
            "create the directory",
        ),
    }
}

/// Checks that the clock is synchronized, since the validity of signatures and certificates depends
/// on it.
pub(super) async fn time() -> Finding {
    let now = jiff::Timestamp::now();
    let advice = "start systemd-timesyncd, chrony or another NTP client";
    // 2025-01-01: this program is newer, so an earlier time shows a clock that is not set.
    if now.as_second() < 1_735_689_600 {
        return Finding::fail(
            "clock",
            format!("the clock is not set: it is at {now}"),
            advice,
        );
    }
    match run(
        "timedatectl",
        &["show", "--property=NTPSynchronized", "--value"],
    )
    .await
    {
        Ok(answer) if answer.trim() == "yes" => Finding::ok("clock", "synchronized by NTP"),
        Ok(_) => Finding::warn(
            "clock",
            format!("{now:.0}, not synchronized by NTP"),
            advice,
        ),
        Err(_) => Finding::warn(
            "clock",
            format!("{now:.0}; timedatectl does not report whether NTP synchronizes it"),
            advice,
        ),
    }
}

/// Runs a program to its end and returns its output; the message of an error is one line.
async fn run(program: &str, arguments: &[&str]) -> Result<String, ProgramError> {
    let output = timeout(
        PATIENCE,
        Command::new(program)
            .args(arguments)
            .kill_on_drop(true)
            .output(),
    )
    .await;
    let output = output.map_err(|_| ProgramError::Hangs(program.to_owned()))?;
    let output = output.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ProgramError::NotInstalled(program.to_owned()),
        _ => ProgramError::NotRun {
            program: program.to_owned(),
            error,
        },
    })?;

    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    let first = message
        .lines()
        .next()
        .unwrap_or("it failed without a message")
        .trim();
    Err(ProgramError::Failed(ForeignText::new(first)))
}
