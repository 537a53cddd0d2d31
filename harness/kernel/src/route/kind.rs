//! What a route does with a packet.

use netlink_packet_route::route::RouteType;

/// What becomes of a packet that takes a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Unicast,
    Local,
    Broadcast,
    /// Dropped in silence.
    Blackhole,
    /// Answered with "host unreachable".
    Unreachable,
    /// Answered with "administratively prohibited".
    Prohibit,
    /// This table has no answer: the next rule is asked.
    Throw,
    Other(u8),
}

impl From<RouteType> for Kind {
    fn from(kind: RouteType) -> Self {
        match kind {
            RouteType::Unicast => Self::Unicast,
            RouteType::Local => Self::Local,
            RouteType::Broadcast => Self::Broadcast,
            RouteType::BlackHole => Self::Blackhole,
            RouteType::Unreachable => Self::Unreachable,
            RouteType::Prohibit => Self::Prohibit,
            RouteType::Throw => Self::Throw,
            other => Self::Other(other.into()),
        }
    }
}

impl From<Kind> for RouteType {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Unicast => Self::Unicast,
            Kind::Local => Self::Local,
            Kind::Broadcast => Self::Broadcast,
            Kind::Blackhole => Self::BlackHole,
            Kind::Unreachable => Self::Unreachable,
            Kind::Prohibit => Self::Prohibit,
            Kind::Throw => Self::Throw,
            Kind::Other(other) => other.into(),
        }
    }
}
