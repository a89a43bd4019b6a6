//! The kernel's network, ports, disk and clock.

use std::{fs, io, net::TcpListener, path::Path, time::Duration};

use reconciler::foreign::ForeignText;
use thiserror::Error;
use tokio::{process::Command, time::timeout};

use super::{DoctorFacts, Finding};
use crate::cli::client::answers;

/// Below this, images may not fit.
const LITTLE_SPACE: u64 = 5 << 30;
/// Below this, not even the daemon's state does.
const NO_SPACE: u64 = 256 << 20;
/// Any of these commands ends at once or not at all.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a program of the host did not do its work.
#[derive(Debug, Error)]
enum ProgramError {
    #[error("{0} does not end")]
    Hangs(String),
    #[error("{0} is not installed")]
    NotInstalled(String),
    #[error("{program}: {error}")]
    NotRun { program: String, error: io::Error },
    /// The first line of the program's own message.
    #[error("{0}")]
    Failed(ForeignText),
}

/// nftables: that it is there, and that the kernel takes a table with a map and NAT.
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
            "become root; else load nf_tables, nft_nat and nft_chain_nat",
        ),
    }
}

/// The kinds of links that pods are connected by.
pub(super) async fn links() -> Finding {
    for kind in ["veth", "bridge"] {
        if let Err(error) = run(
            "unshare",
            &["--net", "ip", "link", "add", "trial0", "type", kind],
        )
        .await
        {
            let advice = format!("become root; else load the module {kind} (and install iproute2)");
            return Finding::fail("links", format!("cannot make a {kind} ({error})"), advice);
        }
    }
    Finding::ok("links", "veth and bridge can be made")
}

/// IPv4 forwarding.
pub(super) fn forwarding() -> Finding {
    match fs::read_to_string("/proc/sys/net/ipv4/ip_forward")
        .as_deref()
        .map(str::trim)
    {
        Ok("1") => Finding::ok("forwarding", "on"),
        Ok(_) => Finding::warn(
            "forwarding",
            "off: the daemon switches it on",
            "to keep it over reboots: net.ipv4.ip_forward=1 in /etc/sysctl.d",
        ),
        Err(error) => Finding::fail(
            "forwarding",
            format!("cannot be read ({error})"),
            "mount /proc",
        ),
    }
}

/// The daemon's ports: free, or held by a daemon that runs already.
pub(super) fn ports(facts: &DoctorFacts) -> Vec<Finding> {
    if answers(&facts.socket_dir.join("windlass.sock")) {
        return vec![Finding::ok("ports", "held by the daemon that runs here")];
    }
    let check = |address: &std::net::SocketAddr| match TcpListener::bind(address) {
        Ok(_) => Finding::ok("ports", format!("{address} is free")),
        Err(error) => {
            let advice = "stop what listens there, or choose another address";
            Finding::fail(
                "ports",
                format!("{address} cannot be used ({error})"),
                advice,
            )
        }
    };
    facts.listen.iter().map(check).collect()
}

/// Space where the data directory is, or will be.
pub(super) fn space(data_dir: &Path) -> Finding {
    let there = data_dir
        .ancestors()
        .find(|path| path.exists())
        .unwrap_or(Path::new("/"));
    match rustix::fs::statvfs(there) {
        Ok(disk) => {
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            let found = format!("{} MiB free at {}", free >> 20, there.display());
            match free {
                ..NO_SPACE => {
                    Finding::fail("disk", found, "make room: state cannot be written safely")
                }
                NO_SPACE..LITTLE_SPACE => {
                    Finding::warn("disk", found, "make room: images may not fit")
                }
                _ => Finding::ok("disk", found),
            }
        }
        Err(error) => Finding::fail(
            "disk",
            format!("cannot look at {} ({error})", there.display()),
            "make the directory",
        ),
    }
}

/// Whether something keeps the clock right: signatures are judged by it.
pub(super) async fn time() -> Finding {
    let now = jiff::Timestamp::now();
    let advice = "start systemd-timesyncd, chrony or another NTP client";
    // No commit of ours can be older than the program.
    if now.as_second() < 1_735_689_600 {
        return Finding::fail("clock", format!("it says {now}"), advice);
    }
    match run(
        "timedatectl",
        &["show", "--property=NTPSynchronized", "--value"],
    )
    .await
    {
        Ok(answer) if answer.trim() == "yes" => Finding::ok("clock", "kept by NTP"),
        Ok(_) => Finding::warn("clock", format!("{now:.0}, not kept by NTP"), advice),
        Err(_) => Finding::warn(
            "clock",
            format!("{now:.0}; nobody says whether it is kept by NTP"),
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
        .unwrap_or("it failed without a word")
        .trim();
    Err(ProgramError::Failed(ForeignText::new(first)))
}
