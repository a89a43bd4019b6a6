//! `windlass cluster`: the certificates of a cluster's hosts. These commands use the files of this
//! host, whether the daemon runs or not.

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
    join_token,
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
    #[command(subcommand)]
    pub command: ClusterCommand,
    /// Configuration file of the daemon
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory of the daemon's state [default: /var/lib/windlass]
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Create a cluster: its certificate authority on this host, and this host's certificate
    Init {
        /// Name of this host in the cluster [default: its host name]
        #[arg(long, value_name = "NAME")]
        node: Option<String>,
    },
    /// Print a one-time token with which another host can join
    Token {
        /// Validity of the token: `30m`, `2h`
        #[arg(long, default_value = "1h", value_parser = duration)]
        ttl: Duration,
        /// Name of the only host that may use the token
        #[arg(long, value_name = "NAME")]
        node: Option<String>,
        /// Accept a name that has a valid certificate: for a host that was installed again
        #[arg(long, requires = "node")]
        replace: bool,
        /// Address of this host for the new host [default: the listener in the configuration]
        #[arg(long, value_name = "ADDRESS:PORT")]
        address: Option<SocketAddr>,
    },
    /// Join a cluster with a token from `windlass cluster token`
    Join {
        /// `-` reads the token from standard input; without it the token is asked for on the
        /// terminal. A token as the argument can be read by every user of the host
        #[arg(value_name = "TOKEN", conflicts_with = "token_file")]
        token: Option<String>,
        /// File with the token from `windlass cluster token`; `-` is standard input
        #[arg(long, value_name = "FILE")]
        token_file: Option<PathBuf>,
        /// Name of this host in the cluster [default: its host name]
        #[arg(long, value_name = "NAME")]
        node: Option<String>,
        /// Replace the valid certificate of this host
        #[arg(long)]
        replace: bool,
    },
    /// Write this host's copy of all decisions to the store, after etcd was wiped, restored or
    /// replaced
    AdoptStore {
        /// Format of the output
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Renew this host's certificate now; the daemon renews it before it expires
    Rotate {
        /// Address of the host with the authority, if it has changed
        #[arg(long, value_name = "ADDRESS:PORT")]
        address: Option<SocketAddr>,
    },
    /// Check whether another host is alive, by the request that hosts send each other
    Ping {
        /// Name of the other host in the cluster
        #[arg(value_name = "NODE")]
        node: String,
        /// Address at which it listens for other hosts
        #[arg(value_name = "ADDRESS:PORT")]
        address: SocketAddr,
    },
    /// Create a certificate for a server that is not a node, such as etcd; only on the host with the
    /// authority
    Certificate {
        /// Common name of the certificate, which is also a DNS name
        #[arg(long, value_name = "NAME")]
        name: String,
        /// IP address of the server; may be repeated
        #[arg(long = "address", value_name = "IP")]
        addresses: Vec<IpAddr>,
        /// Directory of NAME.pem, NAME-key.pem and ca.pem
        #[arg(long, value_name = "DIR")]
        directory: PathBuf,
        /// Validity of the certificate, in days
        #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u64).range(1..=3650))]
        days: u64,
        /// Replace the valid certificate of the name
        #[arg(long)]
        replace: bool,
    },
}

impl ClusterArgs {
    /// How to print the answer of `adopt-store`, which the daemon executes; `None` for the others.
    pub(crate) fn adopt_store(&self) -> Option<Format> {
        match self.command {
            ClusterCommand::AdoptStore { output } => Some(output),
            _ => None,
        }
    }
}

/// Executes a command that uses only this host's files.
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
        ClusterCommand::AdoptStore { .. } => {
            bail!("`windlass cluster adopt-store` is executed by the daemon")
        }
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
        ClusterCommand::Join {
            token,
            token_file,
            replace,
            node: _,
        } => {
            let token = join_token::read(token.as_deref(), token_file.as_deref()).await?;
            join(&config, &directory, &token, *replace, out).await
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
                "wrote {name}.pem, {name}-key.pem and ca.pem to {}: valid until {:.0}",
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
        "created cluster {}; its certificate authority is on {node}",
        authority.cluster()
    )?;
    writeln!(
        out,
        "the key of the authority is {}: keep a copy in a safe place",
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
    // The token is the only output, so that scripts can read it.
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
    token: &JoinToken,
    replace: bool,
    out: &mut dyn Write,
) -> Result<Exit> {
    let node = config.node_name()?;
    let joined = peer::join(directory, &node, token, replace).await?;
    writeln!(
        out,
        "{node} belongs to cluster {}; its authority is on {}",
        joined.cluster, joined.host
    )?;
    writeln!(
        out,
        "the certificate is valid until {:.0}; the daemon renews it",
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
        "renewed the certificate of {}: valid until {:.0}",
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
        "{} is alive: windlass {}, clocks {} s apart",
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
            "the cluster's certificate authority is on {}: run this command on that host",
            identity.cluster().host
        ),
        None => bail!(not_a_member(directory)),
    }
}

fn not_a_member(directory: &PeerDirectory) -> String {
    format!(
        "there is no certificate in {}: create a cluster with `windlass cluster init`, or join one with \
         `windlass cluster join`",
        directory.path().display()
    )
}
