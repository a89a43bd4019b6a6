//! What of ours on the host was not as it should be.

use std::fmt;

/// Something of ours on the host that was not as it should be, and was put right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Drift {
    /// `net.ipv4.ip_forward` was 0.
    Forwarding,
    /// The device with the DNS address was missing, down or without its address.
    ServiceDevice,
    /// The route of the service range was missing or different.
    ServiceRoute,
    /// The VXLAN device was missing, down or different, or there although no peer needs it.
    OverlayDevice,
    /// An entry of the VXLAN device that leads to another host was missing or different, or one too
    /// many.
    PeerEntries,
    /// A route to another host's pods was missing or different, or one too many.
    PeerRoutes,
    /// An accept rule was missing, or in a chain where it does not work.
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
            Self::OverlayDevice => "the device windlass1 was not as it must be",
            Self::PeerEntries => {
                "the entries of windlass1 that lead to other hosts were not as they must be"
            }
            Self::PeerRoutes => "the routes to other hosts' pods were not as they must be",
            Self::AcceptRules => "the accept rules for pod traffic were missing",
            Self::Table => "the nftables table ip windlass was changed by somebody else",
        })
    }
}
