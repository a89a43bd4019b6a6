//! `windlass cluster`: certificates of a cluster's hosts. Works on the files of this host, with or
//! without the daemon.

use std::{
    io::Write,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use reconciler::name::NodeName;

use super::{
    args::{Format, RunArgs, duration},
    exit::Exit,
};
use crate::{
    config::Config,
    peer::{
        self, AddressOf, Authority, Identity, JoinToken, Other, PeerClient, PeerDirectory,
        TokenOffer,
    },
};

/// `windlass cluster`
#[derive(Clone, Debug, Args)]
pub(crate) struct ClusterArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ClusterCommand,
    /// Configuration file of the daemon
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory for all that must outlive the daemon [default: /var/lib/windlass]
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Begin a cluster: make its authority here, and this host's certificate
    Init {
        /// Name of this host in the cluster [default: its host name]
        #[arg(long, value_name = "NAME")]
        node: Option<String>,
    },
    /// Print a one-time token by which another host can join
    Token {
        /// How long it is good: `30m`, `2h`
        #[arg(long, default_value = "1h", value_parser = duration)]
        ttl: Duration,
        /// Only the host with this name may use it
        #[arg(long, value_name = "NAME")]
        node: Option<String>,
        /// Also where that name has a valid certificate: for a host that was set up anew
        #[arg(long, requires = "node")]
        replace: bool,
        /// Where the new host reaches this one [default: the listener of the configuration]
        #[arg(long, value_name = "ADDRESS:PORT")]
        address: Option<SocketAddr>,
    },
    /// Join a cluster with a token from `windlass cluster token`
    Join {
        /// The token
        #[arg(value_name = "TOKEN")]
        token: String,
        /// Name of this host in the cluster [default: its host name]
        #[arg(long, value_name = "NAME")]
        node: Option<String>,
        /// Also where this host has a valid certificate
        #[arg(long)]
        replace: bool,
    },
    /// Make this host's copy of all decisions the content of the store, after etcd was wiped,
    /// restored or replaced
    AdoptStore {
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Renew this host's certificate now; the daemon does it by itself in time
    Rotate {
        /// Where the host with the authority listens, if it has moved
        #[arg(long, value_name = "ADDRESS:PORT")]
        address: Option<SocketAddr>,
    },
    /// Ask another host whether it lives, as the hosts do among themselves
    Ping {
        /// Its name in the cluster
        #[arg(value_name = "NODE")]
        node: String,
        /// Where it listens for other hosts
        #[arg(value_name = "ADDRESS:PORT")]
        address: SocketAddr,
    },
    /// Make a certificate for something that is no node, such as a server of etcd; only where the
    /// authority is
    Certificate {
        /// Its common name, and a DNS name of it
        #[arg(long, value_name = "NAME")]
        name: String,
        /// An address of it; may be given several times
        #[arg(long = "address", value_name = "IP")]
        addresses: Vec<IpAddr>,
        /// Where NAME.pem, NAME-key.pem and ca.pem are written
        #[arg(long, value_name = "DIR")]
        directory: PathBuf,
        /// How many days it is good
        #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u64).range(1..=3650))]
        days: u64,
        /// Also where the name has a valid certificate
        #[arg(long)]
        replace: bool,
    },
}

impl ClusterArgs {
    /// How to print the answer, if this is the one that the daemon gives.
    pub(crate) fn adopt_store(&self) -> Option<Format> {
        match self.command {
            ClusterCommand::AdoptStore { output } => Some(output),
            _ => None,
        }
    }
}

/// Does it.
pub(crate) async fn run(
    args: &ClusterArgs,
    socket_dir: Option<PathBuf>,
    out: &mut dyn Write,
) -> Result<Exit> {
    let node = match &args.command {
        ClusterCommand::Init { node } | ClusterCommand::Join { node, .. } => node.clone(),
        _ => None,
    };
    let given = RunArgs {
        config: args.config.clone(),
        data_dir: args.data_dir.clone(),
        node,
        ..RunArgs::default()
    };
    let config = super::configuration::configuration(&given, socket_dir)?;
    let directory = PeerDirectory::new(config.peer_directory());
    let now = Timestamp::now();
    match &args.command {
        ClusterCommand::AdoptStore { .. } => bail!("the daemon does that"),
        ClusterCommand::Init { .. } => init(&config, &directory, now, out),
        ClusterCommand::Token {
            ttl,
            node,
            replace,
            address,
        } => {
            let node = node.clone().map(NodeName::new);
            let offer = TokenOffer {
                life: *ttl,
                node,
                replace: *replace,
            };
            token(&config, &directory, &offer, *address, out)
        }
        ClusterCommand::Join { token, replace, .. } => {
            join(&config, &directory, token, *replace, out).await
        }
        ClusterCommand::Rotate { address } => rotate(&directory, *address, out).await,
        ClusterCommand::Ping { node, address } => {
            ping(&directory, &NodeName::new(node.as_str()), *address, out).await
        }
        ClusterCommand::Certificate {
            name,
            addresses,
            directory: into,
            days,
            replace,
        } => {
            let other = Other {
                name: name.clone(),
                addresses: addresses.clone(),
                life: Duration::from_secs(days * 24 * 60 * 60),
                replace: *replace,
            };
            let facts = authority(&directory)?.certify(&other, into, now)?;
            writeln!(
                out,
                "wrote {name}.pem, {name}-key.pem and ca.pem to {}: good until {:.0}",
                into.display(),
                facts.until
            )?;
            Ok(Exit::Done)
        }
    }
}

fn init(
    config: &Config,
    directory: &PeerDirectory,
    now: Timestamp,
    out: &mut dyn Write,
) -> Result<Exit> {
    let node = config.node_name()?;
    let authority = Authority::init(directory, &node, now)?;
    writeln!(
        out,
        "cluster {} begun; {node} has its authority",
        authority.cluster()
    )?;
    writeln!(
        out,
        "the authority's key is {}: keep a copy in a safe place",
        directory.ca_key().display()
    )?;
    writeln!(
        out,
        "next: restart the daemon here, and print a token for each other host with `windlass cluster token`"
    )?;
    Ok(Exit::Done)
}

fn token(
    config: &Config,
    directory: &PeerDirectory,
    offer: &TokenOffer,
    address: Option<SocketAddr>,
    out: &mut dyn Write,
) -> Result<Exit> {
    let authority = authority(directory)?;
    let address = match address {
        Some(address) => address,
        None => config.peer_address()?,
    };
    // Alone on its line, for scripts.
    writeln!(
        out,
        "{}",
        authority.token(offer, address, Timestamp::now())?
    )?;
    Ok(Exit::Done)
}

async fn join(
    config: &Config,
    directory: &PeerDirectory,
    token: &str,
    replace: bool,
    out: &mut dyn Write,
) -> Result<Exit> {
    let token: JoinToken = token.parse()?;
    let node = config.node_name()?;
    let joined = peer::join(directory, &node, &token, replace).await?;
    writeln!(
        out,
        "{node} belongs to cluster {}; its authority is on {}",
        joined.cluster, joined.host
    )?;
    writeln!(
        out,
        "the certificate is good until {:.0}, and is renewed by the daemon",
        joined.until
    )?;
    writeln!(out, "next: restart the daemon here")?;
    Ok(Exit::Done)
}

async fn rotate(
    directory: &PeerDirectory,
    address: Option<SocketAddr>,
    out: &mut dyn Write,
) -> Result<Exit> {
    let identity = Identity::open(directory)?.with_context(|| not_a_member(directory))?;
    let address_of: AddressOf = Arc::new(move |_| address);
    let renewed = peer::renew(&identity, &address_of).await?;
    writeln!(
        out,
        "the certificate of {} is new, and good until {:.0}",
        renewed.name, renewed.until
    )?;
    Ok(Exit::Done)
}

async fn ping(
    directory: &PeerDirectory,
    node: &NodeName,
    address: SocketAddr,
    out: &mut dyn Write,
) -> Result<Exit> {
    let client = PeerClient::new(directory.path())?.with_context(|| not_a_member(directory))?;
    let ping = client.ping(node, address).await?;
    let apart = Timestamp::now().duration_since(ping.now).as_secs();
    writeln!(
        out,
        "{} lives: windlass {}, clocks {} s apart",
        ping.node,
        ping.version,
        apart.abs()
    )?;
    Ok(Exit::Done)
}

fn authority(directory: &PeerDirectory) -> Result<Authority> {
    if let Some(authority) = Authority::open(directory)? {
        return Ok(authority);
    }
    match Identity::open(directory)? {
        Some(identity) => bail!(
            "the cluster's authority is on {}: do it there",
            identity.cluster().host
        ),
        None => bail!(not_a_member(directory)),
    }
}

fn not_a_member(directory: &PeerDirectory) -> String {
    format!(
        "there is no certificate in {}: begin a cluster with `windlass cluster init`, or join one with \
         `windlass cluster join`",
        directory.path().display()
    )
}
