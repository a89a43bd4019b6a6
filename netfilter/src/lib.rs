//! The host's network: the NAT table of Services, the links of pods, routes.
//!
//! ```text
//! ServiceTable ──table──► Ruleset ──text──► `nft -f -`      all of it, or what has changed
//! PodLink      ──link───► veth pair, addresses, route       netlink, no other program
//! HostNetwork  ──host───► ip_forward, windlass0, the route of the service range, accept rules
//! Peers        ──peer───► windlass1 (VXLAN) with its entries, a route to each other host's pods
//! ```
//!
//! Everything is level-triggered: each call changes the host to what is wanted, and does nothing
//! where the host is so already. Objects of Windlass are recognised by the table's name, the prefix
//! of the links, the protocol number of the routes and the comment of the accept rules; `uninstall`
//! needs nothing else, except the record of the settings that it restores.

pub mod error;
pub mod fake;
mod host;

mod accept;
mod bridge;
mod conntrack;
mod device;
mod drift;
mod exposure;
mod forwarding;
#[cfg(test)]
#[path = "../../tests/support/fuzz.rs"]
mod fuzz;
mod link;
mod neighbour;
mod netlink;
mod nft;
mod overlay;
mod peer;
mod program;
mod record;
mod route;
mod table;
mod text;
mod watch;

pub use drift::Drift;
pub use error::NetworkError;
pub use exposure::{Exposed, Exposure, OutsideSource};
pub use host::{HostNet, Network, Obstacle, Removed, outside_sources, record_path, uninstall};
pub use nft::Synced;
pub use overlay::OVERLAY_DEVICE;
pub use route::{POD_GATEWAY, ROUTE_PROTOCOL, SERVICE_DEVICE};
pub use table::TABLE;
