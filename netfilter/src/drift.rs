//! Drift: objects of Windlass on the host that another program or a person changed or removed.

use std::fmt;

/// An object of Windlass on the host that another program or a person changed or removed, and that
/// was repaired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Drift {
    /// `net.ipv4.ip_forward` was 0.
    Forwarding,
    /// The device with the DNS address was missing, down or without its address.
    ServiceDevice,
    /// The route of the service range was missing or different.
    ServiceRoute,
    /// The VXLAN device was missing, down or different, or it existed although no peer needs it.
    OverlayDevice,
    /// A forwarding or neighbour entry of the VXLAN device was missing, different or not wanted.
    PeerEntries,
    /// A route to the pods of another host was missing, different or not wanted.
    PeerRoutes,
    /// An accept rule was missing, or was in a chain where it has no effect.
    AcceptRules,
    /// The table was gone, flushed or changed.
    Table,
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forwarding => "net.ipv4.ip_forward was off",
            Self::ServiceDevice => "the device windlass0 was not up with the DNS address",
            Self::ServiceRoute => "the route of the service range was missing",
            Self::OverlayDevice => "the device windlass1 was missing, down or different",
            Self::PeerEntries => {
                "the entries of windlass1 for other hosts were missing or different"
            }
            Self::PeerRoutes => "the routes to other hosts' pods were missing or different",
            Self::AcceptRules => "the accept rules for pod traffic were missing",
            Self::Table => "the nftables table ip windlass was changed by another program",
        })
    }
}
